"""Units of the backbone that respond to nothing are counted, and said."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from keras_rcnn.backbones import EfficientNetLite0, from_features
from keras_rcnn.training import SilentUnits, silent_units
from tests.models.tiny import shapes, tiny_detector


def backbone():
    """Ten units; the ReLU of the first map gets -1 in two of four, that of the second 7 in three of six."""
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, 4, "same", name="conv2", bias_initializer="ones")(inputs)
    first = layers.ReLU(name="relu2")(x)
    second = layers.ReLU(6.0, name="relu3")(layers.Conv2D(6, 3, 2, "same", name="conv3")(first))
    made = from_features(keras.Model(inputs, second), {"C2": "relu2", "C3": "relu3"})
    for name, silent, value in (("conv2", slice(0, 2), -1.0), ("conv3", slice(0, 3), 7.0)):
        layer = made.body().get_layer(name)
        kernel, bias = (np.array(weight) for weight in layer.get_weights())
        kernel[..., silent], bias[silent] = 0.0, value
        kernel[..., silent.stop :] = np.abs(kernel[..., silent.stop :]) / 1000
        layer.set_weights([kernel, bias])
    return made


def test_units_that_never_change_are_silent():
    rng = np.random.default_rng(0)
    photos = [rng.uniform(0, 255, (1, 32, 64, 3)).astype(np.float32) for _ in range(2)]
    found = silent_units(backbone(), photos)
    assert found["share"] == pytest.approx(5 / 10)
    assert found["worst"]["share"] == pytest.approx(0.5)
    assert found["worst"]["layer"] in ("relu2", "relu3")
    assert silent_units(backbone(), []) == {}


def test_the_callback_warns_once_when_units_fall_silent(caplog):
    model = tiny_detector(neck=None)
    callback = SilentUnits(shapes(4))
    callback.set_model(model)
    callback.on_train_begin()
    assert callback.last == {}  # a backbone that is none of this package's

    body = EfficientNetLite0()
    callback._model = SimpleNamespace(preprocessor=model.preprocessor, parts={"backbone": body})
    callback.on_train_begin()
    before = callback.last["share"]
    for layer in body.layers:
        if layer.name.endswith("_bn") and layer.name.startswith(("stage6", "stage7")):
            layer.beta.assign(np.full(layer.beta.shape, -100.0))
    logs = {}
    callback.on_epoch_end(0, logs)
    callback.on_epoch_end(1, logs)
    assert logs["silent_units"] == callback.last["share"] > before + 0.15
    assert callback.last["worst"]["share"] == 1.0
    assert caplog.text.count("respond to no photo any more") == 1
