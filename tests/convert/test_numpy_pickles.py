"""Detectron2's pickles: every form that is published, and files that are hostile or broken."""

import collections
import pickle
import random

import numpy as np
import pytest

from keras_rcnn.convert import ConversionError, UnsafeWeightsError, WeightsFileError, read_detectron2_file
from tests.convert.torch_writer import tensor, write_legacy, write_zip
from tests.detectron2 import DETECTRON2, needs_detectron2
from tests.hostile import damaged_bytes

SAMPLES = sorted((DETECTRON2 / "pkl_samples").glob("*.pkl"))
STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([1.5, -2])}
HEAD, TAIL = b"\x80\x02}U\x05modelq\x01}U\x01a", b"ss."


def write(path, tree, protocol=4):
    path.write_bytes(pickle.dumps(tree, protocol))
    return path


def refused(path, match, error=WeightsFileError, **limits):
    with pytest.raises(error, match=match) as raised:
        read_detectron2_file(path, **limits)
    assert str(path) in str(raised.value)


# === What is published ===


@needs_detectron2
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_published_forms(path):
    state = read_detectron2_file(path)
    with np.load(DETECTRON2 / "pkl_samples" / "expected.npz") as file:
        keys = [key for key in file.files if key.startswith(f"{path.name}|")]
        expected = {key.split("|")[1]: file[key] for key in keys if not key.endswith("_momentum")}
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].shape == value.shape and state[name].dtype in (np.float32, np.int64)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [dict, collections.OrderedDict])
def test_protocols(protocol, wrap, tmp_path):
    tree = {
        **STATE,
        "fortran": np.asfortranarray(STATE["a.weight"]),
        "big": STATE["b"].astype(">f4"),
        "half": STATE["b"].astype(np.float16),
        "count": np.array(3),
        "scalar": np.float32(0.5),
    }
    path = write(tmp_path / "a.pkl", {"model": wrap(tree), "__author__": "me", "matching_heuristics": True}, protocol)
    state = read_detectron2_file(path)
    assert list(state) == list(tree)
    for name, value in tree.items():
        np.testing.assert_array_equal(state[name], value)
        state[name][...] = 0  # writeable, whatever it was read from


@pytest.mark.parametrize("save", [write_zip, write_legacy])
def test_pth(save, tmp_path):
    tree = {"model": {"a": tensor(STATE["b"], "0")}, "iteration": 3}
    path = tmp_path / "model_final.pkl"  # whatever its name
    save(path, tree)
    np.testing.assert_array_equal(read_detectron2_file(path)["a"], STATE["b"])


def test_the_name_of_a_zoo_file_has_its_digest(tmp_path):
    path = write(tmp_path / "model_final_000000.pkl", {"model": STATE})
    refused(path, "MD5 begins with")
    with pytest.raises(WeightsFileError) as raised:
        read_detectron2_file(path)
    digest = str(raised.value).split("MD5 begins with ")[1][:6]
    assert read_detectron2_file(path.rename(tmp_path / f"model_final_{digest}.pkl"))
    assert read_detectron2_file(write(tmp_path / "model_final.pkl", {"model": STATE}))


# === Hostile and broken files ===


class Call:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("call", [Call(print, "ran"), Call(eval, "1"), Call(np.zeros, 3), Call(bytearray, 10)])
def test_nothing_is_called(call, protocol, tmp_path, capsys):
    refused(write(tmp_path / "a.pkl", {"model": {"a": call}}, protocol), "asks to call", UnsafeWeightsError)
    assert not capsys.readouterr().out


def test_arrays_of_objects(tmp_path):
    tree = {"model": {"a": np.array([print, None], dtype=object)}}
    refused(write(tmp_path / "a.pkl", tree), "dtype 'O8'", UnsafeWeightsError)
    refused(write(tmp_path / "a.pkl", {"model": {"a": np.zeros(2, "f4,i4")}}), "dtype 'V8'", UnsafeWeightsError)
    refused(write(tmp_path / "a.pkl", {"model": {"a": np.array(["x"])}}), "dtype 'U1'", UnsafeWeightsError)


def array_code(shape, kind=b"f4", data=b"\0" * 24):
    """The pickle of {"model": {"a": an array}}, whatever is said of the array."""
    built = b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02" + kind + b"K\x00K\x01\x87R"
    built += b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    built += b"T" + len(data).to_bytes(4, "little") + data + b"tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return HEAD + made + built + TAIL


def test_sizes_that_do_not_agree(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(array_code(b"K\x02K\x03\x86"))
    assert read_detectron2_file(path)["a"].shape == (2, 3)
    for shape in (
        b"K\x02K\x04\x86",
        b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86",  # -1, -6
        b"J\xff\xff\xff\x7f\x85",
        b"K\x06",
        b"(" + b"K\x01" * 70 + b"K\x06t",
        b"G@\x18\0\0\0\0\0\0\x85",  # 6.0
    ):
        path.write_bytes(array_code(shape))
        refused(path, "malformed")


@pytest.mark.parametrize(
    "tree", [[1], "text", {}, {"model": {}}, {"model": {"a": 1}}, {"model": [STATE]}, {1: STATE["b"]}]
)
def test_what_is_no_dict_of_arrays(tree, tmp_path):
    refused(write(tmp_path / "a.pkl", tree), "holds")


def test_bombs(tmp_path):
    shared = np.zeros(2**18, np.float32)
    tree = {"model": {str(i): shared for i in range(400)}}
    refused(write(tmp_path / "a.pkl", tree), "fill memory")
    refused(write(tmp_path / "a.pkl", {"model": {"a": list(range(5000))}}), "parts", max_parts=1000)
    path = tmp_path / "b.pkl"
    for code in (
        b"\x80\x05\x96" + b"\xff" * 6 + b"\x7f\0",
        b"\x80\x04\x8e" + b"\xff" * 6 + b"\x7f\0",
        b"\x80\x02r\xff\xff\xff\x7f",
    ):
        path.write_bytes(code + b"0123.")
        refused(path, "malformed|truncated")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_at_fifty_places(protocol, tmp_path):
    whole = pickle.dumps({"model": STATE, "__author__": "me"}, protocol)
    path = tmp_path / "a.pkl"
    for length in np.linspace(1, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:length])
        refused(path, "truncated|malformed|not a weights file|ends too early")


def test_damaged(tmp_path):
    path = tmp_path / "a.pkl"
    for seed in range(300):
        whole = pickle.dumps({"model": STATE, "__author__": "me"}, 2 + seed % 4)
        path.write_bytes(damaged_bytes(whole, random.Random(seed)))
        try:
            state = read_detectron2_file(path)
        except ConversionError as error:
            assert str(path) in str(error)
        else:
            assert all(value.dtype in (np.float32, np.int64) for value in state.values())


def test_other_files(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_bytes(b"<html>")
    refused(path, "web page")
    with pytest.raises(FileNotFoundError):
        read_detectron2_file(tmp_path / "none.pkl")
