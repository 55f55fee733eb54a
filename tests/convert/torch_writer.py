"""Writes PyTorch's two file forms without PyTorch: Python's pickle, with stand-ins for torch's own names."""

import collections
import importlib
import io
import pickle
import sys
import types
import zipfile
from typing import NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "f8": "DoubleStorage",
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "bf16": "BFloat16Storage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


class Storage(NamedTuple):
    key: str
    dtype: str
    data: np.ndarray  # one-dimensional; uint16 for bf16
    claimed: int | None = None  # number of elements, if not the true one
    view: tuple | None = None  # (key, offset, size), in the older form


class Tensor:
    """A view of a storage."""

    def __init__(self, storage, shape, strides, offset=0, parameter=False):
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset
        self.parameter = parameter


class Call:
    """A pickled call of a function that needs no more than a name."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


def tensor(array, key, dtype=None):
    """A whole contiguous array."""
    array = np.asarray(array)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(key, dtype or array.dtype.str[1:], array.ravel()), array.shape, strides)


class FakeTorch:
    """Modules of torch's names, for as long as pickle looks in them for what it writes references to."""

    def __enter__(self):
        self.before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torch"}
        return self

    def __exit__(self, *_):
        for name in [name for name in sys.modules if name.split(".")[0] == "torch"]:
            del sys.modules[name]
        sys.modules.update(self.before)

    def function(self, module, name):
        """A function of that full name: the true one, or a stand-in if it is torch's."""
        if module.split(".")[0] != "torch":
            return getattr(importlib.import_module(module), name)
        parts = module.split(".")
        for name_of_package in (".".join(parts[: i + 1]) for i in range(len(parts))):
            if not isinstance(sys.modules.get(name_of_package), _FakeModule):
                sys.modules[name_of_package] = _FakeModule(name_of_package)
        place = sys.modules[module]
        if not hasattr(place, name):
            function = types.FunctionType((lambda: None).__code__, {}, name)
            function.__module__, function.__qualname__ = module, name
            setattr(place, name, function)
        return getattr(place, name)


class _FakeModule(types.ModuleType):
    pass


class _Pickler(pickle.Pickler):
    def __init__(self, file, protocol, torch, legacy):
        super().__init__(file, protocol)
        self.torch, self.legacy = torch, legacy

    def reducer_override(self, value):
        if isinstance(value, Call):
            return self.torch.function(value.module, value.name), value.arguments
        if not isinstance(value, Tensor):
            return NotImplemented
        arguments = (value.storage, value.offset, value.shape, value.strides, False, collections.OrderedDict())
        if value.parameter:
            plain = Tensor(value.storage, value.shape, value.strides, value.offset)
            return self.torch.function("torch._utils", "_rebuild_parameter"), (plain, True, collections.OrderedDict())
        return self.torch.function("torch._utils", "_rebuild_tensor_v2"), arguments

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        kind = self.torch.function("torch", STORAGES[value.dtype])
        count = len(value.data) if value.claimed is None else value.claimed
        return ("storage", kind, value.key, "cpu", count, *([value.view] if self.legacy else []))


def _dump(tree, protocol, legacy):
    with FakeTorch() as torch:
        file = io.BytesIO()
        _Pickler(file, protocol, torch, legacy).dump(tree)
    return file.getvalue()


def _storages(tree, found):
    if isinstance(tree, Tensor):
        found[tree.storage.key] = tree.storage
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ():
        if not isinstance(tree, Storage):
            _storages(value, found)
    return found


def write_zip(path, tree, order="little", protocol=2, leave_out=(), compression=zipfile.ZIP_STORED, drop=0):
    """PyTorch's form since 1.6; `drop` bytes are cut off every storage."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", _dump(tree, protocol, False))
        archive.writestr("archive/byteorder", order)
        for key, storage in _storages(tree, {}).items():
            if key not in leave_out:
                data = storage.data.astype(storage.data.dtype.newbyteorder("<" if order == "little" else ">"))
                archive.writestr(f"archive/data/{key}", data.tobytes()[: data.nbytes - drop])
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path, tree, protocol=2):
    """PyTorch's form before 1.6, in which torchvision's v1 COCO weights are published."""
    storages = _storages(tree, {})
    with open(path, "wb") as file:
        for value in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}):
            pickle.dump(value, file, protocol=protocol)
        file.write(_dump(tree, protocol, True))
        pickle.dump(sorted(storages), file, protocol=protocol)
        for key in sorted(storages):
            data = storages[key].data
            file.write(len(data).to_bytes(8, "little") + data.tobytes())
    return path
