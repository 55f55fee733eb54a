"""The normalisation of necks and heads, which unlike a backbone's is never frozen."""

from typing import Any, Literal

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import register

Norm = Literal["batch", "group"]


@register
class GroupNorm(keras.layers.Layer):
    """Group normalisation (Wu and He 2018), with the variance of centred values.

    Keras's own takes the mean square less the squared mean, in which float32 loses digits: in a Mask R-CNN enough to
    move a mask's probabilities by thousandths.

    Args:
        groups: int, which divides the channels.
        epsilon: float.

    Call with float [B, H, W, C]; returns the same shape. It computes in float32 whatever the dtype policy.
    """

    def __init__(self, groups: int = 32, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups, self.epsilon = groups, epsilon

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(f"{channels} channels are not divisible into {self.groups} groups.")
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        values = ops.cast(x, "float32")
        centred = values - self._of_groups(values)
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(self._of_groups(ops.square(centred)) + self.epsilon)
        return ops.cast(centred * scale + ops.cast(self.beta, "float32"), self.compute_dtype)

    def _of_groups(self, x: Tensor) -> Tensor:
        """The mean of each channel's group, [B, 1, 1, C]: of the cells first, so that the map is never rearranged."""
        channels = x.shape[-1]
        # row by row: a sum of all cells at once is one after another in TensorFlow, and drifts where a map is constant,
        # as it is over padding
        mean = ops.mean(ops.mean(x, axis=2), axis=1)
        mean = ops.mean(ops.reshape(mean, (-1, self.groups, channels // self.groups)), axis=-1)
        return ops.repeat(mean, channels // self.groups, axis=-1)[:, None, None]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


def check_norm(norm: str | None, owner: str) -> None:
    """Raises a ValueError, in the words of the layer `owner`, for what is no norm."""
    if norm not in ("batch", "group", None):
        raise ValueError(f"{owner} norm is 'batch', 'group' or None, not {norm!r}.")


def normalization(norm: Norm, name: str, dtype: str | keras.DTypePolicy | None = None) -> keras.layers.Layer:
    """BatchNormalization, or GroupNormalization in 32 groups, as all published detectors have it."""
    if norm == "group":
        return GroupNorm(dtype=dtype, name=name)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
