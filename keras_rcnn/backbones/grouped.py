"""Convolutions in groups, as CaffeNet and ResNeXt have them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import kernel


@keras.saving.register_keras_serializable("keras_rcnn")
class GroupedConv2D(layers.Conv2D):
    """Conv2D with `groups`, as so many convolutions side by side where the runtime has no better: TensorFlow promises
    no gradient of grouped ones on a CPU, and Keras's way around it compiles anew for every size of image. The kernel is
    Conv2D's, [h, w, C / groups, F]."""

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return _grouped(inputs, kernel, self.strides, self.padding)


def convolution(filters: int, size: int, strides: int, groups: int = 1, **settings: Any) -> keras.layers.Layer:
    """Conv2D, or with groups the one that runs everywhere."""
    if groups == 1:
        return layers.Conv2D(filters, size, strides, **settings)
    return GroupedConv2D(filters, size, strides, groups=groups, **settings)


def _grouped(x: Tensor, values: Tensor, strides: Sequence[int], padding: str) -> Tensor:
    return kernel("grouped_convolution", portable_grouped_convolution)(x, values, strides, padding)


def portable_grouped_convolution(x: Tensor, values: Tensor, strides: Sequence[int], padding: str) -> Tensor:
    """A grouped convolution as one convolution a group.

    Args:
        x: float [B, H, W, C].
        values: the kernel, float [h, w, C / groups, F].
        strides: two ints.
        padding: `"same"` or `"valid"`.

    Returns:
        [B, H', W', F].
    """
    groups = x.shape[-1] // values.shape[-2]
    parts = zip(ops.split(x, groups, axis=-1), ops.split(values, groups, axis=-1), strict=True)
    return ops.concatenate([ops.conv(part, own, strides, padding) for part, own in parts], axis=-1)
