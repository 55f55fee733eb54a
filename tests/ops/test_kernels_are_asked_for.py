"""Which kernel runs is chosen in one place, and both batch normalisations give the same numbers."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.backbones.norm import portable_frozen_batch_norm
from keras_rcnn.ops.backend import kernel
from keras_rcnn.ops.backend.replicas import global_sum, num_replicas

PACKAGE = Path(__file__).resolve().parents[2] / "keras_rcnn"


@pytest.mark.parametrize("room", ["ops", "layers", "backbones", "models"])
def test_the_backend_is_looked_at_in_ops_backend_alone(room):
    for path in (PACKAGE / room).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.parent.name != "backend":
            assert "backend.backend()" not in text, path
            assert not re.search(r"ops\.backend\.(tensorflow|xla|exported|litert|onnx)\b", text), path


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a kernel of TensorFlow's")
def test_frozen_batch_norm_and_its_twin_agree():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    gamma, beta, mean = rng.normal(size=(3, 7)).astype(np.float32)
    variance = rng.uniform(0.1, 3, 7).astype(np.float32)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    run = kernel("frozen_batch_norm", portable_frozen_batch_norm)
    assert run is not portable_frozen_batch_norm
    for function in (run, portable_frozen_batch_norm):
        answer = ops.convert_to_numpy(function(x, gamma, beta, mean, variance, 1e-5))
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_alone_there_is_one_replica():
    assert num_replicas() == 1
    np.testing.assert_array_equal(ops.convert_to_numpy(global_sum(np.float32([1, 2]))), [1, 2])
