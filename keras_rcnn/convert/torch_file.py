"""Reads the tensors of a weights file without PyTorch, and without running anything that the file says.

Forms: PyTorch's zip (since 1.6) and the older pickle stream (torchvision's v1 detection weights are such), NumPy's
.npz, and .safetensors. A pickle is read by an unpickler that knows the few callables which rebuild tensors.
"""

import collections
import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_rcnn.convert.arrays import ZIP_ENTRY, decode, fill, read_npz, read_safetensors, settle
from keras_rcnn.convert.errors import WeightsFileError
from keras_rcnn.convert.limits import Limits
from keras_rcnn.convert.pickles import MAX_AXES, Storage, Tensor, is_count, short, unpickle, width
from keras_rcnn.interfaces import FilePath

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
# wrappers within wrappers
DEPTH = 8
NOT_WEIGHTS = (
    (b"<!doctype", "a web page (a download that went wrong?)"),
    (b"<html", "a web page (a download that went wrong?)"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"\x89hdf\r\n\x1a\n", "an HDF5 file; load it with model.load_weights or keras.models.load_model"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
)


def read_torch_file(
    path: FilePath, max_bytes: int | None = None, max_parts: int | None = None
) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch, .npz or .safetensors file, in its own names and layouts.

    Nothing in the file is run, and what it declares is checked before memory or time is spent on it.

    Args:
        path: str or path. The form is told from the content, not from the name.
        max_bytes: int, bytes that all arrays together may have. None: the environment's
            `KERAS_RCNN_MAX_WEIGHTS_BYTES`, or else 1 GiB, and no more than 8 times the file's size and 256 MiB.
        max_parts: int, what may take time: steps of a pickle (about 60 a tensor), tensors, entries. None: the
            environment's `KERAS_RCNN_MAX_WEIGHTS_PARTS`, or else a million, which take seconds.

    Returns:
        A dict, name -> NumPy array: float32 for floats of any width, int64 for integers and booleans. A state dict
        within `{"model": ...}` or `{"state_dict": ...}` is unwrapped, and a "module." before every name dropped.

    Raises:
        UnsafeWeightsError: if the file's pickle names a callable other than those that rebuild tensors.
        WeightsFileError: if the file is no weights file, truncated, malformed or beyond the limits. Both are
            ConversionErrors.
        FileNotFoundError: if there is no such file.

    Example:

    >>> state = read_torch_file("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    >>> state["backbone.body.conv1.weight"].shape
    (64, 3, 7, 7)
    """
    path = weights_file(path)
    limits = Limits(path, max_bytes, max_parts)
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(0)
        try:
            state = _reader(path, head)(file, path, limits)
        except WeightsFileError:
            raise
        except Exception as error:  # whatever a malformed file provokes in zipfile, pickle or NumPy
            raise WeightsFileError(
                f"{path} is truncated or malformed ({type(error).__name__}: {error}). Download it again."
            ) from error
    if not state:
        raise WeightsFileError(f"{path} holds no tensors.")
    if all(name.startswith("module.") for name in state):  # saved from within DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def weights_file(path: FilePath) -> Path:
    """The path of an ordinary file.

    Raises:
        WeightsFileError: for a folder, a pipe or a device, which may never end.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.is_dir():
        raise WeightsFileError(f"{path} is a folder, not a weights file.")
    if not path.is_file():
        raise WeightsFileError(f"{path} is a pipe or a device, not a weights file. Copy its content into a file.")
    return path


def _reader(path: Path, head: bytes) -> Callable[[IO[bytes], Path, Limits], dict[str, np.ndarray]]:
    if not head:
        raise WeightsFileError(f"{path} is empty (0 bytes).")
    for start, description in NOT_WEIGHTS:
        if head.lstrip().lower().startswith(start):
            raise WeightsFileError(f"{path} is {description}, not a weights file.")
    if head.startswith(b"PK"):
        return _read_zip
    if head[8:9] == b"{" and (head[:1] != b"\x80" or head[4:8] == bytes(4)):  # a header of n * 256 + 128 bytes
        return lambda file, path, limits: read_safetensors(path, limits)
    if head[:1] == b"\x80":
        return _read_legacy
    if head[257:262] == b"ustar":
        raise WeightsFileError(
            f"{path} has the tar form of PyTorch before 0.2, or is an archive of other files. "
            "Load it with PyTorch and save it again, or unpack it."
        )
    raise WeightsFileError(f"{path} is not a weights file: it is not a PyTorch (.pth, .pt), .npz or .safetensors file.")


# === PyTorch's zip, and .npz ===


def _read_zip(file: IO[bytes], path: Path, limits: Limits) -> dict[str, np.ndarray]:
    limits.take_parts(_directory(file) // ZIP_ENTRY)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise WeightsFileError(f"{path} is truncated or damaged: {error}. Download it again.") from error
    with archive:
        names = archive.namelist()
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if not pickles and names and all(name.endswith(".npy") for name in names):
            return read_npz(archive, limits)
        if len(pickles) != 1:
            raise WeightsFileError(
                f"{path} is a zip file, but neither PyTorch's (no data.pkl in it) nor NumPy's .npz; "
                f"it begins with {names[:3]}. A .keras file is for keras.models.load_model."
            )
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        big = order in names and _entry(archive, order, limits).tobytes().strip() == b"big"
        tree = unpickle(io.BytesIO(_entry(archive, pickles[0], limits).data), limits)

        def read(storage: Storage, size: int) -> np.ndarray:
            return _entry(archive, f"{root}data/{storage.key}", limits, size)

        return _tensors(tree, limits, read, big)


def _directory(file: IO[bytes]) -> int:
    """Bytes of a zip file's directory, as the record at the file's end has it: zipfile reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - 128))
    tail = file.read()
    file.seek(0)
    large, end = tail.rfind(b"PK\x06\x06"), tail.rfind(b"PK\x05\x06")
    if large >= 0:
        return int.from_bytes(tail[large + 40 : large + 48], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0


def _entry(archive: zipfile.ZipFile, name: str, limits: Limits, size: int | None = None) -> np.ndarray:
    """The bytes of an entry; at least `size`, if given."""
    path = limits.path
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise WeightsFileError(f"{path} is malformed: its tensors want {name}, which is not in it.") from None
    if info.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses: what does may be a zip bomb
        raise WeightsFileError(f"{path}: {name} is compressed. Unpack and save the weights again with torch.save.")
    if info.file_size != info.compress_size or info.file_size > limits.size:
        raise WeightsFileError(f"{path} is malformed: {name} claims {info.file_size} bytes.")
    if size is not None and info.file_size < size:
        raise WeightsFileError(f"{path} is malformed: {name} has {info.file_size} bytes, its tensors want {size}.")
    with archive.open(info) as file:
        data = fill(file, info.file_size)
        if len(data) != info.file_size or file.read(1):  # the end is where zipfile checks the CRC
            raise WeightsFileError(f"{path} is truncated: {name} has {len(data)} of its {info.file_size} bytes.")
    return data


# === PyTorch's older stream: magic number, protocol, system, object, storage keys, then one storage after another ===


def _read_legacy(file: IO[bytes], path: Path, limits: Limits) -> dict[str, np.ndarray]:
    if unpickle(file, limits) != MAGIC_NUMBER:
        raise WeightsFileError(f"{path} is a pickle, but not one by torch.save. Save a state dict with torch.save.")
    protocol, system = unpickle(file, limits), unpickle(file, limits)
    if protocol != 1001 or not isinstance(system, dict):
        raise WeightsFileError(f"{path} has PyTorch's stream form in an unknown version ({short(protocol)}).")
    widths = {}
    tree = unpickle(file, limits, widths)
    keys = unpickle(file, limits)
    start, length = file.tell(), limits.size
    if not isinstance(keys, list):
        raise WeightsFileError(f"{path} is malformed: its list of storages is a {type(keys).__name__}.")
    places = {}
    for key in keys:
        file.seek(start)
        count = int.from_bytes(file.read(8), "little", signed=True)
        if not isinstance(key, str) or key not in widths:
            raise WeightsFileError(f"{path} is malformed: nothing in it uses its storage {short(key)}.")
        size = count * widths[key]
        if count < 0 or start + 8 + size > length:
            raise WeightsFileError(f"{path} is truncated: it has {length} bytes, and wants {start + 8 + size} or more.")
        places[key] = (start + 8, size)
        start += 8 + size

    def read(storage: Storage, size: int) -> np.ndarray:
        place, available = places.get(storage.key, (0, -1))
        if available < size:
            raise WeightsFileError(f"{path} is malformed: storage {storage.key!r} has {available} bytes, not {size}.")
        file.seek(place)
        return fill(file, available)

    return _tensors(tree, limits, read, big=False)  # the storages are little-endian whatever the system


# === Tensors ===


def _state(tree: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what was saved."""
    for _ in range(DEPTH):
        if not isinstance(tree, dict):
            raise WeightsFileError(f"{path} holds a {type(tree).__name__}, not a state dict (name -> tensor).")
        if any(isinstance(value, Tensor) for value in tree.values()):
            break
        inner = [key for key in WRAPPERS if isinstance(tree.get(key), dict)]
        if len(inner) != 1:
            raise WeightsFileError(
                f"{path} holds no state dict: no tensors in its keys {short(list(tree))}, and none or several of "
                f"{', '.join(WRAPPERS)} among them."
            )
        tree = tree[inner[0]]
    strange = [key for key, value in tree.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsFileError(f"{path} holds other things than tensors, under {short(strange)}.")
    return tree


def _tensors(tree: Any, limits: Limits, read: Callable[[Storage, int], np.ndarray], big: bool) -> dict[str, np.ndarray]:
    """The arrays of a tree of tensors; `read(storage, size)` gives at least `size` bytes."""
    path, state = limits.path, _state(tree, limits.path)
    by_storage = collections.defaultdict(list)
    for name, tensor in state.items():  # strides of 0 make a tensor of any size from one number
        limits.take_bytes(_check(name, tensor, path) * (4 if _is_float(tensor.storage.dtype) else 8), name)
        by_storage[tensor.storage.key].append(name)
    out: dict[str, Any] = dict.fromkeys(state)
    for names in by_storage.values():  # one storage at a time, for memory's sake
        storages = [state[name].storage for name in names]
        dtypes = {storage.dtype for storage in storages}
        if len(dtypes) > 1:
            raise WeightsFileError(f"{path} is malformed: {names[0]} and {names[-1]} share memory as {dtypes}.")
        dtype = dtypes.pop()
        size = max(storage.start + storage.size for storage in storages) * width(dtype)
        data = decode(read(storages[0], size)[:size], dtype, big)
        for name in names:
            storage, offset, shape, strides = state[name]
            view = np.lib.stride_tricks.as_strided(
                data[storage.start + offset :] if math.prod(shape) else data[:0],
                shape,
                [stride * data.itemsize for stride in strides],
            )
            whole = len(names) == 1 and view.nbytes == data.nbytes
            out[name] = settle(view, name, path, own=whole)
    return out


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("f", "bf"))


def _check(name: str, tensor: Tensor, path: Path) -> int:
    """Raises if a tensor reaches outside of its storage; returns its number of elements."""
    storage, offset, shape, strides = tensor
    sound = (
        isinstance(storage, Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= MAX_AXES
        and all(is_count(n) for n in (offset, *shape, *strides))
    )
    if sound:
        count = math.prod(shape)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if count == 0 or last < storage.size:
            return count
    raise WeightsFileError(
        f"{path} is malformed: {name} with shape {short(shape)}, strides {short(strides)} and offset "
        f"{short(offset)} does not fit its storage of {getattr(storage, 'size', '?')} elements."
    )
