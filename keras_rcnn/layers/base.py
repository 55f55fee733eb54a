"""What the layers of this package share."""

from typing import Any

import keras

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import compiled_by_default

register = keras.saving.register_keras_serializable("keras_rcnn")


class Float32Layer(keras.layers.Layer):
    """A weightless layer that computes on boxes: float32 whatever the dtype policy, because bfloat16 counts exactly
    only up to 256. Subclasses say their outputs' shapes in `compute_output_spec`, since keras.ops with data-dependent
    sizes (top_k, NMS) cannot be traced with unknown dimensions on every backend.

    On TensorFlow, Keras's `jit_compile="auto"` leaves a model with such a layer uncompiled (`supports_jit` is False);
    `jit_compile=True` compiles a detector, with the kernels that XLA has.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    @property
    def supports_jit(self) -> bool:
        return compiled_by_default()

    @supports_jit.setter
    def supports_jit(self, value: bool) -> None:
        """What Keras's constructor says does not count."""

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["dtype"]
        return config


def spec(*shape: int | None, dtype: str = "float32") -> Tensor:
    """A symbolic output."""
    return keras.KerasTensor(shape, dtype=dtype)
