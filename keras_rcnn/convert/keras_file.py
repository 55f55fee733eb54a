"""Weights in the `.h5` files of Keras 2, as `save_weights`, `ModelCheckpoint` and `model.save` wrote them.

HDF5 lets a file point into other files and directories, claim arrays that it has not, and keep Python objects. Here a
file's arrays are numbers, lie in the file itself, and are counted before they are read.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.convert.arrays import settle
from keras_rcnn.convert.errors import UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.limits import Limits
from keras_rcnn.interfaces import FilePath

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# of an array; Keras's have 4
_MAX_AXES = 8
# filters that HDF5 has itself, by their numbers: deflate, shuffle, Fletcher's checksum
_FILTERS = {1, 2, 3}
# of one list of names; HDF5 itself has room for 64 KB
_MAX_ATTRIBUTE = 2**20


def read_keras_h5(
    path: FilePath, max_bytes: int | None = None, max_parts: int | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """The weights of a Keras 2 `.h5` file, layer by layer.

    Layers are named as their groups are; that is what stays when a second model of the process calls its weights
    `conv1_1/kernel:0`. Of a model within the model the inner layers are named, without such a number.

    Args:
        path: str or path, of a file by `save_weights` or by `model.save`, whose `/model_weights` are read.
        max_bytes, max_parts: limits, as in `read_torch_file`.

    Returns:
        A dict, name of a layer with weights -> dict, name of a weight (`"kernel"`, `"bias"`, `"gamma"` ...) -> NumPy
        array, float32 or int64, in the order in which the file names them.

    Raises:
        UnsafeWeightsError: if it points outside of itself, or holds objects.
        WeightsFileError: if it is no such file, truncated, malformed or beyond the limits. Both are ConversionErrors.
        FileNotFoundError: if there is no such file.

    Example:

    >>> read_keras_h5("mask_rcnn_coco.h5")["conv1"]["kernel"].shape
    (7, 7, 3, 64)
    """
    path = _checked_file(Path(path))
    limits = Limits(path, max_bytes, max_parts)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _layers(_weights_group(file, limits), limits)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, WeightsFileError):
            raise
        raise WeightsFileError(
            f"{path} is truncated, or no sound HDF5 file: {_first_line(error)}. Download or save it again."
        ) from error


def _checked_file(path: Path) -> Path:
    if path.is_dir():
        raise WeightsFileError(f"{path} is a folder, not an .h5 file.")
    if path.exists() and not path.is_file():
        raise WeightsFileError(f"{path} is a pipe or a device, not an .h5 file. Copy its content into a file.")
    with open(path, "rb") as file:
        head = file.read(len(SIGNATURE))
    if head != SIGNATURE:
        what = "empty" if not head else "no HDF5 file, as weights of Keras 2 (.h5) are"
        raise WeightsFileError(f"{path} is {what}.")
    return path


def _first_line(error: BaseException) -> str:
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0][:200]


def _weights_group(file: Any, limits: Limits) -> Any:
    """The group with the layers: the file itself, or what `model.save` has beside the optimizer's."""
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return file
    if file.get("model_weights", getlink=True) is not None:
        return _member(file, "model_weights", "group", limits)
    raise WeightsFileError(
        f"{limits.path} is an HDF5 file without layer_names: no weights of Keras 2. Keras 3 writes another form, "
        ".weights.h5."
    )


def _layers(group: Any, limits: Limits) -> dict[str, dict[str, np.ndarray]]:
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name in _names(group, "layer_names", limits):
        layer = _member(group, name, "group", limits)
        paths = _names(layer, "weight_names", limits)
        for path, (inner, weight) in zip(paths, _named(name, paths), strict=True):
            own = layers.setdefault(inner, {})
            if weight in own:
                raise WeightsFileError(f"{limits.path}: the layer {inner} has {weight} twice.")
            own[weight] = _array(_member(layer, path, "dataset", limits), f"{name}/{path}", limits)
    if not layers:
        raise WeightsFileError(f"{limits.path} names no weights.")
    return layers


def _named(layer: str, paths: list[str]) -> list[tuple[str, str]]:
    """`(layer, weight)` of each path of a layer's weights, such as `conv1_1/kernel:0`."""
    parts = [path.split(":")[0].split("/") for path in paths]
    within = {part[-2] for part in parts if len(part) > 1}
    if len(within) < 2:
        return [(layer, part[-1]) for part in parts]
    return [(re.sub(r"_\d+$", "", part[-2]) if len(part) > 1 else layer, part[-1]) for part in parts]


def _names(group: Any, key: str, limits: Limits) -> list[str]:
    """The texts of an attribute; a long list is in `key0`, `key1` and so on."""
    if key in group.attrs:
        return _texts(group, key, limits)
    names, chunk = [], 0
    while f"{key}{chunk}" in group.attrs:
        names += _texts(group, f"{key}{chunk}", limits)
        chunk += 1
    if not chunk:
        raise WeightsFileError(f"{limits.path}: the group {group.name!r} has no {key}, as Keras's groups have.")
    return names


def _texts(group: Any, key: str, limits: Limits) -> list[str]:
    described = group.attrs.get_id(key)
    size = math.prod(described.shape or ()) * described.dtype.itemsize
    if size > _MAX_ATTRIBUTE:
        raise WeightsFileError(f"{limits.path}: {key} of {group.name!r} has {size} bytes.")
    values = np.asarray(group.attrs[key]).reshape(-1)
    if values.size == 0:
        return []
    limits.take_parts(values.size)
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.tolist()]
    if not all(isinstance(text, str) and text for text in texts):
        raise WeightsFileError(f"{limits.path}: {key} of {group.name!r} are no names.")
    return texts


def _member(group: Any, name: str, kind: str, limits: Limits) -> Any:
    """What lies under a name of the group or of groups within it, reached by no other way than through the file."""
    import h5py

    wanted = {"group": h5py.Group, "dataset": h5py.Dataset}[kind]
    here = group
    for part in name.split("/"):
        limits.take_parts()
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) and part not in ("", ".", "..") else None
        if link is None:
            raise WeightsFileError(f"{limits.path} names {name} in {group.name!r}, and has no such {kind}.")
        if not isinstance(link, h5py.HardLink):
            raise UnsafeWeightsError(
                f"{limits.path}: {name} in {group.name!r} is a link to another place or file, which Keras never "
                "writes. It was not followed."
            )
        here = here[part]
    if not isinstance(here, wanted):
        raise WeightsFileError(f"{limits.path}: {name} in {group.name!r} is no {kind}.")
    return here


def _array(dataset: Any, name: str, limits: Limits) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise UnsafeWeightsError(f"{limits.path}: {name} has its values in other files. They were not read.")
    if dataset.dtype.kind not in "fiub" or dataset.dtype.hasobject:
        raise UnsafeWeightsError(f"{limits.path}: {name} holds {dataset.dtype}, not numbers. It was not read.")
    if dataset.shape is None or len(dataset.shape) > _MAX_AXES:
        raise WeightsFileError(f"{limits.path}: {name} has the shape {dataset.shape}.")
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
    if filters - _FILTERS:
        raise WeightsFileError(f"{limits.path}: {name} is packed by unknown filters: {sorted(filters)}.")
    limits.take_bytes(dataset.size * max(dataset.dtype.itemsize, 4 if dataset.dtype.kind == "f" else 8), name)
    return settle(dataset[()], name, limits.path, own=True)
