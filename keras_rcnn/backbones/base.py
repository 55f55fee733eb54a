"""What the backbones share: named feature maps, stages that stay frozen, weights of other frameworks."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
from keras import layers

from keras_rcnn.backbones.grouped import convolution
from keras_rcnn.backbones.norm import normalization
from keras_rcnn.interfaces import Tensor


class Backbone(keras.Model):
    """Images -> feature maps; a functional model with the names of the maps, their strides and their channels.

    Attributes:
        strides: dict, name of a map -> its stride in pixels.
        channels: dict, name of a map -> its number of channels.
        mean, std: three floats each: what the weights expect RGB images in 0..1 to be normalised by; a detector's
            `Preprocessor` does it.
        freeze_at: int N: the stem (1) and everything up to the map C{N} (2 and more) is not trained, and normalises
            with its moving statistics. It can be set, and holds through `trainable = True` of this or an outer model.

    Args:
        inputs: symbolic images [B, None, None, 3].
        outputs: dict, name of a map -> symbolic tensor.
        strides: dict, name of a map -> int.
        stages: dict, the part of a layer's name before the first "_" -> the N from which on `freeze_at` freezes it.
        config: the constructor's arguments, as `get_config` returns them.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's

    def __init__(
        self,
        inputs: Tensor,
        outputs: Mapping[str, Tensor],
        *,
        strides: Mapping[str, int],
        stages: Mapping[str, int],
        config: Mapping[str, Any],
        name: str,
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.strides = dict(strides)
        self.channels = {key: int(value.shape[-1]) for key, value in outputs.items()}
        self._stages = dict(stages)
        self._arguments = {**config, "dtype": keras.dtype_policies.get(config["dtype"]).name}
        self.freeze_at = config["freeze_at"]

    @property
    def freeze_at(self) -> int:
        return self._freeze_at

    @freeze_at.setter
    def freeze_at(self, value: bool) -> None:
        last = max(self._stages.values())
        if not isinstance(value, int) or not 0 <= value <= last:
            raise ValueError(f"{self.name}: freeze_at is 0 (train everything) to {last} (nothing), not {value!r}.")
        self._freeze_at = value
        self._set_trainable(self.trainable)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_trainable(value)

    def _set_trainable(self, value: bool) -> None:
        # Keras hands an outer model's `trainable = True` down to every layer: freeze again what stays frozen.
        # (A method, because TensorFlow's tracking skips an assignment that does not change the attribute.)
        keras.Model.trainable.fset(self, value)
        if value and hasattr(self, "_freeze_at"):
            for layer in self.body().layers:
                if self._stage(layer) <= self._freeze_at:
                    layer.trainable = False

    def _stage(self, layer: keras.layers.Layer) -> int:
        """The N from which on `freeze_at` freezes a layer."""
        return self._stages.get(layer.name.split("_")[0], self._freeze_at + 1)

    def body(self) -> keras.Model:
        """The model with the layers of the network itself, which the stages are made of."""
        return self

    def get_config(self) -> dict[str, Any]:
        # weights None: a saved model brings its own, and must not ask for the package they came from
        return {**self._arguments, "freeze_at": self.freeze_at, "weights": None, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        return cls(**config)


class Parts:
    """Makes a backbone's layers, all of one norm and dtype policy, from explicit names.

    Args:
        norm, epsilon, momentum: of the normalisation.
        dtype: dtype policy, its name or None.
        padding: "symmetric", PyTorch's k // 2 on every side, or "same", TensorFlow's, which pads a stride-2
            convolution of even maps on the right and bottom only.
    """

    norm: Literal["frozen", "batch", "group"]

    def __init__(
        self,
        norm: Literal["frozen", "batch", "group"],
        epsilon: float,
        momentum: float,
        dtype: str | keras.DTypePolicy | None,
        padding: Literal["symmetric", "same"] = "symmetric",
    ) -> None:
        self.norm, self.epsilon, self.momentum, self.dtype, self.padding = norm, epsilon, momentum, dtype, padding

    def pad(self, x: Tensor, size: int, strides: int, name: str) -> tuple[Tensor, str]:
        """`(x, padding)`: at stride 1 both kinds of padding are the same."""
        if self.padding == "same" or strides == 1 or size == 1:
            return x, "same"
        return layers.ZeroPadding2D(size // 2, dtype=self.dtype, name=f"{name}_pad")(x), "valid"

    def conv(
        self,
        x: Tensor,
        filters: int,
        size: int,
        strides: int,
        name: str,
        bias: bool = False,
        groups: int = 1,
        dilation: int = 1,
    ) -> Tensor:
        """Convolution, He-initialised."""
        x, padding = self.pad(x, size, strides, name)
        return convolution(
            filters,
            size,
            strides,
            groups,
            padding=padding,
            dilation_rate=dilation,
            use_bias=bias,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            dtype=self.dtype,
            name=name,
        )(x)

    def depthwise(self, x: Tensor, size: int, strides: int, name: str) -> Tensor:
        """Depthwise convolution without a bias, He-initialised."""
        x, padding = self.pad(x, size, strides, name)
        return layers.DepthwiseConv2D(
            size,
            strides,
            padding=padding,
            use_bias=False,
            depthwise_initializer=keras.initializers.RandomNormal(stddev=(2.0 / size**2) ** 0.5),
            dtype=self.dtype,
            name=name,
        )(x)

    def normalize(self, x: Tensor, name: str) -> Tensor:
        """The normalisation."""
        return normalization(self.norm, epsilon=self.epsilon, momentum=self.momentum, name=name, dtype=self.dtype)(x)

    def activate(self, x: Tensor, function: str, name: str) -> Tensor:
        """An activation by its Keras name."""
        return layers.Activation(function, dtype=self.dtype, name=name)(x)

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """The sum of a residual connection."""
        return layers.Add(dtype=self.dtype, name=name)([x, y])
