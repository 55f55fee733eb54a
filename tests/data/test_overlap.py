"""IoU in NumPy: by hand, with inclusive pixels, and equal to the tensors'."""

import numpy as np
from keras import ops

from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.ops import boxes as box_ops


def test_by_hand():
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20]]
    expected = [[1, 50 / 150, 0], [50 / 150, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), expected, rtol=1e-12)


def test_inclusive_pixels_by_hand():
    shared, union = 5 * 10, 10 * 10 + 10 * 10 - 5 * 10
    np.testing.assert_allclose(pairwise_iou([[0, 0, 9, 9]], [[5, 0, 14, 9]], inclusive=True), [[shared / union]])


def test_tensors_and_arrays_agree():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 200, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 90, (60, 2))], axis=1).astype(np.float32)
    boxes[:3] = 0  # padding
    boxes[3:5, 2] = boxes[3:5, 0]  # no width
    on_tensors = ops.convert_to_numpy(box_ops.iou(boxes[:40], boxes[20:]))
    on_arrays = pairwise_iou(boxes[:40], boxes[20:])
    assert on_arrays.max() == 1 and (on_arrays == 0).any() and on_arrays.shape == (40, 40)
    np.testing.assert_allclose(on_tensors, on_arrays, atol=2e-6)
