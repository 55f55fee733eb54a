"""Reading weights files: every form, dtype and layout; and files that are hostile, broken or something else."""

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_rcnn.convert import UnsafeWeightsError, WeightsFileError, read_torch_file
from tests.convert.torch_writer import Call, Storage, Tensor, tensor, write_legacy, write_zip

WRITERS = {"zip": write_zip, "legacy": write_legacy}
both = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def everything():
    """(tree, the arrays that it should read as)."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 8)).astype(np.float32)
    shared = Storage("0", "f4", base.ravel())
    half = rng.normal(size=(3, 2)).astype(np.float16)
    double = rng.normal(size=4)
    brain = rng.normal(size=5).astype(np.float32).view(np.uint32) >> 16
    tree = collections.OrderedDict(
        whole=Tensor(shared, (6, 8), (8, 1)),
        transposed=Tensor(shared, (8, 6), (1, 8)),
        part=Tensor(shared, (2, 3), (16, 1), offset=10),
        expanded=Tensor(shared, (4, 8), (0, 1)),
        parameter=Tensor(shared, (48,), (1,), parameter=True),
        half=tensor(half, "1"),
        double=tensor(double, "2"),
        brain=tensor(brain.astype(np.uint16), "3", "bf16"),
        long=tensor(np.array([2**40, -3]), "4"),
        int=tensor(np.array([7, -8], np.int32), "5"),
        bool=tensor(np.array([True, False]), "6"),
        scalar=tensor(np.array(2.5, np.float32), "7"),
        count=tensor(np.array(12), "8"),
        empty=tensor(np.zeros((0, 3), np.float32), "9"),
    )
    tree._metadata = {"": {"version": 1}}  # as a state dict has it
    expected = {
        "whole": base,
        "transposed": base.T,
        "part": base[1:5:2, 2:5],
        "expanded": np.tile(base[0], (4, 1)),
        "parameter": base.ravel(),
        "half": half.astype(np.float32),
        "double": double.astype(np.float32),
        "brain": (brain << 16).view(np.float32),
        "long": np.array([2**40, -3]),
        "int": np.array([7, -8]),
        "bool": np.array([1, 0]),
        "scalar": np.array(2.5, np.float32),
        "count": np.array(12),
        "empty": np.zeros((0, 3), np.float32),
    }
    return tree, expected


def same(ours, expected):
    assert list(ours) == list(expected)
    for name, value in expected.items():
        assert ours[name].dtype == (np.float32 if value.dtype.kind == "f" else np.int64), name
        assert ours[name].flags.c_contiguous, name
        assert ours[name].flags.writeable, name
        np.testing.assert_array_equal(ours[name], value, name)


def simple():
    return {"a": tensor(np.arange(6, dtype=np.float32).reshape(2, 3), "0")}


# === What is read ===


@both
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dtypes_and_layouts(write, protocol, tmp_path):
    tree, expected = everything()
    same(read_torch_file(write(tmp_path / "weights.pth", tree, protocol=protocol)), expected)


def test_big_endian(tmp_path):
    tree, expected = everything()
    same(read_torch_file(write_zip(tmp_path / "weights.pth", tree, order="big")), expected)


@both
@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_wrapped(write, key, tmp_path):
    tree, expected = everything()
    # the names that torch.nn.DataParallel gives, and what training scripts save beside the weights
    inner = collections.OrderedDict((f"module.{name}", value) for name, value in tree.items())
    moment = {"state": {0: {"moment": tensor(np.ones(3, np.float32), "90")}}, "lr": [0.1]}
    path = write(tmp_path / "weights.pth", {"epoch": 3, "optimizer": moment, key: inner})
    same(read_torch_file(path), expected)


def test_view_of_a_legacy_storage(tmp_path):
    data = np.arange(10, dtype=np.float32)
    view = Storage("0", "f4", data, view=("77", 4, 5))
    path = write_legacy(tmp_path / "weights.pth", {"a": Tensor(view, (2, 2), (2, 1), offset=1)})
    np.testing.assert_array_equal(read_torch_file(path)["a"], [[5, 6], [7, 8]])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    _, expected = everything()
    save(tmp_path / "weights.npz", **expected)
    same(read_torch_file(tmp_path / "weights.npz"), expected)
    save(tmp_path / "fortran.npz", a=np.asfortranarray(expected["whole"]), b=expected["half"].astype(np.float16))
    read = read_torch_file(str(tmp_path / "fortran.npz"))
    np.testing.assert_array_equal(read["a"], expected["whole"])
    np.testing.assert_array_equal(read["b"], expected["half"])


def write_safetensors(path, tensors, **changes):
    """`tensors`: {name: (dtype, array)}; `changes` go into the header of "a"."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, array) in tensors.items():
        start, data = len(data), data + array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, len(data)]}
    header.get("a", {}).update(changes)
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_a_safetensors_header_that_begins_as_a_pickle(tmp_path):
    """The length of the header is the file's first byte: of 128 more than a multiple of 256 it is a pickle's."""
    for length in range(200):
        path = write_safetensors(tmp_path / "w.safetensors", {"a" * (200 + length): ("F32", np.ones(2, np.float32))})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert [value.tolist() for value in read_torch_file(path).values()] == [[1, 1]]


def test_safetensors(tmp_path):
    _, expected = everything()
    brain = (expected["brain"].view(np.uint32) >> 16).astype(np.uint16)
    path = write_safetensors(
        tmp_path / "weights.safetensors",
        {
            "a": ("F32", expected["whole"]),
            "b": ("F16", expected["half"].astype(np.float16)),
            "c": ("BF16", brain),
            "d": ("I64", expected["long"]),
            "e": ("F32", expected["scalar"]),
        },
    )
    read = read_torch_file(path)
    for name, key in zip("abcde", ("whole", "half", "brain", "long", "scalar"), strict=True):
        np.testing.assert_array_equal(read[name], expected[key])


def test_safetensors_of_its_own_package(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(3)}
    package.save_file(arrays, tmp_path / "weights.safetensors")
    read = read_torch_file(tmp_path / "weights.safetensors")
    assert set(read) == {"a", "b"}
    np.testing.assert_array_equal(read["a"], arrays["a"])


def test_numpy_alone():
    code = (
        "import sys, types; package = types.ModuleType('keras_rcnn'); package.__path__ = ['keras_rcnn']; "
        "sys.modules['keras_rcnn'] = package; import keras_rcnn.convert; "
        "print([m for m in ('torch', 'keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"


# === Files that would run code ===


class Payload:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@both
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["value", "key", "deep"])
def test_nothing_is_run(write, protocol, place, tmp_path):
    target = tmp_path / "was_run"
    payload = Payload(os.system, f"touch {target}")
    tree = simple()
    if place == "deep":
        tree = {"model": tree, "args": [{"x": (payload,)}]}
    elif place == "key":
        tree[payload] = 1
    else:
        tree["b"] = payload
    path = write(tmp_path / "weights.pth", tree, protocol=protocol)
    with pytest.raises(UnsafeWeightsError, match=r"weights\.pth asks to call (posix|nt)\.system") as error:
        read_torch_file(path)
    assert isinstance(error.value, ValueError)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_plain_pickles_are_not_run(protocol, tmp_path):
    target = tmp_path / "was_run"
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Payload(os.system, f"touch {target}"), protocol))
    with pytest.raises(WeightsFileError, match=r"weights\.pkl"):
        read_torch_file(path)
    assert not target.exists()


@both
@pytest.mark.parametrize(
    ("module", "name"),
    [("torch.nn.modules.conv", "Conv2d"), ("argparse", "Namespace"), ("builtins", "eval"), ("torch", "load")],
)
def test_names_are_told(write, module, name, tmp_path):
    path = write(tmp_path / "weights.pth", {**simple(), "b": Call(module, name, "1")}, protocol=4)
    with pytest.raises(UnsafeWeightsError, match=rf"{module}\.{name} .*state_dict"):
        read_torch_file(path)


def zip_of_pickle(path, code, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name}", data)
    return path


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02\x82\x01.",  # from copyreg's registry
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",  # a bytearray of 2**40 bytes
        b"\x80\x05\x8e" + (2**40).to_bytes(8, "little") + b".",
        b"\x80\x02N r\xff\xff\xff\x7f.",  # memo index 2**31 - 1
        b"\x80\x02Pname\n.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        b"\x80\x02(((((((((t.",
        b"\x80\x02.",
        b"\x80\x02}X\x01\x00\x00\x00a" + STORAGE + b"s.",  # a storage in a tensor's place
    ],
)
def test_malformed_pickles(code, tmp_path):
    with pytest.raises(WeightsFileError, match=r"weights\.pth"):
        read_torch_file(zip_of_pickle(tmp_path / "weights.pth", code, **{"0": bytes(16)}))


def test_attributes_are_not_set(tmp_path):
    from keras_rcnn.convert import pickles

    # BUILD on a function that the unpickler knows, as if it were an instance
    code = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00evilK\x01sbs."
    with pytest.raises(WeightsFileError):
        read_torch_file(zip_of_pickle(tmp_path / "weights.pth", code))
    assert not hasattr(pickles._rebuild_tensor, "evil")


def test_pickled_arrays_in_npz(tmp_path):
    target = tmp_path / "was_run"
    np.savez(tmp_path / "weights.npz", a=np.array([Payload(os.system, f"touch {target}")], object))
    with pytest.raises(UnsafeWeightsError, match=r"weights\.npz.*pickled Python objects"):
        read_torch_file(tmp_path / "weights.npz")
    assert not target.exists()


# === Broken files ===


@both
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 4), (3, 1), 0),
        ((2, 3), (3, 2), 0),
        ((2, 3), (3, 1), 1),
        ((2, 3), (3, 1), -1),
        ((2, 3), (-3, 1), 3),
        ((2, 3), (3,), 0),
        ((2**40,), (0,), 0),
        ((2**62, 4), (0, 1), 0),
        ((2.0, 3), (3, 1), 0),
        ([2, 3], [3, 1], 0),
        ((-2, 3), (3, 1), 0),
        ((2, 3), (2**61, 1), 0),
    ],
)
def test_tensors_stay_in_their_storage(write, shape, strides, offset, tmp_path):
    storage = Storage("0", "f4", np.arange(6, dtype=np.float32))
    path = write(tmp_path / "weights.pth", {"a": Tensor(storage, shape, strides, offset)})
    with pytest.raises(WeightsFileError, match=r"weights\.pth (is malformed|has \d+ bytes and declares)"):
        read_torch_file(path)


@both
@pytest.mark.parametrize("claimed", [7, 2**40, -1, 2.5])
def test_claimed_storage_sizes(write, claimed, tmp_path):
    storage = Storage("0", "f4", np.arange(6, dtype=np.float32), claimed=claimed)
    with pytest.raises(WeightsFileError, match=r"weights\.pth is (malformed|truncated)"):
        read_torch_file(write(tmp_path / "weights.pth", {"a": Tensor(storage, (6,), (1,))}))


def test_zip_entries(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(WeightsFileError, match="archive/data/0, which is not in it"):
        read_torch_file(write_zip(path, simple(), leave_out=["0"]))
    with pytest.raises(WeightsFileError, match="has 23 bytes, its tensors want 24"):
        read_torch_file(write_zip(path, simple(), drop=1))
    with pytest.raises(WeightsFileError, match="compressed"):
        read_torch_file(write_zip(path, simple(), compression=zipfile.ZIP_DEFLATED))
    write_zip(path, simple())
    data = path.read_bytes()
    path.write_bytes(data.replace(np.arange(6, dtype=np.float32).tobytes(), bytes(24)))
    with pytest.raises(WeightsFileError, match="CRC"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightsFileError, match="neither PyTorch's"):
        read_torch_file(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "npz", "safetensors"])
def test_truncated(form, tmp_path):
    path = tmp_path / "weights"
    if form in WRITERS:
        WRITERS[form](path, everything()[0])
    elif form == "npz":
        np.savez(tmp_path / "weights.npz", **everything()[1])
        (tmp_path / "weights.npz").rename(path)
    else:
        write_safetensors(path, {"a": ("F32", np.ones((4, 5), np.float32))})
    data = path.read_bytes()
    read_torch_file(path)
    for size in [*range(1, len(data), max(1, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(WeightsFileError):
            read_torch_file(path)


def test_npz_headers(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("a.npy", file.getvalue() + bytes(100))
    with pytest.raises(WeightsFileError, match=r"a\.npy claims"):
        read_torch_file(tmp_path / "weights.npz")
    np.savez(tmp_path / "weights.npz", names=np.array(["a", "b"]))
    with pytest.raises(WeightsFileError, match="unsupported dtype <U1"):
        read_torch_file(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"data_offsets": [0, 2**40]},
        {"data_offsets": [-4, 0], "shape": [1]},
        {"shape": [2**40]},
        {"dtype": "F8_E4M3"},
        {"shape": "x"},
    ],
)
def test_safetensors_headers(changes, tmp_path):
    path = write_safetensors(tmp_path / "weights.safetensors", {"a": ("F32", np.ones(4, np.float32))}, **changes)
    with pytest.raises(WeightsFileError, match=r"weights\.safetensors"):
        read_torch_file(path)


# === Other files ===


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b"\n<html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "load_weights"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a weights file"),
        (b"hello", "not a weights file"),
        (b"PK\x03\x04", "truncated"),
        (pickle.dumps({"a": 1}, 2), "not one by torch.save"),
        (bytes(257) + b"ustar" + bytes(300), "tar form"),
    ],
)
def test_not_weights(data, message, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    with pytest.raises(WeightsFileError, match=message) as error:
        read_torch_file(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        read_torch_file(tmp_path / "nothing.pth")
    with pytest.raises(WeightsFileError, match="folder"):
        read_torch_file(tmp_path)


@both
@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "a list, not a state dict"),
        ({"epoch": 3}, r"no tensors in its keys \['epoch'\]"),
        ({**simple(), "epoch": 3}, r"other things than tensors, under \['epoch'\]"),
        ({"model": simple(), "state_dict": simple()}, "none or several"),
        ({}, "no state dict"),
    ],
)
def test_not_a_state_dict(write, tree, message, tmp_path):
    with pytest.raises(WeightsFileError, match=message):
        read_torch_file(write(tmp_path / "weights.pth", tree))
