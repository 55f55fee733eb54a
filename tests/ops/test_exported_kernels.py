"""The kernels of exported graphs answer as those of the backend do."""

import keras
import numpy as np
import pytest

from keras_rcnn.ops import nms, roi
from keras_rcnn.ops.backend import kernels_for

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports are made by TensorFlow")


def boxes_and_scores(classes, count=60, shared=False):
    rng = np.random.default_rng(classes)
    corner = rng.uniform(0, 60, (1, count, 1 if shared else classes, 2))
    size = rng.uniform(0, 40, corner.shape)
    size[:, :5] = 0  # boxes without area
    boxes = np.float32(np.concatenate([corner, corner + size], -1))
    scores = np.float32(rng.uniform(0, 1, (1, count, classes)))
    scores[:, 10:20] = -1  # padding
    return boxes, scores


def ours(function, *args):
    with kernels_for("onnx"):
        return [np.asarray(one) for one in function(*args)]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("most", [20, 200])
def test_multiclass_nms(classes, shared, most):
    boxes, scores = boxes_and_scores(classes, shared=shared)
    args = (boxes, scores, 0.3, 0.2, 15, most)
    for one, other in zip(ours(nms.multiclass_nms, *args), nms.multiclass_nms(*args), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_scores_rank_by_index():
    boxes, scores = boxes_and_scores(2)
    scores[scores > 0.5] = 1.0
    args = (boxes[..., :1, :], scores[..., :1], 0.3, 0.2, 50, 50)
    for one, other in zip(ours(nms.multiclass_nms, *args), nms.portable_multiclass_nms(*args), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_to_keep():
    boxes, scores = boxes_and_scores(2)
    boxes, scores, classes = ours(nms.multiclass_nms, boxes, scores * 0, 0.5, 0.1, 10, 10)
    assert not boxes.any() and not scores.any() and (classes == -1).all()


def test_nms_of_one_set():
    boxes, scores = boxes_and_scores(1)
    args = (boxes[0, :, 0], scores[0, :, 0], 0.4, 30)
    index, count = ours(nms.nms, *args)
    expected, valid = nms.nms(*args)
    assert count == valid
    np.testing.assert_array_equal(index[:count], np.asarray(expected)[: int(valid)])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_roi_align(samples, aligned):
    rng = np.random.default_rng(samples)
    maps = [rng.standard_normal((1, 96 // s, 64 // s, 5)).astype(np.float32) for s in (4, 8, 16)]
    corner = rng.uniform(-20, 100, (1, 40, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(0, 60, corner.shape)], -1))
    levels = rng.integers(0, 3, (1, 40)).astype(np.int32)
    args = (maps, boxes, levels, [1 / 4, 1 / 8, 1 / 16], 5, samples, aligned)
    with kernels_for("litert"):
        found = roi.multilevel_roi_align(*args)
    np.testing.assert_allclose(found, roi.portable_multilevel_roi_align(*args), atol=2e-6)


@pytest.mark.parametrize("shape", [(24, 16), (9, 40), (3, 3)])
def test_roi_pool(shape):
    rng = np.random.default_rng(shape[0])
    features = rng.standard_normal((1, *shape, 5)).astype(np.float32) - 1
    corner = rng.uniform(-40, 400, (1, 60, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(0, 500, corner.shape)], -1))
    boxes[0, :3] = [[0, 0, 0, 0], [0, 0, 40 * 16, 40 * 16], [-300, -300, -200, -200]]
    expected = roi.roi_pool(features, boxes, 1 / 16, 7)
    (found,) = ours(lambda: [roi.roi_pool(features, boxes, 1 / 16, 7)])
    np.testing.assert_array_equal(found, expected)


def test_the_kernels_are_chosen_in_the_block_alone():
    from keras_rcnn.ops.backend import exported, kernel, tensorflow

    def portable():
        raise AssertionError

    with pytest.raises(KeyError), kernels_for("onnx"):
        assert kernel("multilevel_roi_align", portable) is exported.multilevel_roi_align
        raise KeyError
    assert kernel("multilevel_roi_align", portable) is tensorflow.multilevel_roi_align
    assert kernel("no such kernel", portable) is portable
