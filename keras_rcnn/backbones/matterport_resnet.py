"""ResNet as Matterport's Mask_RCNN builds it: the stride in the first 1x1, and a bias in every convolution."""

from typing import Any, Literal

import keras
from keras import layers

from keras_rcnn.backbones.base import Backbone, Parts
from keras_rcnn.interfaces import FilePath, Tensor
from keras_rcnn.layers.fixed_norm import FixedBatchNormalization

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@keras.saving.register_keras_serializable("keras_rcnn")
class MatterportResNet(Backbone):
    """The ResNet of Matterport's Mask_RCNN: the maps C2 to C5 of strides 4 to 32 with 256 to 2048 channels.

    What differs from `ResNet`: every convolution has a bias; the stride is in a block's first 1x1 and not in its 3x3;
    the first pooling pads even maps on the right and below only; BatchNormalization has the epsilon 1e-3 and keeps its
    statistics in training, while its scales are trained.

    Args:
        depth: int: 50 or 101.
        freeze_at: int, 0 trains everything, 1 freezes the stem, N >= 2 everything up to the map C{N}; Matterport's
            `layers="heads"` is 5, its `"4+"` is 3.
        weights: None, or the path of the ImageNet weights that `keras.applications` had first, for depth 50:
            `resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5`.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3], RGB of 0 to 255 without their mean; returns a dict of maps.

    Raises:
        ValueError: for another depth, or weights that do not belong to it.

    Example:

    >>> MatterportResNet(101, freeze_at=5)(images)["C5"]
    """

    # of 0..1, as a Preprocessor has them: 255 (x - mean)
    mean, std = (123.7 / 255, 116.8 / 255, 103.9 / 255), (1 / 255, 1 / 255, 1 / 255)

    def __init__(
        self,
        depth: Literal[50, 101] = 101,
        freeze_at: int = 0,
        weights: FilePath | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"MatterportResNet's depth is one of {list(BLOCKS)}, not {depth!r}.")
        if weights is not None and depth != 50:
            raise ValueError(
                f"keras.applications had ImageNet weights of ResNet-50 in this form, not of {depth}. Convert a whole "
                "detector: keras-rcnn convert matterport."
            )
        parts = _MatterportParts(dtype)
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.activate(parts.convolve(inputs, 64, 7, 2, "stem"), "relu", "stem_relu")
        x = layers.MaxPooling2D(3, 2, padding="same", dtype=dtype, name="stem_pool")(x)
        outputs = {}
        for stage, blocks in enumerate(BLOCKS[depth], start=1):
            for block in range(blocks):
                strides = 2 if block == 0 and stage > 1 else 1
                x = _bottleneck(parts, x, 32 * 2**stage, strides, f"stage{stage}_block{block}", projected=block == 0)
            outputs[f"C{stage + 1}"] = x
        super().__init__(
            inputs,
            outputs,
            strides={"C2": 4, "C3": 8, "C4": 16, "C5": 32},
            stages={"stem": 1, "stage1": 2, "stage2": 3, "stage3": 4, "stage4": 5},
            config={"depth": depth, "freeze_at": freeze_at, "dtype": dtype},
            name=name or f"matterport_resnet{depth}",
        )
        if weights is not None:
            from keras_rcnn.convert import assign, convert_keras_applications, read_keras_h5

            assign(self, convert_keras_applications("resnet50", read_keras_h5(weights)))


class _MatterportParts(Parts):
    """Convolutions with a bias, each with its normalisation."""

    def __init__(self, dtype: Any) -> None:
        super().__init__("batch", 1e-3, 0.99, dtype)  # `normalize` keeps its statistics fixed

    def convolve(self, x: Tensor, filters: int, size: int, strides: int, name: str, index: int | str = "") -> Tensor:
        """A convolution and its normalisation, `{name}_conv{index}` and `{name}_bn{index}`."""
        return self.normalize(
            self.conv(x, filters, size, strides, f"{name}_conv{index}", bias=True), f"{name}_bn{index}"
        )

    def normalize(self, x: Tensor, name: str) -> Tensor:
        return FixedBatchNormalization(self.epsilon, dtype=self.dtype, name=name)(x)


def _bottleneck(parts: _MatterportParts, x: Tensor, width: int, strides: int, name: str, projected: bool) -> Tensor:
    """1x1 with the stride, 3x3, 1x1, with an identity or projected shortcut."""
    shortcut = parts.convolve(x, 4 * width, 1, strides, f"{name}_shortcut") if projected else x
    x = parts.activate(parts.convolve(x, width, 1, strides, name, 1), "relu", f"{name}_relu1")
    x = parts.activate(parts.convolve(x, width, 3, 1, name, 2), "relu", f"{name}_relu2")
    x = parts.convolve(x, 4 * width, 1, 1, name, 3)
    return parts.activate(parts.add(x, shortcut, f"{name}_add"), "relu", f"{name}_relu3")
