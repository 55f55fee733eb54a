"""MobileNetV3-Large (Howard et al. 2019) in torchvision's form."""

from typing import Literal

import keras
from keras import layers, ops

from keras_rcnn.backbones.base import Backbone, Parts
from keras_rcnn.interfaces import FilePath, Tensor

# (kernel size, expanded channels, channels, squeeze-and-excite, activation, stride) of torchvision's features 1 to 15
BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_silu", 2),
    (3, 200, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 480, 112, True, "hard_silu", 1),
    (3, 672, 112, True, "hard_silu", 1),
    (5, 672, 160, True, "hard_silu", 2),
    (5, 960, 160, True, "hard_silu", 1),
    (5, 960, 160, True, "hard_silu", 1),
)
# the block that a map is the output of: the last of its stride, but for the two of torchvision's detectors
MAPS = {"C1": 1, "C2": 3, "C3": 6, "C4": 12, "C5_in": 13}


@keras.saving.register_keras_serializable("keras_rcnn")
class MobileNetV3Large(Backbone):
    """MobileNetV3-Large's body: the maps C1 to C4, C5_in and C5 with 16, 24, 40, 112, 160 and 960 channels.

    C5_in (the first block of stride 32) and C5 (the last convolution) are the two that torchvision's detectors use.

    Args:
        weights: None (random), `"imagenet"`, torchvision's published ImageNet weights (IMAGENET1K_V1), downloaded the
            first time, or the path of such a file, such as mobilenet_v3_large-5c1a4163.pth; the classifier in it is
            left out.
        norm: `"frozen"`, statistics and scales as loaded, or `"batch"`, BatchNormalization.
        freeze_at: int, 0 trains everything, 1 freezes the stem and C1, N >= 2 everything up to the map C{N}.
            torchvision's `trainable_layers=3` is 3.
        epsilon: of the normalisation: 1e-3 as trained on ImageNet, but 1e-5 for torchvision's COCO weights.
        momentum: of the moving statistics, with `norm="batch"`.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Example:

    >>> backbone = MobileNetV3Large(weights="imagenet", freeze_at=3)
    >>> backbone(images)["C5"]
    """

    def __init__(
        self,
        weights: FilePath | None = None,
        norm: Literal["frozen", "batch"] = "frozen",
        freeze_at: int = 0,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "mobilenet_v3_large",
    ) -> None:
        config = {"norm": norm, "freeze_at": freeze_at, "epsilon": epsilon, "momentum": momentum, "dtype": dtype}
        parts = Parts(norm, epsilon, momentum, dtype)
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.normalize(parts.conv(inputs, 16, 3, 2, "stem_conv"), "stem_bn")
        x = parts.activate(x, "hard_silu", "stem_activation")
        blocks = [x]
        for i, block in enumerate(BLOCKS, start=1):
            blocks.append(_block(parts, blocks[-1], *block, name=f"block{i}"))
        x = parts.normalize(parts.conv(blocks[-1], 960, 1, 1, "last_conv"), "last_bn")
        last = parts.activate(x, "hard_silu", "last_activation")
        stages = {"stem": 1, "last": 5}
        for i in range(1, 16):
            stages[f"block{i}"] = 1 + sum(i > end for end in (1, 3, 6, 12))
        super().__init__(
            inputs,
            {**{key: blocks[i] for key, i in MAPS.items()}, "C5": last},
            strides={"C1": 2, "C2": 4, "C3": 8, "C4": 16, "C5_in": 32, "C5": 32},
            stages=stages,
            config=config,
            name=name,
        )
        if weights is not None:
            _load(self, weights)


def _block(
    parts: Parts,
    x: Tensor,
    size: int,
    expanded: int,
    channels: int,
    squeeze: bool,
    activation: str,
    strides: int,
    name: str,
) -> Tensor:
    """Inverted residual: 1x1 expansion, depthwise, squeeze-and-excite, linear 1x1 projection."""
    inputs = x
    if expanded != x.shape[-1]:
        x = parts.normalize(parts.conv(x, expanded, 1, 1, f"{name}_expand"), f"{name}_expand_bn")
        x = parts.activate(x, activation, f"{name}_expand_activation")
    x = parts.normalize(parts.depthwise(x, size, strides, f"{name}_depthwise"), f"{name}_depthwise_bn")
    x = parts.activate(x, activation, f"{name}_depthwise_activation")
    if squeeze:
        x = _squeeze_excite(parts, x, f"{name}_se")
    x = parts.normalize(parts.conv(x, channels, 1, 1, f"{name}_project"), f"{name}_project_bn")
    return parts.add(x, inputs, f"{name}_add") if strides == 1 and inputs.shape[-1] == channels else x


def _squeeze_excite(parts: Parts, x: Tensor, name: str) -> Tensor:
    """Channels scaled by what a two-layer network makes of their means."""
    channels = x.shape[-1]
    # float32: a mean over a large map in bfloat16 loses its low bits; and along one axis after the other, since LiteRT
    # adds up one number after another: of a map of 100 x 100 at once its mean is off by 5e-5
    gate = ops.mean(ops.mean(ops.cast(x, "float32"), axis=2, keepdims=True), axis=1, keepdims=True)
    gate = parts.conv(gate, _divisible(channels // 4), 1, 1, f"{name}_reduce", bias=True)
    gate = parts.activate(gate, "relu", f"{name}_relu")
    gate = parts.conv(gate, channels, 1, 1, f"{name}_expand", bias=True)
    gate = parts.activate(gate, "hard_sigmoid", f"{name}_gate")
    return layers.Multiply(dtype=parts.dtype, name=f"{name}_scale")([x, gate])


def _divisible(channels: int, by: int = 8) -> int:
    """The nearest multiple of 8 that is no more than 10 % below."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def _load(model: keras.Model, weights: FilePath) -> None:
    from keras_rcnn.backbones.imagenet import published_file
    from keras_rcnn.convert import assign, convert_mobilenet_v3_large, read_torch_file

    path = published_file("mobilenet_v3_large") if weights == "imagenet" else weights
    assign(model, convert_mobilenet_v3_large(read_torch_file(path)))
