"""PyTorch's layouts -> Keras's, and taking tensors out of a state dict so that none is forgotten."""

from collections.abc import Callable, Mapping

import numpy as np

from keras_rcnn.convert.errors import ConversionError

Layout = Callable[[np.ndarray], np.ndarray]


def conv(kernel: np.ndarray) -> np.ndarray:
    """(out, in, h, w) -> (h, w, in, out)."""
    return kernel.transpose(2, 3, 1, 0)


def depthwise(kernel: np.ndarray) -> np.ndarray:
    """(channels, 1, h, w) -> (h, w, channels, 1)."""
    return kernel.transpose(2, 3, 0, 1)


def deconv(kernel: np.ndarray) -> np.ndarray:
    """Transposed convolution (in, out, h, w) -> (h, w, out, in), without a flip."""
    return kernel.transpose(2, 3, 1, 0)


def dense(kernel: np.ndarray) -> np.ndarray:
    """(out, in) -> (in, out)."""
    return kernel.transpose(1, 0)


def dense_after_flatten(kernel: np.ndarray, height: int, width: int) -> np.ndarray:
    """(out, C * h * w), flattened as C, h, w -> (h * w * C, out), flattened as h, w, C."""
    out = kernel.shape[0]
    return kernel.reshape(out, -1, height, width).transpose(2, 3, 1, 0).reshape(-1, out)


class Tensors:
    """A state dict whose tensors are taken out one by one; `finish` fails if one is left.

    Args:
        state: dict, name -> array. It is not changed.
        model: str, for messages.
    """

    def __init__(self, state: Mapping[str, np.ndarray], model: str) -> None:
        self.left = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        self.model, self.taken, self.missing = model, {}, []

    def take(self, name: str, rank: int) -> np.ndarray | None:
        """The tensor of that name with `rank` axes as float32, or None, which is reported by `finish`."""
        if name not in self.left:
            self.missing.append(name)
            return None
        value = np.asarray(self.left.pop(name))
        if value.ndim != rank or value.dtype.kind != "f":
            raise ConversionError(
                f"{self.model}: {name} is {value.dtype} {value.shape}; float32 with {rank} axes was expected."
            )
        if not np.isfinite(value).all():
            raise ConversionError(f"{self.model}: {name} holds NaN or infinite values; the file is damaged.")
        return value.astype(np.float32, copy=False)

    def move(self, name: str, path: str, layout: Layout | None = None, rank: int = 1) -> None:
        """Takes `name` to our `path`."""
        value = self.take(name, rank)
        if value is None:
            return
        try:
            self.taken[path] = np.ascontiguousarray(value if layout is None else layout(value))
        except ValueError as error:
            raise ConversionError(f"{self.model}: {name} has the unexpected shape {value.shape} ({error}).") from error

    def conv(self, name: str, path: str, layout: Layout = conv, bias: bool = False) -> None:
        """Takes a convolution's kernel, and its bias."""
        self.move(f"{name}.weight", f"{path}/kernel", layout, rank=4)
        if bias:
            self.move(f"{name}.bias", f"{path}/bias")

    def dense(self, name: str, path: str, layout: Layout = dense) -> None:
        """Takes a fully connected layer's kernel and bias."""
        self.move(f"{name}.weight", f"{path}/kernel", layout, rank=2)
        self.move(f"{name}.bias", f"{path}/bias")

    def norm(self, name: str, path: str) -> None:
        """Takes a BatchNorm's four vectors."""
        self.move(f"{name}.weight", f"{path}/gamma")
        self.move(f"{name}.bias", f"{path}/beta")
        self.move(f"{name}.running_mean", f"{path}/moving_mean")
        self.move(f"{name}.running_var", f"{path}/moving_variance")

    def layer_norm(self, name: str, path: str) -> None:
        """Takes a LayerNorm's two vectors."""
        self.move(f"{name}.weight", f"{path}/gamma")
        self.move(f"{name}.bias", f"{path}/beta")

    def rows(self, path: str) -> int | None:
        """How many outputs the layer at our `path` has, or None if its tensors were missing."""
        kernel, bias = self.taken.get(f"{path}/kernel"), self.taken.get(f"{path}/bias")
        if kernel is None or bias is None:
            return None
        if kernel.shape[-1] != len(bias):
            raise ConversionError(f"{self.model}: {path} has {kernel.shape[-1]} outputs and {len(bias)} biases.")
        return len(bias)

    def edit(self, path: str, function: Layout) -> None:
        """Changes kernel and bias at our `path`, outputs on the last axis, if they are there."""
        for part in (f"{path}/kernel", f"{path}/bias"):
            if part in self.taken:
                self.taken[part] = np.ascontiguousarray(function(self.taken[part]))

    def drop(self, *names: str) -> None:
        """Leaves tensors out knowingly, such as a classifier; they may be absent."""
        for name in names:
            self.left.pop(name, None)

    def finish(self, hint: str = "") -> dict[str, np.ndarray]:
        """{our path: array}; raises ConversionError if a tensor was missing or is left over."""
        problems = [
            f"{len(names)} {group}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for group, names in (("missing", self.missing), ("left over", list(self.left)))
            if names
        ]
        if problems:
            raise ConversionError(f"These are not the weights of {self.model}: {'; '.join(problems)}.{hint}")
        return self.taken
