"""Frozen batch normalisation: its numbers, and that nothing thaws it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.backbones import FrozenBatchNormalization
from tests.shared import golden, needs_golden


def filled(epsilon=1e-5, channels=5, seed=0, **kwargs):
    layer = FrozenBatchNormalization(epsilon, **kwargs)
    layer.build((None, None, None, channels))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(0.5, 2, channels) for _ in range(4)])
    return layer


@needs_golden
@pytest.mark.parametrize("epsilon", ["0.0", "1e-05"])
def test_torchvision(epsilon):
    unit = golden("unit.npz")
    layer = FrozenBatchNormalization(float(epsilon))
    x = np.moveaxis(unit["fbn_in"], 1, -1)
    layer.build(x.shape)
    layer.set_weights([unit[f"fbn_eps{epsilon}_{k}"] for k in ("weight", "bias", "running_mean", "running_var")])
    ours, theirs = np.moveaxis(ops.convert_to_numpy(layer(x)), -1, 1), unit[f"fbn_eps{epsilon}_out"]
    # a channel with variance 1e-6 is a thousand times larger than the others
    error = np.abs(ours - theirs).max((0, 2, 3)) / np.abs(theirs).max((0, 2, 3))
    assert error.max() < 1e-5


def test_same_weights_as_batch_normalization():
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 5)).astype("float32")
    frozen, batch = filled(1e-3, name="norm"), keras.layers.BatchNormalization(epsilon=1e-3, name="norm")
    batch.build(x.shape)
    assert [w.path for w in frozen.weights] == [w.path for w in batch.weights]
    batch.set_weights(frozen.get_weights())
    np.testing.assert_allclose(frozen(x), batch(x, training=False), rtol=1e-5, atol=1e-6)


def test_stays_frozen(tmp_path):
    inputs = keras.Input((8, 8, 5))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(filled(0.0, name="norm")(inputs)))
    inner = model.get_layer("norm")
    before = [np.array(w) for w in inner.get_weights()]
    for value in (False, True):
        model.trainable = value
    inner.trainable = True
    assert not inner.trainable_weights
    assert len(model.trainable_weights) == 2
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(3, 5, (4, 8, 8, 5))
    model.fit(x, np.zeros((4, 8, 8, 3)), verbose=0)
    for a, b in zip(before, inner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # two kernels on TensorFlow, equal to rounding
    np.testing.assert_allclose(inner(x, training=True), inner(x, training=False), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.trainable = True
    assert not again.get_layer("norm").trainable_weights
    assert again.get_layer("norm").epsilon == 0.0
    np.testing.assert_array_equal(again(x), model(x))


def test_mixed_precision():
    layer = filled(dtype="mixed_bfloat16")
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 5)).astype("float32")
    out = layer(x)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    assert {w.dtype for w in layer.weights} == {"float32"}
    exact = ops.convert_to_numpy(filled()(x))
    assert np.abs(ops.convert_to_numpy(ops.cast(out, "float32")) - exact).max() < 2e-2 * np.abs(exact).max()


@pytest.mark.parametrize("epsilon", [-1e-3, float("nan")])
def test_epsilon_is_checked(epsilon):
    with pytest.raises(ValueError, match=">= 0"):
        FrozenBatchNormalization(epsilon)
