"""Cascade R-CNN: what its stages look at, learn and say, and that it is a detector as any other."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn import layers
from keras_rcnn.evaluation import evaluate
from keras_rcnn.layers.cascade import MeanScores, RefinedBoxes, ScaledGradient
from keras_rcnn.models import truncate_box_head
from keras_rcnn.presets import from_preset, save_preset
from tests.layers.run import run
from tests.models.test_fast_rcnn import fast_rcnn
from tests.models.test_mask_rcnn import tiny_mask_rcnn
from tests.models.tiny import batch, shapes, tiny_detector

BUILD = {"faster": tiny_detector, "mask": tiny_mask_rcnn, "fast": fast_rcnn}


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def cascade(kind="faster", **changes):
    return BUILD[kind](**{"cascade": layers.Cascade(), "box_predictor": None, **changes})


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


# === Its parts ===


def test_refined_boxes_are_clipped_constants():
    regions = np.float32([[[10, 10, 30, 50], [0, 0, 0, 0]]])
    deltas = np.float32([[[[2, 0, 0, 0]], [[1, 1, 1, 1]]]])  # a tenth of the side for weights 20
    layer = RefinedBoxes((20.0, 20.0, 10.0, 10.0))
    boxes = numpy(layer(regions, deltas, np.float32([[40, 31]])))
    np.testing.assert_allclose(boxes, [[[12, 10, 31, 40], [0, 0, 0, 0]]], atol=1e-5)


def test_mean_scores_are_those_of_the_probabilities():
    logits = [np.random.default_rng(i).normal(0, 20, (2, 5, 4)).astype(np.float32) for i in range(3)]
    mean = numpy(ops.softmax(MeanScores()(logits)))
    np.testing.assert_allclose(mean, np.mean([numpy(ops.softmax(one)) for one in logits], axis=0), atol=1e-6)
    sure = [np.float32([[[300.0, -300.0]]]), np.float32([[[-300.0, 300.0]]])]
    np.testing.assert_allclose(numpy(ops.softmax(MeanScores()(sure))), [[[0.5, 0.5]]], atol=1e-6)


def test_the_layers_announce_what_they_return():
    regions, deltas = np.zeros((2, 3, 4), "float32"), np.zeros((2, 3, 1, 4), "float32")
    run(RefinedBoxes((1.0,) * 4), regions, deltas, np.ones((2, 2), "float32"))
    run(MeanScores(), [np.zeros((2, 3, 5), "float32")] * 3)
    run(ScaledGradient(0.5), np.ones((2, 3, 4, 4, 2), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's gradients")
def test_the_gradient_is_scaled_in_training_alone():
    import tensorflow as tf

    x, layer = tf.Variable([1.5, -2.0]), ScaledGradient(1 / 3)
    for training, expected in ((True, 1 / 3), (False, 1.0)):
        with tf.GradientTape() as tape:
            y = layer(x, training=training)
        np.testing.assert_allclose(y, x, rtol=1e-6)
        np.testing.assert_allclose(tape.gradient(y, x), [expected] * 2, rtol=1e-6)


def test_what_is_no_cascade_is_refused():
    with pytest.raises(ValueError, match="1 ious and 2 stage_weights"):
        layers.Cascade(ious=(0.6,))
    with pytest.raises(ValueError, match="class_agnostic=True"):
        cascade(box_predictor=layers.BoxPredictor(2))
    taken = cascade().parts["cascade"]
    with pytest.raises(ValueError, match="another number of classes"):
        cascade(num_classes=3, cascade=taken)
    with pytest.raises(ValueError, match="box_loss is a BoxLoss, not a ClassLoss"):
        cascade(box_loss=layers.ClassLoss())


# === Its stages ===


def nodes(model, name, place):
    """A layer's outputs in the inference graph (0) or in the training graph (-1)."""
    graph = model.training_graph if place else model
    (layer,) = [one for one in graph.layers if one.name == name]
    outputs = layer._inbound_nodes[place].output_tensors
    return outputs if len(outputs) > 1 else outputs[0]


def test_scores_are_the_mean_of_the_stages_and_boxes_the_last_ones():
    model = cascade(decoder=layers.DetectionDecoder(score_threshold=0.0, iou_threshold=1.0))
    predictors = [model.parts["box_predictor"], *model.parts["cascade"].predictors]
    for i, predictor in enumerate(predictors):
        for weight in predictor.weights:
            weight.assign(np.random.default_rng(i).normal(0, 0.5, weight.shape))
    logits = [nodes(model, predictor.name, 0)[0] for predictor in predictors]
    stages = keras.Model(model.input, [*logits, nodes(model, "refined_boxes_2", 0)])
    x, _ = batch(1)
    *logits, boxes = map(numpy, stages(x))
    found = {key: numpy(value) for key, value in model(x).items()}
    mean = np.mean([numpy(ops.softmax(one))[0, :, :2] for one in logits], axis=0)
    mean[(boxes[0, :, 2:] - boxes[0, :, :2]).min(-1) < 0.01] = 0  # the decoder leaves them out
    region, label = np.unravel_index(mean.argmax(), mean.shape)
    assert found["scores"][0, 0] == pytest.approx(mean.max(), abs=1e-6)
    assert found["labels"][0, 0] == label
    np.testing.assert_allclose(found["boxes"][0, 0], boxes[0, region], atol=1e-3)


def test_each_stage_labels_the_boxes_of_the_one_before():
    model = cascade()
    names = ["box_targets", "box_targets_1", "box_targets_2"]
    targets = [dict(zip(("boxes", "deltas", "labels", "truth"), nodes(model, name, -1), strict=True)) for name in names]
    x, y = batch()
    graph = {f"{key}_{i}": value for i, own in enumerate(targets) for key, value in own.items()}
    out = keras.Model(model.training_graph.input, graph)({**x, **y}, training=True)
    out = {key: numpy(value) for key, value in out.items()}
    for i, iou in ((1, 0.6), (2, 0.7)):
        boxes, labels = out[f"boxes_{i}"], out[f"labels_{i}"]
        overlap = iou_of(boxes[0], y["boxes"][0, :2])
        there = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        expected = np.where(overlap.max(1) >= iou, y["labels"][0][overlap.argmax(1)], 2)
        np.testing.assert_array_equal(labels[0], np.where(there[0], expected, -1))
        np.testing.assert_array_equal(labels[1], np.where(there[1], 2, -1))  # a photo without objects
        assert there.sum() == (out["labels_0"] >= 0).sum()  # nothing is sampled, and nothing added


def iou_of(boxes, others):
    low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(one[:, 2:] - one[:, :2], axis=-1) for one in (boxes, others)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def test_losses_have_their_stages_names():
    model = cascade(box_loss=layers.BoxLoss(regression="giou"))
    x, y = batch()
    losses = {key: numpy(value) for key, value in model.training_graph({**x, **y}, training=True).items()}
    ours = {f"loss_{kind}{stage}" for kind in ("classifier", "box_reg") for stage in ("", "_stage1", "_stage2")}
    assert set(losses) == ours | {"loss_objectness", "loss_rpn_box_reg"}
    assert all(value.shape == (2,) and np.isfinite(value).all() for value in losses.values())


# === As any other detector ===


@pytest.mark.parametrize("kind", BUILD)
def test_config_and_preset(kind, tmp_path):
    model = cascade(kind, class_names=["square", "bar"])
    config = json.loads(json.dumps(model.get_config()))
    assert [w.path for w in type(model).from_config(config).weights] == [w.path for w in model.weights]
    assert {w.path for w in model.training_graph.weights} <= {w.path for w in model.weights} | {
        w.path for w in model.training_graph.weights if "seed" in w.path
    }
    kept = from_preset(save_preset(model, tmp_path / "kept", dtype="float32"))
    for ours, theirs in zip(model.weights, kept.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    other = from_preset(tmp_path / "kept", class_names=["bar", "ring", "square"])
    for i, predictor in enumerate(model.parts["cascade"].predictors):
        new = other.parts["cascade"].predictors[i]
        kernel, was = numpy(new.logits.kernel), numpy(predictor.logits.kernel)
        np.testing.assert_array_equal(kernel[:, [0, 2, 3]], was[:, [1, 0, 2]])
        np.testing.assert_array_equal(numpy(new.deltas.kernel), numpy(predictor.deltas.kernel))


@pytest.mark.slow
def test_it_learns_and_evaluates():
    data = shapes(8)
    model = cascade()
    model.compile(keras.optimizers.Adam(2e-3))
    batches = data.batches(model.preprocessor, batch_size=4, shuffle=True)
    history = model.fit(batches, epochs=60, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert history["loss_classifier_stage2"][-1] < history["loss_classifier_stage2"][0]
    assert evaluate(model, data, progress=False)["bbox"]["AP50"] > 0.5


def test_every_stage_is_truncated():
    model = cascade(box_head=layers.BoxHead((16,)))
    small = truncate_box_head(model, (8,))
    heads = [[one.parts["box_head"], *one.parts["cascade"].heads] for one in (model, small)]
    for whole, low in zip(*heads, strict=True):
        kernel, product = numpy(whole.fcs[0].kernel), numpy(low.factors[0].kernel) @ numpy(low.fcs[0].kernel)
        values = np.linalg.svd(kernel, compute_uv=False)
        assert np.linalg.norm(kernel - product) == pytest.approx(np.sqrt((values[8:] ** 2).sum()), rel=1e-3)
    assert model.count_params() - small.count_params() == 3 * (800 * 16 - 8 * 816)
