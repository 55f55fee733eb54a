"""Mixed precision: what is rounded, what is not, and that detectors train and answer in it."""

import logging

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn import precision
from keras_rcnn.export.parity import demo_photos
from keras_rcnn.layers.base import Float32Layer
from keras_rcnn.ops.boxes import iou
from keras_rcnn.training import RecipeError
from keras_rcnn.training.train import train
from tests.export.detectors import detector, proposals
from tests.models.test_fast_rcnn import around
from tests.models.test_mask_rcnn import with_masks
from tests.models.tiny import shapes

KINDS = ["mask", "fast", "rcnn"]
HALVES = ["bfloat16", "float16"]


def made(kind, name):
    with precision.precision(name):
        return detector(kind)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("mask", "float16"), *((kind, "bfloat16") for kind in KINDS)])
def test_fit_and_detect(kind, name):
    data = with_masks(shapes(4)) if kind == "mask" else shapes(4)
    losses = {}
    for which in ("float32", name):
        model = made(kind, which)
        data.class_names = model.class_names
        given = around(data) if model.wants_proposals else None
        batches = data.batches(model.preprocessor, batch_size=2, masks=kind == "mask", proposals=given)
        model.compile(keras.optimizers.SGD(1e-3))
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (which == "float16")
        losses[which] = model.fit(batches, epochs=2, verbose=0).history
        assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    for key, values in losses["float32"].items():
        # which of an untrained RPN's proposals come first, the last bits of their scores decide: other regions are
        # sampled, and the losses on them are others
        sampled = kind in ("faster", "mask") and "rpn" not in key and key != "loss_objectness"
        np.testing.assert_allclose(losses[name][key], values, rtol=1.0 if sampled else 0.05, err_msg=key)
    image = data[3].image
    found = model.detect(image, score=0.0, proposals=proposals(image) if given else None)
    assert len(found["scores"]) and np.isfinite(found["boxes"]).all()
    assert found["boxes"].dtype == found["scores"].dtype == np.float32


def test_boxes_scores_and_losses_are_float32_whatever_the_policy():
    model = made("mask", "bfloat16")
    assert model.parts["backbone"].outputs[0].dtype == "bfloat16"
    for layer in model._flatten_layers():
        if isinstance(layer, Float32Layer):
            assert layer.compute_dtype == "float32", layer.name
    outputs = [*model.outputs, *model.training_graph.outputs]
    assert {one.dtype for one in outputs} == {"float32", "int32"}
    x = model.preprocessor.batch([shapes(4, size=256)[3].image])
    boxes = np.asarray(model(x)["boxes"])
    rounded = np.asarray(keras.ops.cast(keras.ops.cast(boxes, "bfloat16"), "float32"))
    assert np.abs(boxes - rounded).max() > 0.1  # what bfloat16 would have made of them


@pytest.mark.parametrize("name", [HALVES[0], pytest.param(HALVES[1], marks=pytest.mark.slow)])
def test_a_preset_finds_the_same_objects(name):
    photo = demo_photos()[0][1]
    expected = keras_rcnn.from_preset("nuclei_frcnn", dtype="float32").detect(photo, score=0.5)
    model = keras_rcnn.from_preset("nuclei_frcnn", dtype=name)
    assert model.parts["backbone"].compute_dtype == name
    assert keras.config.dtype_policy().name == "float32"
    found = model.detect(photo, score=0.4)
    overlap = np.asarray(iou(expected["boxes"], found["boxes"])).max(axis=1)
    assert len(overlap) > 10 and (overlap > 0.8).mean() > 0.9


def test_a_recipe_with_another_precision_is_refused_before_its_data_is_read(tmp_path):
    settings = {"train": {"coco": "nowhere.json", "images": "nowhere"}, "precision": "int8"}
    with pytest.raises(RecipeError, match="precision = 'int8'"):
        train(settings, tmp_path)


@pytest.mark.parametrize("name", ["half", "int8", "", 16])
def test_other_precisions_are_refused(name):
    with pytest.raises(ValueError, match="there are float32, bfloat16, float16"):
        keras_rcnn.from_preset("nuclei_frcnn", dtype=name)


@pytest.mark.parametrize(
    ("name", "units", "accelerator", "said"),
    [
        ("bfloat16", False, False, "no units for bfloat16"),
        ("bfloat16", True, False, ""),
        ("bfloat16", None, False, ""),
        ("bfloat16", False, True, ""),
        ("float16", True, False, "no fast float16"),
        ("float16", True, True, ""),
        ("float32", False, False, ""),
    ],
)
def test_a_warning_where_fewer_bits_are_slower(name, units, accelerator, said, monkeypatch, caplog):
    monkeypatch.setattr(precision, "bfloat16_units", lambda: units)
    monkeypatch.setattr(precision, "_has_accelerator", lambda: accelerator)
    with caplog.at_level(logging.WARNING, "keras_rcnn"), precision.precision(name):
        pass
    assert (said in caplog.text) if said else not caplog.text


def test_units_are_read_from_cpuinfo():
    assert precision.bfloat16_units() in (True, False, None)
