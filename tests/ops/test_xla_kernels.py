"""The kernels of compiled graphs answer as their portable twins do."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.ops import nms, roi
from keras_rcnn.ops.backend import xla
from tests.ops.compiled import compiled


def boxes_and_scores(count, classes, shared=False, images=2, tied=False, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (images, count, 1 if shared else classes, 2))
    size = rng.uniform(0, 40, corner.shape)
    size[:, :5] = 0  # boxes without area
    boxes = np.float32(np.concatenate([corner, corner + size], -1))
    scores = np.float32(rng.uniform(0, 1, (images, count, classes)))
    if tied:
        scores = np.float32(np.round(scores * 4) / 4)
    scores[:, 10:20] = -1  # padding
    return boxes, scores


@pytest.mark.parametrize(
    ("shared", "tied"),
    [(False, True), (True, False), *(pytest.param(one, one, marks=pytest.mark.slow) for one in (False, True))],
)
@pytest.mark.parametrize(("count", "classes", "per_class", "most"), [(60, 1, 50, 50), (60, 4, 7, 20), (600, 2, 9, 99)])
def test_multiclass_nms(count, classes, per_class, most, shared, tied):
    boxes, scores = boxes_and_scores(count, classes, shared, tied=tied)
    args = (boxes, scores, 0.3, 0.2, per_class, most)
    found = compiled(nms.multiclass_nms)(*args)
    expected = nms.portable_multiclass_nms(*map(ops.convert_to_tensor, args[:2]), nms.float32_below(0.3), *args[3:])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_to_keep():
    boxes, scores = boxes_and_scores(30, 2)
    boxes, scores, classes = map(np.asarray, compiled(nms.multiclass_nms)(boxes, scores * 0, 0.5, 0.1, 10, 10))
    assert not boxes.any() and not scores.any() and (classes == -1).all()


def chain(count):
    """Boxes in a row, each of which overlaps the next alone: every second one stays, and each hangs on the one before.
    Nothing takes more rounds."""
    left = np.arange(count, dtype=np.float32) * 5
    boxes = np.stack([left, np.zeros_like(left), left + 9, np.full_like(left, 10)], axis=1)
    return boxes, np.linspace(1, 0.5, count, dtype=np.float32)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_a_long_chain_of_boxes_that_suppress_one_another(count):
    boxes, scores = chain(count)
    index, kept = compiled(nms.nms)(boxes, scores, 0.2, count)
    assert int(kept) == (count + 1) // 2
    np.testing.assert_array_equal(np.asarray(index)[: int(kept)], np.arange(0, count, 2))


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_the_answer_does_not_depend_on_the_tiles(tile, monkeypatch):
    boxes, scores = boxes_and_scores(150, 1, images=1)
    boxes, scores = boxes[0, :, 0], scores[0, :, 0]
    expected = [np.asarray(one) for one in nms.portable_nms(*map(ops.convert_to_tensor, (boxes, scores)), 0.4, 40)]
    monkeypatch.setattr(xla, "_TILE", tile)
    for one, other in zip(compiled(nms.nms)(boxes, scores, 0.4, 40), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_roi_align(samples, aligned):
    rng = np.random.default_rng(samples)
    maps = [rng.standard_normal((2, 96 // s, 64 // s, 5)).astype(np.float32) for s in (4, 8, 16)]
    corner = rng.uniform(-20, 100, (2, 40, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(0, 60, corner.shape)], -1))
    levels = rng.integers(0, 3, (2, 40)).astype(np.int32)
    args = (maps, boxes, levels, [1 / 4, 1 / 8, 1 / 16], 5, samples, aligned)
    found = compiled(roi.multilevel_roi_align)(*args)
    np.testing.assert_allclose(found, roi.portable_multilevel_roi_align(*args), atol=1e-5)


def test_roi_align_keeps_half_precision_and_sums_in_float32():
    rng = np.random.default_rng(0)
    maps = [ops.cast(rng.standard_normal((1, 16, 16, 4)), "bfloat16")]
    boxes, levels = np.float32([[[3, 4, 60, 50]]]), np.zeros((1, 1), np.int32)
    found = compiled(lambda boxes, levels: roi.multilevel_roi_align(maps, boxes, levels, [0.25], 7))(boxes, levels)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    wide = [ops.cast(one, "float32") for one in maps]
    expected = ops.convert_to_numpy(roi.portable_multilevel_roi_align(wide, boxes, levels, [0.25], 7, 2, False))
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32")), expected, rtol=2**-8)  # one rounding


def test_roi_pool_has_no_kernel_of_its_own():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 9, 12, 5)).astype(np.float32)
    corner = rng.uniform(-20, 150, (2, 12, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(0, 90, corner.shape)], -1))
    expected = roi.portable_roi_pool(ops.convert_to_tensor(features), ops.convert_to_tensor(boxes), 1 / 16, (7, 7))
    np.testing.assert_array_equal(compiled(roi.roi_pool)(features, boxes, 1 / 16, 7), expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles everything")
def test_the_kernels_are_chosen_by_what_is_traced():
    import tensorflow as tf

    from keras_rcnn.ops.backend import kernel, tensorflow

    def portable():
        raise AssertionError

    seen = {}

    def look(name):
        seen[name] = kernel("nms", portable)
        return tf.constant(0)

    tf.function(lambda: look("plain"))()
    tf.function(lambda: look("compiled"), jit_compile=True)()
    tf.function(lambda: tf.function(lambda: look("inner"))(), jit_compile=True)()
    tf.function(lambda: tf.function(lambda: look("nested"), jit_compile=True)())()
    tf.function(lambda: tf.while_loop(lambda i: i < 1, lambda i: i + 1 + look("loop"), [0]), jit_compile=True)()
    look("eager")
    xla_runs = {name for name, function in seen.items() if function is xla.nms}
    assert xla_runs == {"compiled", "inner", "nested", "loop"}
    assert seen["plain"] is seen["eager"] is tensorflow.nms
