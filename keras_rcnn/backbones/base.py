"""What the backbones share: named feature maps, stages that stay frozen, weights of other frameworks."""

from collections.abc import Mapping
from typing import Any

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
    def freeze_at(self):
        return self._freeze_at

    @freeze_at.setter
    def freeze_at(self, value):
        last = max(self._stages.values())
        if not isinstance(value, int) or not 0 <= value <= last:
            raise ValueError(f"{self.name}: freeze_at is 0 (train everything) to {last} (nothing), not {value!r}.")
        self._freeze_at = value
        self._set_trainable(self.trainable)

    @property
    def trainable(self):
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        self._set_trainable(value)

    def _set_trainable(self, value):
        # Keras hands an outer model's `trainable = True` down to every layer: freeze again what stays frozen.
        # (A method, because TensorFlow's tracking skips an assignment that does not change the attribute.)
        keras.Model.trainable.fset(self, value)
        if value and hasattr(self, "_freeze_at"):
            for layer in self.body().layers:
                if self._stage(layer) <= self._freeze_at:
                    layer.trainable = False

    def _stage(self, layer):
        """The N from which on `freeze_at` freezes a layer."""
        return self._stages.get(layer.name.split("_")[0], self._freeze_at + 1)

    def body(self) -> keras.Model:
        """The model with the layers of the network itself, which the stages are made of."""
        return self

    def get_config(self):
        # weights None: a saved model brings its own, and must not ask for the package they came from
        return {**self._arguments, "freeze_at": self.freeze_at, "weights": None, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


class Parts:
    """Makes a backbone's layers, all of one norm and dtype policy, from explicit names.

    Args:
        norm, epsilon, momentum: of the normalisation.
        dtype: dtype policy, its name or None.
        padding: "symmetric", PyTorch's k // 2 on every side, or "same", TensorFlow's, which pads a stride-2
            convolution of even maps on the right and bottom only.
    """

    def __init__(self, norm, epsilon, momentum, dtype, padding="symmetric"):
        self.norm, self.epsilon, self.momentum, self.dtype, self.padding = norm, epsilon, momentum, dtype, padding

    def pad(self, x, size, strides, name):
        """`(x, padding)`: at stride 1 both kinds of padding are the same."""
        if self.padding == "same" or strides == 1 or size == 1:
            return x, "same"
        return layers.ZeroPadding2D(size // 2, dtype=self.dtype, name=f"{name}_pad")(x), "valid"

    def conv(self, x, filters, size, strides, name, bias=False, groups=1, dilation=1):
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

    def depthwise(self, x, size, strides, name):
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

    def normalize(self, x, name):
        """The normalisation."""
        return normalization(self.norm, epsilon=self.epsilon, momentum=self.momentum, name=name, dtype=self.dtype)(x)

    def activate(self, x, function, name):
        """An activation by its Keras name."""
        return layers.Activation(function, dtype=self.dtype, name=name)(x)

    def add(self, x, y, name):
        """The sum of a residual connection."""
        return layers.Add(dtype=self.dtype, name=name)([x, y])
