"""Detectron2's `.pkl` files: pickles of NumPy arrays, read without running anything that they say.

NumPy's own functions are not called: stand-ins collect what an array's pickle says of it, and an array is made of that
once shape, type and bytes agree.
"""

import hashlib
import math
import pickle
import re
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from keras_rcnn.convert.arrays import settle
from keras_rcnn.convert.errors import UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.limits import Limits
from keras_rcnn.convert.pickles import MAX_AXES, RestrictedUnpickler, is_count, short
from keras_rcnn.convert.torch_file import MAGIC_NUMBER, read_torch_file, weights_file
from keras_rcnn.interfaces import FilePath

# how a file of torch.save begins that is no zip
LEGACY = pickle.dumps(MAGIC_NUMBER, 2)
KIND = re.compile(r"b1|[iu][1248]|f[248]")
# the model zoo's files have the beginning of their MD5 in their name
ZOO_FILE = re.compile(r"model_(?:final|\d+)_([0-9a-f]{6})\.pkl")


class DType:
    """A type of numbers, as `numpy.dtype` is pickled."""

    def __init__(self, kind: str) -> None:
        self.kind, self.order = kind, "<"

    def set_state(self, state: tuple) -> None:
        """The second half of its pickle: a version, the byte order, and nothing for plain numbers."""
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or any(value is not None for value in rest[:3]):
            raise ValueError(f"a dtype of {short(state)}")
        self.order = "<" if order in ("|", "=") else order

    def numpy(self) -> np.dtype:
        """The type itself."""
        return np.dtype(self.order + self.kind)


class Array:
    """An array whose pickle has been read, but which is not made yet."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: DType | None = None
        self.fortran, self.data = False, b""

    def set_state(self, state: tuple) -> None:
        """What `numpy.ndarray.__setstate__` takes."""
        if len(state) == 5:  # with a version before it
            state = state[1:]
        self.shape, self.dtype, self.fortran, self.data = state

    def numpy(self, name: str, limits: Limits) -> np.ndarray:
        """The array, float32 or int64.

        Raises:
            WeightsFileError: if what was said of it does not agree.
        """
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # Python 2's bytes come as text
        sound = (
            isinstance(self.dtype, DType)
            and isinstance(self.shape, tuple)
            and len(self.shape) <= MAX_AXES
            and all(is_count(side) for side in self.shape)
            and isinstance(self.fortran, (bool, int))
            and isinstance(data, (bytes, bytearray))
        )
        if not sound or self.dtype is None:
            raise WeightsFileError(f"{limits.path} is malformed: {short(name)} is no array of numbers.")
        dtype, count = self.dtype.numpy(), math.prod(self.shape)
        if count * dtype.itemsize != len(data):
            raise WeightsFileError(
                f"{limits.path} is malformed: {short(name)} of shape {short(self.shape)} {dtype} has {len(data)} bytes."
            )
        limits.take_bytes(count * (4 if dtype.kind == "f" else 8), short(name))
        array = np.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return settle(array, name, limits.path)


def _dtype(kind: str | bytes, *_: Any) -> DType:
    kind = kind if isinstance(kind, str) else kind.decode("ascii")
    if not KIND.fullmatch(kind):
        raise UnsafeWeightsError(
            f"an array of the dtype {short(kind)}, which holds other things than numbers and could run any code"
        )
    return DType(kind)


def _empty(*_: Any) -> Array:
    return Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.set_state((shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any) -> Array:
    return _from_buffer(data, dtype, (), "C")


def _encoded(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise ValueError(f"text is encoded as {short(encoding)}")
    return text.encode("latin1")


def _array_type(*_: Any) -> NoReturn:
    raise ValueError("an array is made directly, without its shape and type")


class _ArrayUnpickler(RestrictedUnpickler):
    """The restricted unpickler with NumPy's callables, which are stand-ins, and text as Python 2 wrote it."""

    allowed: ClassVar[dict] = {
        ("collections", "OrderedDict"): RestrictedUnpickler.allowed["collections", "OrderedDict"],
        ("_codecs", "encode"): _encoded,
        ("numpy", "ndarray"): _array_type,
        ("numpy", "dtype"): _dtype,
        **{
            (f"numpy.{core}.{module}", name): function
            for core in ("core", "_core")
            for module, name, function in (
                ("multiarray", "_reconstruct", _empty),
                ("multiarray", "scalar", _scalar),
                ("numeric", "_frombuffer", _from_buffer),
            )
        },
    }
    advice: ClassVar[str] = (
        "Save a dict of NumPy arrays: pickle.dump({'model': {name: array, ...}, '__author__': ''}, file)."
    )
    encoding: ClassVar[str] = "latin1"
    dispatch: ClassVar[dict] = dict(RestrictedUnpickler.dispatch)

    def load_build(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if not isinstance(owner, (Array, DType)):
            raise WeightsFileError(f"{self.path} is malformed: it sets the state of a {type(owner).__name__}.")
        owner.set_state(state)

    def load_bytearray(self) -> None:
        """As bytes: Python's own makes room for as much as the file claims before it looks."""
        self.stack.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch.update(RestrictedUnpickler.counted({pickle.BUILD: load_build, pickle.BYTEARRAY8: load_bytearray}))


def read_detectron2_file(
    path: FilePath, max_bytes: int | None = None, max_parts: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a file of Detectron2's: a `.pkl` of its model zoo or of an ImageNet backbone, or a `.pth`.

    Nothing in the file is run, and what it declares is checked before memory or time is spent on it.

    Args:
        path: str or path. The form is told from the content, not from the name.
        max_bytes, max_parts: as in `read_torch_file`.

    Returns:
        A dict, name -> NumPy array, in the file's own names and layouts: float32 for floats of any width, int64 for
        integers. What lies within `model` or `blobs` is unwrapped, and Caffe2's `..._momentum` left out.

    Raises:
        UnsafeWeightsError: if the pickle names a callable other than those that rebuild arrays, or an array of objects.
        WeightsFileError: if the file is no weights file, truncated, malformed or beyond the limits, or named as one of
            the model zoo and not the same. Both are ConversionErrors.
        FileNotFoundError: if there is no such file.

    Example:

    >>> state = read_detectron2_file("model_final_b275ba.pkl")
    >>> state["roi_heads.box_predictor.cls_score.weight"].shape
    (81, 1024)
    """
    path = weights_file(path)
    with open(path, "rb") as file:
        head = file.read(len(LEGACY))
        if not head.startswith(b"\x80") or head == LEGACY:
            return read_torch_file(path, max_bytes, max_parts)
        _check_digest(path, file)
        limits = Limits(path, max_bytes, max_parts)
        try:
            tree = _ArrayUnpickler.read_from(file, limits)
            state = {name: array.numpy(name, limits) for name, array in _arrays(tree, path).items()}
        except WeightsFileError as error:
            if str(path) in str(error):
                raise
            raise type(error)(f"{path} holds {error}. {_ArrayUnpickler.advice}") from error
        except Exception as error:  # whatever a malformed file provokes in pickle or NumPy
            raise WeightsFileError(
                f"{path} is truncated or malformed ({type(error).__name__}: {short(str(error))}). Download it again."
            ) from error
    if not state:
        raise WeightsFileError(f"{path} holds no arrays.")
    return state


def _check_digest(path: Path, file: BufferedReader) -> None:
    """Leaves the file at its beginning."""
    file.seek(0)
    match = ZOO_FILE.fullmatch(path.name)
    if match:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        file.seek(0)
        if not digest.startswith(match[1]):
            raise WeightsFileError(
                f"{path} is not the model zoo's file of that name: its MD5 begins with {digest[:6]}. Download it "
                "again, or rename it if it is your own."
            )


def _arrays(tree: Any, path: Path) -> dict[str, Array]:
    """{name: Array} of what was pickled."""
    for key in ("model", "blobs"):
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
            break
    if not isinstance(tree, dict):
        raise WeightsFileError(f"{path} holds a {type(tree).__name__}, not a dict of arrays.")
    tree = {key: value for key, value in tree.items() if not str(key).endswith("_momentum")}
    strange = [key for key, value in tree.items() if not (isinstance(key, str) and isinstance(value, Array))]
    strange = [key for key in strange if key not in ("__author__", "matching_heuristics")]
    if strange:
        raise WeightsFileError(f"{path} holds other things than arrays, under {short(strange)}.")
    return {key: value for key, value in tree.items() if isinstance(value, Array)}
