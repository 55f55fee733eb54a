"""Keypoints as heatmaps: cells, loss and decoding against slow twins of Detectron2's rules."""

import math

import numpy as np
import pytest
from keras import ops

from keras_rcnn.ops.keypoints import SAMPLES, decode_heatmaps, keypoint_cells, keypoint_loss

CELLS = 14


def cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def weights(n, cells):
    """Bicubic resize of `cells` to n px along an axis, written out: [n, cells]."""
    answer = np.zeros((n, cells))
    for px in range(n):
        source = (px + 0.5) * cells / n - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            answer[px, min(max(tap, 0), cells - 1)] += cubic(source - tap)
    return answer


def decoded(logits, boxes):
    """`decode_heatmaps` px by px, in float64."""
    answer = np.zeros((len(boxes), logits.shape[-1], 3))
    for i, (x1, y1, x2, y2) in enumerate(boxes):  # how many px there are is rounded in float32
        w, h = max(float(x2 - x1), 1), max(float(y2 - y1), 1)
        columns, rows = math.ceil(w), math.ceil(h)
        for k in range(logits.shape[-1]):
            cells = logits[i, :, :, k].astype(float)
            resized = weights(rows, len(cells)) @ cells @ weights(columns, len(cells)).T
            row, column = np.unravel_index(resized.argmax(), resized.shape)
            score = 1 / np.exp(cells - resized.max()).sum()
            answer[i, k] = (column + 0.5) * w / columns + x1, (row + 0.5) * h / rows + y1, score
    return answer


@pytest.mark.parametrize("smooth", [False, True])
def test_decoding(smooth):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((8, CELLS // 2, CELLS // 2, 2) if smooth else (8, CELLS, CELLS, 2), np.float32)
    if smooth:
        logits = np.asarray(ops.image.resize(logits, (CELLS, CELLS), interpolation="bilinear"))
    # smaller than a px, fewer px than cells, as many as are looked at, far more than that
    sides = [
        [0.4, 3],
        [6.5, 9],
        [CELLS, 2],
        [SAMPLES, SAMPLES],
        [SAMPLES + 0.5, 40],
        [300, 411.3],
        [420, 7],
        [90, 250.1],
    ]
    corner = rng.uniform(0, 30, (8, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    ours = np.asarray(decode_heatmaps(logits[None], boxes[None], 500))[0]
    np.testing.assert_allclose(ours, decoded(logits, boxes), atol=2e-4)


def test_flat_maps_and_padding():
    boxes = np.float32([[[10, 20, 40, 30], [0, 0, 0, 0]]])
    points = np.asarray(decode_heatmaps(np.zeros((1, 2, CELLS, CELLS, 2), np.float32), boxes, 64))
    np.testing.assert_allclose(points[0, 0], [[10.5, 20.5, 1 / CELLS**2]] * 2, rtol=1e-5)
    assert not points[0, 1].any()


def test_cells():
    boxes = np.float32([[[10, 20, 38, 48], [10, 20, 38, 48], [0, 0, 0, 0]]])
    keypoints = np.zeros((1, 3, 4, 3), np.float32)
    # the first cell, the last one by the edges, hidden but annotated, none; then outside, and a region of no size
    keypoints[0, 0] = [[10, 20, 2], [38, 48, 2], [11.99, 22, 1], [12, 22, 0]]
    keypoints[0, 1] = [[9.9, 30, 2], [38.1, 30, 2], [30, 48.01, 2], [37.9, 20, 2]]
    cells, used = map(np.asarray, keypoint_cells(keypoints, boxes, CELLS))
    assert cells[0, 0].tolist()[:3] == [0, CELLS * CELLS - 1, CELLS]
    assert used[0].tolist() == [[True, True, True, False], [False, False, False, True], [False] * 4]
    assert cells[0, 1, 3] == CELLS - 1


def test_loss_is_divided_by_the_keypoints_of_the_batch():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((2, 3, 4, 4, 2), np.float32)
    cells = rng.integers(0, 16, (2, 3, 2)).astype(np.int32)
    used = np.array([[[1, 0], [0, 0], [1, 1]], [[0, 0], [0, 1], [0, 0]]], bool)
    total = 0.0
    for b, r, k in np.argwhere(used):
        heat = logits[b, r, :, :, k].astype(float).ravel()
        total += np.log(np.exp(heat).sum()) - heat[cells[b, r, k]]
    losses = np.asarray(keypoint_loss(logits, cells, used))
    assert losses.mean() == pytest.approx(total / 4, rel=1e-5)
    assert not np.asarray(keypoint_loss(logits, cells, np.zeros_like(used))).any()
