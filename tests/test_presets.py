"""Presets: writing, reading, other classes, downloads, and everything that can go wrong."""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_rcnn
from keras_rcnn import layers
from keras_rcnn.json_text import to_json
from keras_rcnn.models import FasterRCNN
from keras_rcnn.presets import PRESET, WEIGHTS, PresetError, from_preset, read_preset, save_preset, zoo_folder
from tests.convert.states import detector as random_state
from tests.models.tiny import TinyBackbone, batch, tiny_detector
from tools.pages import zoo

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "zoo"
module = keras_rcnn.presets


def close(model, other):
    """Whether two detectors say the same."""
    x, _ = batch()
    theirs = other.predict_on_batch(x)
    for key, value in model.predict_on_batch(x).items():
        np.testing.assert_allclose(theirs[key], value, atol=1e-5, err_msg=key)


def values_of(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def change(path, **entries):
    """Changes entries of a preset.json."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = tiny_detector(class_names=["square", "bar"])
    for weight in model.weights:
        if weight.path.endswith("bias"):  # zero to begin with, which would hide a lost one
            weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
    return model, save_preset(model, tmp_path_factory.mktemp("presets") / "tiny", title="Tiny", license="Apache-2.0")


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the preset, to be spoilt."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in saved[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


# === Round trip ===


def test_round_trip(saved):
    model, folder = saved
    again = from_preset(folder)
    close(model, again)
    assert type(again) is FasterRCNN
    assert again.class_names == ["square", "bar"]
    assert again.preprocessor.get_config() == model.preprocessor.get_config()
    close(model, from_preset(str(folder)))


def test_what_a_folder_holds(saved):
    model, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == [PRESET, WEIGHTS]
    text = (folder / PRESET).read_text()
    record = json.loads(text)
    assert record["name"] == "tiny" and record["title"] == "Tiny" and record["license"] == "Apache-2.0"
    content = (folder / WEIGHTS).read_bytes()
    assert record["weights"] == {
        "file": WEIGHTS,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "dtype": "float32",
    }
    tensors = load_file(folder / WEIGHTS)
    assert set(tensors) == {weight.path for weight in model.weights}
    for path, value in values_of(model).items():
        np.testing.assert_array_equal(tensors[path], value)
    # for people: no absolute paths, no shapes, no precision
    assert str(folder) not in text and "build_config" not in text and "dtype" not in json.dumps(record["detector"])
    assert max(map(len, text.splitlines())) <= 120


def test_metadata_is_json(saved, tmp_path):
    model, _ = saved
    metrics = {"bbox": {"AP": np.float32(0.5), "APl": float("nan")}, "sizes": np.arange(2), "file": Path("x/y")}
    record = read_preset(save_preset(model, tmp_path / "m", name="other", metrics=metrics, license=None, notes="ä"))
    assert record["name"] == "other" and record["notes"] == "ä" and "license" not in record
    assert record["metrics"] == {"bbox": {"AP": 0.5, "APl": None}, "sizes": [0, 1], "file": "x/y"}
    with pytest.raises(PresetError, match="JSON"):
        save_preset(model, tmp_path / "n", notes=object())
    with pytest.raises(PresetError, match="weights"):
        save_preset(model, tmp_path / "n", weights="imagenet")
    with pytest.raises(PresetError, match="'float32', 'float16', not 'int8'"):
        save_preset(model, tmp_path / "n", dtype="int8")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("value", [{}, {"a": []}, list(range(99)), ["a, b"] * 50, {"a": {"b": ["ü" * 200, 1.5, None]}}])
def test_readable_json_is_json(value):
    assert json.loads(to_json(value)) == value


def test_other_files_in_a_folder_stay(saved, tmp_path):
    model, _ = saved
    (tmp_path / "recipe.py").write_text("epochs = 3\n")
    save_preset(model, tmp_path, title="first")
    save_preset(model, tmp_path, title="second")
    assert sorted(path.name for path in tmp_path.iterdir()) == [PRESET, "recipe.py", WEIGHTS]
    assert read_preset(tmp_path)["title"] == "second"


def test_the_folder_can_be_the_current_one(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_preset(saved[0], ".")
    assert sorted(os.listdir()) == [PRESET, WEIGHTS]
    assert read_preset(tmp_path)["name"] == tmp_path.name
    close(saved[0], from_preset("."))


def test_float16_keeps_vectors_and_what_does_not_fit(tmp_path):
    """A variance of 1e-9 is 0 in float16, one of 1e6 infinite: both would ruin a frozen normalisation."""
    model = tiny_detector(box_head=layers.BoxHead((64,), convs=(8,), norm="batch"))
    weights = {weight.path: weight for weight in model.weights}
    variance = weights["box_head/conv_0_bn/moving_variance"]
    variance.assign(np.float32([1e-9, 1e6, 1, 1, 1, 1, 1, 70000]))
    huge = weights["box_head/fc_0/kernel"]
    huge.assign(np.full(huge.shape, 1e5, np.float32))
    save_preset(model, tmp_path / "half", dtype="float16")
    tensors = load_file(tmp_path / "half" / WEIGHTS)
    for path, tensor in tensors.items():
        stays = tensor.ndim == 1 or path == huge.path
        assert tensor.dtype == (np.float32 if stays else np.float16), path
    again = values_of(from_preset(tmp_path / "half"))
    for path, value in values_of(model).items():
        assert again[path].dtype == np.float32
        tolerance = 0 if value.ndim == 1 else 2**-11
        np.testing.assert_allclose(again[path], value, rtol=tolerance, atol=1e-7 * (value.ndim > 1), err_msg=path)
    whole = save_preset(model, tmp_path / "whole") / WEIGHTS
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < whole.stat().st_size


def test_precision_is_the_loading_programs(saved, tmp_path):
    """A preset has none: it takes Keras's current policy, whatever the policy was that it was saved under."""
    model, folder = saved
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        mixed = from_preset(folder)
        save_preset(mixed, tmp_path / "mixed")
    finally:
        keras.config.set_dtype_policy(policy)
    assert mixed.get_layer("fpn").compute_dtype == "bfloat16"
    assert mixed.get_layer("proposals").compute_dtype == "float32"
    close(model, from_preset(tmp_path / "mixed"))


# === Other classes ===


def test_other_classes_get_new_predictors(saved):
    model, folder = saved
    theirs = values_of(model)
    three = from_preset(folder, class_names=("a", "b", "c"))
    assert three.num_classes == 3 and three.class_names == ["a", "b", "c"]
    assert three.parts["box_targets"].num_classes == three.parts["box_predictor"].num_classes == 3
    for path, value in values_of(three).items():
        if path.startswith("box_predictor/"):
            assert value.shape != theirs[path].shape
        else:
            np.testing.assert_array_equal(value, theirs[path])
    losses = three.training_graph({k: v for part in batch() for k, v in part.items()}, training=True)
    assert all(np.isfinite(keras.ops.convert_to_numpy(loss)).all() for loss in losses.values())

    renamed = values_of(from_preset(folder, class_names=["bar", "square"]))  # as many, but others
    changed = [path for path, value in renamed.items() if not np.array_equal(value, theirs[path])]
    assert sorted(changed) == [f"box_predictor/{x}/{y}" for x in ("deltas", "logits") for y in ("bias", "kernel")]
    unnamed = from_preset(folder, num_classes=np.int64(4))
    assert unnamed.num_classes == 4 and unnamed.class_names == ["0", "1", "2", "3"]


def test_the_same_classes_keep_everything(saved, tmp_path):
    model, folder = saved
    names = {"class_names": ("square", "bar")}
    for same in ({"num_classes": 2}, names, {"num_classes": 2, **names}):
        again = from_preset(folder, **same)
        assert again.class_names == ["square", "bar"]
        close(model, again)
    # names for a detector that had none
    close(model := tiny_detector(), named := from_preset(save_preset(model, tmp_path / "u"), class_names=["a", "b"]))
    assert named.class_names == ["a", "b"]


def test_class_agnostic_boxes_are_kept(tmp_path):
    model = tiny_detector(box_predictor=layers.BoxPredictor(2, class_agnostic=True))
    theirs, ours = values_of(model), values_of(from_preset(save_preset(model, tmp_path / "a"), num_classes=5))
    np.testing.assert_array_equal(ours["box_predictor/deltas/kernel"], theirs["box_predictor/deltas/kernel"])
    assert ours["box_predictor/logits/kernel"].shape == (64, 6)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"num_classes": 0}, "from 1"),
        ({"num_classes": 2.5}, "from 1"),
        ({"num_classes": True}, "from 1"),
        ({"class_names": []}, "from 1"),
        ({"num_classes": 2, "class_names": ["a", "b", "c"]}, "3 class_names"),
        ({"class_names": "fig"}, "a list"),
    ],
)
def test_impossible_classes(saved, classes, message):
    with pytest.raises(PresetError, match=message):
        from_preset(saved[1], **classes)


# === What can be wrong with a folder ===


def test_weights_of_another_model(saved, copy):
    tensors = load_file(copy / WEIGHTS)
    first = next(iter(tensors))
    weights = read_preset(copy)["weights"]
    del weights["sha256"]
    change(copy / PRESET, weights=weights)
    begin = re.escape(str(copy / WEIGHTS)) + " holds the weights of another model: .*"
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != first}, f"without a value: {first}"),
        ({**tensors, "extra/kernel": np.zeros(3, np.float32)}, "no weights named: extra/kernel"),
        ({**tensors, first: np.zeros((1, 2), np.float32)}, re.escape(f"other shapes: {first}")),
        (values_of(tiny_detector(3)), re.escape("box_predictor/logits/bias (3,) (given (4,))")),
    ):
        save_file(changed, copy / WEIGHTS)
        with pytest.raises(PresetError, match=begin + message):
            from_preset(copy)


def test_damaged_weights(copy):
    whole = (copy / WEIGHTS).read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"not weights at all",
        b"version https://git-lfs.github.com/spec/v1",
    ):
        (copy / WEIGHTS).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(copy / WEIGHTS))):
            from_preset(copy)
    (copy / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # as long, but another bit
    with pytest.raises(PresetError, match="SHA-256"):
        from_preset(copy)
    (copy / WEIGHTS).unlink()
    with pytest.raises(PresetError, match="is missing"):
        from_preset(copy)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"detector": {}}', '{"detector": 3}'])
def test_damaged_json(copy, text):
    (copy / PRESET).write_text(text)
    with pytest.raises(PresetError, match=f"{re.escape(str(copy / PRESET))} is not a preset"):
        from_preset(copy)


def test_a_detector_that_cannot_be_built(copy):
    detector = read_preset(copy)["detector"]
    broken = json.loads(json.dumps(detector))
    broken["config"]["box_head"]["config"]["turbo"] = True
    change(copy / PRESET, detector=broken)
    with pytest.raises(PresetError, match=r"preset.json: its detector cannot be built.*turbo"):
        from_preset(copy)
    stranger = json.loads(json.dumps(detector))
    stranger["config"]["neck"] |= {"module": "os", "class_name": "system", "registered_name": "os>system"}
    change(copy / PRESET, detector=stranger)
    with pytest.raises(PresetError, match="cannot be built"):
        from_preset(copy)


def test_a_record_without_weights(copy):
    change(copy / PRESET, weights=None)
    with pytest.raises(PresetError, match="has no weights. Train it"):
        from_preset(copy)


def test_unknown_names(tmp_path):
    with pytest.raises(PresetError, match="no preset 'fasterrcnn_resnet5_fpn'; did you mean 'fasterrcnn_resnet50_fpn'"):
        from_preset("fasterrcnn_resnet5_fpn")
    with pytest.raises(PresetError, match="There are .*fasterrcnn_resnet50_fpn"):
        from_preset("yolo")
    with pytest.raises(PresetError, match=f"{re.escape(str(tmp_path))} is a folder without preset.json"):
        from_preset(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PresetError, match="is a file"):
        from_preset(tmp_path / "file")
    with pytest.raises(PresetError, match="is a file"):
        save_preset(None, tmp_path / "file")


# === Failures while saving ===


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_a_full_disk_leaves_the_old_preset(saved, copy, full_disk):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(PresetError, match=r"No space left.*needs \d+\.\d MB; \d+\.\d MB are free\. What was there"):
        save_preset(saved[0], copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    new = copy.parent / "new" / "deeper"
    with pytest.raises(PresetError, match=f"{re.escape(str(new))}: the preset could not be saved"):
        save_preset(saved[0], new)
    assert not new.exists()
    assert not [path for path in copy.parent.rglob("*") if path.name.startswith(".")]


# === The zoo ===


def test_listing(copy, monkeypatch):
    listed = {preset["name"]: preset for preset in keras_rcnn.list_presets()}
    assert set(PUBLISHED) <= set(listed)
    for name, preset in listed.items():
        assert {"name", "title", "task", "AP", "AP50", "dataset", "size", "license", "source", "local"} <= set(preset)
        assert preset["weights"] and "detector" not in preset
        assert preset["title"] and preset["license"] and preset["source"] and preset["size"] > 0
        assert (ZOO / name).is_dir()
    assert listed["fasterrcnn_resnet50_fpn"]["AP"] == 0.37
    monkeypatch.setattr(module, "zoo_folder", lambda: copy.parent)
    assert [(preset["name"], preset["local"]) for preset in keras_rcnn.list_presets()] == [("tiny", True)]
    change(copy / PRESET, weights=None)
    assert keras_rcnn.list_presets() == []


def test_listing_does_not_wait_for_tensorflow():
    code = (
        "import sys\nfrom keras_rcnn import list_presets\n"
        "assert len(list_presets()) > 3\n"
        "slow = {'keras', 'tensorflow', 'jax'} & set(sys.modules)\nassert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


# file, size in MiB and COCO AP of the weights enum's entries in torchvision/models/detection/faster_rcnn.py
PUBLISHED = {
    "fasterrcnn_resnet50_fpn": ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 159.743, 37.0),
    "fasterrcnn_resnet50_fpn_v2": ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 167.104, 46.7),
    "fasterrcnn_mobilenet_v3_large_fpn": ("fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 74.239, 32.8),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth", 74.239, 22.8),
    "maskrcnn_resnet50_fpn": ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 169.84, (37.9, 34.6)),
    "maskrcnn_resnet50_fpn_v2": ("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 177.219, (47.4, 41.8)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvisions_presets(name):
    record, (file, mebibytes, ap) = read_preset(ZOO / name), PUBLISHED[name]
    weights = record["weights"]
    assert record["name"] == weights["model"] == name
    assert weights["file"] == file and weights["url"] == f"https://download.pytorch.org/models/{file}"
    assert file.endswith(f"-{weights['sha256_prefix']}.pth")
    assert abs(weights["size"] / 2**20 - mebibytes) < 1e-3
    published = [record["metrics"][kind]["AP"] for kind in ("bbox", "segm") if kind in record["metrics"]]
    np.testing.assert_allclose(published, np.array(ap, ndmin=1) / 100)
    assert record["license"] == "BSD-3-Clause"
    detector, manifest = zoo.torchvisions(record)
    assert detector == record["detector"], "run python tools/refresh_zoo.py"
    # a layer that is renamed or reordered makes the weights that people have cached useless
    written = json.loads((ZOO / name / "manifest.json").read_text())
    assert list(manifest.items()) == list(written.items())
    assert abs(4 * sum(map(np.prod, manifest.values())) / weights["size"] - 1) < 2e-3


@pytest.mark.parametrize("folder", sorted(path.parent for path in ZOO.glob(f"*/{PRESET}")), ids=lambda path: path.name)
def test_every_preset_of_the_zoo(folder):
    text = (folder / PRESET).read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["name"] == folder.name
    assert not re.search(r'"(/|~|[A-Z]:\\)', text), "an absolute path"
    weights = record.get("weights")
    if weights and "url" not in weights:
        content = (folder / weights["file"]).read_bytes()
        assert len(content) == weights["size"] <= 24e6
        assert hashlib.sha256(content).hexdigest() == weights["sha256"]
        assert from_preset(folder.name).class_names == record["detector"]["config"]["class_names"]
    if not weights or "url" not in weights:
        assert (folder / "recipe.py").is_file()
        assert {"bbox", "dataset", "command", "seconds", "machine"} <= set(record["metrics"])


def test_the_zoos_page_is_up_to_date():
    assert (ZOO / "README.md").read_text(encoding="utf-8") == zoo.page(ZOO), "run python tools/refresh_zoo.py"


def test_the_zoos_page_tells_how_a_preset_came_about(copy):
    metrics = {"bbox": {"AP": 0.4567, "APl": None}, "dataset": "val", "command": "train it", "seconds": 1200}
    change(copy / PRESET, metrics=metrics | {"machine": "2 cores"}, source="by us")
    text = zoo.page(copy.parent)
    assert "| `tiny` | Tiny | 0.457 | - | - | - | val |" in text
    for words in ("## tiny\n", "`train it`", "20 minutes", "2 cores", "AP 0.457, APl -"):
        assert words in text


def test_the_zoo_is_found():
    assert zoo_folder().samefile(ZOO)
    assert (zoo_folder() / "demo").is_dir()


# === Downloads ===


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """A zoo with one preset of torchvision's, whose random weights the server has; the cache is empty."""
    name, classes = "fasterrcnn_mobilenet_v3_large_320_fpn", 3
    state = random_state(name, classes, width=16)
    with open(tmp_path / "state.npz", "wb") as file:
        np.savez(file, **state)
    server.content = (tmp_path / "state.npz").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    record = read_preset(ZOO / name)
    config = record["detector"]["config"]
    small = {
        "neck": {"channels": 16},
        "box_head": {"units": [12, 12]},
        "box_targets": {"num_classes": classes - 1},
        "box_predictor": {"num_classes": classes - 1},
    }
    for part, changes in small.items():
        config[part]["config"] |= changes
    config |= {"num_classes": classes - 1, "class_names": ["cup", "fork"]}
    record["weights"] |= {"url": server.url, "file": "weights.pth", "size": None, "sha256_prefix": digest[:8]}
    (tmp_path / "zoo" / name).mkdir(parents=True)
    (tmp_path / "zoo" / name / PRESET).write_text(json.dumps(record))
    monkeypatch.setattr(module, "zoo_folder", lambda: tmp_path / "zoo")
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    return name, state


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_published_weights_are_downloaded_and_converted_once(server, published, tmp_path):
    name, state = published
    assert keras_rcnn.list_presets()[0]["local"] is False
    model = from_preset(name)
    weights = values_of(model)
    np.testing.assert_array_equal(weights["fpn/inner_0/bias"], state["backbone.fpn.inner_blocks.0.0.bias"])
    assert weights["box_predictor/logits/bias"][-1] == state["roi_heads.box_predictor.cls_score.bias"][0]
    kept = f"presets/{name}-{hashlib.sha256(server.content).hexdigest()[:8]}"
    assert files(tmp_path / "home") == [f"{kept}/{PRESET}", f"{kept}/{WEIGHTS}"]
    assert keras_rcnn.list_presets()[0]["local"] is True

    server.status = 404
    again = from_preset(name)
    for path, value in values_of(again).items():
        np.testing.assert_array_equal(value, weights[path])
    assert from_preset(name, class_names=["x", "y", "z"]).num_classes == 3
    assert server.requests == 1
    # what is kept is a preset like any other
    assert read_preset(tmp_path / "home" / kept)["license"] == "BSD-3-Clause"
    assert from_preset(tmp_path / "home" / kept).class_names == ["cup", "fork"]


def test_offline_it_says_what_to_do_and_that_works(server, published, tmp_path):
    name, _ = published
    server.status = 503
    with pytest.raises(PresetError) as error:
        from_preset(name)
    message = str(error.value)
    assert name in message and server.url in message and "503" in message
    assert f"keras-rcnn convert torchvision --model {name} --weights weights.pth --out DIR" in message
    assert files(tmp_path / "home") == []

    by_hand = tmp_path / "home" / "downloads" / "weights.pth"
    assert str(by_hand) in message
    by_hand.write_bytes(b"something else")
    with pytest.raises(PresetError, match=f"{re.escape(str(by_hand))} is not the file that it should be"):
        from_preset(name)
    by_hand.write_bytes(server.content)
    assert from_preset(name).num_classes == 2
    assert server.requests == 1
    assert by_hand.exists()  # it is not ours to delete


def test_wrong_bytes_are_not_converted(server, published, tmp_path):
    server.content = server.content[:-1] + b"?"
    with pytest.raises(PresetError, match=r"(?s)SHA-256 begins with.*Nothing of it was kept.*keras-rcnn convert"):
        from_preset(published[0])
    assert files(tmp_path / "home") == []


def test_a_full_disk_while_converting(server, published, tmp_path, full_disk):
    with pytest.raises(PresetError, match=r"No space left.*MB"):
        from_preset(published[0])
    assert files(tmp_path / "home") == []


def test_converted_weights_that_were_altered(published, tmp_path):
    """Their SHA-256 stands beside them, and is compared each time."""
    name, _ = published
    from_preset(name)
    (path,) = (tmp_path / "home").rglob(WEIGHTS)
    sound = path.read_bytes()
    path.write_bytes(sound[:-4000] + bytes(4000))
    with pytest.raises(PresetError, match=f"{re.escape(str(path))} is not the file .*delete the folder"):
        from_preset(name)
    path.write_bytes(sound[:-4000])
    with pytest.raises(PresetError, match=re.escape(str(path))):
        from_preset(name)
    path.write_bytes(sound)
    change(path.parent / PRESET, weights=None)
    with pytest.raises(PresetError, match=f"{re.escape(str(path.parent))} is not what was converted there. Delete it"):
        from_preset(name)
    (path.parent / PRESET).unlink()  # what is left is no preset: it is made anew
    assert from_preset(name).num_classes == 2
    assert path.read_bytes() == sound


def test_a_strangers_preset_of_the_same_name_has_its_own_place(published, tmp_path):
    name, _ = published
    from_preset(name)
    (tmp_path / "strange" / name).mkdir(parents=True)
    record = json.loads((tmp_path / "zoo" / name / PRESET).read_text())
    (tmp_path / "strange" / name / PRESET).write_text(json.dumps(record))
    from_preset(tmp_path / "strange" / name)
    assert len(list((tmp_path / "home" / "presets").iterdir())) == 2


def test_a_cache_that_cannot_be_written_to(published, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "file"))
    with pytest.raises(PresetError, match=f"{tmp_path / 'file'}.* cannot be written to .*KERAS_RCNN_HOME"):
        from_preset(published[0])


def test_a_download_that_broke_off_goes_on(server, published, tmp_path):
    name, _ = published
    server.etag, server.cut = '"one"', 10_000
    with pytest.raises(PresetError, match=r"(?s)broke off after 10000 of .* kept for a week.*keras-rcnn convert"):
        from_preset(name)
    server.cut = None
    assert from_preset(name).num_classes == 2
    assert server.ranges == [None, "bytes=10000-"]
    assert len(files(tmp_path / "home")) == 2


def test_a_download_of_other_weights(server, published, tmp_path):
    name, _ = published
    record = json.loads((tmp_path / "zoo" / name / PRESET).read_text())
    record["weights"]["model"] = "yolo"
    (tmp_path / "zoo" / name / PRESET).write_text(json.dumps(record))
    with pytest.raises(PresetError, match=f"(?s){name}: .*yolo"):
        from_preset(name)
    assert files(tmp_path / "home") == []


def test_two_that_convert_at_once(server, published, tmp_path, caplog):
    """One downloads and converts, the other waits and loads what the first has made."""
    name, _ = published
    server.pause = 0.3
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        models = [one.result() for one in [pool.submit(from_preset, name) for _ in range(2)]]
    assert [model.num_classes for model in models] == [2, 2]
    assert server.requests == 1
    assert len(files(tmp_path / "home")) == 2
    assert f"Process {os.getpid()} downloads and converts {name}" in caplog.text


def test_weights_of_a_registered_class_elsewhere(saved):
    """TinyBackbone is the tests' own class: a preset finds what is imported and registered."""
    record = read_preset(saved[1])
    assert record["detector"]["config"]["backbone"]["registered_name"] == f"keras_rcnn>{TinyBackbone.__name__}"


def test_no_initial_values_are_made_for_weights_that_a_file_has(tmp_path, monkeypatch):
    """JAX compiles random numbers shape by shape: the default preset took 37 s, and takes 1."""
    keras.utils.set_random_seed(0)
    save_preset(tiny_detector(class_names=["square", "bar"]), tmp_path)
    made, initialize = [], keras.Variable._initialize_with_initializer

    def recorded(self, initializer):
        made.append((self.path, type(initializer).__module__))
        initialize(self, initializer)

    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", recorded)
    model = from_preset(tmp_path)
    weights = {weight.path for weight in model.weights}
    assert weights == {path for path, module in made if module == "keras_rcnn.preset_build"}
    made.clear()
    from_preset(tmp_path, class_names=["square", "fig"])
    new = {path for path, module in made if module != "keras_rcnn.preset_build" and path in weights}
    assert new == {f"box_predictor/{layer}/{kind}" for layer in ("logits", "deltas") for kind in ("kernel", "bias")}


@pytest.mark.parametrize("name", [5, None, b"nuclei_frcnn", ["nuclei_frcnn"], "a" * 5000])
def test_what_is_no_name_of_a_preset(name):
    with pytest.raises(PresetError, match="A preset is given by its name|There is no preset 'aaa"):
        from_preset(name)


@pytest.mark.parametrize("names", ["fig", 5, [None], {"fig": 1}, [["fig"]], b"fig"])
def test_what_are_no_class_names(names):
    with pytest.raises(PresetError, match="class_names is a list of names, not"):
        from_preset("nuclei_frcnn", class_names=names)
