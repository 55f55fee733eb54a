"""ConvNeXt-T and -S (Liu et al. 2022) in torchvision's form."""

from typing import Any, Literal

import keras
from keras import layers, ops

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.interfaces import FilePath, Shape, Tensor
from keras_rcnn.ops.backend import kernel

# (blocks, channels) of a stage
STAGES = {
    "tiny": ((3, 96), (3, 192), (9, 384), (3, 768)),
    "small": ((3, 96), (3, 192), (27, 384), (3, 768)),
}
EPSILON = 1e-6


@keras.saving.register_keras_serializable("keras_rcnn")
class LayerScale(layers.Layer):
    """`gamma * x` with a trained gamma for each channel, which begins as `initial`.

    Call with [..., C]; returns the same shape.
    """

    def __init__(self, initial: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Shape) -> None:
        start = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        return x * self.gamma

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable("keras_rcnn")
class ConvNeXt(Backbone):
    """ConvNeXt's body: the maps C2 to C5 of strides 4 to 32 with 96, 192, 384 and 768 channels.

    It normalises by LayerNorm, which has no statistics to freeze; stochastic depth is left out.

    Args:
        variant: `"tiny"` or `"small"`.
        weights: None (random), `"imagenet"`, torchvision's published ImageNet weights, downloaded the first time, or
            the path of such a file, such as convnext_tiny-983f1562.pth; the classifier in it is left out.
        freeze_at: int, 0 trains everything, 1 freezes the stem, N >= 2 everything up to the map C{N}.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Example:

    >>> backbone = ConvNeXt("tiny", weights="imagenet", freeze_at=2)
    >>> backbone(images)["C5"]
    """

    def __init__(
        self,
        variant: Literal["tiny", "small"] = "tiny",
        weights: FilePath | None = None,
        freeze_at: int = 0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ) -> None:
        if variant not in STAGES:
            raise ValueError(f"ConvNeXt's variant is one of {list(STAGES)}, not {variant!r}.")
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x, outputs = inputs, {}
        for stage, (blocks, channels) in enumerate(STAGES[variant], start=1):
            if stage == 1:
                x = _norm(_conv(x, channels, 4, "stem_conv", dtype), "stem_norm", dtype)
            else:
                x = _norm(x, f"stage{stage}_down_norm", dtype)
                x = _conv(x, channels, 2, f"stage{stage}_down_conv", dtype)
            for block in range(blocks):
                x = _block(x, channels, f"stage{stage}_block{block}", dtype)
            outputs[f"C{stage + 1}"] = x
        super().__init__(
            inputs,
            outputs,
            strides={"C2": 4, "C3": 8, "C4": 16, "C5": 32},
            stages={"stem": 1, "stage1": 2, "stage2": 3, "stage3": 4, "stage4": 5},
            config={"variant": variant, "freeze_at": freeze_at, "dtype": dtype},
            name=name or f"convnext_{variant}",
        )
        if weights is not None:
            _load(self, f"convnext_{variant}", weights)


def _conv(x: Tensor, channels: int, size: int, name: str, dtype: str | keras.DTypePolicy | None) -> Tensor:
    """A convolution of `size` whose stride is its size."""
    layer = layers.Conv2D(channels, size, size, "same", kernel_initializer=_small(), dtype=dtype, name=name)
    return layer(x)


def _norm(x: Tensor, name: str, dtype: str | keras.DTypePolicy | None) -> Tensor:
    return layers.LayerNormalization(epsilon=EPSILON, dtype=dtype, name=name)(x)


def _small() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _block(inputs: Tensor, channels: int, name: str, dtype: str | keras.DTypePolicy | None) -> Tensor:
    """Depthwise 7x7, LayerNorm, and two layers on each cell's channels, scaled and added."""
    x = layers.DepthwiseConv2D(
        7, padding="same", depthwise_initializer=_small(), dtype=dtype, name=f"{name}_depthwise"
    )(inputs)
    x = _norm(x, f"{name}_norm", dtype)
    x = layers.Dense(4 * channels, kernel_initializer=_small(), dtype=dtype, name=f"{name}_expand")(x)
    x = layers.Activation(gelu, dtype=dtype, name=f"{name}_gelu")(x)
    x = layers.Dense(channels, kernel_initializer=_small(), dtype=dtype, name=f"{name}_project")(x)
    x = LayerScale(dtype=dtype, name=f"{name}_scale")(x)
    return layers.Add(dtype=dtype, name=f"{name}_add")([inputs, x])


def gelu(x: Tensor) -> Tensor:
    """The exact one, by the error function."""
    return kernel("gelu", portable_gelu)(x)


def portable_gelu(x: Tensor) -> Tensor:
    """`gelu` in keras.ops alone."""
    return ops.gelu(x, approximate=False)


def _load(model: keras.Model, name: str, weights: FilePath) -> None:
    from keras_rcnn.backbones.imagenet import published_file
    from keras_rcnn.convert import assign, convert_convnext, read_torch_file

    state = read_torch_file(published_file(name) if weights == "imagenet" else weights)
    assign(model, convert_convnext(name, state))
