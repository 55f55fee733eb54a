"""Batch normalisation with frozen statistics, as detectors use it that see a few images a step."""

from typing import Any, Literal

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.norms import GroupNorm
from keras_rcnn.ops.backend import kernel

NORMS = ("frozen", "batch", "group")


@keras.saving.register_keras_serializable("keras_rcnn")
class FrozenBatchNormalization(keras.layers.Layer):
    """`gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta`, where none of the four is ever trained.

    The weights have BatchNormalization's names, and no `trainable = True` of an outer model changes them. A fresh
    layer is the identity (up to epsilon): it is meant for pretrained weights.

    Args:
        epsilon: float >= 0. torchvision's first COCO checkpoints of ResNet want 0.0.

    Call with float [..., C]; returns the same shape in the compute dtype.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not epsilon >= 0:
            raise ValueError(f"FrozenBatchNormalization's epsilon is a number >= 0, not {epsilon!r}.")
        self.epsilon = float(epsilon)

    def build(self, input_shape: Shape) -> None:
        for name, start in (
            ("gamma", "ones"),
            ("beta", "zeros"),
            ("moving_mean", "zeros"),
            ("moving_variance", "ones"),
        ):
            # autocast off: under a mixed policy the statistics stay float32 until they are folded into two vectors
            weight = self.add_weight(
                shape=(input_shape[-1],), initializer=start, trainable=False, autocast=False, name=name
            )
            setattr(self, name, weight)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        normalise = portable_frozen_batch_norm
        if not training and len(x.shape) == 4 and x.dtype == "float32":
            # TensorFlow fuses it with its neighbours: 7 % of ResNet-50's time on a CPU
            normalise = kernel("frozen_batch_norm", portable_frozen_batch_norm)
        return normalise(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, self.epsilon)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


def portable_frozen_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> Tensor:
    """Normalisation of x [..., C] by given statistics [C], in keras.ops alone."""
    mean, variance = ops.cast(mean, "float32"), ops.cast(variance, "float32")
    scale = ops.cast(gamma, "float32") * ops.rsqrt(variance + epsilon)
    offset = ops.cast(beta, "float32") - mean * scale
    return x * ops.cast(scale, x.dtype) + ops.cast(offset, x.dtype)


def normalization(
    norm: Literal["frozen", "batch", "group"],
    *,
    epsilon: float,
    momentum: float,
    name: str,
    dtype: str | keras.DTypePolicy | None = None,
) -> keras.layers.Layer:
    """The layer for `norm`: "frozen", "batch" or "group"."""
    if norm == "frozen":
        return FrozenBatchNormalization(epsilon, name=name, dtype=dtype)
    if norm == "batch":
        return keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=name, dtype=dtype)
    if norm == "group":
        return GroupNorm(epsilon=epsilon, name=name, dtype=dtype)
    raise ValueError(f"A backbone's norm is one of {', '.join(map(repr, NORMS))}, not {norm!r}.")
