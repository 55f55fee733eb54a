"""Weights files that are made to take memory or time, and a few thousand damaged ones."""

import io
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_rcnn.convert import ConversionError, WeightsFileError, limits, read_caffemodel, read_torch_file
from tests.convert.caffe_writer import field, network, varint
from tests.convert.test_torch_file import both, simple, write_safetensors, zip_of_pickle
from tests.convert.torch_writer import Storage, Tensor, tensor, write_legacy, write_zip
from tests.shared import SHARED

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(request):
    """None of these may take long; the thousands together may, each of which has a clock of its own."""
    before = time.monotonic()
    yield
    assert time.monotonic() - before < 30 or request.node.get_closest_marker("slow")


def refused(path, match, read=read_torch_file, **limits):
    with pytest.raises(ConversionError, match=match) as error:
        read(path, **limits)
    assert str(path) in str(error.value)


# === Pickles ===


def nested(depth):
    """The code of a tuple of twice the same tuple of twice ...: two to the power of `depth` values to hash."""
    return b")" + b"2\x86" * depth


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02}" + nested(40) + b"K\x01s.",  # SETITEM
        b"\x80\x02}(" + nested(40) + b"K\x01u.",  # SETITEMS
        b"\x80\x02(" + nested(40) + b"K\x01d.",  # DICT
        b"\x80\x04\x8f(" + nested(40) + b"\x90.",  # ADDITEMS
        b"\x80\x04(" + nested(40) + b"\x91.",  # FROZENSET
        b"\x80\x02ccollections\nOrderedDict\n](" + nested(40) + b"K\x01\x86e\x85R.",
        b"\x80\x02(" + nested(40) + b"K\x01icollections\nOrderedDict\n.",  # INST
        b"\x80\x02(ccollections\nOrderedDict\n]" + nested(40) + b"K\x01\x86a" + b"o.",  # OBJ
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x02}" + b"N}\x86K\x01s.",
        b"\x80\x02}G?\xf0\0\0\0\0\0\0K\x01s.",  # a float: their hashes can be chosen
        b"\x80\x02}\x8a\x08" + b"\xff" * 7 + b"\x1fK\x01s.",  # 2**61 - 1, whose hash is that of 0
    ],
)
def test_what_hashes_for_ever(code, tmp_path):
    refused(zip_of_pickle(tmp_path / "weights.pth", code), "malformed|makes objects|holds a")


@both
def test_keys_of_a_legacy_list(write, tmp_path):
    """The list of storages is looked up, so its keys are hashed too."""
    path = write_legacy(tmp_path / "weights.pth", simple())
    data = path.read_bytes()
    keys = pickle.dumps(["0"], 2)
    assert data.count(keys) == 1
    path.write_bytes(data.replace(keys, b"\x80\x02]" + nested(40) + b"a."))
    refused(path, "uses its storage")


def test_a_file_of_the_shared_folder():
    path = SHARED / "cases" / "hostile" / "hash_bomb.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    refused(path, "neither a text nor a small whole number but a tuple")


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02(" + b"}" * 2_000_000 + b"t.",  # 64 bytes each of one
        b"\x80\x02" + b"]" * 2_000_000 + b".",
        b"\x80\x02" + b"N" + b"0N" * 1_000_000 + b".",
        # an OrderedDict of 100,000 pairs, again and again
        b"\x80\x02]q\0(" + b"U\x01aK\x01\x86" * 100_000 + b"e0" + b"ccollections\nOrderedDict\nh\0\x85R0" * 500 + b"N.",
        # keys of memos whose hashes are the same
        b"\x80\x02N" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(2, 60_000)) + b".",
    ],
    ids=["dicts", "lists", "steps", "pairs", "memo"],
)
def test_parts(code, tmp_path):
    refused(zip_of_pickle(tmp_path / "weights.pth", code), "more than 1000000 parts|numbers an object")


def test_brackets_in_brackets(tmp_path):
    code = b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b"."
    refused(zip_of_pickle(tmp_path / "weights.pth", code), "a list, not")
    state = {"a": tensor(np.ones(2, np.float32), "0")}
    for _ in range(200):
        state = {"model": state}
    refused(write_zip(tmp_path / "wrapped.pth", state), "holds other things|state dict")


def test_claimed_lengths(tmp_path):
    """Python's `read` makes room for all that is asked of it."""
    path = tmp_path / "weights.pth"
    length = (2**45).to_bytes(8, "little")
    for code in (b"X\xff\xff\xff\x7f", b"\x8e" + length, b"\x95" + length):
        path.write_bytes(b"\x80\x04" + code + b"abc.")
        refused(path, "truncated")


@both
def test_axes_and_copies(write, tmp_path):
    storage = Storage("0", "f4", np.ones(1, np.float32))
    refused(write(tmp_path / "a", {"a": Tensor(storage, (1,) * 65, (1,) * 65)}), "malformed")
    numbers = Storage("0", "f4", np.ones(500_000, np.float32))
    many = {str(i): Tensor(numbers, (500_000,), (1,)) for i in range(200)}  # 2 MB, 400 of arrays
    refused(write(tmp_path / "b", many), "declares arrays of")


def test_a_zip_that_is_all_directory(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("a.npy", b"x")
    data = bytearray((tmp_path / "weights.npz").read_bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    (tmp_path / "weights.npz").write_bytes(data)
    refused(tmp_path / "weights.npz", "more than 1000000 parts")


# === .npz ===


def test_an_npz_that_unpacks_to_much_more(tmp_path):
    path = tmp_path / "weights.npz"
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("a.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**27,)})
        for _ in range(512):
            file.write(bytes(2**20))
    assert path.stat().st_size < 5e6
    refused(path, r"declares arrays of 536870912 and more \(a\.npy\).*max_bytes= or .*KERAS_RCNN_MAX_WEIGHTS_BYTES")


def test_the_limits_are_lifted(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(1000, np.float32), b=np.ones(1000, np.int8))
    assert len(read_torch_file(path, max_bytes=12_000)) == 2
    refused(path, r"declares arrays of 12000 and more \(b\.npy\); at most 11999", max_bytes=11_999)
    monkeypatch.setenv(limits.BYTES_VARIABLE, "11999")
    refused(path, "at most 11999")
    assert len(read_torch_file(path, max_bytes=12_000)) == 2
    for wrong in ("x", "-1", "0", "1e9", "٣"):
        monkeypatch.setenv(limits.BYTES_VARIABLE, wrong)
        with pytest.raises(WeightsFileError, match=f"{limits.BYTES_VARIABLE} is a whole number from 1, not .?{wrong}"):
            read_torch_file(path)
    monkeypatch.delenv(limits.BYTES_VARIABLE)
    pth = write_zip(tmp_path / "weights.pth", simple())
    refused(pth, "more than 10 parts.*max_parts= or .*KERAS_RCNN_MAX_WEIGHTS_PARTS", max_parts=10)
    monkeypatch.setenv(limits.PARTS_VARIABLE, "10")
    refused(pth, "more than 10 parts")
    assert len(read_torch_file(pth, max_parts=10_000)) == 1


def npy(header, data=b"", version=b"\x01\x00"):
    header = header.encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "-2,-2,)}\n", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000000000000,)}\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}\n", bytes(4)),
        npy("{'descr': 'V1000000000', 'fortran_order': False, 'shape': (5,)}\n"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", bytes(8)),
        npy("(" * 9000),
        npy("{'descr': " + "[" * 5000 + "}\n"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + "9" * 5000 + "}\n"),
        npy("x" * 30_000, version=b"\x02\x00"),
        npy("", version=b"\x09\x00"),
        b"",
    ],
)
def test_headers_of_arrays(content, tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("a.npy", content)
    refused(tmp_path / "weights.npz", "malformed|pickled|version|unsupported dtype")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packers_that_numpy_never_uses(method, tmp_path):
    file = io.BytesIO()
    np.save(file, np.ones(5, np.float32))
    with zipfile.ZipFile(tmp_path / "weights.npz", "w", method) as archive:
        archive.writestr("a.npy", file.getvalue())
    refused(tmp_path / "weights.npz", "compressed in a way")


def test_there_is_no_second_copy(tmp_path):
    """The arrays of a file of float32 take its size, and no more."""
    import tracemalloc

    ones = np.ones((2000, 2000), np.float32)
    np.savez(tmp_path / "n.npz", a=ones)
    write_zip(tmp_path / "z", {"a": tensor(ones, "0")})
    write_legacy(tmp_path / "l", {"a": tensor(ones, "0")})
    for path in sorted(tmp_path.iterdir()):
        tracemalloc.start()
        read = read_torch_file(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read["a"].flags.writeable and read["a"].sum() == 4e6
        assert peak < 16e6 * 1.5, path


# === .safetensors ===


def raw_safetensors(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_names_for_the_same_bytes(tmp_path):
    info = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    path = raw_safetensors(tmp_path / "w.safetensors", {f"t{i}": info for i in range(1000)}, bytes(4000))
    refused(path, "no sound .safetensors file.*[Oo]ffset")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},  # a gap
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32"}},
        {"a": 5},
        b"{" * 100_000,
        b'{"a": ' + b"[" * 100_000,
        b"{}",
        b"{\xff}",
    ],
)
def test_headers_of_safetensors(header, tmp_path):
    refused(raw_safetensors(tmp_path / "w.safetensors", header, bytes(8)), "no sound|not a weights|no tensors")


def test_a_header_that_is_too_long(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}" + bytes(100))
    refused(path, "more than 1000000 parts")


def test_bfloat16(tmp_path):
    values = np.array([[1.5, -2.0, 3.25]], np.float32)
    brain = (values.view(np.uint32) >> 16).astype(np.uint16)
    read = read_torch_file(write_safetensors(tmp_path / "w.safetensors", {"b": ("BF16", brain)}))
    np.testing.assert_array_equal(read["b"], values)


# === .caffemodel ===


def layer(*fields):
    return field(100, field(1, "conv") + b"".join(fields))


def blob_of(*fields):
    return field(7, b"".join(fields))


def test_numbers_that_come_one_by_one(tmp_path):
    """A list that ends after every number, 80,000 times."""
    path = tmp_path / "net.caffemodel"
    one = b"\x2d" + np.float32(2).tobytes() + field(9, 1)  # data: 2.0, then a field of no interest
    path.write_bytes(layer(blob_of(one * 80_000)))
    (read,) = read_caffemodel(path)["conv"]
    np.testing.assert_array_equal(read, np.full(80_000, 2, np.float32))
    refused(path, "more than 1000 parts", read=read_caffemodel, max_parts=1000)
    refused(path, "declares arrays of", read=read_caffemodel, max_bytes=1000)


def test_the_quadratic_file_of_the_shared_folder():
    path = SHARED / "cases" / "hostile" / "quad.caffemodel"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert len(read_caffemodel(path)) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (layer(blob_of(field(7, field(1, varint(2**63) * 200_000)))), "more than 32 axes"),
        (layer(blob_of(field(7, field(1, 1) * 100), field(5, np.ones(1, "<f4").tobytes()))), "more than 32 axes"),
        (field(100, field(1, "x" * 2_000_000) + field(7, b"") * 100_000), "a name of 2000000 bytes"),
        (field(3, 1) * 1_200_000, "more than 1000000 parts"),
        (layer(blob_of(field(7, field(1, 2**62) * 2), field(5, b""))), "has the shape"),
    ],
)
def test_messages(content, match, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(content)
    refused(tmp_path / "net.caffemodel", match, read=read_caffemodel)


def test_long_lists_of_numbers(tmp_path):
    """As before: a million floats with a field each are read at one go."""
    values = np.arange(1_000_000, dtype=np.float32)
    (tmp_path / "net.caffemodel").write_bytes(network({"conv": [values.reshape(1000, 1000)]}, packed=False))
    np.testing.assert_array_equal(read_caffemodel(tmp_path / "net.caffemodel")["conv"][0].ravel(), values)


# === What is no ordinary file ===


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("read", [read_torch_file, read_caffemodel])
def test_pipes_and_devices(read, tmp_path):
    os.mkfifo(tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "a pipe or a device", read=read)
    refused(Path("/dev/zero"), "a pipe or a device", read=read)


# === Thousands ===


def fuzz(suite, first, last, folder):
    """What came of damaged files and may not, of a process with 2 GB for them and a minute for each."""
    command = [sys.executable, "-m", "tests.fuzz", suite, str(first), str(last), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_damaged_files(tmp_path):
    assert fuzz("weights", 0, 150, tmp_path) == []


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    assert fuzz("weights", 150, 2500, tmp_path) == []
