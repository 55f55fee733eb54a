"""Recipes and what can be set for them."""

import pytest

from keras_rcnn.training import RecipeError, load_recipe
from keras_rcnn.training.recipe import recipe_text

RECIPE = '''
"""Cells: 30 minutes, AP50 0.8."""
import math
from pathlib import Path

data = "../cells"
train = {"voc": data, "split": "train"}
batch_size = 8
epochs: int = 12
learning_rate = 0.01 * batch_size / 16
drop_at = (epochs - 2,)
_private = 5
warmup_steps = math.floor(learning_rate * 1000)
if epochs > 10:
    title = "long"

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
    assert load_recipe(path).changed() == {
        "data": "../cells",
        "train": {"voc": "../cells", "split": "train"},
        "batch_size": 8,
        "epochs": 12,
        "learning_rate": 0.005,
        "lr_drop_epochs": (10,),
        "warmup_steps": 5,
        "title": "long",
    }


def test_overrides_carry_on_into_what_is_computed_from_them(path):
    settings = load_recipe(path, ["batch_size=32", "epochs = 3"])
    assert (settings.batch_size, settings.epochs, settings.learning_rate, settings.warmup_steps) == (32, 3, 0.02, 20)
    assert settings.lr_drop_epochs == (1,) and settings.title == ""
    assert load_recipe(path, ["learning_rate=1"]).warmup_steps == 1000
    assert load_recipe(path, ["data=elsewhere"]).train == {"voc": "elsewhere", "split": "train"}
    assert load_recipe(path, {"epochs": 4}).lr_drop_epochs == (2,)


@pytest.mark.parametrize("text", ["drop_at=(7,)", "lr_drop_epochs=(7,)"])
def test_a_setting_is_the_same_by_both_of_its_names(path, text):
    assert load_recipe(path, [text]).lr_drop_epochs == (7,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize=4", "batchsize: there is no such setting; did you mean batch_size"),
        ("nonsense=3", "nonsense: there is no such setting. keras-rcnn"),
        ("_private=4", "_private: there is no such setting"),
        ("helper=4", "helper: there is no such setting"),
        ("batch_size", "'batch_size' is not of the form key=value"),
        ("batch_size=four", "batch_size = 'four': it should be a valid integer"),
        ("batch_size=4.5", "batch_size = 4.5: it should be a valid integer"),
        ("masks=1", "masks = 1: it should be a valid boolean"),
        ("learning_rate=__import__('os')", "learning_rate = .*: it should be a valid number"),
        ("batch_size=None", "batch_size = None: it should be a valid integer"),
    ],
)
def test_bad_overrides(path, text, message):
    for recipe in (path, None):
        with pytest.raises(RecipeError, match=message):
            load_recipe(recipe, [text])


def test_all_bad_overrides_in_one_error(path):
    with pytest.raises(RecipeError, match="(?s)3 settings .*patience = 'abc'.*epoch: .*momentum = 2"):
        load_recipe(path, ["patience=abc", "epoch=3", "momentum=2"])


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
    bad.write_text("batch_size = 1.5\nepoch = 3")
    with pytest.raises(RecipeError, match="(?s)bad.py: 2 settings .*epoch: .*did you mean epochs.*batch_size = 1.5"):
        load_recipe(bad)


def test_what_a_training_leaves_is_its_recipe(path, tmp_path):
    settings = load_recipe(path, ["seed=3", f"base={tmp_path}"])
    again = tmp_path / "again.py"
    again.write_text(recipe_text(settings))
    assert load_recipe(again) == settings
