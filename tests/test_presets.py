"""Presets: writing, reading, other classes, downloads, and everything that can go wrong."""

import hashlib
import http.server
import importlib
import json
import threading

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_rcnn
from keras_rcnn.convert.build import TORCHVISION_MODELS, torchvision_detector
from keras_rcnn.presets import PresetError, from_preset, save_preset
from tests.models.tiny import batch, tiny_detector

presets = importlib.import_module("keras_rcnn.presets")  # the package's attribute of that name is the function


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = tiny_detector(class_names=["square", "bar"])
    return model, save_preset(model, tmp_path_factory.mktemp("presets") / "tiny", title="Tiny", license="Apache-2.0")


def test_round_trip(saved):
    model, folder = saved
    again = from_preset(folder)
    x, _ = batch()
    for key, value in model.predict_on_batch(x).items():
        np.testing.assert_allclose(again.predict_on_batch(x)[key], value, atol=1e-5)
    assert again.class_names == ["square", "bar"]
    info = json.loads((folder / "preset.json").read_text())
    weights = folder / "weights.safetensors"
    assert info["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert info["weights"]["size"] == weights.stat().st_size
    assert sorted(load_file(weights)) == sorted(w.path for w in model.weights)
    assert str(folder) not in (folder / "preset.json").read_text()


def test_float16_keeps_vectors(saved, tmp_path):
    model, _ = saved
    tensors = load_file(save_preset(model, tmp_path / "half", dtype="float16") / "weights.safetensors")
    for name, tensor in tensors.items():
        assert tensor.dtype == (np.float32 if tensor.ndim == 1 else np.float16), name
    half = from_preset(tmp_path / "half")
    for a, b in zip(half.weights, model.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)
        assert a.dtype == "float32"


def test_other_classes_get_new_predictors(saved):
    model, folder = saved
    other = from_preset(folder, class_names=["a", "b", "c"])
    assert other.num_classes == 3
    assert other.class_names == ["a", "b", "c"]
    assert other.parts["box_targets"].num_classes == 3
    theirs = {w.path: np.array(w) for w in model.weights}
    for weight in other.weights:
        if weight.path.startswith("box_predictor"):
            assert weight.shape != theirs[weight.path].shape
        else:
            np.testing.assert_array_equal(weight, theirs[weight.path])
    assert from_preset(folder, num_classes=2).class_names == ["square", "bar"]
    same = from_preset(folder, class_names=["square", "bar"])
    np.testing.assert_array_equal(same.weights[-1], model.weights[-1])
    with pytest.raises(PresetError, match="at least 1"):
        from_preset(folder, num_classes=0)
    with pytest.raises(PresetError, match="3 class names"):
        from_preset(folder, num_classes=2, class_names=["a", "b", "c"])


def test_wrong_weights_are_named(saved, tmp_path):
    _, folder = saved
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "preset.json").write_bytes((folder / "preset.json").read_bytes())
    whole = (folder / "weights.safetensors").read_bytes()
    tensors = load_file(folder / "weights.safetensors")

    for data, message in (
        (whole[: len(whole) // 2], "cannot be read"),
        (b"", "cannot be read"),
        (b"not weights at all", "cannot be read"),
    ):
        (broken / "weights.safetensors").write_bytes(data)
        with pytest.raises(PresetError, match=message):
            from_preset(broken)
    first = next(iter(tensors))
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != first}, f"lacks {first}"),
        ({**tensors, "extra/kernel": np.zeros(3, np.float32)}, "has further extra/kernel"),
        ({**tensors, first: np.zeros((1, 2), np.float32)}, "other shapes"),
    ):
        save_file(changed, broken / "weights.safetensors")
        with pytest.raises(PresetError, match=message):
            from_preset(broken)
    (broken / "preset.json").write_text("{")
    with pytest.raises(PresetError, match="not a preset"):
        from_preset(broken)


def test_unknown_names_list_the_presets(tmp_path):
    with pytest.raises(PresetError, match="neither a folder nor a preset.*fasterrcnn_resnet50_fpn"):
        from_preset("fasterrcnn_resnet5_fpn")
    with pytest.raises(PresetError, match="without preset.json"):
        from_preset(tmp_path)
    with pytest.raises(PresetError, match="nor a preset"):
        from_preset("../zoo")


def test_full_disk_leaves_the_old_preset(saved, tmp_path, monkeypatch):
    model, _ = saved
    folder = save_preset(model, tmp_path / "kept")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(presets, "save_file", full)
    with pytest.raises(PresetError, match=r"No space left.*MB of space"):
        save_preset(model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(PresetError, match="could not be written"):
        save_preset(model, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", TORCHVISION_MODELS)
def test_torchvision_presets_are_those_detectors(name):
    info = json.loads((presets.zoo_folder() / name / "preset.json").read_text())
    assert info["weights"]["url"].endswith(info["weights"]["file"])
    assert info["weights"]["sha256_prefix"] in info["weights"]["file"]
    model = torchvision_detector(name, class_names=info["detector"]["config"]["class_names"])
    assert presets._plain(keras.saving.serialize_keras_object(model)) == info["detector"]
    manifest = json.loads((presets.zoo_folder() / name / "manifest.json").read_text())
    assert manifest == {w.path: list(w.shape) for w in model.weights}


def test_listing():
    listed = {p["name"]: p for p in keras_rcnn.presets()}
    assert set(TORCHVISION_MODELS) <= set(listed)
    assert listed["fasterrcnn_resnet50_fpn"]["metrics"]["bbox"]["AP"] == 37.0 / 100


@pytest.fixture
def server(tmp_path):
    """A web server on this machine with one file to download."""
    content = {"data": b""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Length", str(len(content["data"]) + content.get("missing", 0)))
            self.end_headers()
            self.wfile.write(content["data"])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield content, f"http://127.0.0.1:{running.server_address[1]}/weights-{{}}.pth"
    running.shutdown()


def test_downloads_are_checked_and_nothing_broken_stays(server, tmp_path):
    content, url = server
    content["data"] = b"some bytes" * 1000
    digest = hashlib.sha256(content["data"]).hexdigest()[:8]
    weights = {"url": url.format(digest), "file": f"weights-{digest}.pth", "sha256_prefix": digest}
    home = tmp_path / "cache"
    file = presets._fetch(weights, home)
    assert file.read_bytes() == content["data"]
    content["data"] = b"never asked again"
    assert presets._fetch(weights, home) == file

    file.write_bytes(b"changed")
    with pytest.raises(PresetError, match="damaged"):
        presets._fetch(weights, home)
    file.unlink()
    with pytest.raises(PresetError, match=f"begins with .*not {digest}.*by other means"):
        presets._fetch(weights, home)
    content["missing"] = 100
    with pytest.raises(PresetError, match="by other means"):
        presets._fetch(weights, home)
    weights["url"] = "http://127.0.0.1:9/nothing.pth"
    with pytest.raises(PresetError, match="could not be downloaded.*by other means"):
        presets._fetch(weights, home)
    assert list(home.iterdir()) == []


def test_a_downloaded_preset_is_converted_once(server, tmp_path, monkeypatch):
    """The whole way with a checkpoint in torchvision's names, from the server to `detect`."""
    from tests.shared import SHARED, golden_state

    if not (SHARED / "golden").is_dir():
        pytest.skip("torchvision's golden weights are not here")
    content, url = server
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    np.savez(tmp_path / "w.npz", **golden_state(name))
    content["data"] = (tmp_path / "w.npz").read_bytes()
    digest = hashlib.sha256(content["data"]).hexdigest()[:8]
    info = json.loads((presets.zoo_folder() / name / "preset.json").read_text())
    info["weights"] |= {"url": url.format(digest), "file": f"w-{digest}.npz", "sha256_prefix": digest}
    zoo = tmp_path / "zoo" / name
    zoo.mkdir(parents=True)
    (zoo / "preset.json").write_text(json.dumps(info))
    monkeypatch.setattr(presets, "zoo_folder", lambda: tmp_path / "zoo")
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    model = from_preset(name)
    content["data"] = b""
    again = from_preset(name, num_classes=4)
    assert model.num_classes == 90
    assert again.num_classes == 4
    assert sorted(p.name for p in (tmp_path / "home" / name).iterdir()) == ["preset.json", "weights.safetensors"]
