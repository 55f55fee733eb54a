"""PyTorch's pickles, read without running anything that they say: an unpickler that knows the few callables which
rebuild tensors, and that gives up on what is made to take memory or time.
"""

import collections
import pickle
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np

from keras_rcnn.convert.errors import UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.limits import Limits

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
# NumPy's own limit is 64, PyTorch's the same
MAX_AXES = 64
# a dict's keys: text, and whole numbers whose hashes are all different
MAX_KEY = 2**60

short = reprlib.repr  # a malformed file's objects may print endlessly


class StorageType(NamedTuple):
    """One of `STORAGES`, by its NumPy dtype (or "bf16")."""

    dtype: str


class Storage(NamedTuple):
    """A row of numbers that is stored outside of the pickle."""

    dtype: str
    key: str
    start: int  # elements into the storage of that key, for a view
    size: int


class Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it: nothing in it is checked yet."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def width(dtype: str) -> int:
    """Bytes an element."""
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def is_count(value: Any) -> bool:
    """Whether something is a whole number that may count elements."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()},
    ("torch.storage", "UntypedStorage"): StorageType("u1"),
}
_STANDARD: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
# allocate by a length that is not yet read, or look names up in the process's own registry
_LEFT_OUT = (pickle.BYTEARRAY8, pickle.EXT1, pickle.EXT2, pickle.EXT4)


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """A step of the unpickler that counts against the file's limits."""

    def step(unpickler: Any) -> None:
        unpickler.limits.take_parts()
        load(unpickler)

    return step


class RestrictedUnpickler(pickle._Unpickler):
    """Python's unpickler with nothing to call but ALLOWED; it notes the bytes an element of every storage.

    The pure Python one, since C's allocates by the largest memo index that a pickle claims. Every step counts against
    the file's limits. What is hashed is text or a number, since a tuple of tuples can hash for ever. Attributes that it
    sets on objects (`_metadata` of a state dict) are ignored.
    """

    allowed: ClassVar[dict] = ALLOWED
    advice: ClassVar[str] = "Save a plain state dict (torch.save(model.state_dict(), ...))."
    encoding: ClassVar[str] = "utf-8"
    dispatch: ClassVar[dict] = {
        code: _counted(load) for code, load in _STANDARD.items() if bytes([code]) not in _LEFT_OUT
    }
    # of the class above, which typeshed does not describe
    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, file: Any, limits: Limits, widths: dict[str, int]) -> None:
        super().__init__(file, encoding=type(self).encoding)
        self.path, self.limits, self.widths = limits.path, limits, widths

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.allowed:
            return self.allowed[module, name]
        hint = " It looks like a TorchScript archive; save model.state_dict()." if "__torch__" in module else ""
        raise UnsafeWeightsError(
            f"{self.path} asks to call {module}.{name} on loading, which is not needed for weights and could run any "
            f"code. It was not called. {self.advice}{hint}"
        )

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise WeightsFileError(f"{self.path} is malformed: it refers to a storage by {short(pid)}.")
        type_name, storage_type, key, _, size, *view = pid
        if type_name != "storage" or not isinstance(storage_type, StorageType) or not isinstance(key, str):
            raise WeightsFileError(f"{self.path} is malformed: it refers to {short(type_name)} {short(storage_type)}.")
        start = 0
        if view and view[0] is not None:
            _, start, size = view[0]
        if not is_count(start) or not is_count(size):
            raise WeightsFileError(f"{self.path} is malformed: its storage {short(key)} has {short(size)} elements.")
        self.widths[key] = width(storage_type.dtype)
        return Storage(storage_type.dtype, key, start, size)

    def hashable(self, values: Iterable[Any]) -> None:
        """Raises unless these can be keys of a dict."""
        for value in values:
            if not isinstance(value, str) and not (isinstance(value, int) and abs(value) < MAX_KEY):
                raise WeightsFileError(
                    f"{self.path} is malformed: a dict in it has a key that is neither a text nor a small whole number "
                    f"but a {type(value).__name__}. {self.advice}"
                )

    def load_setitem(self) -> None:
        self.hashable(self.stack[-2:-1])
        _STANDARD[pickle.SETITEM[0]](self)

    def load_setitems(self) -> None:
        self.hashable(self.stack[::2])  # what lies above the topmost mark: keys and values
        _STANDARD[pickle.SETITEMS[0]](self)

    def load_dict(self) -> None:
        self.hashable(self.stack[::2])
        _STANDARD[pickle.DICT[0]](self)

    def load_additems(self) -> None:
        self.hashable(self.stack)
        _STANDARD[pickle.ADDITEMS[0]](self)

    def load_frozenset(self) -> None:
        self.hashable(self.stack)
        _STANDARD[pickle.FROZENSET[0]](self)

    def load_put(self) -> None:
        index = int(self.readline()[:-1])
        if not 0 <= index < MAX_KEY:
            raise WeightsFileError(f"{self.path} is malformed: its pickle numbers an object {short(index)}.")
        self.memo[index] = self.stack[-1]

    def load_reduce(self) -> None:
        """A call; an OrderedDict may be made of pairs."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(arguments, tuple):
            raise WeightsFileError(f"{self.path} is malformed: it calls something with {short(arguments)}.")
        self.limits.take_parts(len(arguments))
        if function is collections.OrderedDict and arguments:
            (pairs,) = arguments
            if not isinstance(pairs, (list, tuple)):
                raise WeightsFileError(f"{self.path} is malformed: it makes a dict of {short(pairs)}.")
            self.limits.take_parts(len(pairs))
            self.hashable(key for key, _ in pairs)
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        self._instantiate(None, ())

    def _instantiate(self, klass: Any, args: Any) -> None:
        raise WeightsFileError(f"{self.path} makes objects other than tensors. {self.advice}")

    def load_build(self) -> None:
        self.stack.pop()

    @staticmethod
    def counted(loads: Mapping[bytes, Callable[[Any], None]]) -> dict[int, Callable[[Any], None]]:
        """Opcodes -> functions, as entries of `dispatch`."""
        return {code[0]: _counted(load) for code, load in loads.items()}

    dispatch.update(
        counted(
            {
                pickle.SETITEM: load_setitem,
                pickle.SETITEMS: load_setitems,
                pickle.DICT: load_dict,
                pickle.ADDITEMS: load_additems,
                pickle.FROZENSET: load_frozenset,
                pickle.PUT: load_put,
                pickle.REDUCE: load_reduce,
                pickle.NEWOBJ: load_newobj,
                pickle.NEWOBJ_EX: load_newobj,
                pickle.BUILD: load_build,
            }
        )
    )

    @classmethod
    def read_from(cls, file: IO[bytes], limits: Limits, widths: dict[str, int] | None = None) -> Any:
        """The object of one pickle; see `unpickle`."""
        try:
            return cls(_Rest(file, limits.size), limits, {} if widths is None else widths).load()
        except WeightsFileError:
            raise
        except EOFError as error:
            raise WeightsFileError(
                f"{limits.path} is truncated: its pickle ends too early. Download it again."
            ) from error


class _Rest:
    """A file whose `read` asks for no more than is there: Python makes room for all that is asked for."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self.file.read(count if count < 2**16 else min(count, max(self.size - self.file.tell(), 0)))


def unpickle(file: IO[bytes], limits: Limits, widths: dict[str, int] | None = None) -> Any:
    """The object of one pickle: plain Python, and a `Tensor` where PyTorch has one.

    Args:
        file: open for reading bytes; it is read up to the pickle's end.
        limits: the file's `Limits`.
        widths: dict or None; gets the bytes an element of every storage, by key.

    Raises:
        UnsafeWeightsError: if the pickle names a callable other than those that rebuild tensors.
        WeightsFileError: if it ends too early or goes beyond the limits.
        Exception: whatever else a malformed pickle provokes.
    """
    return RestrictedUnpickler.read_from(file, limits, widths)
