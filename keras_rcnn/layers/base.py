"""What the layers of this package share."""

import keras

register = keras.saving.register_keras_serializable("keras_rcnn")


class Geometry(keras.layers.Layer):
    """A weightless layer that computes on boxes: float32 whatever the dtype policy, because bfloat16 counts exactly
    only up to 256. Subclasses say their outputs' shapes in `compute_output_spec`, since keras.ops with data-dependent
    sizes (top_k, NMS) cannot be traced with unknown dimensions on every backend."""

    def __init__(self, **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def get_config(self):
        config = super().get_config()
        del config["dtype"]
        return config


def spec(*shape, dtype="float32"):
    """A symbolic output."""
    return keras.KerasTensor(shape, dtype=dtype)
