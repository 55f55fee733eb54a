"""A training's settings: every one has its type, limits and words."""

from pathlib import Path

import pytest

from keras_rcnn.training import RecipeError, Settings
from keras_rcnn.training.build import build_model
from keras_rcnn.training.settings import DEFAULTS, GROUPS, OLD_NAMES, cast, settings_table
from keras_rcnn.training.train import train

ODD = {
    "momentum": [2, -0.1, "0.9", float("nan")],
    "clipnorm": ["x", 0, -1.0, float("inf")],
    "batch_size": [1.5, 0, -2, "2", True],
    "learning_rate": [float("inf"), float("nan"), 0, -1e-3, "fast"],
    "epochs": [0, 2.5, "ten"],
    "patience": ["abc", 0, 1.5],
    "minutes": [0, -1, "long"],
    "val_fraction": [1.0, -0.2, "0.2"],
    "augment": ["hflip", 3],
    "box_head_units": [(0,), (1.5,), 512],
    "aspect_ratios": [(), (0.0,), ("wide",)],
    "post_nms_proposals": [(1000,), (0, 100), 1000],
    "background_iou": [(0.1,), (0.1, 1.5)],
    "nms_iou": [1.5, "0.5"],
    "detector": ["yolo"],
    "optimizer": ["adam", None],
    "strategy": ["tpu"],
    "on_bad": ["ignore"],
    "weights_dtype": ["int8"],
    "min_size": [0, 320.5],
    "box_head_dropout": [1.0, -0.5],
    "warmup_steps": [-1, 1.5],
    "weight_decay": [-1.0, float("inf")],
    "ema_momentum": [0.0, 1.0],
    "gradient_accumulation_steps": [0, 2.5],
    "alternating": [(1, 2, 3), (1, 2, 3, 0)],
    "seed": [-1, 0.5],
    "masks": [1, "yes"],
    "jit_compile": ["auto", 1],
    "train": ["train.json"],
    "selective_search": [None, "fast"],
    "cache": ["yes", -1],
    "lr_drop_epochs": [(0,), 8],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_what_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(RecipeError, match=f"^{name} = .*: it should be "):
        Settings(**{name: value})


def test_all_problems_in_one_error_before_anything_is_read(tmp_path):
    source = {"coco": "nowhere.json", "images": "nowhere"}
    with pytest.raises(RecipeError) as error:
        train({"train": source, "learnin_rate": 1, "epochs": 0, "momentum": 2, "clipnorm": "x"}, tmp_path / "out")
    lines = str(error.value).splitlines()
    assert lines[0] == "4 settings are not as they should be:" and len(lines) == 5
    assert [line.split()[0] for line in lines[1:]] == ["learnin_rate:", "epochs", "momentum", "clipnorm"]
    assert not (tmp_path / "out").exists()


def test_unknown_settings_are_told_with_the_nearest():
    with pytest.raises(RecipeError, match="learnin_rate: there is no such setting; did you mean learning_rate"):
        Settings(learnin_rate=1e-3)
    with pytest.raises(RecipeError, match="drop_a: there is no such setting; did you mean lr_drop_epochs"):
        Settings(drop_a=(3,))


def test_what_can_be_passes():
    settings = Settings(
        learning_rate=1, box_head_units=[64, 64], post_nms_proposals=[50, 20], cache=10**6, anchor_border=0, nms_iou=0.3
    )
    assert settings.learning_rate == 1 and settings.box_head_units == (64, 64)
    assert settings.changed() == {
        "learning_rate": 1,
        "box_head_units": (64, 64),
        "post_nms_proposals": (50, 20),
        "cache": 10**6,
        "anchor_border": 0,
        "nms_iou": 0.3,
    }
    assert settings.replace(epochs=3).epochs == 3 and settings.epochs == DEFAULTS["epochs"]
    with pytest.raises(RecipeError, match="epochs = 0"):
        settings.replace(epochs=0)
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 3


def test_old_names_are_understood(caplog):
    settings = Settings(drop_at=(3,), rois=64)
    assert (settings.lr_drop_epochs, settings.roi_samples) == ((3,), 64)
    assert "drop_at is now lr_drop_epochs, rois is now roi_samples" in caplog.text
    with pytest.raises(RecipeError, match="^lr_drop_epochs = 3: it should be"):
        Settings(drop_at=3)
    with pytest.raises(RecipeError, match="drop_at is the old name of lr_drop_epochs, and both are given"):
        Settings(drop_at=(3,), lr_drop_epochs=(4,))
    assert set(OLD_NAMES.values()) <= set(DEFAULTS) and not set(OLD_NAMES) & set(DEFAULTS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "8", 8),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "1", 1.0),
        ("name", "2024", "2024"),
        ("name", "'my cells'", "my cells"),
        ("title", "a=b", "a=b"),
        ("data", "/tmp/cells", "/tmp/cells"),
        ("data", "2024", "2024"),
        ("base", "None", None),
        ("minutes", "None", None),
        ("lr_drop_epochs", "[5, 8]", (5, 8)),
        ("masks", "True", True),
        ("augment", "('hflip', ('scale', 0.5, 2.0))", ("hflip", ("scale", 0.5, 2.0))),
        ("train", "{'voc': 'cells', 'split': 'train'}", {"voc": "cells", "split": "train"}),
        ("detector", "rcnn", "rcnn"),
    ],
)
def test_texts_become_what_the_setting_wants(name, text, value):
    got = cast(name, text)
    assert got == value and type(got) is type(value)


def test_paths_may_be_paths():
    assert Settings(base=Path("runs/a")).base == Path("runs/a")


def test_every_setting_is_described():
    rows = settings_table()
    assert sorted(name for _, name, *_ in rows) == sorted(DEFAULTS)
    assert all(description for *_, description in rows)
    assert list(dict.fromkeys(group for group, *_ in rows)) == list(GROUPS.values())


@pytest.mark.parametrize(
    ("name", "value"), [("fpn_channels", 64), ("anchor_scale", 2.0), ("nms_iou", 0.3), ("roi_samples", 64)]
)
def test_a_base_leaves_no_room_for_settings_of_the_model(name, value, tmp_path):
    with pytest.raises(RecipeError, match=f"brings its own {name}: leave it out"):
        train({"train": {"coco": "nowhere"}, "base": "nuclei_frcnn", name: value}, tmp_path)


def test_a_base_at_another_size():
    model = build_model(Settings(base="nuclei_frcnn", min_size=200, freeze_at=3), ["nucleus"])
    assert (model.preprocessor.min_size, model.preprocessor.max_size) == (200, 640)
    assert model.parts["backbone"].freeze_at == 3
    again = type(model).from_config(model.get_config())  # as a preset has it
    assert again.preprocessor.min_size == 200 and again.parts["backbone"].freeze_at == 3
