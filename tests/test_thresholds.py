"""A class's own least score: in `preset.json`, on the model, in `detect` and on the command line."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_rcnn
from keras_rcnn.cli import main
from keras_rcnn.evaluation import EvaluateCallback
from keras_rcnn.preset_file import PresetError
from keras_rcnn.preset_thresholds import store_thresholds
from keras_rcnn.presets import save_preset
from keras_rcnn.training.run import Run
from tests.models.tiny import shapes, tiny_detector

NAMES = ["square", "bar"]


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    save_preset(tiny_detector(class_names=NAMES), folder)
    return folder


def changed(preset, tmp_path, thresholds):
    """A copy of the preset with other thresholds, whatever they are."""
    record = json.loads((preset / "preset.json").read_text())
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes((preset / "weights.safetensors").read_bytes())
    (folder / "preset.json").write_text(json.dumps(record | {"thresholds": thresholds}))
    return folder


def test_detect_takes_a_classs_own(preset):
    model = keras_rcnn.from_preset(preset)
    photo = shapes(1)[0].image
    every = model.detect(photo, score=0.0)
    assert model.thresholds is None and set(every["names"]) == set(NAMES)
    least = {name: float(np.median(every["scores"][every["labels"] == label])) for label, name in enumerate(NAMES)}

    model.thresholds = least
    own = model.detect(photo)
    expected = [score >= np.float32(least[name]) for name, score in zip(every["names"], every["scores"], strict=True)]
    np.testing.assert_array_equal(own["boxes"], every["boxes"][expected])
    assert 0 < len(own["boxes"]) < len(every["boxes"])

    model.thresholds = {"bar": 0.0}
    scores = every["scores"][(every["labels"] == 1) | (every["scores"] >= 0.5)]
    np.testing.assert_array_equal(model.detect(photo)["scores"], scores)
    assert (model.detect(photo, score=0.5)["scores"] >= 0.5).all()  # for all of them, if it is said
    model.thresholds = None
    np.testing.assert_array_equal(model.detect(photo)["boxes"], model.detect(photo, score=0.5)["boxes"])


def test_a_preset_keeps_them(preset, tmp_path):
    model = keras_rcnn.from_preset(preset)
    assert "thresholds" not in json.loads((preset / "preset.json").read_text())
    model.thresholds = {"square": 0.3, "bar": 0.25}
    again = keras_rcnn.from_preset(save_preset(model, tmp_path / "with"))
    assert again.thresholds == {"square": 0.3, "bar": 0.25}
    assert keras_rcnn.from_preset(save_preset(model, tmp_path / "without", thresholds=None)).thresholds is None
    other = keras_rcnn.from_preset(tmp_path / "with", class_names=["disc", "bar"])
    assert other.thresholds == {"bar": 0.25}
    assert keras_rcnn.from_preset(tmp_path / "with", num_classes=5).thresholds is None
    model.thresholds = {"disc": 0.3}
    with pytest.raises(PresetError, match="thresholds has 'disc', which is no class of it"):
        save_preset(model, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5, 0.5], r"thresholds is \[0.5, 0.5\]; it should be an object"),
        ({"disc": 0.5}, "thresholds has 'disc', which is no class of it"),
        ({"bar": 1.5}, "thresholds.bar is 1.5; it should be a number from 0 to 1"),
        ({"bar": -0.1}, "thresholds.bar is -0.1"),
        ({"bar": "0.5"}, "thresholds.bar is '0.5'"),
        ({"bar": True}, "thresholds.bar is True"),
        ({"bar": None}, "thresholds.bar is None"),
        ({"bar": float("nan")}, "thresholds.bar is nan"),
        ({"bar": {"class_name": "Lambda"}}, "thresholds.bar is"),
    ],
)
def test_what_a_strangers_preset_may_not_say(preset, tmp_path, thresholds, message):
    with pytest.raises(PresetError, match=message):
        keras_rcnn.from_preset(changed(preset, tmp_path, thresholds))


def test_they_are_stored_in_a_folder(preset, tmp_path):
    folder = changed(preset, tmp_path, None)
    store_thresholds(folder, {"bar": np.float32(0.25)})
    assert keras_rcnn.from_preset(folder).thresholds == {"bar": 0.25}
    before = (folder / "preset.json").read_bytes()
    for thresholds in ({"bar": 2.0}, {"disc": 0.5}):
        with pytest.raises(PresetError, match="thresholds"):
            store_thresholds(folder, thresholds)
    assert (folder / "preset.json").read_bytes() == before
    with pytest.raises(PresetError, match="A preset of the zoo is not altered"):
        store_thresholds("nuclei_frcnn", {})


def test_the_commands(preset, tmp_path, capsys):
    folder, dataset = changed(preset, tmp_path, None), shapes(3)
    rows = ["image,x1,y1,x2,y2,label"]
    for record in dataset:
        Image.fromarray(record.image).save(tmp_path / f"{record.image_id}.png")
        for box, label in zip(record.boxes.tolist(), record.labels, strict=True):
            rows.append(",".join([f"{record.image_id}.png", *map(str, box), NAMES[label]]))
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    arguments = ["evaluate", folder, "--csv", tmp_path / "boxes.csv", "--images", tmp_path]
    page = tmp_path / "out" / "report.html"
    assert main([str(one) for one in [*arguments, "--report", page, "--store-thresholds"]]) == 0
    printed = capsys.readouterr().out
    assert f"The report: {page}" in printed and f"Thresholds in {folder}: " in printed
    text = page.read_text()
    assert text.startswith("<!doctype html>") and text.count("data:image/jpeg;base64,") == 3
    thresholds = json.loads((folder / "preset.json").read_text())["thresholds"]
    assert (keras_rcnn.from_preset(folder).thresholds or {}) == thresholds and set(thresholds) <= set(NAMES)

    store_thresholds(folder, {"bar": 0.0, "square": 1.0})
    detect = [
        "detect",
        tmp_path / "0.png",
        "--preset",
        folder,
        "--out",
        tmp_path / "found",
        "--json",
        tmp_path / "o.json",
    ]
    assert main([str(one) for one in detect]) == 0
    assert set(json.loads((tmp_path / "o.json").read_text())[0]["names"]) == {"bar"}
    assert main([str(one) for one in [*detect, "--score", 0]]) == 0
    assert set(json.loads((tmp_path / "o.json").read_text())[0]["names"]) == set(NAMES)

    assert main([str(one) for one in ["evaluate", "nuclei_frcnn", *arguments[2:], "--store-thresholds"]]) == 2
    assert "A preset of the zoo is not altered" in capsys.readouterr().err


def test_a_training_writes_them(tmp_path):
    dataset = shapes(4)
    model = tiny_detector(class_names=NAMES)
    callback = EvaluateCallback(dataset)
    callback.set_model(model)
    model.stop_training = True
    callback.on_epoch_end(0, logs := {})
    assert "val_AP50" in logs and callback.thresholds is not None
    assert set(callback.thresholds) <= set(NAMES)
    settings = keras_rcnn.training.Settings(train={"csv": "x", "images": "y"})
    run = Run(settings, tmp_path, dataset, dataset, keras_rcnn.training.distribute.strategy(None))
    run.save(model, tmp_path / "best", callback.last, {"bar": 0.4})
    assert keras_rcnn.from_preset(tmp_path / "best").thresholds == {"bar": 0.4}
    model.thresholds = {"bar": 0.1}  # of a preset that it started from
    run.save(model, tmp_path / "last")
    assert keras_rcnn.from_preset(tmp_path / "last").thresholds is None
