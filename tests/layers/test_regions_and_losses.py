"""Features of regions, and losses, against their twins in tests/reference.py."""

import math

import numpy as np
import pytest
from keras import ops

from keras_rcnn.layers import BoxLoss, MaskLoss, RoIAlign, RoIPool, RPNLoss
from tests import reference
from tests.layers.run import close, random_boxes, run


def maps(rng, strides, height=96, width=128, channels=3):
    return [rng.normal(size=(2, height // s, width // s, channels)).astype(np.float32) for s in strides]


def regions(rng):
    """Regions of all sizes, one without area, and padding."""
    small, large = random_boxes(rng, 2, 4, largest=20), random_boxes(rng, 2, 4, smallest=40, largest=120)
    return np.concatenate([small, large + np.float32(0.3), np.zeros((2, 1, 4), np.float32)], axis=1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("strides", "samples", "size"), [((4, 8, 16), 2, 3), ((16,), 1, 4)])
def test_roi_align(strides, samples, size, aligned):
    rng = np.random.default_rng(1)
    features, boxes = maps(rng, strides), regions(rng)
    layer = RoIAlign(size, strides, samples, aligned, canonical_size=40, canonical_level=3)
    spare = [np.zeros((2, 1, 1, 3), np.float32)]  # a level that is left alone
    ours = run(layer, features + spare, boxes)
    levels = []
    for i in range(2):
        for r, box in enumerate(boxes[i]):
            lowest, highest = int(math.log2(strides[0])), int(math.log2(strides[-1]))
            level = reference.level(box, lowest, highest, 40, 3) - lowest
            levels.append(level)
            expected = reference.roi_align(features[level][i], box, 1 / strides[level], size, samples, aligned)
            close(ours[i, r], expected)
    assert len(set(levels)) == len(strides)


def test_roi_pool():
    rng = np.random.default_rng(2)
    (features,), boxes = maps(rng, (8,)), regions(rng)
    ours = run(RoIPool(3, (8,)), [features], boxes)
    for i in range(2):
        for r, box in enumerate(boxes[i]):
            close(ours[i, r], reference.roi_pool(features[i], box, 1 / 8, 3), 1e-6)


@pytest.mark.parametrize("layer", [RoIAlign(3, (8, 16)), RoIPool(3, (8,))], ids=lambda layer: layer.name)
def test_features_keep_their_dtype(layer):
    features = [ops.ones((1, n, n, 2), "bfloat16") for n in (8, 4)]
    pooled = layer(features, np.array([[[0, 0, 40, 40]]], np.float32))
    assert pooled.dtype == "bfloat16"


# === Losses: one an image; their mean is the batch's ===


def rpn_outputs(rng, labels=None):
    logits = [rng.normal(0, 3, (2, n)).astype(np.float32) for n in (12, 6)]
    deltas = [rng.normal(0, 0.5, (2, n, 4)).astype(np.float32) for n in (12, 6)]
    labels = rng.integers(-1, 2, (2, 18)).astype(np.int32) if labels is None else labels
    return logits, deltas, labels, rng.normal(0, 0.5, (2, 18, 4)).astype(np.float32)


@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_rpn_loss(beta):
    logits, deltas, labels, targets = rpn_outputs(np.random.default_rng(4))
    joined = np.concatenate(logits, 1), np.concatenate(deltas, 1), labels, targets
    cls, box, sampled = reference.rpn_losses(*joined, beta)
    ours = run(RPNLoss(beta, box_weight=2.0), logits, deltas, labels, targets, num_anchors=3)
    close(ours["loss_objectness"].mean(), cls / sampled)
    close(ours["loss_rpn_box_reg"].mean(), 2 * box / sampled)
    ours = run(RPNLoss(beta, "paper"), logits, deltas, labels, targets, num_anchors=3)
    for i in range(2):  # each image by its own samples, and by its 6 locations; lambda is 10
        cls, box, sampled = reference.rpn_losses(*(v[i : i + 1] for v in joined), beta)
        close(ours["loss_objectness"][i], cls / sampled)
        close(ours["loss_rpn_box_reg"][i], 10 * box / 6)


@pytest.mark.parametrize("boxes", [1, 4])
def test_box_loss(boxes):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (2, 12, 5)).astype(np.float32)
    deltas, targets = rng.normal(size=(2, 12, boxes, 4)), rng.normal(size=(2, 12, 4))
    labels = rng.integers(-1, 5, (2, 12)).astype(np.int32)
    deltas, targets = deltas.astype(np.float32), targets.astype(np.float32)
    ours = run(BoxLoss(0.5), logits, deltas, {"labels": labels, "deltas": targets})
    cls, box, count = reference.box_losses(logits, deltas, labels, targets, 0.5)
    close(ours["loss_classifier"].mean(), cls / count)
    close(ours["loss_box_reg"].mean(), box / count)


@pytest.mark.parametrize("classes", [1, 4])
def test_mask_loss(classes):
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 3, (2, 6, 4, 4, classes)).astype(np.float32)
    labels = np.array([[0, 3, 2, -1, -1, -1], [1, -1, -1, -1, -1, -1]], np.int32)
    targets = {"labels": labels, "masks": rng.random((2, 6, 4, 4)).astype(np.float32)}
    ours = run(MaskLoss(), logits, targets)["loss_mask"]
    close(ours.mean(), reference.mask_loss(logits, labels, targets["masks"]))


def test_losses_of_nothing_are_zero():
    rng = np.random.default_rng(7)
    nothing = np.full((2, 18), -1, np.int32)
    logits, deltas, labels, targets = rpn_outputs(rng, nothing)
    for kind in ("sampled", "paper"):
        ours = run(RPNLoss(normalisation=kind), logits, deltas, labels, targets, num_anchors=3)
        assert all((value == 0).all() for value in ours.values())
    box = {"labels": nothing[:, :3], "deltas": np.zeros((2, 3, 4), np.float32)}
    ours = run(BoxLoss(), np.ones((2, 3, 5), np.float32), np.ones((2, 3, 4, 4), np.float32), box)
    assert all((value == 0).all() for value in ours.values())
    mask = {"labels": nothing[:, :3], "masks": np.zeros((2, 3, 4, 4), np.float32)}
    assert (run(MaskLoss(), np.ones((2, 3, 4, 4, 5), np.float32), mask)["loss_mask"] == 0).all()


def test_rpn_loss_refuses_an_unknown_normalisation():
    with pytest.raises(ValueError, match="'sampled', 'paper' or 'fixed', not 'mean'"):
        RPNLoss(normalisation="mean")
