"""The two homes of IoU agree: NumPy's and the tensors'."""

import numpy as np

from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.ops import boxes as box_ops


def test_iou_is_that_of_tensors():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (2, 40, 4))
    a, b = np.concatenate([corners[..., :2], corners[..., :2] + corners[..., 2:]], axis=-1)
    a[0] = b[0] = [3, 3, 3, 3]  # without area
    np.testing.assert_allclose(pairwise_iou(a, b), np.asarray(box_ops.iou(np.float32(a), np.float32(b))), atol=1e-6)
    assert pairwise_iou(np.zeros((0, 4)), b).shape == (0, 40)


def test_a_last_pixel_that_belongs_to_the_box():
    assert pairwise_iou([[0, 0, 1, 1]], [[1, 1, 2, 2]], inclusive=True) == 1 / 7
    assert pairwise_iou([[0, 0, 1, 1]], [[1, 1, 2, 2]]) == 0
