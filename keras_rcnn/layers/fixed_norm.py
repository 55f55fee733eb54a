"""Batch normalisation whose statistics stay as they are while its scales are trained."""

from typing import Any

import keras

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import register


@register
class FixedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that normalises by its stored statistics in training, too, and leaves them
    alone; gamma and beta are trained. It is what Matterport's `TRAIN_BN = False` means.

    Args:
        epsilon: float > 0.

    Call with float [..., C]; returns the same shape.

    Example:

    >>> FixedBatchNormalization(epsilon=1e-3)(images, training=True)
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        return super().call(inputs, training=False, mask=mask)
