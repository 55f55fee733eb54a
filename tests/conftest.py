"""What tests of several rooms need."""

import keras
import pytest

from tests.downloads import server  # noqa: F401 (a fixture)


@pytest.fixture
def listed_gpu(monkeypatch):
    """A GPU in TensorFlow's list of devices, where Keras's `jit_compile="auto"` looks; it is not there."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("on JAX everything is compiled in any case")
    import tensorflow as tf

    real = tf.config.list_physical_devices

    def listed(kind=None):
        fake = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
        return real(kind) + ([fake] if kind in (None, "GPU") else [])

    monkeypatch.setattr(tf.config, "list_physical_devices", listed)
