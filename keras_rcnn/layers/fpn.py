"""From the backbone's feature maps to the maps that the detector works on."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import register
from keras_rcnn.layers.norms import Norm, check_norm, normalization


@register
class FPN(keras.layers.Layer):
    """Feature Pyramid Network (Lin et al. 2017, section 3).

    A 1x1 convolution per backbone map, a top-down path by nearest-neighbour upsampling, a 3x3 convolution per level.

    Args:
        channels: int, channels of every level.
        in_features: the backbone maps to use, finest first.
        top: what comes above the coarsest level: `"maxpool"` one level, every second cell of it (P6 of the R-CNNs);
            `"convs"` two levels by stride-2 convolutions (P6 and P7, as RetinaNet); None nothing.
        norm: None (convolutions with a bias), or without a bias `"batch"` (then BatchNormalization) or `"group"`
            (GroupNormalization).

    Call with a dict of maps [B, H, W, C]; returns the list of levels [B, H_l, W_l, channels], finest first.

    Example:

    >>> backbone = keras_rcnn.backbones.ResNet(50)
    >>> levels = FPN(256)(backbone(images))       # P2 ... P6
    """

    def __init__(
        self,
        channels: int = 256,
        in_features: Sequence[str] = ("C2", "C3", "C4", "C5"),
        top: Literal["maxpool", "convs"] | None = "maxpool",
        norm: Norm | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "fpn", **kwargs})
        if top not in ("maxpool", "convs", None):
            raise ValueError(f"FPN's top is 'maxpool', 'convs' or None, not {top!r}.")
        check_norm(norm, "FPN's")
        self.channels, self.in_features, self.top, self.norm = channels, tuple(in_features), top, norm
        self.inner = [self._conv(1, f"inner_{i}") for i in range(len(self.in_features))]
        self.output_convs = [self._conv(3, f"output_{i}") for i in range(len(self.in_features))]
        self.inner_norms, self.output_norms = [], []
        if norm:
            policy, levels = self.dtype_policy, range(len(self.in_features))
            self.inner_norms = [normalization(norm, f"inner_{i}_bn", policy) for i in levels]
            self.output_norms = [normalization(norm, f"output_{i}_bn", policy) for i in levels]
        self.top_convs = []
        if top == "convs":
            self.top_convs = [
                keras.layers.Conv2D(channels, 3, strides=2, padding="valid", dtype=self.dtype_policy, name=f"top_{i}")
                for i in (6, 7)
            ]

    def _conv(self, size: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            self.channels,
            size,
            padding="same",
            use_bias=self.norm is None,
            # torchvision's kaiming_uniform(a=1)
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            dtype=self.dtype_policy,
            name=name,
        )

    def strides(self, backbone_strides: Mapping[str, int]) -> tuple[int, ...]:
        """Strides of the levels, given the backbone's {name: stride}."""
        strides = [backbone_strides[name] for name in self.in_features]
        for _ in range({"maxpool": 1, "convs": 2, None: 0}[self.top]):
            strides.append(strides[-1] * 2)
        return tuple(strides)

    def roi_levels(self) -> int:
        """How many levels, finest first, regions are pooled from: those with a backbone map (P2 to P5)."""
        return len(self.in_features)

    def build(self, input_shape: Mapping[str, Shape]) -> None:
        missing = [name for name in self.in_features if name not in input_shape]
        if missing:
            raise ValueError(f"FPN wants the maps {list(self.in_features)}; the backbone gives {list(input_shape)}.")
        for i, name in enumerate(self.in_features):
            self.inner[i].build(input_shape[name])
            out = (*input_shape[name][:3], self.channels)
            self.output_convs[i].build(out)
            for norms in (self.inner_norms, self.output_norms):
                if norms:
                    norms[i].build(out)
        for conv in self.top_convs:
            conv.build((None, None, None, self.channels))
        self.built = True

    def call(self, features: Mapping[str, Tensor], training: bool | None = None) -> list[Tensor]:
        laterals = []
        for i, name in enumerate(self.in_features):
            lateral = self.inner[i](features[name])
            laterals.append(self.inner_norms[i](lateral, training=training) if self.inner_norms else lateral)
        merged = [laterals[-1]]
        for finer in laterals[-2::-1]:
            merged.insert(0, finer + resize_nearest(merged[0], ops.shape(finer)[1], ops.shape(finer)[2]))
        levels = []
        for i, x in enumerate(merged):
            x = self.output_convs[i](x)
            levels.append(self.output_norms[i](x, training=training) if self.output_norms else x)
        if self.top == "maxpool":
            levels.append(levels[-1][:, ::2, ::2])
        for i, conv in enumerate(self.top_convs):
            x = levels[-1] if i == 0 else ops.relu(levels[-1])
            levels.append(conv(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))))  # symmetric, unlike "same"
        return levels

    def compute_output_spec(self, features: Mapping[str, Tensor], training: bool | None = None) -> list[Tensor]:
        def halved(n: int | None) -> int | None:
            return None if n is None else (n + 1) // 2

        shapes = [(*features[name].shape[:3], self.channels) for name in self.in_features]
        for _ in range(len(self.strides(dict.fromkeys(self.in_features, 1))) - len(shapes)):
            b, h, w, c = shapes[-1]
            shapes.append((b, halved(h), halved(w), c))
        return [keras.KerasTensor(s, dtype=self.compute_dtype) for s in shapes]

    def get_config(self) -> dict[str, Any]:
        config = {"channels": self.channels, "in_features": self.in_features, "top": self.top, "norm": self.norm}
        return {**super().get_config(), **config}


@register
class SingleLevel(keras.layers.Layer):
    """One backbone map as the only level: the form of Fast and Faster R-CNN before FPN.

    Args:
        in_feature: name of the map; C4 has stride 16 in every backbone here.
    """

    def __init__(self, in_feature: str = "C4", **kwargs: Any) -> None:
        super().__init__(**{"name": "single_level", **kwargs})
        self.in_feature = in_feature

    def strides(self, backbone_strides: Mapping[str, int]) -> tuple[int, ...]:
        """The stride of the only level, as a tuple of one."""
        return (backbone_strides[self.in_feature],)

    def roi_levels(self) -> int:
        """Regions are pooled from the only level."""
        return 1

    def call(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        return [features[self.in_feature]]

    def compute_output_spec(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        return [keras.KerasTensor(features[self.in_feature].shape, dtype=self.compute_dtype)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "in_feature": self.in_feature}


def resize_nearest(x: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Nearest-neighbour resize of [B, h, w, C] to any size: source cell floor(i * in / out)."""
    static = (x.shape[1], x.shape[2], height, width)
    if all(isinstance(n, int) for n in static) and height == 2 * x.shape[1] and width == 2 * x.shape[2]:
        return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
    rows = ops.arange(height) * ops.shape(x)[1] // height
    columns = ops.arange(width) * ops.shape(x)[2] // width
    return ops.take(ops.take(x, rows, axis=1), columns, axis=2)
