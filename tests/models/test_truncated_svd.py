"""Truncated SVD of the box head against numpy, and what `compare` says of it."""

import keras
import numpy as np
import pytest

from keras_rcnn.evaluation import compare
from keras_rcnn.models import truncate_box_head
from tests.models.test_fast_rcnn import around, fast_rcnn
from tests.models.tiny import shapes, tiny_detector


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return tiny_detector()


def kernels(model):
    """The product of each fully connected layer's kernels, and its bias."""
    head = model.parts["box_head"]
    for factor, fc in zip(head.factors, head.fcs, strict=True):
        kernel = np.asarray(fc.kernel)
        yield (np.asarray(factor.kernel) @ kernel if factor else kernel), np.asarray(fc.bias)


def test_the_best_approximation(model):
    small = truncate_box_head(model, (12,))
    (whole, bias), (low, kept) = next(kernels(model)), next(kernels(small))
    u, s, v = np.linalg.svd(whole, full_matrices=False)
    np.testing.assert_allclose(low, (u[:, :12] * s[:12]) @ v[:12], atol=1e-5)
    assert np.linalg.matrix_rank(low) == 12
    # Eckart and Young: the error is the singular values left out
    np.testing.assert_allclose(np.linalg.norm(whole - low), np.sqrt((s[12:] ** 2).sum()), rtol=1e-4)
    np.testing.assert_array_equal(bias, kept)
    inputs, units = whole.shape
    assert model.count_params() - small.count_params() == inputs * units - 12 * (inputs + units)
    assert [w.path for w in type(small).from_config(small.get_config()).weights] == [w.path for w in small.weights]


def test_a_layer_of_low_rank_loses_nothing(model):
    fc = model.parts["box_head"].fcs[0]
    u, s, v = np.linalg.svd(np.asarray(fc.kernel), full_matrices=False)
    before = fc.kernel.numpy() if hasattr(fc.kernel, "numpy") else np.asarray(fc.kernel)
    fc.kernel.assign((u[:, :20] * s[:20]) @ v[:20])
    image = shapes(1)[0].image
    a, b = (one.detect(image, score=0.0) for one in (model, truncate_box_head(model, (20,))))
    np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1e-2)
    np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-4)
    fc.kernel.assign(before)


def test_what_cannot_be_truncated(model):
    with pytest.raises(ValueError, match="2 ranks for the 1"):
        truncate_box_head(model, (12, 12))
    with pytest.raises(ValueError, match=r"800 x 64: a rank of 1 to 59 saves"):
        truncate_box_head(model, (60,))
    with pytest.raises(ValueError, match="no BoxHead of whole layers"):
        truncate_box_head(truncate_box_head(model, (12,)), (5,))
    whole = truncate_box_head(model, (None,))
    assert whole.count_params() == model.count_params()


def test_compare(model):
    data = shapes(2)
    rows = compare(
        {"faster": model, "fast": fast_rcnn()}, data, proposals=around(data), timed=1, rounds=1, progress=False
    )
    assert set(rows) == {"faster", "fast"}
    for row in rows.values():
        assert 0 < row["seconds"] < 60
        assert set(row) == {"bbox", "per_class", "seconds"}
