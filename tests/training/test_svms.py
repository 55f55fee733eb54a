"""The ridge regression of R-CNN's boxes against its closed form."""

import numpy as np
import pytest

from keras_rcnn.training.svms import ridge

pytest.importorskip("sklearn")


def test_ridge_is_the_closed_form():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 9)).astype(np.float32)
    targets = (x @ rng.standard_normal((9, 4)) * [0.1, 0.2, 0.3, 0.4] + rng.normal(0, 0.1, (60, 4))).astype(np.float32)
    kernel, bias, alpha = ridge(x, targets, 30.0)
    # whitening is linear: it changes what lambda weighs, so the same in the whitened space
    centred = targets - targets.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    whiten = vectors @ np.diag(1 / np.sqrt(values + 1e-3)) @ vectors.T
    xc = x - x.mean(0)
    expected = np.linalg.solve(xc.T @ xc + 30.0 * np.eye(9), xc.T @ (centred @ whiten)) @ np.linalg.inv(whiten)
    np.testing.assert_allclose(kernel, expected, atol=1e-4)
    np.testing.assert_allclose(bias, targets.mean(0) - x.mean(0) @ expected, atol=1e-4)
    assert alpha == 30.0
    assert ridge(x, targets, "cv")[2] in (10, 100, 1000, 10000)
