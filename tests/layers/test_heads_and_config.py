"""Shapes of the heads, and configs with every argument changed at once, None and names included, through json.

tests/test_architecture.py changes one number at a time, and compares configs only after json has made tuples lists.
"""

import json

import keras
import numpy as np
import pytest

from keras_rcnn import layers
from tests.layers.run import close, run


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_box_predictor(class_agnostic):
    layer = layers.BoxPredictor(3, class_agnostic)
    x = features(2, 5, 6)
    logits, deltas = run(layer, x)
    assert logits.shape == (2, 5, 4)
    assert deltas.shape == (2, 5, 1 if class_agnostic else 3, 4)
    layer.deltas.bias.assign(np.arange(layer.boxes * 4))
    layer.logits.bias.assign([0, 0, 0, 9])  # background is the last
    logits, deltas = run(layer, np.zeros_like(x))
    assert (logits.argmax(-1) == 3).all()
    close(deltas[0, 0], np.arange(layer.boxes * 4).reshape(-1, 4), 1e-6)  # a class's four together


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_mask_head(class_agnostic, norm):
    layer = layers.MaskHead(3, (8, 4), 6, norm, class_agnostic)
    x = features(2, 5, 4, 4, 7)
    logits = run(layer, x)
    assert logits.shape == (2, 5, 8, 8, 1 if class_agnostic else 3)
    assert ("mask_head/conv_0_bn/gamma" in {w.path for w in layer.weights}) == (norm == "batch")
    close(run(layer, x[1:, 2:3])[0, 0], logits[1, 2])  # a region does not see the others


def test_default_mask_head_names_its_weights():
    layer = layers.MaskHead(3)
    layer.build((None, None, 14, 14, 256))
    names = [*(f"conv_{i}" for i in range(4)), "deconv", "logits"]
    assert [w.path for w in layer.weights] == [f"mask_head/{n}/{v}" for n in names for v in ("kernel", "bias")]


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("convs", [(), (4, 6)])
def test_box_head(convs, norm):
    layer = layers.BoxHead((9, 8), convs, norm, dropout=0.5)
    x = features(2, 5, 3, 3, 4)
    vectors = run(layer, x)
    assert vectors.shape == (2, 5, 8)
    close(run(layer, x[1:, 2:3])[0, 0], vectors[1, 2])
    if not norm:
        assert (run(layer, x, training=True) == 0).mean() > (vectors == 0).mean()  # dropout


def test_rpn_head_has_the_same_weights_at_every_level():
    layer = layers.RPNHead(3, convs=2, channels=5)
    x = features(1, 4, 6, 4)
    logits, deltas = run(layer, [x, x[:, ::2], x])
    assert [z.shape for z in logits] == [(1, 72), (1, 36), (1, 72)]
    assert deltas[1].shape == (1, 36, 4)
    close(logits[0], logits[2], 1e-6)
    assert [v.shape[-1] for v in layer.trainable_variables] == [5, 5, 5, 5, 3, 3, 12, 12]


# === Configs ===

EVERY_ARGUMENT = [
    (
        layers.AnchorGenerator,
        {
            "sizes": ((16, 22.5), (32, 45)),
            "aspect_ratios": (0.5, 2.0),
            "rounded": False,
            "strides": (4, 8),
            "order": "sizes",
        },
    ),
    (layers.RPNHead, {"num_anchors": 6, "convs": 2, "channels": 8}),
    (
        layers.Proposals,
        {
            "pre_nms": (50, 20),
            "post_nms": (30, 10),
            "iou_threshold": 0.6,
            "score_threshold": 0.1,
            "min_size": 2.0,
            "ranked_by": "logits",
        },
    ),
    (
        layers.RPNTargets,
        {
            "foreground": 0.6,
            "background": 0.2,
            "count": 32,
            "positive_fraction": 0.25,
            "border": 0,
            "guard": False,
            "shuffle": False,
            "seed": 3,
        },
    ),
    (
        layers.BoxTargets,
        {
            "num_classes": 3,
            "count": 16,
            "positive_fraction": 0.5,
            "foreground": 0.6,
            "background": (0.1, 0.6),
            "add_truth": False,
            "weights": (1.0, 2.0, 3.0, 4.0),
            "shuffle": True,
            "seed": 4,
        },
    ),
    (layers.MaskTargets, {"num_classes": 3, "count": 8, "size": 14, "aligned": False, "binary": True}),
    (
        layers.DetectionDecoder,
        {
            "score_threshold": 0.2,
            "iou_threshold": 0.3,
            "max_detections": 7,
            "min_size": 1.0,
            "weights": (1.0, 2.0, 3.0, 4.0),
            "soft_nms": "linear",
            "sigma": 0.4,
        },
    ),
    (layers.MaskDecoder, {}),
    (layers.GivenProposals, {"clip": True, "most": (20, 10)}),
    (
        layers.RoIAlign,
        {
            "size": 5,
            "strides": (8, 16),
            "samples": 1,
            "aligned": True,
            "canonical_size": 112,
            "canonical_level": 3,
            "level_rule": "detectron2",
        },
    ),
    (layers.RoIPool, {"size": 3, "strides": (8,)}),
    (layers.BoxHead, {"units": (8,), "convs": (4,), "norm": "batch", "dropout": 0.5, "ranks": (3,)}),
    (layers.BoxPredictor, {"num_classes": 3, "class_agnostic": True}),
    (layers.MaskHead, {"num_classes": 3, "convs": (4,), "channels": 5, "norm": "batch", "class_agnostic": True}),
    (layers.FPN, {"channels": 8, "in_features": ("C3", "C4"), "top": "convs", "norm": "batch"}),
    (layers.SingleLevel, {"in_feature": "C5"}),
    (layers.RPNLoss, {"beta": 0.5, "normalisation": "fixed", "box_weight": 3.0, "count": 64}),
    (
        layers.BoxLoss,
        {
            "beta": 0.5,
            "regression": "giou",
            "box_weight": 10.0,
            "focal_gamma": 2.0,
            "class_weights": (1.0, 0.5),
            "weights": (1.0, 2.0, 3.0, 4.0),
        },
    ),
    (layers.MaskLoss, {}),
]


@pytest.mark.parametrize(("cls", "arguments"), EVERY_ARGUMENT, ids=lambda one: getattr(one, "__name__", ""))
def test_every_argument_goes_through_json(cls, arguments):
    made = cls(**arguments, name="other", trainable=False)
    config = made.get_config()
    assert {key: config[key] for key in arguments} == arguments
    assert set(config) - {"dtype"} == {*arguments, "name", "trainable"}
    again = cls.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config  # with its tuples
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    assert saved["registered_name"] == f"keras_rcnn>{cls.__name__}"
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is cls
    assert again.get_config() == config


def test_an_absent_argument_stays_absent():
    for layer in (
        layers.RPNHead(3),
        layers.RPNTargets(),
        layers.BoxHead(),
        layers.MaskHead(2),
        layers.FPN(top=None),
    ):
        config = json.loads(json.dumps(layer.get_config()))
        assert None in config.values()
        assert type(layer).from_config(config).get_config() == layer.get_config()


def test_geometry_is_float32_under_any_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        decoder, targets = layers.DetectionDecoder(max_detections=2), layers.BoxTargets(1, 4, shuffle=False)
    finally:
        keras.config.set_dtype_policy(before)
    exact = np.array([[[1001, 3, 1301, 203]]], np.float32)  # which bfloat16 cannot say
    size, logits = np.array([[2000, 2000]], np.float32), np.array([[[4, 0]]], np.float32)
    found = run(decoder, logits, np.zeros((1, 1, 1, 4), np.float32), exact, size)
    np.testing.assert_array_equal(found["boxes"][:, :1], exact)
    sampled = run(targets, exact, exact, np.zeros((1, 1), np.int32))
    np.testing.assert_array_equal(sampled["boxes"][:, :1], exact)


def test_a_layers_own_precision_is_that_of_its_sublayers():
    x = np.ones((1, 2, 3, 3, 4), np.float32)
    found = layers.BoxHead((4,), convs=(4,), dtype="mixed_bfloat16")(x)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    head = layers.MaskHead(2, convs=(4,), channels=4, dtype="mixed_bfloat16")
    head(x)
    assert {one.compute_dtype for one in (*head.convs, head.deconv)} == {"bfloat16"}
    assert head.logits.compute_dtype == "float32"  # as the last layers of all heads


def test_foreground_below_background_is_refused():
    with pytest.raises(ValueError, match="foreground=0.3"):
        layers.BoxTargets(2, foreground=0.3)
