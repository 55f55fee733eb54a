"""Keras 2's .h5 files: the layouts in the wild, and files that are damaged or made to do harm."""

import shutil

import h5py
import numpy as np
import pytest

from keras_rcnn.convert import ConversionError, UnsafeWeightsError, WeightsFileError, read_keras_h5
from tests.matterport import FOLDER, numbers
from tests.shared import needs_golden

LAYOUTS = ("tiny", "tiny_second_model_in_process", "tiny_tf2_fork", "tiny_whole_model")
IGNORED = {"anchors"}  # a weight of TF2 forks, for the converter to drop


def write(path, layers=None, root=""):
    """A file as `save_weights` writes it: {layer: {weight's path: array}}."""
    layers = {"conv1": {"conv1/kernel:0": np.ones((2, 3), np.float32)}} if layers is None else layers
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for name, weights in layers.items():
            group = top.create_group(name)
            group.attrs["weight_names"] = np.array([path.encode() for path in weights])
            for inner, value in weights.items():
                group.create_dataset(inner, data=value)
    return path


def refused(path, match, error=WeightsFileError, **limits):
    with pytest.raises(error, match=match) as raised:
        read_keras_h5(path, **limits)
    assert str(path) in str(raised.value)


# === Layouts ===


@needs_golden
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_numbers_in_every_layout(name):
    read = read_keras_h5(FOLDER / "layout" / f"{name}.h5")
    flat = {f"{layer}/{weight}": value for layer, own in read.items() for weight, value in own.items()}
    flat = {key: value for key, value in flat.items() if key.split("/")[0] not in IGNORED}
    expected = numbers("layout/tiny")
    assert set(flat) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(flat[key], value)


def test_names_as_texts_and_in_chunks(tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = ["conv1"]
        file.attrs["layer_names1"] = np.array([b"empty"])
        file.create_group("empty").attrs["weight_names"] = np.zeros(0)
        file.create_group("top_level_model_weights")
    assert list(read_keras_h5(path)) == ["conv1"]


def test_half_precision_and_packed(tmp_path):
    path = write(tmp_path / "w.h5", {"a": {}})
    with h5py.File(path, "a") as file:
        file["a"].attrs["weight_names"] = [b"a/kernel:0"]
        file["a"].create_dataset("a/kernel:0", data=np.arange(6, dtype=np.float16), compression="gzip", shuffle=True)
    value = read_keras_h5(path)["a"]["kernel"]
    assert value.dtype == np.float32 and value.tolist() == [0, 1, 2, 3, 4, 5]


# === What is no such file ===


def test_other_files(tmp_path):
    path = tmp_path / "w.h5"
    with pytest.raises(FileNotFoundError):
        read_keras_h5(path)
    refused(tmp_path, "a folder")
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_bytes(b"PK\3\4 a zip")
    refused(path, "no HDF5 file")
    with h5py.File(path, "w") as file:
        file["a"] = np.ones(3)
    refused(path, "without layer_names.*Keras 3")
    write(path, {})
    refused(path, "names no weights")


@pytest.mark.parametrize("place", range(1, 51))
def test_truncated(place, tmp_path):
    layers = {f"layer{i}": {f"layer{i}/kernel:0": np.ones((4, 50), np.float32)} for i in range(8)}
    path = write(tmp_path / "w.h5", layers)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * place // 51])
    refused(path, "truncated|no HDF5 file")


def test_flipped_bytes(tmp_path):
    """Whatever is read of a damaged file, nothing but the package's own errors comes of it."""
    data = write(tmp_path / "sound.h5").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "w.h5"
    for _ in range(150):
        damaged = bytearray(data)
        for i in rng.integers(8, len(data), rng.integers(1, 5)):
            damaged[i] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_keras_h5(path)
        except ConversionError as error:
            assert str(path) in str(error)


# === Ways out of the file ===


def linked(path, link, name="conv1"):
    write(path)
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = link
    return path


def test_links(tmp_path):
    other = write(tmp_path / "other.h5")
    path = tmp_path / "w.h5"
    for link in (h5py.ExternalLink(str(other), "/conv1"), h5py.SoftLink("/elsewhere")):
        for place in ("conv1", "conv1/conv1", "conv1/conv1/kernel:0"):
            refused(linked(path, link, place), "a link to another place", UnsafeWeightsError)
    write(path, root="model_weights")
    with h5py.File(path, "a") as file:
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(other), "/")
    refused(path, "a link to another place", UnsafeWeightsError)


def test_values_in_other_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(24))
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file["conv1"].create_dataset("conv1/kernel:0", (6,), "f4", external=[(str(secret), 0, 24)])
    refused(path, "in other files", UnsafeWeightsError)
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        layout = h5py.VirtualLayout((6,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "a", (6,))
        file["conv1"].create_virtual_dataset("conv1/kernel:0", layout)
    refused(path, "in other files", UnsafeWeightsError)


@pytest.mark.parametrize("name", ["/conv1/conv1/kernel:0", "../conv1", "conv1//kernel:0", "conv1/./kernel:0", "none"])
def test_paths_that_lead_elsewhere(name, tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file["conv1"].attrs["weight_names"] = [name.encode()]
    refused(path, "has no such dataset")


# === What is no array of numbers ===


def test_objects_and_texts(tmp_path):
    for dtype in (h5py.special_dtype(vlen=str), h5py.vlen_dtype(np.float32), h5py.ref_dtype, "S8", [("a", "f4")]):
        path = write(tmp_path / "w.h5")
        with h5py.File(path, "a") as file:
            del file["conv1/conv1/kernel:0"]
            file["conv1"].create_dataset("conv1/kernel:0", (3,), dtype)
        refused(path, "not numbers", UnsafeWeightsError)


def test_groups_in_the_place_of_arrays_and_the_reverse(tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file["conv1"].attrs["weight_names"] = [b"conv1"]
    refused(path, "is no dataset")
    with h5py.File(path, "a") as file:
        del file["conv1"]
        file["conv1"] = np.ones(3)
    refused(path, "is no group")


def test_names_that_are_none(tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = np.arange(3)
    refused(path, "are no names")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"gone"]
    refused(path, "names gone")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"conv1", b"conv1"]
    refused(path, "kernel twice")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = [b"conv1"]
        del file["conv1"].attrs["weight_names"]
    refused(path, "has no weight_names")


# === Memory ===


def test_bombs(tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file["conv1"].create_dataset("conv1/kernel:0", (2**20, 2**16), "f4", chunks=(2**10, 2**10), compression="gzip")
    assert path.stat().st_size < 10**5
    refused(path, "declares arrays of.*made to fill memory")
    many = write(tmp_path / "many.h5")
    refused(many, "declares arrays", max_bytes=20)
    refused(many, "more than 2 parts", max_parts=2)


def test_the_same_array_again_and_again(tmp_path):
    """One array under thousands of names is counted as often as it is read."""
    path = write(tmp_path / "w.h5", {"a": {"a/kernel:0": np.ones(10**6, np.float32)}})
    with h5py.File(path, "a") as file:
        names = [b"a/kernel:0", *(b"a/k%d:0" % i for i in range(400))]
        for name in names[1:]:
            file["a"][name.decode()] = file["a/a/kernel:0"]
        file["a"].attrs["weight_names"] = names
    refused(path, "declares arrays of")


def test_unknown_filters(tmp_path):
    path = write(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file["conv1/conv1/kernel:0"]
        file["conv1"].create_dataset("conv1/kernel:0", data=np.ones(64, np.float32), compression="lzf")
    refused(path, "unknown filters")


@needs_golden
def test_a_sound_file_is_left_as_it_is(tmp_path):
    path = shutil.copy(FOLDER / "layout" / "tiny.h5", tmp_path / "w.h5")
    before = path.read_bytes()
    read_keras_h5(path)
    assert path.read_bytes() == before
