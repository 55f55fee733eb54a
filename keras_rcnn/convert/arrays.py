"""NumPy's .npz and .safetensors files, and bytes -> arrays for every form of file."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import safetensors

from keras_rcnn.convert.errors import UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.limits import Limits
from keras_rcnn.convert.pickles import MAX_AXES, width

CHUNK = 2**20
# a tensor's entry in a .safetensors header has more characters than this, an entry of a zip file's directory more bytes
ENTRY, ZIP_ENTRY = 32, 8
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def fill(stream: "IO[bytes] | _Both", size: int) -> np.ndarray:
    """So many bytes of a stream, or what there is: a uint8 array of its own, without a second copy."""
    data = np.empty(size, np.uint8)
    view, count = data.data, 0
    while count < size:
        chunk = stream.read(min(CHUNK, size - count))
        if not chunk:
            return data[:count]
        view[count : count + len(chunk)] = chunk
        count += len(chunk)
    return data


def decode(data: np.ndarray, dtype: str, big: bool = False) -> np.ndarray:
    """Bytes as a one-dimensional array: of the same memory where that is possible."""
    order = ">" if big else "<"
    if dtype == "bf16":  # the upper half of a float32
        whole = data.view(order + "u2").astype(np.uint32)
        whole <<= 16
        return whole.view(np.float32)
    return data.view(order + dtype)


def result_dtype(array_dtype: np.dtype, name: str, path: Path) -> np.dtype:
    """float32 or int64.

    Raises:
        WeightsFileError: for what is no number.
    """
    if array_dtype.kind not in "fiub":
        raise WeightsFileError(f"{path}: {name} has the unsupported dtype {array_dtype}.")
    return np.dtype(np.float32 if array_dtype.kind == "f" else np.int64)


def settle(array: np.ndarray, name: str, path: Path, own: bool = False) -> np.ndarray:
    """A contiguous, writeable float32 or int64 array; `own`: it need not be copied if it is one."""
    dtype = result_dtype(array.dtype, name, path)
    if own and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable:
        return array
    return np.array(array, dtype, order="C")


# === .npz ===


def read_npz(archive: zipfile.ZipFile, limits: Limits) -> dict[str, np.ndarray]:
    """Name -> array of an open zip file of .npy files."""
    path, state = limits.path, {}
    for info in archive.infolist():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsFileError(f"{path}: {info.filename} is compressed in a way that NumPy never does.")
        with archive.open(info) as file:
            # of a header the array's size is seen before the array is made, and more than its start is never unpacked
            head = io.BytesIO(file.read(min(info.file_size, 2**14)))
            version = np.lib.format.read_magic(head)
            if version not in _NPY_HEADERS:
                raise WeightsFileError(f"{path}: {info.filename} has an .npy header of version {version}.")
            shape, fortran, dtype = _NPY_HEADERS[version](head)
            if dtype.hasobject:
                raise UnsafeWeightsError(
                    f"{path}: the array {info.filename} holds pickled Python objects, which could run code on "
                    "loading. It was not loaded. Save plain arrays (numpy.savez of float arrays)."
                )
            final = result_dtype(dtype, info.filename, path)
            count = math.prod(shape)
            size = count * dtype.itemsize
            if len(shape) > MAX_AXES or any(n < 0 for n in shape) or head.tell() + size != info.file_size:
                raise WeightsFileError(
                    f"{path} is malformed: {info.filename} claims the shape {shape} {dtype} of {size} bytes, and has "
                    f"{info.file_size} with its header."
                )
            limits.take_bytes(count * max(final.itemsize, dtype.itemsize), info.filename)
            data = fill(_Both(head, file), size)
            if len(data) != size or file.read(1):  # the end is where zipfile checks the CRC
                raise WeightsFileError(f"{path} is malformed: {info.filename} has not the {size} bytes that it claims.")
        array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
        state[info.filename.removesuffix(".npy")] = settle(array, info.filename, path, own=True)
    return state


class _Both:
    """Two streams, one after the other."""

    def __init__(self, *streams: IO[bytes]) -> None:
        self.streams = streams

    def read(self, count: int) -> bytes:
        return next((data for data in (stream.read(count) for stream in self.streams) if data), b"")


# === .safetensors ===


def read_safetensors(path: Path, limits: Limits) -> dict[str, np.ndarray]:
    """Name -> array. The format's own library reads it, which refuses tensors that overlap or leave gaps."""
    with open(path, "rb") as file:
        limits.take_parts(int.from_bytes(file.read(8), "little") // ENTRY)
    state = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                state[name] = _tensor(file, name, limits)
    except safetensors.SafetensorError as error:
        raise WeightsFileError(
            f"{path} is truncated, or no sound .safetensors file: {error}. Download it again."
        ) from error
    return state


def _tensor(file: safetensors.safe_open, name: str, limits: Limits) -> np.ndarray:
    described = file.get_slice(name)
    shape, dtype = described.get_shape(), described.get_dtype()
    if len(shape) > MAX_AXES:
        raise WeightsFileError(f"{limits.path} is malformed: {name} has {len(shape)} axes.")
    limits.take_bytes(math.prod(shape) * (4 if dtype.startswith(("F", "BF")) else 8), name)
    array = file.get_tensor(name)
    if dtype == "BF16":
        array = decode(array.reshape(-1).view(np.uint8), "bf16").reshape(shape)
    return settle(array, name, limits.path, own=True)


__all__ = ["decode", "fill", "read_npz", "read_safetensors", "result_dtype", "settle", "width"]
