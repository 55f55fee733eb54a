"""A training's settings: every one has its type, limits and words."""

import types

import pytest

from keras_rcnn.training.recipe import RecipeError
from keras_rcnn.training.settings import DEFAULTS, GROUPS, Settings, check_settings, default_settings, settings_table
from keras_rcnn.training.train import train

ODD = {
    "momentum": [2, -0.1, "0.9", float("nan")],
    "clipnorm": ["x", 0, -1.0, float("inf")],
    "batch_size": [1.5, 0, -2, "2", True],
    "learning_rate": [float("inf"), float("nan"), 0, -1e-3, "fast"],
    "epochs": [0, 2.5, "ten", None],
    "patience": ["abc", 0, 1.5],
    "minutes": [0, -1, "long"],
    "hold_out": [1.0, -0.2, "0.2"],
    "augment": ["hflip", 3],
    "head_units": [(0,), (1.5,), 512],
    "aspect_ratios": [(), (0.0,), ("wide",)],
    "proposals": [(1000,), (0, 100), 1000],
    "background": [(0.1,), (0.1, 1.5)],
    "nms": [1.5, "0.5"],
    "detector": ["yolo"],
    "optimizer": ["adam", None],
    "strategy": ["tpu"],
    "on_bad": ["ignore"],
    "weights_dtype": ["int8"],
    "min_size": [0, 320.5],
    "dropout": [1.0, -0.5],
    "warmup_steps": [-1, 1.5],
    "weight_decay": [-1.0, float("inf")],
    "ema": [0.0, 1.0],
    "accumulate": [0, 2.5],
    "alternating": [(1, 2, 3), (1, 2, 3, 0)],
    "seed": [-1, 0.5],
    "masks": [1, "yes"],
    "jit_compile": ["auto", 1],
    "train": ["train.json"],
    "search": [None, "fast"],
    "cache": ["yes", -1],
    "drop_at": [(0,), 8],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_what_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(RecipeError, match=f"^{name} = .*: it should be "):
        check_settings(default_settings(**{name: value}))


def test_all_problems_in_one_error_before_anything_is_read(tmp_path):
    settings = default_settings(train={"coco": "nowhere.json", "images": "nowhere"}, epochs=0, momentum=2, clipnorm="x")
    with pytest.raises(RecipeError) as error:
        train(settings, tmp_path / "out")
    lines = str(error.value).splitlines()
    assert lines[0] == "3 settings are not as they should be:" and len(lines) == 4
    assert [line.split()[0] for line in lines[1:]] == ["epochs", "momentum", "clipnorm"]
    assert not (tmp_path / "out").exists()


def test_unknown_settings_are_told_with_the_nearest():
    with pytest.raises(RecipeError, match="learnin_rate: there is no such setting; did you mean learning_rate"):
        check_settings(types.SimpleNamespace(learnin_rate=1e-3))


def test_what_can_be_passes():
    settings = check_settings(
        types.SimpleNamespace(learning_rate=1, head_units=[64, 64], proposals=[50, 20], cache=10**6, border=0, nms=0.3)
    )
    assert settings.learning_rate == 1 and settings.head_units == (64, 64) and settings.proposals == (50, 20)
    assert check_settings(types.SimpleNamespace()) == Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 3


def test_every_setting_is_described():
    rows = settings_table()
    assert sorted(name for _, name, *_ in rows) == sorted(DEFAULTS)
    assert all(description for *_, description in rows)
    assert list(dict.fromkeys(group for group, *_ in rows)) == list(GROUPS.values())


@pytest.mark.parametrize(("name", "value"), [("channels", 64), ("anchor_scale", 2.0), ("nms", 0.3), ("rois", 64)])
def test_a_base_leaves_no_room_for_settings_of_the_model(name, value, tmp_path):
    settings = default_settings(train={"coco": "nowhere"}, base="nuclei_frcnn", **{name: value})
    with pytest.raises(RecipeError, match=f"brings its own {name}: leave it out"):
        train(settings, tmp_path)


def test_a_base_at_another_size():
    from keras_rcnn.training.build import build_model

    model = build_model(check_settings(default_settings(base="nuclei_frcnn", min_size=200, freeze_at=3)), ["nucleus"])
    assert (model.preprocessor.min_size, model.preprocessor.max_size) == (200, 640)
    assert model.parts["backbone"].freeze_at == 3
