"""What the networks published for Caffe need: its pooling and local response normalisation.

They have no batch normalisation, and biases everywhere. Maps are never padded by halves as Keras's "same" does.
"""

from typing import Any

import keras
from keras import layers, ops

from keras_rcnn.backbones.grouped import convolution
from keras_rcnn.convert import CAFFE_MEAN
from keras_rcnn.interfaces import FilePath, Shape, Tensor


@keras.saving.register_keras_serializable("keras_rcnn")
class LocalResponseNormalization(layers.Layer):
    """`x / (1 + alpha * mean(x ** 2)) ** beta` (Krizhevsky et al. 2012, section 3.3), the mean as Caffe takes it.

    Args:
        size: odd int, of the neighbourhood.
        alpha, beta: floats.
        across: whether the neighbours are the channels of the same cell (Caffe's ACROSS_CHANNELS), or the size x size
            cells of the same channel (WITHIN_CHANNEL). What lies outside counts as 0 among the `size` or `size ** 2`.

    Call with [B, H, W, C]; returns the same shape. It computes in float32 whatever the dtype policy.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, across: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"LocalResponseNormalization's size is an odd number, not {size!r}.")
        self.size, self.alpha, self.beta, self.across = size, alpha, beta, across

    def call(self, x: Tensor) -> Tensor:
        values = ops.cast(x, "float32")
        squares, side = ops.square(values), self.size // 2
        if self.across:
            channels = x.shape[-1]
            squares = ops.pad(squares, ((0, 0), (0, 0), (0, 0), (side, side)))
            mean = sum(squares[..., i : i + channels] for i in range(self.size)) / self.size
        else:
            squares = ops.pad(squares, ((0, 0), (side, side), (side, side), (0, 0)))
            mean = ops.average_pool(squares, self.size, 1, "valid", data_format="channels_last")
        return ops.cast(values * (1.0 + self.alpha * mean) ** -self.beta, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "across": self.across}
        return {**super().get_config(), **config}


class CaffeParts:
    """Makes a network's layers with Caffe's paddings, all of one dtype policy, from explicit names."""

    def __init__(self, dtype: str | keras.DTypePolicy | None) -> None:
        self.dtype = dtype

    def conv(
        self, x: Tensor, filters: int, size: int, name: str, strides: int = 1, pad: int | None = None, groups: int = 1
    ) -> Tensor:
        """Convolution, with a bias, and ReLU; `pad` cells of 0 on every side, by default size // 2."""
        pad = size // 2 if pad is None else pad
        padding = "same" if strides == 1 and pad == size // 2 else "valid"
        if pad and padding == "valid":
            x = layers.ZeroPadding2D(pad, dtype=self.dtype, name=f"{name}_pad")(x)
        return convolution(
            filters,
            size,
            strides,
            groups,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=self.dtype,
            name=name,
        )(x)

    def pool(self, x: Tensor, size: int, name: str, pad: int = 0) -> Tensor:
        """The maximum of size x size cells, every second.

        Caffe rounds the number of windows up, and cuts them off at the border: n cells with `pad` at both ends give
        ceil((n + 2 * pad - size) / 2) + 1. One cell more at the far end and rounding down gives the same number. The
        cells added are 0, which is no more than the maximum of what ReLU leaves, and every window holds a true cell.
        (Caffe's other rule, that a window may not begin in the far padding, never applies to size 3 with pad 1.)
        """
        if size == 2 and pad == 0:  # "same" then is just that, without a copy of the map
            return layers.MaxPooling2D(2, 2, padding="same", dtype=self.dtype, name=name)(x)
        ends = (pad, pad + 1)
        x = layers.ZeroPadding2D((ends, ends), dtype=self.dtype, name=f"{name}_pad")(x)
        return layers.MaxPooling2D(size, 2, dtype=self.dtype, name=name)(x)

    def normalize(self, x: Tensor, name: str, **settings: Any) -> Tensor:
        """Local response normalisation."""
        return LocalResponseNormalization(dtype=self.dtype, name=name, **settings)(x)


# what RGB images in 0..1 are normalised by: 0..255 minus a mean
MEAN, STD = tuple(m / 255 for m in CAFFE_MEAN), (1 / 255,) * 3
# the part of a layer's name before "_" -> the freeze_at that freezes it
STAGES = {f"conv{i}": i for i in range(1, 6)}


def load_caffe(model: keras.Model, network: str, weights: FilePath) -> None:
    """Puts the backbone's part of a .caffemodel, or of what `keras-rcnn convert caffe` made of it, into the model."""
    from keras_rcnn.convert import assign, read_caffe_weights

    if weights == "imagenet":
        raise ValueError(
            f"No package carries {model.name}'s ImageNet weights: download its .caffemodel and pass the file's path as "
            "`weights`."
        )
    assign(model, read_caffe_weights(network, weights, heads=False))
