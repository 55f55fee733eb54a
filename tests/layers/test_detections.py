"""The decoders against their twins in tests/reference.py."""

import numpy as np
import pytest

from keras_rcnn.layers import DetectionDecoder, MaskDecoder
from tests import reference
from tests.layers.run import close, random_boxes, run

SIZES = np.array([[96, 128], [70, 90]], np.float32)


def outputs(rng, regions=30, classes=4, agnostic=False):
    """Logits, deltas and proposals of two images; the last proposals are padding, and some deltas huge."""
    logits = rng.normal(0, 2, (2, regions, classes + 1)).astype(np.float32)
    deltas = rng.normal(0, 1, (2, regions, 1 if agnostic else classes, 4)).astype(np.float32)
    deltas[:, ::7, :, 2:] = 40
    proposals = np.maximum(random_boxes(rng, 2, regions), 0)
    proposals[0, -4:] = proposals[1, -1:] = 0
    return logits, deltas, proposals


def check_detections(layer, logits, deltas, proposals, sizes=SIZES):
    ours = run(layer, logits, deltas, proposals, sizes)
    for i in range(len(logits)):
        boxes, scores, labels = reference.detections(
            logits[i],
            deltas[i],
            proposals[i],
            sizes[i],
            layer.score_threshold,
            layer.iou_threshold,
            layer.max_detections,
            layer.min_size,
            layer.weights_of_deltas,
        )
        np.testing.assert_array_equal(ours["labels"][i], labels)
        close(ours["scores"][i], scores, 1e-5)
        close(ours["boxes"][i], boxes, 1e-3)
    return ours


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_detections": 12},
        {"max_detections": 300},  # more than there are
        {"max_detections": 300, "min_size": 0.0},  # padding is no detection all the same
        {"max_detections": 40, "score_threshold": 0.0, "iou_threshold": 0.2},
        {"max_detections": 12, "min_size": 20.0, "weights": (1.0, 1.0, 1.0, 1.0)},
    ],
    ids=str,
)
def test_detections(settings, agnostic):
    found = outputs(np.random.default_rng(1), agnostic=agnostic)
    ours = check_detections(DetectionDecoder(**settings), *found)
    assert (ours["labels"][:, 0] >= 0).all()
    if settings["max_detections"] == 300:
        assert (ours["labels"][:, -1] == -1).all()


def test_a_single_class():
    check_detections(DetectionDecoder(max_detections=20), *outputs(np.random.default_rng(2), classes=1))


@pytest.mark.parametrize("why", ["no proposals", "background", "threshold"])
def test_nothing_is_detected(why):
    logits, deltas, proposals = outputs(np.random.default_rng(3))
    if why == "no proposals":
        proposals = np.zeros_like(proposals)
    elif why == "background":
        logits[..., -1] = 30
    threshold = 1.0 if why == "threshold" else 0.05
    ours = check_detections(DetectionDecoder(threshold, max_detections=9), logits, deltas, proposals)
    assert (ours["labels"] == -1).all()
    assert (ours["scores"] == 0).all()
    assert (ours["boxes"] == 0).all()


def test_a_score_at_the_threshold_is_dropped_and_nms_keeps_to_its_class():
    logits = np.array([[[0, 0, -200], [0, 0, -200], [1, 0, -200]]], np.float32)
    proposals = np.array([[[0, 0, 20, 20], [60, 0, 80, 20], [0, 0, 20, 21]]], np.float32)
    deltas = np.zeros((1, 3, 2, 4), np.float32)
    ours = check_detections(DetectionDecoder(0.5, max_detections=5), logits, deltas, proposals, SIZES[:1])
    np.testing.assert_array_equal(ours["labels"], [[0, -1, -1, -1, -1]])  # two classes of 0.5 are not above it
    logits[0, 0] = [3, 2, -200]
    ours = check_detections(
        DetectionDecoder(0.05, max_detections=5), logits, deltas, proposals[:, [0, 0, 2]], SIZES[:1]
    )
    assert sorted(ours["labels"][0]) == [-1, -1, -1, 0, 1]


@pytest.mark.parametrize("classes", [1, 4])
def test_masks(classes):
    """`classes` maps are four, or one for all."""
    rng = np.random.default_rng(4)
    detections = {
        "boxes": random_boxes(rng, 2, 6),
        "scores": rng.random((2, 6)).astype(np.float32),
        "labels": np.array([[0, 3, 2, 1, -1, -1], [-1] * 6], np.int32),
    }
    logits = rng.normal(0, 3, (2, 6, 5, 5, classes)).astype(np.float32)
    ours = run(MaskDecoder(), detections, logits)
    for i in range(2):
        close(ours["masks"][i], reference.detected_masks(logits[i], detections["labels"][i]), 1e-5)
    for key, value in detections.items():
        np.testing.assert_array_equal(ours[key], value)
