"""GIoU, focal and class-balanced losses of the box head, against the papers' formulas in numpy."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.layers import BoxLoss, ClassLoss
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops import losses
from tests.layers.run import close, random_boxes, run

B, R, K = 2, 6, 3


def inputs(seed=0, agnostic=False):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (B, R, K + 1)).astype(np.float32)
    deltas = rng.normal(0, 1, (B, R, 1 if agnostic else K, 4)).astype(np.float32)
    labels = np.array([[0, 2, 1, K, K, -1], [1, K, K, K, -1, -1]], np.int32)
    regions = random_boxes(rng, B, R)
    regions[labels < 0] = 0
    truth = regions + rng.integers(-3, 4, regions.shape).astype(np.float32)
    positive = (labels >= 0) & (labels < K)
    encoded = np.asarray(delta_ops.encode(truth, regions, (10.0, 10.0, 5.0, 5.0)))
    targets = {"labels": labels, "deltas": np.where(positive[..., None], encoded, 0), "boxes": regions}
    return logits, deltas, targets, truth, positive


def giou(one, other):
    """Rezatofighi et al. 2019, algorithm 2."""
    inter = np.prod([max(min(one[i + 2], other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1)])
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    union = area(one) + area(other) - inter
    hull = np.prod([max(one[i + 2], other[i + 2]) - min(one[i], other[i]) for i in (0, 1)])
    return inter / union - (hull - union) / hull


def moved(delta, region):
    x1, y1, x2, y2 = region
    width, height = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + delta[0] / 10 * width, (y1 + y2) / 2 + delta[1] / 10 * height
    width, height = width * math.exp(delta[2] / 5), height * math.exp(delta[3] / 5)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


@pytest.mark.parametrize("agnostic", [False, True])
def test_giou_loss(agnostic):
    logits, deltas, targets, truth, positive = inputs(agnostic=agnostic)
    ours = run(BoxLoss(regression="giou", box_weight=10.0), logits, deltas, targets)["loss_box_reg"]
    sums = np.zeros(B)
    for i, j in zip(*np.nonzero(positive)):
        own = deltas[i, j, 0 if agnostic else targets["labels"][i, j]]
        sums[i] += 1 - giou(moved(own, targets["boxes"][i, j]), truth[i, j])
    close(ours.mean(), 10 * sums.sum() / (targets["labels"] >= 0).sum())
    close(ours, 10 * sums * B / (targets["labels"] >= 0).sum())


def test_perfect_boxes_cost_nothing_and_padding_has_no_gradient():
    logits, deltas, targets, _, positive = inputs(agnostic=True)
    perfect = targets["deltas"][:, :, None]
    close(run(BoxLoss(regression="giou"), logits, perfect, targets)["loss_box_reg"], 0, 1e-5)
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for values in (deltas, np.full_like(deltas, 100), np.zeros_like(deltas)):
        values = tf.constant(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = ops.sum(BoxLoss(regression="giou")(logits, values, targets)["loss_box_reg"])
        gradient = tape.gradient(loss, values).numpy()
        assert np.isfinite(gradient).all() and not gradient[~positive].any()


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.5, 1.0)])
def test_focal_and_weighted_classification(gamma, weights):
    logits, deltas, targets, _, _ = inputs()
    labels, probabilities = targets["labels"], softmax(logits.astype(float))
    sums = np.zeros(B)
    for i, j in zip(*np.nonzero(labels >= 0)):
        p = probabilities[i, j, labels[i, j]]
        sums[i] -= (weights or [1] * 4)[labels[i, j]] * (1 - p) ** gamma * math.log(p)
    expected = sums * B / (labels >= 0).sum()
    settings = {"focal_gamma": gamma, "class_weights": weights}
    close(run(BoxLoss(**settings), logits, deltas, targets)["loss_classifier"], expected)
    close(run(ClassLoss(**settings), logits, targets)["loss_classifier"], expected)


def test_focal_loss_of_two_classes_is_the_sigmoids():
    logits = np.random.default_rng(0).normal(0, 3, (50,)).astype(np.float32)
    both = np.stack([logits, np.zeros_like(logits)], axis=-1)
    targets = np.arange(50) % 2
    sigmoid = losses.sigmoid_focal(logits, targets.astype(np.float32), alpha=0.5)
    close(losses.softmax_focal(both, 1 - targets), np.asarray(sigmoid) * 2)


def test_sure_regions_have_finite_gradients():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("by TensorFlow's tape")
    import tensorflow as tf

    logits = tf.constant([[200.0, 0.0], [-200.0, 0.0]])
    for gamma in (0.5, 1.0, 2.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = ops.sum(losses.softmax_focal(logits, np.array([0, 0]), gamma))
        assert np.isfinite(tape.gradient(loss, logits)).all() and np.isfinite(loss)


def test_class_balanced_weights_are_the_papers():
    counts = np.array([5000, 500, 5, 0])
    for beta in (0.0, 0.9, 0.999):
        effective = np.array([sum(beta**i for i in range(n)) for n in counts[:3]])  # eq. 2 as a sum
        expected = 1 / effective
        expected *= 3 / expected.sum()
        close(losses.class_balanced_weights(counts, beta)[:3], expected)
        assert losses.class_balanced_weights(counts, beta)[3] == 1
    assert losses.class_balanced_weights([0, 0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="beta"):
        losses.class_balanced_weights([1, 2], 1.0)


def test_options_are_kept():
    made = BoxLoss(0.5, "giou", 10.0, 2.0, [1.0, 2.0], (1.0, 1.0, 1.0, 1.0))
    assert BoxLoss.from_config(made.get_config()).get_config() == made.get_config()
    with pytest.raises(ValueError, match="regression is 'smooth_l1' or 'giou', not 'l2'"):
        BoxLoss(regression="l2")
