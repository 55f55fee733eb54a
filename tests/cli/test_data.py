"""`--data` and `convert-data`: data as a tool exported it, on the command line."""

import json

import pytest

from keras_rcnn import cli
from keras_rcnn.cli.arguments import source_of, splits_of
from keras_rcnn.cli.command_line import command_line
from keras_rcnn.data import DataError, load
from keras_rcnn.data.formats.registry import FORMATS
from keras_rcnn.presets import save_preset
from keras_rcnn.training import Settings
from tests.data.format_files import BOXES, coco_tree, cvat, photos, same, truth, via, write
from tests.data.test_formats_folders import as_roboflow, voc
from tests.models.tiny import tiny_detector


@pytest.fixture
def run(capsys):
    def command(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "tiny"
    save_preset(tiny_detector(class_names=["red", "blue"]), folder)
    return folder


def test_convert_data(run, tmp_path):
    path = write(photos(tmp_path / "a b") / "via.json", via())
    code, out, err = run("convert-data", path, "--out", tmp_path / "annotations.json")
    assert code == 0, err
    assert "2 images, 4 objects" in out and f"COCO json: {tmp_path / 'annotations.json'}" in out
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [entry["file_name"] for entry in content["images"]] == ["a b/000.jpg", "a b/001.jpg"]
    same(load(tmp_path / "annotations.json", format="coco"), truth(tmp_path / "t"))
    code, _, err = run("convert-data", path, "--out", tmp_path / "annotations.json")
    assert code == 2 and "is there already" in err
    code, _, err = run("convert-data", path, "--out", tmp_path)
    assert code == 2 and "is a folder" in err
    out = tmp_path / "x/annotations.json"
    assert run("convert-data", path, "--out", out, "--images", tmp_path / "a b", "--split", "train")[0] == 2
    assert run("convert-data", path, "--out", out, "--images", tmp_path / "a b")[0] == 0
    assert [entry["file_name"] for entry in json.loads(out.read_text())["images"]] == ["000.jpg", "001.jpg"]
    code, _, err = run("convert-data", tmp_path / "gone", "--out", tmp_path / "y.json")
    assert code == 2 and err == f"keras-rcnn: {tmp_path / 'gone'}: no such file or folder\n"


def test_convert_data_of_several_formats(run, tmp_path):
    write(photos(tmp_path / "a") / "via.json", via())
    write(tmp_path / "a/annotations.xml", cvat())
    code, _, err = run("convert-data", tmp_path / "a", "--out", tmp_path / "b.json")
    assert code == 2 and "via (via.json); cvat (annotations.xml); choose one by --format via" in err
    assert run("convert-data", tmp_path / "a", "--out", tmp_path / "b.json", "--format", "cvat")[0] == 0
    same(load(tmp_path / "b.json", format="coco"), truth(tmp_path / "t"))


def test_options_of_one_format(run, tmp_path):
    path = photos(tmp_path, ["000"]) / "000.txt"
    write(path, "1 0.5 0.5 0.2 0.2\n")
    code, out, err = run("convert-data", path, "--out", tmp_path / "a.json", "--class-names", "red, blue")
    assert code == 0 and "blue        1" in out, err
    code, _, err = run("convert-data", path, "--out", tmp_path / "b.json")
    assert code == 0 and "give names by --class-names A,B" in err
    content = via()
    for entry in content.values():
        for region in entry["regions"]:
            region["region_attributes"] = {"ripe": "yes", "colour": region["region_attributes"]["class"]}
    via_path = write(photos(tmp_path / "c") / "via.json", content)
    code, _, err = run("convert-data", via_path, "--out", tmp_path / "c.json")
    assert code == 2 and "which one has the class by --class-attribute NAME" in err
    code, _, err = run("convert-data", via_path, "--out", tmp_path / "c.json", "--class-attribute", "colour")
    assert code == 0, err


def test_evaluate_on_data(run, tmp_path, preset):
    folder = as_roboflow(tmp_path / "a").parent
    code, out, err = run("evaluate", preset, "--data", folder, "--split", "valid")
    assert code == 0, err
    assert "1 images" in out and "AP50" in out and "read as YOLO txt" in err and "WARNING" not in err
    code, _, err = run("evaluate", preset, "--data", folder, "--split", "x")
    assert code == 2 and "no such split 'x'; there are: train, val" in err
    write(photos(tmp_path / "b/images").parent / "annotations.xml", cvat(BOXES))
    assert run("evaluate", preset, "--data", tmp_path / "b")[0] == 0
    write(tmp_path / "c/annotations.xml", cvat(BOXES))
    code, _, err = run("evaluate", preset, "--data", tmp_path / "c")
    assert code == 2 and "none of its photos" in err and "give their folder by --images DIR" in err
    assert run("evaluate", preset, "--data", tmp_path / "c", "--images", tmp_path / "b/images")[0] == 0


def test_proposals_for_data(run, tmp_path):
    write(photos(tmp_path / "a") / "coco.json", coco_tree())
    code, out, err = run("proposals", "--data", tmp_path / "a/coco.json", "--max-boxes", 50)
    assert code == 0 and "recall" in out.lower(), err


def source(prefix, *options):
    return source_of(command_line().parse_args(["train", "--out", "x", *map(str, options)]), prefix)


def test_the_help_names_every_format():
    assert cli.arguments.FORMATS.split(", ") == list(FORMATS)


def test_what_belongs_to_data():
    assert source("", "--data", "a") == {"data": "a"}
    options = ["--data", "a", "--split", "train", "--images", "b", "--format", "csv", "--delimiter", ";", "--relative"]
    given = {"split": "train", "images": "b", "format": "csv", "delimiter": ";", "relative": True}
    assert source("", *options) == {"data": "a", **given}
    assert source("val_", *options, "--val-split", "test") == {"data": "a", **given, "split": "test"}
    assert source("val_", "--data", "a", "--format", "via", "--val-data", "b") == {"data": "b"}
    assert source("val_", "--data", "a") is None
    with pytest.raises(ValueError, match="give one of --data, --coco"):
        source("", "--data", "a", "--coco", "b", "--images", "c")
    with pytest.raises(ValueError, match="--format needs --data"):
        source("", "--format", "via")


def test_a_training_finds_its_splits(tmp_path, capsys):
    folder = as_roboflow(tmp_path / "a").parent
    given = {"data": str(folder)}
    parts = {"train": given | {"split": "train"}, "val": given | {"split": "val"}}
    assert splits_of(given, None, Settings()) == parts
    assert "trained on train, validated on val" in capsys.readouterr().out
    assert splits_of(given | {"split": "train"}, None, Settings()) == parts
    assert splits_of(given, given, Settings()) == parts
    assert splits_of(given, {"coco": "x"}, Settings()) == parts | {"val": {"coco": "x"}}
    with pytest.raises(DataError, match="no such split 'trian'; there are: train, val"):
        splits_of(given | {"split": "trian"}, None, Settings())
    assert "trian" not in capsys.readouterr().out
    held = given | {"split": "test"}
    assert splits_of(given, held, Settings()) == parts | {"val": held}
    voc(photos(tmp_path / "b"))
    given = {"data": str(tmp_path / "b")}
    assert splits_of(given, None, Settings()) == {"train": given, "val_fraction": 0.2}
    assert "a fifth of the photos is set aside" in capsys.readouterr().out
    assert splits_of(given, None, Settings(val_fraction=0.5)) == {"train": given}
    for name in ("test", "trainval"):
        write(tmp_path / f"d/ImageSets/Main/{name}.txt", "000")
    voc(photos(tmp_path / "d/JPEGImages").parent / "Annotations")
    with pytest.raises(
        ValueError, match="has the splits test, trainval, and none is called train: name one by --split"
    ):
        splits_of({"data": str(tmp_path / "d")}, None, Settings())


@pytest.mark.slow
def test_train_on_data(run, tmp_path, preset):
    folder = as_roboflow(tmp_path / "a").parent
    code, out, err = run("train", "--data", folder, "--base", preset, "--epochs", 1, "--out", tmp_path / "out")
    assert code == 0, err
    assert "trained on train, validated on val" in out
    recipe = (tmp_path / "out/recipe.py").read_text()
    assert "'split': 'val'" in recipe and f"'data': '{folder}'" in recipe
