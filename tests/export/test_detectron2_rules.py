"""Detectors by Detectron2's rules, exported: photos are resized as Pillow does, and masks pasted on the float box."""

import numpy as np
import pytest
import tensorflow as tf

from keras_rcnn import layers
from keras_rcnn.data import Preprocessor
from keras_rcnn.data.paste import paste_masks
from keras_rcnn.export import export_model, graph
from keras_rcnn.export.litert_detector import fit, fitted_size
from keras_rcnn.models import MaskRCNN
from tests.models.tiny import TinyBackbone

RULES = {"resize": "detectron2", "channels": "bgr", "paste": "detectron2"}


def preprocessor(**settings):
    return Preprocessor(**{"min_size": 96, "max_size": 128, "size_divisor": 32, **RULES, **settings})


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("settings", [{}, {"min_size": 300, "max_size": 500}, {"fixed_size": (64, 96)}])
@pytest.mark.parametrize("size", [(120, 150), (77, 40), (96, 96), (31, 400)])
def test_preprocessing(settings, size):
    own, image = preprocessor(**settings), photo(*size)
    x = own.batch([image])
    images, resized = graph.preprocess(own, tf.constant(image[None]))
    np.testing.assert_array_equal(resized, x["image_sizes"][0])
    np.testing.assert_allclose(images, x["images"], atol=1e-5)


def test_sizes():
    own, fixed = preprocessor(min_size=320, max_size=480), preprocessor(fixed_size=(64, 96))
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 2000, (200, 2)):
        assert own.size(*size) == tuple(graph.resized_size(own, tf.constant(size, tf.int32)).numpy())
        settings = {"size": fixed.fixed_size, "min_size": 96, "max_size": 128, "resize": "detectron2"}
        assert fixed.size(*size) == fitted_size(*size, settings)


def test_fitting_for_litert():
    own, image = preprocessor(fixed_size=(64, 96)), photo(120, 150)
    settings = {"size": (64, 96), "min_size": 96, "max_size": 128, "resize": "detectron2"}
    fitted, size = fit(image, settings)
    normalised = graph.normalise(own, tf.constant(fitted[: size[0], : size[1]]))
    np.testing.assert_allclose(normalised, own(image), atol=1e-5)


def test_pasting():
    rng = np.random.default_rng(0)
    corner = rng.uniform(-10, 50, (12, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(2, 60, (12, 2))], 1))
    masks = rng.random((12, 28, 28), np.float32)
    by = Preprocessor(paste="detectron2")
    pasted = graph.paste(masks[None], boxes[None], np.zeros((1, 12), np.int32), np.int32([[60, 80]]), by)
    differ = pasted.numpy()[0] != paste_masks(masks, boxes, 60, 80, rule="detectron2")
    assert differ.sum() <= 2  # a value of exactly a half


def detector():
    """A small Mask R-CNN with all of Detectron2's options."""
    neck = layers.FPN(32, norm="group")
    strides = (4, 8, 16, 32)
    common = {"samples": 0, "aligned": True, "level_rule": "detectron2"}
    sizes = [[8.0 * 2**i] for i in range(5)]
    anchors = layers.AnchorGenerator(sizes, rounded=False, strides=(*strides, 64), order="sizes")
    return MaskRCNN(
        TinyBackbone(),
        2,
        neck=neck,
        anchors=anchors,
        proposals=layers.Proposals((50, 50), (20, 20), min_size=1e-38, ranked_by="logits"),
        box_pool=layers.RoIAlign(7, strides, name="box_pool", **common),
        box_head=layers.BoxHead((32,), convs=(32,), norm="group"),
        decoder=layers.DetectionDecoder(0.05, 0.5, 10, min_size=1e-38),
        mask_pool=layers.RoIAlign(14, strides, name="mask_pool", **common),
        mask_head=layers.MaskHead(2, convs=(32,), channels=16, norm="group"),
        preprocessor=preprocessor(),
    )


@pytest.mark.slow
def test_a_saved_model(tmp_path):
    """What is written answers as `detect` does."""
    made = export_model(detector(), tmp_path / "model", photos=[photo(90, 120), photo(120, 80, 1)])
    assert made["parity"]
