"""Reads the tensors of a weights file without PyTorch, and without running anything that the file says.

Forms: PyTorch's zip (since 1.6) and the older pickle stream (torchvision's v1 detection weights are such), NumPy's
.npz, and .safetensors. A pickle is read by an unpickler that knows the few callables which rebuild tensors.
"""

import collections
import io
import json
import math
import os
import pickle
import reprlib
import zipfile
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from keras_rcnn.convert.errors import UnsafeWeightsError, WeightsFileError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "UntypedStorage": "u1",
}
SAFETENSORS = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bf16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "b1",
}
NOT_WEIGHTS = (
    (b"<!doctype", "a web page (a download that went wrong?)"),
    (b"<html", "a web page (a download that went wrong?)"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"\x89hdf\r\n\x1a\n", "an HDF5 file; load it with model.load_weights or keras.models.load_model"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
)


_short = reprlib.repr  # a malformed file's objects may print endlessly


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    dtype: str
    key: str
    start: int  # elements into the storage of that key, for a view
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def read_torch_file(path):
    """The tensors of a PyTorch, .npz or .safetensors file, in its own names and layouts.

    Args:
        path: str or path. The form is told from the content, not from the name.

    Returns:
        A dict, name -> NumPy array: float32 for floats of any width, int64 for integers and booleans. A state dict
        within `{"model": ...}` or `{"state_dict": ...}` is unwrapped, and a "module." before every name dropped.

    Raises:
        UnsafeWeightsError: if the file's pickle names a callable other than those that rebuild tensors.
        WeightsFileError: if the file is no weights file, truncated or malformed. Both are ValueErrors.
        FileNotFoundError: if there is no such file.

    Example:

    >>> state = read_torch_file("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    >>> state["backbone.body.conv1.weight"].shape
    (64, 3, 7, 7)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.is_dir():
        raise WeightsFileError(f"{path} is a folder, not a weights file.")
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(0)
        try:
            state = _reader(path, head)(file, path)
        except WeightsFileError:
            raise
        except Exception as error:  # whatever a malformed file provokes in zipfile, pickle, json or NumPy
            raise WeightsFileError(
                f"{path} is truncated or malformed ({type(error).__name__}: {error}). Download it again."
            ) from error
    if not state:
        raise WeightsFileError(f"{path} holds no tensors.")
    if all(name.startswith("module.") for name in state):  # saved from within DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _reader(path, head):
    if not head:
        raise WeightsFileError(f"{path} is empty (0 bytes).")
    for start, what in NOT_WEIGHTS:
        if head.lstrip().lower().startswith(start):
            raise WeightsFileError(f"{path} is {what}, not a weights file.")
    if head.startswith(b"PK"):
        return _read_zip
    if head[:1] == b"\x80":
        return _read_legacy
    if head[8:9] == b"{":
        return _read_safetensors
    if head[257:262] == b"ustar":
        raise WeightsFileError(
            f"{path} has the tar form of PyTorch before 0.2, or is an archive of other files. "
            "Load it with PyTorch and save it again, or unpack it."
        )
    raise WeightsFileError(f"{path} is not a weights file: it is not a PyTorch (.pth, .pt), .npz or .safetensors file.")


# === PyTorch's zip, and .npz ===


def _read_zip(file, path):
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise WeightsFileError(f"{path} is truncated or damaged: {error}. Download it again.") from error
    with archive:
        names = archive.namelist()
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if not pickles and names and all(name.endswith(".npy") for name in names):
            return _read_npz(archive, path)
        if len(pickles) != 1:
            raise WeightsFileError(
                f"{path} is a zip file, but neither PyTorch's (no data.pkl in it) nor NumPy's .npz; "
                f"it begins with {names[:3]}. A .keras file is for keras.models.load_model."
            )
        root = pickles[0].removesuffix("data.pkl")
        big = f"{root}byteorder" in names and _entry(archive, f"{root}byteorder", path).strip() == b"big"
        tree = _unpickle(io.BytesIO(_entry(archive, pickles[0], path)), path)
        return _tensors(tree, path, lambda storage, size: _entry(archive, f"{root}data/{storage.key}", path, size), big)


def _entry(archive, name, path, size=None):
    """The bytes of an entry; at least `size`, if given."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise WeightsFileError(f"{path} is malformed: its tensors want {name}, which is not in it.") from None
    if info.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses: what does may be a zip bomb
        raise WeightsFileError(f"{path}: {name} is compressed. Unpack and save the weights again with torch.save.")
    if size is not None and info.file_size < size:
        raise WeightsFileError(f"{path} is malformed: {name} has {info.file_size} bytes, its tensors want {size}.")
    return archive.read(info)


def _read_npz(archive, path):
    state = {}
    for info in archive.infolist():
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read:
                raise WeightsFileError(f"{path}: {info.filename} has an .npy header of version {version}.")
            shape, fortran, dtype = read[version](file)
            if dtype.hasobject:
                raise UnsafeWeightsError(
                    f"{path}: the array {info.filename} holds pickled Python objects, which could run code on "
                    "loading. It was not loaded. Save plain arrays (numpy.savez of float arrays)."
                )
            size = math.prod(shape) * dtype.itemsize
            data = file.read(size + 1)  # before an array is made: a header may claim any shape
            if len(data) != size:
                raise WeightsFileError(f"{path} is malformed: {info.filename} claims {shape} {dtype}, {size} bytes.")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        state[info.filename.removesuffix(".npy")] = _settle(array, info.filename, path)
    return state


# === PyTorch's older stream: magic number, protocol, system, object, storage keys, then one storage after another ===


def _read_legacy(file, path):
    if _unpickle(file, path) != MAGIC_NUMBER:
        raise WeightsFileError(f"{path} is a pickle, but not one by torch.save. Save a state dict with torch.save.")
    protocol, system = _unpickle(file, path), _unpickle(file, path)
    if protocol != 1001 or not isinstance(system, dict):
        raise WeightsFileError(f"{path} has PyTorch's stream form in an unknown version ({_short(protocol)}).")
    widths = {}
    tree = _unpickle(file, path, widths)
    keys = _unpickle(file, path)
    start, length = file.tell(), os.fstat(file.fileno()).st_size
    if not isinstance(keys, list):
        raise WeightsFileError(f"{path} is malformed: its list of storages is a {type(keys).__name__}.")
    places = {}
    for key in keys:
        file.seek(start)
        count = int.from_bytes(file.read(8), "little", signed=True)
        if key not in widths:
            raise WeightsFileError(f"{path} is malformed: nothing in it uses its storage {_short(key)}.")
        size = count * widths[key]
        if count < 0 or start + 8 + size > length:
            raise WeightsFileError(f"{path} is truncated: it has {length} bytes, and wants {start + 8 + size} or more.")
        places[key] = (start + 8, size)
        start += 8 + size

    def read(storage, size):
        place, available = places.get(storage.key, (0, -1))
        if available < size:
            raise WeightsFileError(f"{path} is malformed: storage {storage.key!r} has {available} bytes, not {size}.")
        file.seek(place)
        return file.read(available)

    return _tensors(tree, path, read, big=False)  # the storages are little-endian whatever the system


# === .safetensors ===


def _read_safetensors(file, path):
    length = os.fstat(file.fileno()).st_size
    size = int.from_bytes(file.read(8), "little")
    if size > length - 8:
        raise WeightsFileError(f"{path} is truncated, or no .safetensors file: its header claims {size} bytes.")
    header = json.loads(file.read(size))
    state = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        (start, end), shape = info["data_offsets"], tuple(info["shape"])
        if info["dtype"] not in SAFETENSORS:
            raise WeightsFileError(f"{path}: the tensor {name} has the unsupported dtype {info['dtype']}.")
        dtype = SAFETENSORS[info["dtype"]]
        if not all(isinstance(n, int) and n >= 0 for n in (start, end, *shape)):
            raise WeightsFileError(f"{path} is malformed: {name} has the shape {shape} and bytes {start} to {end}.")
        if end - start != math.prod(shape) * _width(dtype) or 8 + size + end > length:
            raise WeightsFileError(
                f"{path} is truncated or malformed: {name} {shape} {info['dtype']} has bytes {start} to {end}, "
                f"the file {length}."
            )
        file.seek(8 + size + start)
        state[name] = _settle(_decode(file.read(end - start), dtype).reshape(shape), name, path)
    return state


# === Pickles ===


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor, *_):
    return tensor


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in STORAGES.items()},
    ("torch.storage", "UntypedStorage"): _StorageType("u1"),
}


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with nothing to call but ALLOWED; it notes the bytes an element of every storage.

    The pure Python one, since C's allocates by the largest memo index that a pickle claims. Without the opcodes that
    allocate by a length not yet read, or that look names up in the process's own registry; and with the attributes
    that it sets on objects (`_metadata` of a state dict) ignored.
    """

    dispatch: ClassVar[dict] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in (pickle.BYTEARRAY8[0], pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0])
    }
    dispatch[pickle.BUILD[0]] = lambda self: self.stack.pop()

    def __init__(self, file, path, widths):
        super().__init__(file, encoding="utf-8")
        self.path, self.widths = path, widths

    def find_class(self, module, name):
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        hint = " It looks like a TorchScript archive; save model.state_dict()." if "__torch__" in module else ""
        raise UnsafeWeightsError(
            f"{self.path} asks to call {module}.{name} on loading, which is not needed for weights and could run any "
            f"code. It was not called. Save a plain state dict (torch.save(model.state_dict(), ...)).{hint}"
        )

    def persistent_load(self, saved):
        kind, storage_type, key, _, size, *view = saved
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(key, str):
            raise WeightsFileError(f"{self.path} is malformed: it refers to {_short(kind)} {_short(storage_type)}.")
        start = 0
        if view and view[0] is not None:
            _, start, size = view[0]
        if not _is_count(start) or not _is_count(size):
            raise WeightsFileError(f"{self.path} is malformed: its storage {_short(key)} has {_short(size)} elements.")
        self.widths[key] = _width(storage_type.dtype)
        return _Storage(storage_type.dtype, key, start, size)


def _unpickle(file, path, widths=None):
    try:
        return _Unpickler(file, path, {} if widths is None else widths).load()
    except WeightsFileError:
        raise
    except EOFError as error:
        raise WeightsFileError(f"{path} is truncated: its pickle ends too early. Download it again.") from error


def _state(tree, path):
    """The state dict in what was saved."""
    if not isinstance(tree, dict):
        raise WeightsFileError(f"{path} holds a {type(tree).__name__}, not a state dict (name -> tensor).")
    if not any(isinstance(value, _Tensor) for value in tree.values()):
        inner = [key for key in WRAPPERS if isinstance(tree.get(key), dict)]
        if len(inner) == 1:
            return _state(tree[inner[0]], path)
        raise WeightsFileError(
            f"{path} holds no state dict: no tensors in its keys {_short(list(tree))}, and none or several of "
            f"{', '.join(WRAPPERS)} among them."
        )
    strange = [key for key, value in tree.items() if not (isinstance(key, str) and isinstance(value, _Tensor))]
    if strange:
        raise WeightsFileError(f"{path} holds other things than tensors, under {_short(strange)}.")
    return tree


def _tensors(tree, path, read, big):
    """The arrays of a tree of tensors; `read(storage, size)` gives at least `size` bytes."""
    state = _state(tree, path)
    by_storage = collections.defaultdict(list)
    elements = 0
    for name, tensor in state.items():
        elements += _check(name, tensor, path)
        by_storage[tensor.storage.key].append(name)
    if elements > 16 * os.path.getsize(path) + 2**20:  # strides of 0 make a tensor of any size from one number
        raise WeightsFileError(f"{path} is malformed: its tensors have {elements} elements, more than it can hold.")
    out = dict.fromkeys(state)
    for names in by_storage.values():  # one storage at a time, for memory's sake
        storages = [state[name].storage for name in names]
        dtypes = {storage.dtype for storage in storages}
        if len(dtypes) > 1:
            raise WeightsFileError(f"{path} is malformed: {names[0]} and {names[-1]} share memory as {dtypes}.")
        dtype = dtypes.pop()
        size = max(storage.start + storage.size for storage in storages) * _width(dtype)
        data = _decode(read(storages[0], size)[:size], dtype, big)
        for name in names:
            storage, offset, shape, strides = state[name]
            view = np.lib.stride_tricks.as_strided(
                data[storage.start + offset :] if math.prod(shape) else data[:0],
                shape,
                [stride * data.itemsize for stride in strides],
                writeable=False,
            )
            out[name] = _settle(view, name, path)
    return out


def _check(name, tensor, path):
    """Raises if a tensor reaches outside of its storage; returns its number of elements."""
    storage, offset, shape, strides = tensor
    sound = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(_is_count(n) for n in (offset, *shape, *strides))
    )
    if sound:
        count = math.prod(shape)
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if count == 0 or last < storage.size:
            return count
    raise WeightsFileError(
        f"{path} is malformed: {name} with shape {_short(shape)}, strides {_short(strides)} and offset "
        f"{_short(offset)} does not fit its storage of {getattr(storage, 'size', '?')} elements."
    )


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _width(dtype):
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def _decode(data, dtype, big=False):
    """Bytes -> a one-dimensional array."""
    order = ">" if big else "<"
    if dtype == "bf16":  # the upper half of a float32
        return (np.frombuffer(data, order + "u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, order + dtype)


def _settle(array, name, path):
    """An own, contiguous float32 or int64 array."""
    if array.dtype.kind not in "fiub":
        raise WeightsFileError(f"{path}: {name} has the unsupported dtype {array.dtype}.")
    return np.array(array, np.float32 if array.dtype.kind == "f" else np.int64, order="C")
