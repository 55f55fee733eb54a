"""The targets against their twins in tests/reference.py; `shuffle=False` samples the first candidates."""

import time

import numpy as np
import pytest

from keras_rcnn.layers import BoxTargets, MaskTargets, RPNTargets
from tests import reference
from tests.layers.run import close, ground_truth, random_boxes, run

# a fraction of a pixel, so that no anchor of whole pixels ends exactly at the image's edge
SIZES = np.array([[96.5, 128.5], [80.5, 100.5], [96.5, 128.5]], np.float32)


def jittered(rng, boxes, copies, most=8):
    """Boxes [B, G * copies, 4] near those given."""
    near = np.repeat(boxes, copies, axis=1)
    moved = near + rng.integers(-most, most + 1, near.shape)
    moved[..., 2:] = np.maximum(moved[..., 2:], moved[..., :2] + 1)
    return moved.astype(np.float32)


# === RPN ===


def check_rpn_targets(anchors, boxes, labels, sizes, **settings):
    ours, deltas = run(RPNTargets(shuffle=False, **settings), anchors, boxes, labels, sizes)
    settings = {"foreground": 0.7, "background": 0.3, "count": 256, "positive_fraction": 0.5, **settings}
    for i in range(len(boxes)):
        expected = reference.rpn_targets(np.concatenate(anchors), boxes[i], labels[i], sizes[i], **settings)
        np.testing.assert_array_equal(ours[i], expected[0])
        close(deltas[i], expected[1])
    return ours


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 24},
        {"count": 24, "positive_fraction": 0.25, "foreground": 0.4, "background": 0.2},
        {"count": 500},  # more than there are anchors
        {"count": 24, "border": 0},
        {"count": 24, "border": 6},
        {"count": 40, "guard": False},
        {"count": 40, "guard": False, "border": 0},
        {"count": 10, "positive_fraction": 0.0},
        {"count": 10, "positive_fraction": 1.0},
    ],
    ids=str,
)
def test_rpn_targets(settings):
    rng = np.random.default_rng(1)
    boxes, labels = ground_truth(rng)
    anchors = [np.concatenate([random_boxes(rng, 60), jittered(rng, boxes, 3, 4)[0]]), random_boxes(rng, 30)]
    ours = check_rpn_targets(anchors, boxes, labels, SIZES, **settings)
    assert (ours[2] != 1).all()  # no object there
    if settings.get("positive_fraction") != 0.0:
        assert (ours[0] == 1).any()
    if settings.get("border") == 0:
        every = np.concatenate(anchors)
        crosses = (every[:, :2] < 0).any(1) | (every[:, 2:] > SIZES[0, ::-1]).any(1)
        assert crosses.any()
        assert (ours[0, crosses] == -1).all()


def test_rpn_targets_where_all_ground_truth_is_padding():
    anchors = [random_boxes(np.random.default_rng(2), 20)]
    boxes, labels = np.zeros((2, 3, 4), np.float32), np.full((2, 3), -1, np.int32)
    ours = check_rpn_targets(anchors, boxes, labels, SIZES[:2], count=8)
    assert (ours[:, :8] == 0).all()
    assert (ours[:, 8:] == -1).all()


def test_rpn_targets_where_every_anchor_crosses_the_border():
    anchors = [np.array([[-5, 10, 30, 40], [70, 60, 90, 101]], np.float32)]
    boxes, labels = np.array([[[0, 10, 30, 40]]], np.float32), np.array([[1]], np.int32)
    ours = check_rpn_targets(anchors, boxes, labels, np.array([[100, 100]], np.float32), border=0)
    assert (ours == -1).all()


def test_a_box_that_overlaps_no_anchor_makes_none_positive():
    anchors = [np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)]
    labels, size = np.array([[0, 1]], np.int32), np.array([[100, 100]], np.float32)
    far = np.array([[[80, 80, 90, 90], [20, 0, 30, 14]]], np.float32)
    np.testing.assert_array_equal(check_rpn_targets(anchors, far, labels, size), [[0, 1, 0]])
    alone = np.array([[[80, 80, 90, 90], [0, 0, 0, 0]]], np.float32)
    nothing = np.array([[0, -1]], np.int32)
    np.testing.assert_array_equal(check_rpn_targets(anchors, alone, nothing, size), [[0, 0, 0]])
    # torchvision: all of them
    np.testing.assert_array_equal(check_rpn_targets(anchors, alone, nothing, size, guard=False), [[1, 1, 1]])
    # touching an edge is no overlap
    beside = np.array([[[10, 0, 20, 10], [0, 0, 0, 0]]], np.float32)
    np.testing.assert_array_equal(check_rpn_targets(anchors, beside, nothing, size), [[0, 0, 0]])
    empty = np.array([[[5, 5, 5, 5], [20, 0, 30, 14]]], np.float32)
    np.testing.assert_array_equal(check_rpn_targets(anchors, empty, labels, size), [[0, 1, 0]])


def test_rpn_ties():
    # both anchors are the best of the first box, with an IoU of 1/3; the third lies between two boxes evenly
    anchors = [np.array([[0, 0, 20, 20], [20, 0, 40, 20], [60, 0, 80, 20]], np.float32)]
    boxes = np.array([[[10, 0, 30, 20], [65, 0, 85, 20], [55, 0, 75, 20]]], np.float32)
    labels, size = np.array([[0, 1, 2]], np.int32), np.array([[100, 100]], np.float32)
    ours = check_rpn_targets(anchors, boxes, labels, size)
    np.testing.assert_array_equal(ours, [[1, 1, 1]])
    _, deltas = run(RPNTargets(shuffle=False), anchors, boxes, labels, size)
    close(deltas[0, :, 0], [0.5, -0.5, 0.25])  # the third takes the first of the two


# === Box head ===


def check_box_targets(proposals, boxes, labels, **settings):
    ours = run(BoxTargets(4, shuffle=False, **settings), proposals, boxes, labels)
    settings = {
        "count": 512,
        "positive_fraction": 0.25,
        "foreground": 0.5,
        "background": (0.0, 0.5),
        "add_truth": True,
        "weights": (10.0, 10.0, 5.0, 5.0),
        **settings,
    }
    for i in range(len(boxes)):
        expected = reference.box_targets(proposals[i], boxes[i], labels[i], num_classes=4, **settings)
        np.testing.assert_array_equal(ours["labels"][i], expected["labels"])
        np.testing.assert_array_equal(ours["boxes"][i], expected["boxes"])
        positive = expected["truth"] >= 0
        np.testing.assert_array_equal(ours["truth"][i][positive], expected["truth"][positive])
        close(ours["deltas"][i], expected["deltas"])
    assert (ours["truth"] >= 0).all()  # an index that can be gathered, everywhere
    assert (ours["truth"] < labels.shape[1]).all()
    return ours


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 16},
        {"count": 200},  # more than there are regions
        {"count": 16, "background": (0.1, 0.5)},
        {"count": 16, "background": (0.1, 0.5), "add_truth": False},
        {"count": 40, "add_truth": False, "positive_fraction": 0.5, "weights": (1.0, 1.0, 1.0, 1.0)},
        {"count": 40, "foreground": 0.7, "background": (0.0, 0.3)},
        {"count": 3, "positive_fraction": 0.25},  # no room for a positive
    ],
    ids=str,
)
def test_box_targets(settings):
    rng = np.random.default_rng(3)
    boxes, labels = ground_truth(rng)
    proposals = np.concatenate([random_boxes(rng, 3, 20), jittered(rng, boxes, 4)], axis=1)
    proposals = rng.permutation(proposals, axis=1)
    proposals[:, 30:] = 0
    proposals[1, ::3] = 0
    ours = check_box_targets(proposals, boxes, labels, **settings)
    assert (ours["labels"][2] != 0).all()
    if settings["count"] > 3:
        assert ((ours["labels"][0] >= 0) & (ours["labels"][0] < 4)).any()
    if settings["count"] == 200:
        assert (ours["labels"] == -1).any()


def test_box_targets_without_ground_truth():
    proposals = random_boxes(np.random.default_rng(4), 1, 10)
    boxes, labels = np.zeros((1, 3, 4), np.float32), np.full((1, 3), -1, np.int32)
    np.testing.assert_array_equal(check_box_targets(proposals, boxes, labels, count=6)["labels"], [[4] * 6])
    # with the paper's lower bound, a region that overlaps nothing is not background either
    ours = check_box_targets(proposals, boxes, labels, count=6, background=(0.1, 0.5))
    np.testing.assert_array_equal(ours["labels"], [[-1] * 6])


def test_box_targets_without_proposals():
    boxes, labels = ground_truth(np.random.default_rng(5))
    nothing = np.zeros((3, 7, 4), np.float32)
    ours = check_box_targets(nothing, boxes, labels, count=8)
    np.testing.assert_array_equal((ours["labels"] >= 0).sum(1), [2, 2, 0])  # ground truth, a quarter of the regions
    ours = check_box_targets(nothing, boxes, labels, count=8, add_truth=False)
    assert (ours["labels"] == -1).all()
    assert (ours["boxes"] == 0).all()
    assert (ours["deltas"] == 0).all()


def test_box_ties():
    boxes = np.array([[[0, 0, 20, 20], [0, 0, 20, 20], [4, 0, 24, 20]]], np.float32)
    proposals = np.array([[[2, 0, 22, 20], [0, 0, 20, 20]]], np.float32)
    labels = np.array([[3, 1, 2]], np.int32)
    ours = check_box_targets(proposals, boxes, labels, count=4, positive_fraction=1.0, add_truth=False)
    np.testing.assert_array_equal(ours["labels"], [[3, 3, -1, -1]])


@pytest.mark.parametrize("seed", [None, 7])
def test_a_random_sample_is_as_large_and_of_the_same_candidates(seed):
    rng = np.random.default_rng(6)
    boxes, labels = ground_truth(rng)
    anchors = np.concatenate([random_boxes(rng, 60), jittered(rng, boxes, 3, 3)[0]])
    every, _ = run(RPNTargets(count=1000, shuffle=False), [anchors], boxes, labels, SIZES)
    layer = RPNTargets(count=12, seed=seed)
    first, second = (run(layer, [anchors], boxes, labels, SIZES)[0] for _ in range(2))
    for ours in (first, second):
        assert (every[ours >= 0] == ours[ours >= 0]).all()
        np.testing.assert_array_equal((ours >= 0).sum(1), 12)
        np.testing.assert_array_equal((ours == 1).sum(1), np.minimum((every == 1).sum(1), 6))
    assert (first != second).any()
    again = run(RPNTargets(count=12, seed=seed), [anchors], boxes, labels, SIZES)[0]
    assert (again == first).all() == (seed is not None)
    proposals = jittered(rng, boxes, 6, 6)
    ours = run(BoxTargets(4, count=12, seed=seed), proposals, boxes, labels)
    labels_of_all = check_box_targets(proposals, boxes, labels, count=500)["labels"]
    np.testing.assert_array_equal((ours["labels"] == 4).sum(1), np.minimum((labels_of_all == 4).sum(1), [9, 9, 12]))
    assert (np.diff((ours["labels"] >= 0) & (ours["labels"] < 4), axis=1).sum(1) <= 1).all()  # positives come first


# === Masks ===


def sampled(regions, labels, truth):
    return {
        "boxes": np.array([regions], np.float32),
        "labels": np.array([labels], np.int32),
        "deltas": np.zeros((1, len(labels), 4), np.float32),
        "truth": np.array([truth], np.int32),
    }


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mask_targets(dtype):
    rng = np.random.default_rng(8)
    boxes, labels = ground_truth(rng, images=2)
    masks = (rng.random((2, 5, 24, 20)) < 0.5).astype(dtype)
    regions = run(BoxTargets(4, 16, shuffle=False), jittered(rng, boxes, 3), boxes, labels)
    ours = run(MaskTargets(4, 6, size=5), regions, masks, boxes)
    np.testing.assert_array_equal(ours["boxes"], regions["boxes"][:, :6])
    positive = regions["labels"][:, :6] < 4
    assert positive.any()
    assert not positive.all()
    np.testing.assert_array_equal(ours["labels"], np.where(positive, regions["labels"][:, :6], -1))
    for i, r in np.argwhere(positive & (ours["labels"] >= 0)):
        g = regions["truth"][i, r]
        close(ours["masks"][i, r], reference.mask_target(masks[i, g], boxes[i, g], regions["boxes"][i, r], 5))
    assert np.isfinite(ours["masks"]).all()


def test_an_edge_of_a_mask_stays_where_it_is():
    """A mask whose right half is 1, in a crop of 112 px of a box of 448: the edge is in the middle of the target."""
    mask = np.zeros((1, 1, 112, 112), np.uint8)
    mask[..., 56:] = 1
    frame = np.array([[[0, 0, 448, 448]]], np.float32)
    region = sampled([(0, 0, 448, 448)], [0], [0])
    edge = run(MaskTargets(1, 1, size=28), region, mask, frame)["masks"][0, 0, 14, 12:16]
    close(edge, [0, 0, 1, 1])
    # torchvision's are half a pixel of the image, 1/32 of a bin here, farther left
    theirs = run(MaskTargets(1, 1, size=28, aligned=False), region, mask, frame)["masks"][0, 0, 14, 12:16]
    close(theirs.sum(), 2 + 1 / 32)


def test_masks_of_rectangles_are_cut_like_an_array():
    """Whole-image masks and regions of 8 px a bin: the nearest value of a target is the plain crop's."""
    rectangles = [(16, 8, 48, 72), (0, 0, 96, 96), (40, 24, 88, 40)]
    masks = np.zeros((1, 3, 96, 96), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks[0], rectangles):
        mask[y1:y2, x1:x2] = 1
    frames = np.tile(np.float32([0, 0, 96, 96]), (1, 3, 1))
    regions = [(8, 8, 64, 64), (24, 16, 80, 72), (32, 0, 88, 56), (0, 40, 56, 96)]
    truth = [0, 1, 2, 0]
    ours = run(MaskTargets(4, 4, size=7), sampled(regions, [0, 1, 2, 3], truth), masks, frames)["masks"][0]
    for target, (x1, y1, x2, y2), g in zip(ours, regions, truth):
        np.testing.assert_array_equal(target > 0.5, masks[0, g, y1:y2:8, x1:x2:8] == 1)


def test_a_mask_in_its_frame_is_the_mask_in_the_image():
    """The frame moves and scales a mask; beyond it there is nothing."""
    masks = np.ones((1, 1, 16, 16), np.uint8)
    frames = np.array([[[100, 40, 140, 120]]], np.float32)
    regions = [(100, 40, 140, 120), (60, 40, 140, 120), (100, 80, 140, 160), (200, 40, 240, 120)]
    ours = run(MaskTargets(1, 4, size=4), sampled(regions, [0] * 4, [0] * 4), masks, frames)["masks"][0] > 0.5
    assert ours[0].all()
    np.testing.assert_array_equal(ours[1], np.tile([False, False, True, True], (4, 1)))
    np.testing.assert_array_equal(ours[2], np.tile([[True], [True], [False], [False]], (1, 4)))
    assert not ours[3].any()


@pytest.mark.parametrize("side", [1.0, 0.1, 0.0])
def test_a_region_that_is_not_positive_costs_no_time(side):
    """Cut out of its ground truth's tiny frame, it would be sampled once for each of 800 / side cells."""
    masks = np.ones((1, 2, 28, 28), np.uint8)
    frames = np.array([[[0, 0, side, side], [10, 10, 50, 50]]], np.float32)
    regions = sampled([(10, 10, 50, 50), (0, 0, 800, 800), (0, 0, 0, 0)], [1, 4, -1], [1, 0, 0])
    layer = MaskTargets(4, 3, size=28)
    run(layer, regions, masks, frames + 10)  # what is done only once
    start = time.process_time()
    ours = run(layer, regions, masks, frames)
    assert time.process_time() - start < 2
    np.testing.assert_array_equal(ours["labels"], [[1, -1, -1]])
    np.testing.assert_array_equal(ours["masks"][0, 0], np.ones((28, 28)))
    assert np.isfinite(ours["masks"]).all()
