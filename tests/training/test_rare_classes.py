"""The settings for augmentation, sizes, rare classes, losses and the last NMS, from a recipe to the parts."""

import numpy as np
import pytest

from keras_rcnn.data import augment
from keras_rcnn.ops.losses import class_balanced_weights
from keras_rcnn.presets import from_preset, save_preset
from keras_rcnn.training import RecipeError, Settings
from keras_rcnn.training.build import build_augment, build_model, check, class_counts, detector_of
from tests.data.test_augment_objects import dataset

SMALL = {"backbone_weights": "random", "fpn_channels": 16, "box_head_units": (16,), "roi_samples": 16}
SOURCE = {"csv": "nothing.csv", "images": "nowhere"}


def test_names_of_a_recipe():
    names = ("hflip", "vflip", "rot90", ("rotate", 15), "color", "photometric", "scale", ("lsj", 0.1, 2.0), "crop")
    chain = build_augment((*names, ("copy_paste", 0.5), "mosaic"))
    kinds = [type(transform).__name__ for transform in chain.transforms]
    assert kinds == [
        *("HorizontalFlip", "VerticalFlip", "Rotate90", "Rotate", "ColorJitter", "Photometric", "ScaleJitter"),
        *("LargeScaleJitter", "ObjectCrop", "CopyPaste", "Mosaic"),
    ]
    assert chain.transforms[3].degrees == 15 and chain.transforms[7].low == 0.1
    assert isinstance(chain, augment.Compose) and chain.photos == 8 and chain.needs_masks


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("rotate", 200), "degrees is a number from 0 to 180"),
        (("lsj", 2.0, 1.0), "high is a number from 2"),
        (("copy_paste", 2), "p is a number from 0 to 1"),
        (("mosaic", 0.5, 0), "low is a number above 0"),
        (("crop", 0.5, 0.3, 0.2, 0.1), r"augment has \('crop', 0.5"),
        ("cutmix", "Unknown augmentation 'cutmix'"),
        (5, "Unknown augmentation 5"),
        ((), r"Unknown augmentation \(\)"),
    ],
)
def test_what_a_recipe_gets_wrong(entry, message):
    with pytest.raises(RecipeError, match=message):
        build_augment((entry,))


def test_copy_paste_wants_masks():
    settings = Settings(train=SOURCE, augment=("hflip", ("copy_paste", 0.5)))
    (problem,) = check(settings, detector_of(settings))
    assert "cuts objects out by their masks" in problem
    settings = settings.replace(masks=True)
    assert not check(settings, detector_of(settings))
    settings = Settings(train=SOURCE, detector="rcnn", box_regression="giou")
    assert "no part of its loss" in check(settings, detector_of(settings))[0]


@pytest.mark.slow
def test_losses_and_soft_nms_come_from_the_settings(tmp_path):
    data = dataset()
    counts = class_counts(data)
    np.testing.assert_array_equal(counts, [6, 4, 2])  # photos have 1, 2 or 3 objects, of the classes 0, 1 and 2
    chosen = {"box_regression": "giou", "focal_gamma": 2.0, "class_balance": 0.9, "soft_nms": "gaussian"}
    model = build_model(Settings(**SMALL, **chosen), data.class_names, counts)
    loss, decoder = model.parts["box_loss"], model.parts["decoder"]
    assert (loss.regression, loss.focal_gamma, decoder.soft_nms) == ("giou", 2.0, "gaussian")
    assert loss.class_weights == (*class_balanced_weights([6, 4, 2], 0.9), 1.0)
    model.compile("sgd")
    batches = data.batches(model.preprocessor.replace(min_size=64, max_size=96), batch_size=2)
    values = model.evaluate(batches, verbose=0, return_dict=True)
    assert all(np.isfinite(value) for value in values.values())
    assert set(model.detect(data[0].image, score=0.0)) >= {"boxes", "scores"}

    save_preset(model, tmp_path / "preset")
    again = from_preset(tmp_path / "preset")
    assert again.parts["box_loss"].get_config() == loss.get_config()
    assert again.parts["decoder"].soft_nms == "gaussian"
    # the weights belong to the old classes
    other = from_preset(tmp_path / "preset", class_names=["a", "d"])
    assert other.parts["box_loss"].class_weights is None and other.parts["box_loss"].focal_gamma == 2.0

    plain = build_model(Settings(**SMALL), data.class_names, counts)
    config = plain.parts["box_loss"].get_config()
    assert (config["regression"], config["focal_gamma"], config["class_weights"]) == ("smooth_l1", 0.0, None)
    assert plain.parts["decoder"].soft_nms is None
