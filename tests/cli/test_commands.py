"""The command line, run in this process; the messages and files that it leaves."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_rcnn
from keras_rcnn import cli
from keras_rcnn.cli.arguments import source_of
from keras_rcnn.cli.command_line import command_line
from keras_rcnn.presets import save_preset
from tests.models.tiny import shapes, tiny_detector
from tests.shared import golden_state, needs_golden

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pictures with squares and bars as COCO, Pascal VOC and CSV."""
    root = tmp_path_factory.mktemp("data")
    images, annotations, rows = [], [], [["image", "x1", "y1", "x2", "y2", "label"]]
    dataset = shapes(8)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, record in enumerate(dataset, start=1):
        file = f"{record.image_id}.png"
        Image.fromarray(record.image).save(root / "JPEGImages" / file)
        images.append({"id": number, "file_name": file, "height": record.height, "width": record.width})
        objects = ""
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            name = dataset.class_names[label]
            rows.append([file, *box, name])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 10 * (label + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
            objects += (
                f"<object><name>{name}</name><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>"
                f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
            )
        (root / "Annotations" / f"{record.image_id}.xml").write_text(
            f"<annotation><filename>{file}</filename><size><width>{record.width}</width>"
            f"<height>{record.height}</height><depth>3</depth></size>{objects}</annotation>"
        )
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(dataset.class_names)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco.json").write_text(json.dumps(coco))
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    names = [str(record.image_id) for record in dataset]
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:6]))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[6:]))
    return root


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset that finds something, right or wrong."""
    folder = tmp_path_factory.mktemp("zoo") / "tiny"
    save_preset(tiny_detector(class_names=["square", "bar"]), folder)
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command line; `(exit code, stdout, stderr)`."""

    def run(*argv):
        try:
            code = cli.main([str(one) for one in argv])
        except SystemExit as end:  # argparse
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def coco(data, prefix=""):
    return [f"--{prefix}coco", data / "coco.json", f"--{prefix}images", data / "JPEGImages"]


# === Help ===


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["--version"]])
def test_help_does_not_wait_for_tensorflow(argv):
    code = (
        f"import sys; sys.argv = ['/bin/keras-rcnn', *{argv}]\nfrom keras_rcnn.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "slow = {'keras', 'tensorflow', 'numpy', 'jax', 'pydantic', 'cv2', 'PIL'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "keras-rcnn" in done.stdout


@pytest.mark.parametrize("module", ["keras_rcnn", "keras_rcnn.cli"])
def test_python_runs_the_command(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0 and done.stdout == f"keras-rcnn-zoo {keras_rcnn.__version__}\n", done.stderr


def test_without_a_command_it_says_how(run):
    code, _, err = run()
    assert code == 2 and "COMMAND" in err


# === Demo and presets ===


def test_demo(run, tmp_path):
    code, out, err = run("demo", "--out", tmp_path)
    assert code == 0, err
    for name, size in {"chelsea": (451, 300), "astronaut": (512, 512), "fluorescence": (512, 512)}.items():
        picture = tmp_path / f"{name}_detected.png"
        assert str(picture) in out and Image.open(picture).size == size
    assert Image.open(tmp_path / "demo.png").size == (601 + 6 + 400 + 6 + 400, 400)
    assert "1 object (cat 1) in chelsea.jpg" in out and "1 object (person 1) in astronaut.jpg" in out
    lines = out.splitlines()
    assert lines[1].split() == ["#", "name", "score", "x1", "y1", "x2", "y2"]
    assert re.fullmatch(r" *1  cat +[01]\.\d{3}( +\d+\.\d){4}", lines[2])
    found = int(re.search(r"^(\d+) objects \(nucleus", out, re.M)[1])
    assert found > 100 and f"and {found - 5} more" in lines


def test_presets(run):
    code, out, _ = run("presets")
    assert code == 0
    for name in ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"):
        assert name in out


def listed(run, *options):
    """The names in a list of presets."""
    code, out, _ = run("presets", *options)
    assert code == 0 and max(map(len, out.splitlines())) <= 100
    return [line.split()[0] for line in out.splitlines()[1:]]


def test_presets_that_are_asked_for(run):
    every = listed(run)
    assert set(listed(run, "--local")) >= {"nuclei_frcnn", "nuclei_mrcnn"}
    best = listed(run, "--task", "masks", "--min-ap", "0.4", "--max-size", "200", "--source", "detectron2")
    assert "mask_rcnn_R_50_FPN_3x" in best and "mask_rcnn_R_101_FPN_3x" not in best
    assert set(best) < set(every) and not [name for name in best if name.startswith("faster")]
    boxes = listed(run, "--task", "boxes")
    assert "faster_rcnn_R_50_FPN_3x" in boxes and not set(boxes) & set(best)
    assert "cityscapes_mask_rcnn_R_50_FPN" in listed(run, "--min-ap", "0.36")  # only its masks' AP is known
    assert listed(run, "--license", "mit") == ["matterport_mask_rcnn_coco"] == listed(run, "--source", "matterport")
    assert every.index("nuclei_mrcnn") < every.index("maskrcnn_resnet50_fpn") < every.index("mask_rcnn_R_50_FPN_1x")
    assert every.index("mask_rcnn_R_50_FPN_1x") < every.index("mask_rcnn_R_50_FPN_3x")


def test_presets_that_there_are_not(run):
    for options, words in (
        (("--max-size", "1"), "No preset is like that"),
        (("--min-ap", "40"), "'40' is not a number from 0 to 1"),
        (("nuclei_mrcnn", "--local"), "stand alone"),
        (("nuclei_mrcnn", "--pins"), "stand alone"),
        (("nuclei_mrkn",), "did you mean 'nuclei_mrcnn'"),
    ):
        code, _, error = run("presets", *options)
        assert code == 2 and words in error, options


def test_the_card_of_a_preset(run, preset):
    code, out, _ = run("presets", "mask_rcnn_R_50_FPN_3x")
    assert code == 0
    for words in (
        "COCO: Mask R-CNN, ResNet-50 + FPN, 3x",
        "boxes and masks\n",
        "80: person, bicycle, car",
        "shorter side of 800 px, a longer one of at most 1333 px",
        "boxes 0.410, masks 0.372 on COCO val2017, published by Detectron2",
        "CC BY-SA 3.0",
        "177.8 MB, downloaded at first use",
        "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/",
        'model = keras_rcnn.from_preset("mask_rcnn_R_50_FPN_3x"); model.detect("photo.jpg")',
        "keras-rcnn detect photo.jpg --preset mask_rcnn_R_50_FPN_3x",
    ):
        assert words in out, words
    assert "80 (90 numbers): person" in run("presets", "fasterrcnn_resnet50_fpn")[1]
    assert "1230, numbered" in run("presets", "lvis_mask_rcnn_R_50_FPN_1x")[1]
    fast = run("presets", "fast_rcnn_R_50_FPN_1x")[1]
    assert "in boxes that it is given" in fast and "--proposals FILE" in fast
    assert "none, train it by its recipe.py" in run("presets", "bccd_rcnn")[1]
    assert f"keras-rcnn detect photo.jpg --preset {preset}" in run("presets", preset)[1]


def test_presets_as_markdown(run):
    code, out, _ = run("presets", "--markdown")
    assert code == 0
    assert out.strip() in (ROOT / "docs/pages/presets.md").read_text(encoding="utf-8"), "run python tools/readme.py"


# === Detect ===


def test_detect_a_photo(run, data, preset, tmp_path):
    code, out, _ = run(
        "detect", data / "JPEGImages/0.png", "--preset", preset, "--score", 0, "--out", tmp_path / "out",
        "--json", tmp_path / "deep/boxes.json",
    )  # fmt: skip
    assert code == 0
    assert "x1" in out and str(tmp_path / "out/0_detected.png") in out
    assert Image.open(tmp_path / "out/0_detected.png").size == (128, 128)
    (found,) = json.loads((tmp_path / "deep/boxes.json").read_text())
    assert found["image"] == str(data / "JPEGImages/0.png") and (found["height"], found["width"]) == (128, 128)
    count = len(found["boxes"])
    assert count == len(found["scores"]) == len(found["labels"]) == len(found["names"]) > 0
    assert np.shape(found["boxes"]) == (count, 4)
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert set(found["names"]) <= {"square", "bar"}


def test_detect_goes_on_after_bad_photos(run, data, preset, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    good = Image.open(data / "JPEGImages/0.png")
    good.save(bad / "whole.jpg")
    (bad / "cut.jpg").write_bytes((bad / "whole.jpg").read_bytes()[:600])
    (bad / "empty.png").write_bytes(b"")
    (bad / "words.jpg").write_text("no picture")
    (bad / "notes.txt").write_text("not asked for")
    (tmp_path / "nothing").mkdir()
    code, out, err = run(
        "detect", bad, tmp_path / "missing.jpg", tmp_path / "nothing", data / "JPEGImages/1.png", "--preset", preset,
        "--out", tmp_path / "out", "--json", tmp_path / "boxes.json",
    )  # fmt: skip
    assert code == 1
    for name in ("cut.jpg", "empty.png", "words.jpg", "missing.jpg", "nothing"):
        assert name in err
    assert "notes" not in out + err and "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1_detected.png", "whole_detected.jpg"]
    results = json.loads((tmp_path / "boxes.json").read_text())
    assert len(results) == 7
    assert sum("error" in result for result in results) == 5


def test_detect_names_what_it_leaves_out_of_a_folder(run, data, preset, tmp_path):
    folder, photo = tmp_path / "photos", Image.open(data / "JPEGImages/0.png").convert("RGB")
    (folder / "folder.jpg").mkdir(parents=True)
    for ending in ("jpg", "jpe", "jfif", "JPEG"):
        photo.save(folder / f"{ending}.{ending}", "JPEG")
    (folder / "IMG_1.HEIC").write_bytes(b"heic")
    (folder / "raw.NEF").write_bytes(b"raw")
    (folder / "notes.txt").write_text("no photo")
    (folder / "link.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    photo.save(folder / "cut.avif")
    content = bytearray((folder / "cut.avif").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (folder / "cut.avif").write_bytes(content[: len(content) // 2])
    code, out, err = run("detect", folder, "--preset", preset, "--out", tmp_path / "out")
    assert code == 1 and out.count("; picture: ") == 4
    assert "2 left out" in err and "IMG_1.HEIC, raw.NEF" in err and "notes" not in err
    for name in ("folder.jpg: is a folder", "link.png: a broken link", "pipe.png: is a named pipe", "cut.avif: "):
        assert name in err
    (tmp_path / "iphone").mkdir()
    (tmp_path / "iphone" / "IMG_1.HEIC").write_bytes(b"heic")
    code, _, err = run("detect", tmp_path / "iphone", "--preset", preset, "--out", tmp_path / "out")
    assert code == 1 and "no image files in this folder (1 left out" in err and "IMG_1.HEIC" in err


def test_detect_replaces_no_photo_and_no_other_picture(run, data, preset, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(data / "JPEGImages/0.png").save(tmp_path / folder / "x.png")
    Image.open(data / "JPEGImages/1.png").save(tmp_path / "a/x_detected.png")
    before = (tmp_path / "a/x_detected.png").read_bytes()
    code, _, _ = run("detect", tmp_path / "a", tmp_path / "b", "--preset", preset, "--out", tmp_path / "a")
    assert code == 0
    assert (tmp_path / "a/x_detected.png").read_bytes() == before
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["x.png", "x_detected.png", "x_detected_2.png", "x_detected_3.png", "x_detected_detected.png"]


def test_errors_are_one_line(run, data, tmp_path):
    photo = data / "JPEGImages/0.png"
    code, out, err = run("detect", photo, "--preset", tmp_path / "none")
    assert code == 2 and out == ""
    assert err.startswith("keras-rcnn: ") and "none" in err and len(err.splitlines()) == 1
    with pytest.raises((ValueError, OSError)):
        cli.main(["detect", str(photo), "--preset", str(tmp_path / "none"), "--debug"])
    code, _, err = run("detect", photo, "--score", "1.5")
    assert code == 2 and "'1.5' is not a number from 0 to 1" in err


def test_a_full_disk_leaves_what_was_there(run, data, preset, tmp_path, monkeypatch):
    (tmp_path / "boxes.json").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "boxes.json"))

    monkeypatch.setattr(os, "replace", full)
    code, _, err = run(
        "evaluate", preset, *coco(data), "--json", tmp_path / "boxes.json",
    )  # fmt: skip
    assert code == 2 and "No space left on device" in err and "boxes.json" in err
    assert (tmp_path / "boxes.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.json"]


# === Evaluate ===


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_evaluate(run, data, preset, tmp_path, kind):
    source = {
        "coco": coco(data),
        "voc": ["--voc", data, "--split", "val"],
        "csv": ["--csv", data / "boxes.csv", "--images", data / "JPEGImages"],
    }[kind]
    code, out, err = run("evaluate", preset, *source, "--json", tmp_path / "metrics.json")
    assert code == 0, err
    assert "AP50" in out and "square" in out and "bar" in out
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    metrics = json.loads(text)
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"} <= set(metrics["bbox"])
    assert set(metrics["per_class"]) == {"square", "bar"}
    assert set(metrics["per_class"]["bar"]) == {"AP", "AP50"}


def test_compress_prints_what_it_costs_and_saves(run, data, preset, tmp_path):
    source = ["--voc", data, "--split", "val"]
    code, out, err = run("compress", preset, "--ranks", 12, *source, "--dtype", "float32", "--out", tmp_path / "small")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.startswith(("whole", "truncated"))]
    assert [row[0] for row in rows] == ["whole", "truncated"]
    assert float(rows[1][-1]) < float(rows[0][-1])
    assert json.loads((tmp_path / "small/preset.json").read_text())["detector"]["config"]["box_head"]["config"]["ranks"]
    code, _, err = run("compress", preset, "--ranks", 99999, *source, "--out", tmp_path / "no")
    assert code == 2 and "a rank of 1 to" in err and not (tmp_path / "no").exists()


def test_proposals_are_only_for_those_that_are_told(run, data, preset, tmp_path):
    code, _, err = run("evaluate", preset, *coco(data), "--proposals", tmp_path / "boxes.npz")
    assert code == 2 and "finds its proposals itself" in err


def test_evaluate_by_vocs_metric(run, data, preset):
    code, out, _ = run("evaluate", preset, "--voc", data, "--split", "train", "--metric", "voc07")
    assert code == 0 and "AP50" in out and "AP75" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "what to evaluate on"),
        (["--coco", "a.json"], "--coco needs --images"),
        (["--voc", "folder"], "folder: no such folder"),
        (["--split", "val"], "--split needs --voc"),
        (["--images", "folder"], "--images needs --coco or --csv"),
        (["--coco", "a.json", "--csv", "b.csv", "--images", "folder"], "give one of --coco, --csv"),
        (["--coco", "missing.json", "--images", "."], "missing.json"),
    ],
)
def test_evaluate_needs_a_data_set(run, preset, options, message):
    code, _, err = run("evaluate", preset, *options)
    assert code == 2 and message in err and len(err.splitlines()) == 1


# === Train ===


@pytest.mark.slow
def test_train_from_a_table_to_a_preset(run, data, preset, tmp_path):
    out = tmp_path / "runs/shapes"
    table = ["--csv", data / "boxes.csv", "--images", data / "JPEGImages"]
    arguments = ["train", *table, "--val-csv", data / "boxes.csv", "--base", preset, "--batch-size", 4, "--out", out]
    code, printed, err = run(*arguments, "--epochs", 1, "--set", "seed=3")
    assert code == 0, err
    assert f"--preset {out}" in printed
    for name in ("preset.json", "weights.safetensors", "history.csv", "history.png", "recipe.py", "best", "last"):
        assert (out / name).exists(), name
    assert json.loads((out / "preset.json").read_text())["name"] == "shapes"

    assert run("detect", data / "JPEGImages/0.png", "--preset", out, "--out", tmp_path / "pictures")[0] == 0
    assert run("evaluate", out, *coco(data))[0] == 0

    before = (out / "weights.safetensors").read_bytes()
    code, _, err = run(*arguments, "--epochs", 2)
    assert code == 2 and "is not empty" in err and "--resume" in err and "--overwrite" in err
    assert (out / "weights.safetensors").read_bytes() == before

    assert "seed = 3" in (out / "recipe.py").read_text()

    code, _, err = run(*arguments, "--epochs", 2, "--resume")
    assert code == 0, err
    with (out / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]

    # the recipe that it left does the same
    code, _, err = run("train", out / "recipe.py", "--epochs", 1, "--set", "seed=4", "--out", out, "--overwrite")
    assert code == 0, err
    assert "seed" not in (out / "recipe.py").read_text(), "the recipe that was run stays as it is"
    with (out / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]


def test_voc_needs_no_split(run, data, preset, tmp_path, caplog):
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in [*(data / "Annotations").iterdir(), *(data / "JPEGImages").iterdir()]:
        (folder / path.name).write_bytes(path.read_bytes())
    code, out, _ = run("evaluate", preset, "--voc", folder)
    assert code == 0 and "AP50" in out
    (folder / sorted(path.name for path in folder.glob("*.png"))[0]).write_text("no image")
    code, _, err = run("evaluate", preset, "--voc", folder)
    assert code == 2 and "1 bad image (--on-bad skip leaves it out)" in err
    code, out, _ = run("evaluate", preset, "--voc", folder, "--on-bad", "skip")
    assert code == 0


def test_options_of_the_readers_reach_them(tmp_path):
    def source(*options):
        return source_of(command_line().parse_args(["train", "--out", "x", *map(str, options)]))

    table = source("--csv", "a.csv", "--images", "b", "--delimiter", "tab", "--columns", "image,label", "--relative")
    assert table == {"csv": "a.csv", "images": "b", "delimiter": "\t", "columns": "image,label", "relative": True}
    coco = source("--coco", "a.json", "--images", "b", "--crowd-as-objects", "--relative")
    assert coco == {"coco": "a.json", "images": "b", "crowd_as_objects": True, "relative": True}
    assert source("--voc", "a") == {"voc": "a"} and source("--voc", "a", "--images", "b") == {"voc": "a", "images": "b"}


def test_train_on_data_that_teaches_nothing(run, data, tmp_path):
    content = json.loads((data / "coco.json").read_text())
    for item in content["annotations"]:
        item["iscrowd"] = 1
    (tmp_path / "crowd.json").write_text(json.dumps(content))
    options = ["--coco", tmp_path / "crowd.json", "--images", data / "JPEGImages"]
    code, _, err = run("train", *options, "--out", tmp_path / "out")
    assert code == 2 and "objects are crowd" in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_train_on_voc_with_a_time_limit(run, data, preset, tmp_path):
    out = tmp_path / "out"
    code, _, err = run(
        "train", "--voc", data, "--split", "train", *coco(data, "val-"), "--base", preset, "--minutes", 0.001,
        "--out", out,
    )  # fmt: skip
    assert code == 0, err
    assert "time limit" in err
    text = (out / "recipe.py").read_text()
    assert "'split': 'train'" in text and "minutes = 0.001" in text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["0.png", 50, 20, 40, 60, "bar"], "x2 <= x1"),
        (["0.png", 10, 20, 500, 60, "bar"], "outside its image"),
        (["0.png", "nan", 20, 40, 60, "bar"], "not finite"),
        (["gone.png", 10, 20, 40, 60, "bar"], "gone.png"),
    ],
)
def test_bad_annotations_stop_it_before_it_begins(run, data, tmp_path, row, message):
    table = tmp_path / "bad.csv"
    with table.open("w", newline="") as file:
        good = [["1.png", 10 * i, 20, 100 + i, 60, "bar"] for i in range(1, 9)]
        csv.writer(file).writerows([["image", "x1", "y1", "x2", "y2", "label"], *good, row])
    out = tmp_path / "out"
    code, _, err = run("train", "--csv", table, "--images", data / "JPEGImages", "--out", out)
    assert code == 2 and message in err and "bad.csv" in err and "--on-bad skip" in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def test_swapped_boxes_are_told_by_the_options_name(run, data, tmp_path):
    rows = list(csv.reader((data / "boxes.csv").open()))
    table = tmp_path / "xywh.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for image, *box, label in rows[1:]:
            x1, y1, x2, y2 = map(float, box)
            writer.writerow([image, x1, y1, x2 - x1, y2 - y1, label])
    out = tmp_path / "out"
    code, _, err = run("train", "--csv", table, "--images", data / "JPEGImages", "--out", out)
    assert code == 2 and "--box-format xywh" in err and not out.exists()


def test_train_says_what_it_lacks(run, tmp_path):
    code, _, err = run("train", "--out", tmp_path / "out")
    assert code == 2 and "what to train on" in err
    (tmp_path / "no_data.py").write_text("epochs = 3\n")
    code, _, err = run("train", tmp_path / "no_data.py", "--out", tmp_path / "out")
    assert code == 2 and "no_data.py has no `train`: give --data" in err
    code, _, err = run("train", tmp_path / "none.py", "--out", tmp_path / "out")
    assert code == 2 and "none.py: no such recipe" in err
    code, _, err = run("train", "--set", "epoch=3", "--out", tmp_path / "out")
    assert code == 2 and "epoch: there is no such setting; did you mean epochs" in err
    code, _, err = run("train", "--set", "patience=abc", "--set", "momentum=2", "--out", tmp_path / "out")
    assert code == 2 and "patience = 'abc'" in err and "momentum = 2" in err
    (tmp_path / "file").write_text("")
    code, _, err = run("train", "--out", tmp_path / "file")
    assert code == 2 and "is a file" in err
    assert not (tmp_path / "out").exists()


def test_the_zoos_recipes_are_recipes():
    from keras_rcnn.training.recipe import load_recipe

    recipes = sorted((ROOT / "zoo").glob("*/recipe.py"))
    assert recipes
    for path in recipes:
        assert "elsewhere" in str(load_recipe(path, ["data=elsewhere"]).train), path


# === Convert ===


def test_convert_refuses(run, tmp_path):
    weights = tmp_path / "weights.npz"
    np.savez(weights, a=np.zeros(3, np.float32))
    common = ["--weights", weights, "--out", tmp_path / "out"]
    code, _, err = run("convert", "torchvision", "--model", "fasterrcnn_resnet50_fpn", *common)
    assert code == 2 and err.startswith("keras-rcnn: ")
    code, _, err = run("convert", "torchvision", "--model", "yolo", *common)
    assert code == 2 and "yolo" in err
    weights.write_bytes(b"")
    code, _, err = run("convert", "torchvision", "--model", "fasterrcnn_resnet50_fpn", *common)
    assert code == 2 and "weights.npz" in err
    assert not (tmp_path / "out").exists()


@needs_golden
@pytest.mark.slow
def test_convert_to_a_preset(run, tmp_path):
    model = "fasterrcnn_mobilenet_v3_large_320_fpn"
    np.savez(tmp_path / "weights.npz", **golden_state(model))
    common = ["convert", "torchvision", "--model", model, "--weights", tmp_path / "weights.npz"]
    out = tmp_path / "out"
    code, _, err = run(*common, "--class-names", "a,b,c", "--out", out)
    assert code == 2 and "--class-names has 3 names" in err
    code, printed, err = run(*common, "--out", out)
    assert code == 0 and "90 classes" in printed, err
    code, _, err = run(*common, "--out", out)
    assert code == 2 and "--overwrite" in err and "--resume" not in err
    config = json.loads((out / "preset.json").read_text())["detector"]["config"]
    assert config["class_names"][:2] == ["person", "bicycle"]
    photo = ROOT / "zoo/demo/immunohistochemistry.png"
    assert run("detect", photo, "--preset", out, "--out", tmp_path / "pictures")[0] == 0


# === Tools ===


def test_the_tool_is_the_same_command(monkeypatch):
    called = []
    monkeypatch.setattr(cli, "main", lambda argv: called.append(argv) or 0)
    monkeypatch.setattr(sys, "argv", ["convert.py", "--help"])
    source = (ROOT / "tools" / "convert.py").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        exec(compile(source, "convert", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert end.value.code == 0 and called == [["convert", "--help"]]


# === Other people's names on a terminal ===

EVIL = "fig\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
SHOWN = r"fig\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"


def visible(text):
    return all(line.isprintable() for line in text.splitlines())


def test_names_of_classes_and_files_are_printed_escaped(run, data, tmp_path):
    folder = save_preset(tiny_detector(class_names=["square", EVIL]), tmp_path / "preset")
    photo = tmp_path / f"photo{EVIL}.png"
    photo.write_bytes((data / "JPEGImages" / "0.png").read_bytes())
    code, out, err = run("detect", photo, "--preset", folder, "--score", "0", "--out", tmp_path / "out")
    assert code == 0 and visible(out + err) and f"photo{SHOWN}.png: " in out
    assert SHOWN in out.split(f"photo{SHOWN}.png")[0]  # in the table of boxes
    code, out, err = run("detect", tmp_path / f"no{EVIL}", "--preset", folder, "--out", tmp_path / "out")
    assert code == 1 and visible(out + err) and f"no{SHOWN}: no such image file" in err
    code, out, err = run("evaluate", tmp_path / EVIL, *coco(data))
    assert code == 2 and visible(out + err)


def test_warnings_are_printed_escaped(run, data, tmp_path):
    folder = save_preset(tiny_detector(3, class_names=["square", "bar", EVIL]), tmp_path / "preset")
    code, out, err = run("evaluate", folder, *coco(data))
    assert code == 0 and visible(out + err) and "detections of these classes are left out" in err


# === Clusters ===


def test_a_cluster_that_is_none_is_one_line(run, data, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    code, _, err = run("train", *coco(data), "--strategy", "multiworker", "--out", tmp_path / "out")
    assert code == 2 and err.startswith("keras-rcnn: TF_CONFIG is not set") and "Traceback" not in err


def test_a_training_that_is_lost_at_the_same_step_ends(run, data, tmp_path, monkeypatch):
    """The command is started anew twice, and the third time says why not."""
    from keras_rcnn.training import cluster

    class StartedAnew(BaseException):
        pass

    def lost(*_, **__):
        error = cluster.WorkerLost("A worker of the cluster has gone in step 8")
        error.position = (0, 7)
        raise error

    def execv(program, arguments):
        raise StartedAnew(arguments[1:])

    monkeypatch.setattr(sys.modules["keras_rcnn.training.train"], "train", lost)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv(cluster._LOSSES, "nothing")
    command = ("train", *coco(data), "--out", tmp_path / "out")
    # of --overwrite and --resume there can be one
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "keras_rcnn.cli", *map(str, command), "--overwrite"])
    for _ in range(2):
        with pytest.raises(StartedAnew) as started:
            run(*command)
        assert started.value.args == (["-m", "keras_rcnn.cli", *map(str, command), "--resume"],)
    code, _, err = run(*command)
    assert code == 2 and "lost 3 times at step 8 of epoch 1" in err and "Traceback" not in err
