"""Recipes and what can be set for them."""

import pytest

from keras_rcnn.training import RecipeError, load_recipe

RECIPE = '''
"""Nuclei: 30 minutes, AP50 0.8."""
import math
from pathlib import Path

preset = "faster_rcnn"
weights = None
batch_size = 8
epochs: int = 12
learning_rate = 0.01 * batch_size / 16
sizes = (320, 640)
flip = True
_private = 5
low, high = 1, 2
decayed = math.floor(learning_rate * 1000)
if flip:
    augment = "flip"

def helper():
    batch_size = 1
    return batch_size
'''


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path


def test_its_names_are_the_settings(path):
    assert vars(load_recipe(path)) == {
        "preset": "faster_rcnn",
        "weights": None,
        "batch_size": 8,
        "epochs": 12,
        "learning_rate": 0.005,
        "sizes": (320, 640),
        "flip": True,
        "low": 1,
        "high": 2,
        "decayed": 5,
        "augment": "flip",
    }


def test_overrides_carry_on_into_what_is_computed_from_them(path):
    recipe = load_recipe(path, ["batch_size=32", "epochs = 3"])
    assert (recipe.batch_size, recipe.epochs, recipe.learning_rate, recipe.decayed) == (32, 3, 0.02, 20)
    assert load_recipe(path, ["learning_rate=1"]).decayed == 1000
    assert not hasattr(load_recipe(path, {"flip": False}), "augment")
    assert load_recipe(path, ["low=7"]).low == 7


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("preset=mask_rcnn", "preset", "mask_rcnn"),
        ("preset='mask rcnn'", "preset", "mask rcnn"),
        ("preset=2024", "preset", "2024"),
        ("preset=a=b", "preset", "a=b"),
        ("weights=/tmp/w.h5", "weights", "/tmp/w.h5"),
        ("weights=3", "weights", 3),
        ("epochs=None", "epochs", None),
        ("learning_rate=1", "learning_rate", 1.0),
        ("sizes=[1, 2]", "sizes", (1, 2)),
        ("flip=False", "flip", False),
    ],
)
def test_values(path, text, key, value):
    got = getattr(load_recipe(path, [text]), key)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize=4", "no setting 'batchsize'; it has augment, batch_size, decayed, epochs, flip, high"),
        ("_private=4", "no setting '_private'"),
        ("helper=4", "no setting 'helper'"),
        ("batch_size", "'batch_size' is not of the form key=value"),
        ("batch_size=four", "batch_size=four: not a Python literal; the recipe has 8"),
        ("batch_size=4.5", r"batch_size=4.5: float, but the recipe has 8 \(int\)"),
        ("flip=1", "flip=1: int, but the recipe has True"),
        ("learning_rate=__import__('os')", "not a Python literal"),
    ],
)
def test_bad_overrides(path, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, [text])


def test_bad_recipes(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.py")
    bad = tmp_path / "bad.py"
    bad.write_text("batch_size = = 3")
    with pytest.raises(RecipeError, match=r"bad.py: not a recipe: .*line 1"):
        load_recipe(bad)
    bad.write_text("batch_size = 1 / 0")
    with pytest.raises(RecipeError, match="the recipe fails: ZeroDivisionError"):
        load_recipe(bad)


def test_defaults_complete_a_recipe(path):
    defaults = {"epochs": 1, "minutes": None, "name": "detector", "seed": 0}
    settings = load_recipe(path, ["minutes=5", "seed=3", "name=cells", "epochs=7"], defaults)
    assert (settings.minutes, settings.seed, settings.name) == (5, 3, "cells")
    assert (settings.epochs, settings.batch_size) == (7, 8)
    assert vars(load_recipe(None, ["seed=2"], defaults)) == {**defaults, "seed": 2}
    with pytest.raises(RecipeError, match="seed=x"):
        load_recipe(None, ["seed=x"], defaults)
    with pytest.raises(RecipeError, match="The command line has no setting 'sed'"):
        load_recipe(None, ["sed=2"], defaults)
