"""The weights file of a preset: arrays under their `variable.path`, as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_rcnn.download import sha256_of
from keras_rcnn.preset_file import PRESET, PresetError

if TYPE_CHECKING:
    from keras_rcnn.models import Detector


def read_weights(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """What a weights file holds: path -> array.

    Args:
        path: pathlib.Path.
        sha256: str, its SHA-256, or None if it is not known.

    Raises:
        PresetError: if it is missing, damaged or another.
    """
    from keras_rcnn.convert import ConversionError, read_torch_file

    if not path.is_file():
        raise PresetError(f"{path} is missing: the folder has {PRESET}, but not the weights that belong to it.")
    try:
        values = read_torch_file(path)
    except ConversionError as error:
        raise PresetError(str(error)) from error
    except OSError as error:
        raise PresetError(f"{path} cannot be read: {error.strerror or error}.") from error
    if sha256 is not None and sha256_of(path) != sha256.lower():
        raise PresetError(
            f"{path} is not the file that {PRESET} beside it describes: its SHA-256 is another, so it was "
            "damaged or altered. Get both anew (delete the folder, if it is in the cache); or if the weights were "
            "changed on purpose, save them by save_preset."
        )
    return values


def to_safetensors(model: Detector, dtype: str) -> bytes:
    """A model's weights as the bytes of a .safetensors file.

    Raises:
        PresetError: if two of them have the same path.
    """
    import keras
    from safetensors.numpy import save

    tensors = {}
    for weight in model.weights:
        if weight.path in tensors:
            raise PresetError(f"Two weights of {model.name} have the path {weight.path}: a preset cannot hold both.")
        value = np.array(keras.ops.convert_to_numpy(weight))
        value = value.astype(np.float32) if value.dtype.kind not in "iub" else value
        # a variance may be 1e-9, and a float16 is 0 below 6e-8
        if dtype == "float16" and value.dtype.kind == "f" and value.ndim > 1 and _fits_float16(value):
            value = value.astype(np.float16)
        tensors[weight.path] = np.array(value, order="C")  # ascontiguousarray would make a vector of a scalar
    return save(tensors, metadata={"format": "keras_rcnn"})


def _fits_float16(value: np.ndarray) -> bool:
    return not np.abs(value).max(initial=0) > np.finfo(np.float16).max
