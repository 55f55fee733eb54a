"""Heads on region features. Their last layers compute in float32 whatever the dtype policy: a logit or a delta that is
rounded to bfloat16's 8 bits moves scores by hundredths.

Shapes: B images, R regions, S bins a side, K classes.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import register, spec
from keras_rcnn.layers.norms import Norm, check_norm, normalization


def _relu_conv(channels: int, index: int, norm: Norm | None, dtype: Any) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        channels,
        3,
        padding="same",
        use_bias=norm is None,
        activation="relu" if norm is None else None,
        kernel_initializer="he_normal",
        dtype=dtype,
        name=f"conv_{index}",
    )


class _ConvStack(keras.layers.Layer):
    """3x3 convolutions (+ normalisation) + ReLU, on regions folded into the batch."""

    def _make_convs(self, channels: Sequence[int], norm: Norm | None) -> None:
        check_norm(norm, "A head's")
        self.norm = norm
        self.convs = [_relu_conv(c, i, norm, self.dtype_policy) for i, c in enumerate(channels)]
        self.norms = []
        if norm:
            self.norms = [normalization(norm, f"conv_{i}_bn", self.dtype_policy) for i in range(len(channels))]

    def _build_convs(self, shape: Shape) -> Shape:
        for i, conv in enumerate(self.convs):
            conv.build(shape)
            shape = (*shape[:-1], conv.filters)
            if self.norms:
                self.norms[i].build(shape)
        return shape

    def _run_convs(self, x: Tensor, training: bool | None) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if self.norms:
                x = ops.relu(self.norms[i](x, training=training))
        return x


@register
class BoxHead(_ConvStack):
    """Region features -> a vector a region.

    Args:
        units: widths of the fully connected layers: (1024, 1024) with FPN, (4096, 4096) on VGG16.
        convs: channels of 3x3 convolutions before them; torchvision's v2 has (256, 256, 256, 256) and units (1024,).
        norm: None, `"batch"` or `"group"`, of the convolutions.
        dropout: float, after each fully connected layer; 0.5 in the classic recipes.
        ranks: for each fully connected layer the rank t of its truncated SVD (Fast R-CNN, section 3.1), a layer of t
            units without bias before it, or None for whole; see `keras_rcnn.models.truncate_box_head`.

    Call with [B, R, S, S, C]; returns [B, R, units[-1]].
    """

    def __init__(
        self,
        units: Sequence[int] = (1024, 1024),
        convs: Sequence[int] = (),
        norm: Norm | None = None,
        dropout: float = 0.0,
        ranks: Sequence[int | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "box_head", **kwargs})
        self.units, self.conv_channels, self.dropout = tuple(units), tuple(convs), dropout
        self._make_convs(self.conv_channels, norm)
        self.fcs = [
            keras.layers.Dense(
                n, activation="relu", kernel_initializer="he_uniform", dtype=self.dtype_policy, name=f"fc_{i}"
            )
            for i, n in enumerate(self.units)
        ]
        self.ranks = None if ranks is None else tuple(ranks)
        if self.ranks is not None and len(self.ranks) != len(self.units):
            raise ValueError(f"{len(self.ranks)} ranks for {len(self.units)} fully connected layers.")
        self.factors = [
            keras.layers.Dense(rank, use_bias=False, dtype=self.dtype_policy, name=f"fc_{i}_factor") if rank else None
            for i, rank in enumerate(self.ranks or [None] * len(self.units))
        ]
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy) if dropout else None

    def build(self, input_shape: Shape) -> None:
        _, _, height, width, channels = input_shape
        width_of = self._build_convs((None, height, width, channels))
        features = height * width * width_of[-1]
        for factor, fc in zip(self.factors, self.fcs, strict=True):
            if factor:
                factor.build((None, features))
                features = factor.units
            fc.build((None, features))
            features = fc.units
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        x = self._run_convs(ops.reshape(x, (-1, *x.shape[2:])), training)
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))
        for factor, fc in zip(self.factors, self.fcs, strict=True):
            x = fc(factor(x) if factor else x)
            if self.drop is not None:
                x = self.drop(x, training=training)
        return ops.reshape(x, (batch, count, self.units[-1]))

    def compute_output_spec(self, x: Tensor, training: bool | None = None) -> Tensor:
        return spec(*x.shape[:2], self.units[-1], dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {"units": self.units, "convs": self.conv_channels, "norm": self.norm, "dropout": self.dropout}
        return {**super().get_config(), **config, "ranks": self.ranks}


@register
class RegionMean(keras.layers.Layer):
    """The mean over a region's cells: the box head where regions have been through a whole stage (`ResNetRegions`).

    Call with [B, R, S, S, C]; returns [B, R, C].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"name": "box_head", **kwargs})

    def call(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=(2, 3))

    def compute_output_spec(self, x: Tensor) -> Tensor:
        return spec(*x.shape[:2], x.shape[-1], dtype=self.compute_dtype)


@register
class BoxPredictor(keras.layers.Layer):
    """Class logits and class-specific deltas (Fast R-CNN, section 2.1).

    Args:
        num_classes: int K, without background.
        class_agnostic: whether one box serves all classes.

    Call with [B, R, F]; returns `(logits, deltas)`: float32 [B, R, K + 1], background last, and [B, R, K or 1, 4].
    """

    def __init__(self, num_classes: int, class_agnostic: bool = False, **kwargs: Any) -> None:
        super().__init__(**{"name": "box_predictor", **kwargs})
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.boxes = 1 if class_agnostic else num_classes
        normal = keras.initializers.RandomNormal
        self.logits = keras.layers.Dense(
            num_classes + 1, kernel_initializer=normal(stddev=0.01), dtype="float32", name="logits"
        )
        self.deltas = keras.layers.Dense(
            self.boxes * 4, kernel_initializer=normal(stddev=0.001), dtype="float32", name="deltas"
        )

    def build(self, input_shape: Shape) -> None:
        self.logits.build(input_shape)
        self.deltas.build(input_shape)
        self.built = True

    def call(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        return self.logits(x), ops.reshape(self.deltas(x), (batch, count, self.boxes, 4))

    def compute_output_spec(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return spec(*x.shape[:2], self.num_classes + 1), spec(*x.shape[:2], self.boxes, 4)

    @property
    def class_free_weights(self) -> list[Any]:
        """The weights that serve any classes; the others are fitted to these."""
        return self.deltas.weights if self.class_agnostic else []

    @property
    def class_columns(self) -> list[tuple[Any, int]]:
        """`(weight, n)`: so many columns belong to each class, see `keras_rcnn.classes`."""
        return [(weight, 1) for weight in self.logits.weights] + [(weight, 4) for weight in self.deltas.weights]

    def get_config(self) -> dict[str, Any]:
        config = {"num_classes": self.num_classes, "class_agnostic": self.class_agnostic}
        return {**super().get_config(), **config}


@register
class MaskHead(_ConvStack):
    """Region features -> a mask per class (Mask R-CNN, figure 4 right): convolutions, a 2x transposed one, 1x1.

    Args:
        num_classes: int K.
        convs: channels of the 3x3 convolutions.
        channels: channels of the transposed convolution.
        norm: None, `"batch"` or `"group"`.
        class_agnostic: whether one mask serves all classes.

    Call with [B, R, S, S, C]; returns float32 logits [B, R, 2S, 2S, K or 1].
    """

    def __init__(
        self,
        num_classes: int,
        convs: Sequence[int] = (256, 256, 256, 256),
        channels: int = 256,
        norm: Norm | None = None,
        class_agnostic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "mask_head", **kwargs})
        self.num_classes, self.conv_channels, self.channels = num_classes, tuple(convs), channels
        self.class_agnostic = class_agnostic
        self._make_convs(self.conv_channels, norm)
        self.deconv = keras.layers.Conv2DTranspose(
            channels,
            2,
            strides=2,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=self.dtype_policy,
            name="deconv",
        )
        maps = 1 if class_agnostic else num_classes
        self.logits = keras.layers.Conv2D(maps, 1, kernel_initializer="he_normal", dtype="float32", name="logits")

    def build(self, input_shape: Shape) -> None:
        shape = self._build_convs((None, *input_shape[2:]))
        self.deconv.build(shape)
        self.logits.build((None, None, None, self.channels))
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        x = self._run_convs(ops.reshape(x, (-1, *x.shape[2:])), training)
        x = self.logits(self.deconv(x))
        return ops.reshape(x, (batch, count, *x.shape[1:]))

    def compute_output_spec(self, x: Tensor, training: bool | None = None) -> Tensor:
        return spec(*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2, self.logits.filters)

    @property
    def class_free_weights(self) -> list[Any]:
        """The weights that serve any classes; the others are fitted to these."""
        kept = [*self.convs, *self.norms, self.deconv, *([self.logits] if self.class_agnostic else [])]
        return [weight for layer in kept for weight in layer.weights]

    @property
    def class_columns(self) -> list[tuple[Any, int]]:
        """`(weight, n)`: so many columns belong to each class, see `keras_rcnn.classes`."""
        return [(weight, 1) for weight in self.logits.weights]

    def get_config(self) -> dict[str, Any]:
        config = {
            "num_classes": self.num_classes,
            "convs": self.conv_channels,
            "channels": self.channels,
            "norm": self.norm,
            "class_agnostic": self.class_agnostic,
        }
        return {**super().get_config(), **config}
