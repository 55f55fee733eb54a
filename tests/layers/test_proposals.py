"""Anchors and proposals against their twins in tests/reference.py."""

import numpy as np
import pytest

from keras_rcnn.layers import AnchorGenerator, Proposals, RPNHead
from tests import reference
from tests.layers.run import close, random_boxes, run

SIZES = np.array([[96, 128], [70, 90]], np.float32)


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("image", [(64, 96), (70, 99)])  # the second's strides are rounded down
def test_anchors(rounded, image):
    sizes, ratios, maps = ((16, 22.5), (40, 64)), (0.5, 1.0, 3.0), ((4, 6), (2, 3))
    layer = AnchorGenerator(sizes, ratios, rounded=rounded)
    assert layer.num_anchors == 6
    features = [np.zeros((1, *m, 5), np.float32) for m in maps]
    ours = run(layer, features, np.zeros((1, *image, 3), np.float32))
    for level, size, shape in zip(ours, sizes, maps, strict=True):
        expected = reference.anchors(size, ratios, shape, image, rounded)
        close(level, expected, 1e-5)


def test_anchors_of_a_map_that_was_rounded_up():
    """ZF has 39 cells for 600 px and 51 for 800, each of 16 px."""
    features, images = [np.zeros((1, 39, 51, 1), np.float32)], np.zeros((1, 600, 800, 3), np.float32)
    (found,) = AnchorGenerator([[128]], (1.0,), strides=(16,))(features, images)
    centres = (np.asarray(found)[:, :2] + np.asarray(found)[:, 2:]) / 2
    np.testing.assert_array_equal(centres[[0, 1, 51, -1]], [[0, 0], [16, 0], [0, 16], [800, 608]])


def test_anchors_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="2 strides for 1 lists"):
        AnchorGenerator([[16]], strides=(4, 8))
    with pytest.raises(ValueError, match="same number of anchor sizes"):
        _ = AnchorGenerator([[16, 32], [64]]).num_anchors
    with pytest.raises(ValueError, match="2 lists of anchor sizes for 1 "):
        AnchorGenerator([[16], [32]])([np.zeros((1, 4, 4, 3), np.float32)], np.zeros((1, 64, 64, 3), np.float32))


def test_outputs_of_the_head_stand_in_the_order_of_the_anchors():
    """Row by row, a cell's anchors innermost, an anchor's four deltas together."""
    head = RPNHead(2, convs=1)
    features = [np.random.default_rng(0).random((2, 2, 3, 4)).astype(np.float32), np.ones((2, 1, 2, 4), np.float32)]
    run(head, features)
    one_by_one = np.zeros((1, 1, 4, 2), np.float32)
    one_by_one[0, 0, 0] = [1, 0]  # the first anchor's logit is the first channel
    middle = np.zeros((3, 3, 4, 4), np.float32)
    middle[1, 1] = np.eye(4)
    head.convs[0].set_weights([middle, np.zeros(4, np.float32)])
    head.objectness.set_weights([one_by_one, np.float32([0, 7])])
    head.deltas.set_weights([np.zeros((1, 1, 4, 8), np.float32), np.arange(8, dtype=np.float32)])
    logits, deltas = run(head, features)
    expected = [[v for row in image for cell in row for v in (cell[0], 7)] for image in features[0]]
    close(logits[0], expected, 1e-6)
    close(deltas[0], np.tile(np.arange(8).reshape(2, 4), (2, 6, 1)), 1e-6)
    assert logits[1].shape == (2, 4)


def outputs(rng, counts=(60, 12), images=2):
    """Anchors, logits and deltas of levels with so many anchors; some deltas are beyond the clamp of exp."""
    anchors = [random_boxes(rng, n) for n in counts]
    logits = [rng.normal(0, 2, (images, n)).astype(np.float32) for n in counts]
    deltas = [rng.normal(0, 0.3, (images, n, 4)).astype(np.float32) for n in counts]
    deltas[0][:, ::9, 2:] = 6
    return anchors, logits, deltas


def check_proposals(layer, anchors, logits, deltas, sizes, training=False):
    boxes, scores = run(layer, anchors, logits, deltas, sizes, training=training)
    pre, post = layer.pre_nms[0 if training else 1], layer.post_nms[0 if training else 1]
    for i in range(len(sizes)):
        levels = [(a, z[i], d[i]) for a, z, d in zip(anchors, logits, deltas)]
        expected = reference.proposals(
            levels, sizes[i], pre, post, layer.iou_threshold, layer.score_threshold, layer.min_size
        )
        close(scores[i], expected[1], 1e-5)
        close(boxes[i], expected[0], 1e-3)
    return boxes, scores


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"pre_nms": (40, 20), "post_nms": (25, 10)},
        {"pre_nms": (500, 300), "post_nms": (200, 100)},  # more than there are
        {"pre_nms": (40, 20), "post_nms": (25, 10), "iou_threshold": 0.3},
        {"pre_nms": (40, 20), "post_nms": (25, 10), "score_threshold": 0.6, "min_size": 16.0},
    ],
    ids=str,
)
def test_proposals(settings, training):
    found = outputs(np.random.default_rng(1))
    boxes, scores = check_proposals(Proposals(**settings), *found, SIZES, training)
    assert (scores[:, 0] > 0).all()
    assert (np.diff(scores) <= 0).all()
    assert (boxes[scores == 0] == 0).all()
    if settings["post_nms"][0] == 200:
        assert (scores[:, -1] == 0).all()


def test_levels_do_not_suppress_each_other():
    anchors = [np.array([[0, 0, 20, 20], [0, 0, 20, 21]], np.float32), np.array([[0, 0, 20, 20]], np.float32)]
    logits = [np.array([[2, 1]], np.float32), np.array([[0]], np.float32)]
    deltas = [np.zeros((1, 2, 4), np.float32), np.zeros((1, 1, 4), np.float32)]
    boxes, _ = check_proposals(Proposals((5, 5), (4, 4)), anchors, logits, deltas, SIZES[:1])
    np.testing.assert_array_equal(boxes[0], [[0, 0, 20, 20], [0, 0, 20, 20], [0] * 4, [0] * 4])


def test_nothing_is_left_to_propose():
    anchors, logits, deltas = outputs(np.random.default_rng(2))
    outside = [a + 1000 for a in anchors]  # clipped to boxes without area
    still = [np.zeros_like(d) for d in deltas]
    boxes, scores = check_proposals(Proposals((40, 20), (25, 10)), outside, logits, still, SIZES)
    assert (boxes == 0).all()
    assert (scores == 0).all()
    strict = Proposals((40, 20), (25, 10), score_threshold=1.0)
    boxes, scores = check_proposals(strict, anchors, logits, deltas, SIZES)
    assert (boxes == 0).all()
    assert (scores == 0).all()


def test_an_objectness_of_zero_is_still_a_proposal():
    """A sigmoid of -200 is 0 in float32, which is not padding."""
    anchors, deltas = [np.array([[0, 0, 20, 20], [40, 0, 60, 20]], np.float32)], [np.zeros((1, 2, 4), np.float32)]
    boxes, _ = check_proposals(
        Proposals((5, 5), (3, 3)), anchors, [np.array([[1, -200]], np.float32)], deltas, SIZES[:1]
    )
    np.testing.assert_array_equal(boxes[0], [[0, 0, 20, 20], [40, 0, 60, 20], [0] * 4])
