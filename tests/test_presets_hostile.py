"""Presets of strangers: what preset.json may not say, sizes that take memory, and hundreds of damaged ones."""

import copy
import hashlib
import inspect
import json
import os
import re

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from keras_rcnn import backbones, layers, preset_build
from keras_rcnn.preset_file import BYTES_VARIABLE, MAX_BYTES, SERIALISED, SETTINGS, check_record, read_preset_file
from keras_rcnn.presets import PRESET, WEIGHTS, PresetError, from_preset, read_preset, save_preset, zoo_folder
from tests.convert.test_hostile_weights import fuzz
from tests.hostile import at
from tests.memory import at_most
from tests.models.tiny import tiny_detector
from tests.test_architecture import configurable


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = tiny_detector(class_names=["square", "bar"])
    return save_preset(model, tmp_path_factory.mktemp("presets") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the preset, to be spoilt."""
    for name in (PRESET, WEIGHTS):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def spoil(folder, place, value):
    """Sets what lies at "detector.config.neck" or so."""
    record = json.loads((folder / PRESET).read_text())
    *path, key = place.split(".")
    at(record, path)[key] = value
    (folder / PRESET).write_text(json.dumps(record))


def refused(folder, match, file=PRESET):
    with pytest.raises(PresetError, match=match) as error:
        from_preset(folder)
    assert str(folder / file) in str(error.value)


# === The schema ===


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        ("weights", [], "weights is \\[\\]; it should be an object"),
        ("weights", "weights.safetensors", "weights is 'weights.safetensors'"),
        *[("weights.file", value, "weights.file is .*plain file name") for value in
          ("../weights.safetensors", "/dev/zero", "a\\b", "C:x", "..", ".", "", "a\0b", 5, None, ["x"], "x" * 300)],
        *[("weights.size", value, "weights.size is .*whole number") for value in ("1", -1, 1.5, True, 2**60)],
        *[("weights.sha256", value, "weights.sha256 is .*64 hexadecimal") for value in ("", "g" * 64, "a" * 63, 5, [])],
        ("metrics", [1], r"metrics is \[1\]"),
        ("metrics", {"bbox": 3}, "metrics.bbox is 3"),
        ("detector", [], "no 'detector' with a 'config'"),
        ("detector.class_name", 5, "detector.class_name is 5"),
        ("detector.class_name", None, "detector is a None"),
        ("detector.module", [], r"detector.module is \[\]"),
        ("detector.build_config", {}, "detector has .'build_config'"),
        ("detector.config.neck.compile_config", {"optimizer": "sgd"}, "config.neck has .'compile_config'"),
        ("detector.config.num_classes", "2", "config.num_classes is '2'; it should be a whole number from 1"),
        ("detector.config.num_classes", True, "config.num_classes is True"),
        ("detector.config.num_classes", 10**9, "config.num_classes is 1000000000"),
        ("detector.config.class_names", "ab", "config.class_names is 'ab'"),
        ("detector.config.class_names", ["a", 5], "config.class_names is"),
        ("detector.config.neck", "fpn", "config.neck is 'fpn'; it should be a part"),
        ("detector.config.neck", {}, "config.neck is {}; it should be a part"),
        ("detector.config.decoder.config.iou_threshold", "x", "config.iou_threshold is 'x'; it should be a number"),
        ("detector.config.decoder.config.iou_threshold", float("nan"), "config.iou_threshold is nan"),
        ("detector.config.decoder.config.max_detections", 10**7, "config.max_detections is 10000000"),
        ("detector.config.proposals.config.pre_nms", [10**9, 10**9], "config.pre_nms is"),
        ("detector.config.box_pool.config.size", 10**5, "config.size is 100000; it should be a whole number from 1"),
        ("detector.config.preprocessor.config.max_size", 10**9, "config.max_size is"),
        ("detector.config.rpn_head.config.convs", 10**9, "config.convs is 1000000000"),
        ("detector.config.box_head.config.units", [64] * 1000, "config.units is"),
        ("detector.config.box_head.config.units", [10**12], "config.units is"),
        ("detector.config.backbone.config.channels", [1e400, 24], "config.channels is .inf"),
        ("detector.config.backbone.config.weights", "/etc/passwd", "config.weights is '/etc/passwd'; it should"),
        ("detector.config.backbone.config.mine", 1e300, "config.mine is 1e.300; it should be a finite number"),
    ],
)  # fmt: skip
def test_what_may_not_stand_there(folder, place, value, match):
    spoil(folder, place, value)
    refused(folder, match)


@pytest.mark.parametrize("place", ["detector.config.backbone", "detector.config.num_classes", "detector.config"])
def test_what_may_not_be_missing(folder, place):
    record = json.loads((folder / PRESET).read_text())
    *path, key = place.split(".")
    del at(record, path)[key]
    (folder / PRESET).write_text(json.dumps(record))
    refused(folder, key)


@pytest.mark.parametrize(
    "url",
    [
        "file:///dev/zero", "ftp://a.b/x", "data:,x", "javascript:x", "/dev/zero", "", 5, None, [], "http://",
        "https:///x", "https://a.b:x/", "https://[::1/", "https://a b/", "https://a.b/\n", "https://\u0430.b/",
    ],
)  # fmt: skip
def test_addresses(folder, url):
    weights = {"url": url, "file": "w.pth", "sha256_prefix": "0badc0de", "converter": "torchvision", "model": "x"}
    spoil(folder, "weights", weights)
    refused(folder, "weights.url is .*; it should be an address that begins with https:// or http://")


def test_what_an_address_needs(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    whole = {"file": "w.pth", "sha256_prefix": "0badc0de", "converter": "torchvision", "model": "x"}
    for key in whole:
        spoil(folder, "weights", {"url": "https://a.b/c", **{k: v for k, v in whole.items() if k != key}})
        refused(folder, f"weights has a url, and no {key}")
    for prefix in ("../../x", "0badc0", "", 5, "0badc0dg"):
        spoil(folder, "weights", {"url": "https://a.b/c", **whole, "sha256_prefix": prefix})
        refused(folder, "weights.sha256_prefix is")
    spoil(folder, "weights", {"url": "https://a.b/c", **whole, "converter": "pickle"})
    refused(folder, "no converter 'pickle'")
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wAAAA==", None, None]}, "module": "builtins"}


@pytest.mark.parametrize("place", ["detector", "detector.config.neck", "detector.config.backbone.config.mine"])
@pytest.mark.parametrize(
    ("part", "match"),
    [
        (LAMBDA, "could run code"),
        ({"class_name": "Lambda", "module": "keras.layers", "config": {"function": LAMBDA}}, "could run code"),
        ({"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/x"}}, "could run code"),
        ({"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/x"}}, "read files"),
        ({"class_name": "system", "module": "os", "config": {}}, "'system' of the module 'os'"),
        ({"class_name": "system", "module": "os", "config": {}, "registered_name": "os>system"}, "no os>system"),
        ({"class_name": "get_file", "module": "keras.utils", "config": {}}, "'get_file' of the module 'keras.utils'"),
        ({"class_name": "function", "module": "os", "config": "system"}, "'function' of the module 'os'"),
        ({"class_name": "FPN", "module": "x", "config": {}, "registered_name": "keras_rcnn>Yolo"}, "keras_rcnn>Yolo"),
        ({"class_name": "__typespec__", "module": "x", "config": []}, "could run code"),
    ],
)
def test_nothing_of_a_strangers_choosing_is_run(folder, place, part, match):
    keras.config.enable_unsafe_deserialization()  # which a program may have done for files of its own
    try:
        spoil(folder, place, {"config": {"num_classes": 2, "backbone": None}, **part} if place == "detector" else part)
        refused(folder, f"{match}|no 'detector'|has no 'num_classes'")
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)  # as it was


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"{" * 100_000, b"[" * 10_000_000,
        b'{"detector": ' + b'{"config": ' * 500 + b"1" + b"}" * 501,
        b'{"detector": {"config": ' + b"9" * 5000 + b"}}", b"null", b'"x"', b"5",
    ],
    ids=range(9),
)  # fmt: skip
def test_files_that_are_no_preset(folder, content):
    (folder / PRESET).write_bytes(content)
    refused(folder, "is not a preset")


def test_the_files_size(folder, monkeypatch):
    text = (folder / PRESET).read_text()
    (folder / PRESET).write_text(text + " " * MAX_BYTES)
    refused(folder, f"more than {MAX_BYTES} bytes.*{BYTES_VARIABLE}")
    monkeypatch.setenv(BYTES_VARIABLE, str(2 * MAX_BYTES))
    assert from_preset(folder).num_classes == 2
    assert read_preset_file(folder / PRESET, max_bytes=2 * MAX_BYTES)["name"] == "tiny"
    monkeypatch.setenv(BYTES_VARIABLE, "much")
    with pytest.raises(PresetError, match=f"{BYTES_VARIABLE} is a number of bytes, not 'much'"):
        from_preset(folder)
    monkeypatch.delenv(BYTES_VARIABLE)
    (folder / PRESET).write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Windows's editor saves it
    assert from_preset(folder).num_classes == 2


def test_what_is_no_file(folder):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    refused(folder, "is missing", WEIGHTS)
    (folder / PRESET).unlink()
    os.mkfifo(folder / PRESET)
    with pytest.raises(PresetError, match="is a folder without preset.json"):
        from_preset(folder)


def test_every_setting_has_a_rule():
    """A setting of a part without one is not checked: say in keras_rcnn/preset_rules.py what it may be."""
    required = {"detector", "name"}
    for cls in configurable().values():
        if cls.__module__.split(".")[1] not in ("layers", "backbones"):
            continue
        parameters = set(_settings(cls)) - {"backbone", "head", "model", "neck", "pool", "warp"}
        assert parameters <= set(SETTINGS) | required, f"{cls.__name__}: {sorted(parameters - set(SETTINGS))}"


def _settings(cls):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(cls.__init__).parameters.values()
    return [one.name for one in found if one.name != "self" and one.kind not in kinds]


def test_the_zoos_own_pass():
    folders = [path.parent for path in zoo_folder().glob(f"*/{PRESET}")]
    assert len(folders) > 10
    for folder in folders:
        read_preset(folder)


def test_the_settings_defaults_pass(saved):
    """Whatever a part has by default may stand in a preset."""
    record = read_preset(saved)
    parts = [
        layers.FPN(), layers.SingleLevel(), layers.BoxHead(ranks=None), layers.MaskHead(3), layers.BoxPredictor(3),
        layers.RPNHead(9), layers.AnchorGenerator([[32], [64]]), layers.Proposals(), layers.RPNTargets(),
        layers.RPNTargets(border=0, seed=2**40), layers.BoxTargets(3), layers.BoxLoss(), layers.RPNLoss(),
        layers.MaskLoss(), layers.MaskTargets(3, 64), layers.RoIAlign(), layers.RoIPool(), layers.RegionWarp(),
        layers.DetectionDecoder(),
        layers.MaskDecoder(), layers.ClassPredictor(3), layers.ClassLoss(), layers.RegionSVMs(3),
        layers.BoxRegressors(3), layers.ScoreDecoder(), backbones.ZF(), backbones.ResNet(50),
    ]  # fmt: skip
    for part in parts:
        changed = copy.deepcopy(record)
        described = json.loads(json.dumps(keras.saving.serialize_keras_object(part)))
        changed["detector"]["config"]["part"] = {key: described[key] for key in described if key in SERIALISED}
        check_record(changed, saved / PRESET)


# === Sizes ===


def test_no_weight_takes_memory_before_the_file_has_it(folder):
    """A head of 100,000 units would be 64 MB x 100,000 / 64."""
    spoil(folder, "detector.config.box_head.config.units", [100_000, 100_000])
    with at_most(300):
        refused(folder, "holds the weights of another model: .*box_head/fc_1", WEIGHTS)
    with at_most(300):  # and nothing waits to be made by the next model
        assert tiny_detector().count_params() < 1e6


@pytest.mark.parametrize("value", [[1_000_000], [64, 64], [63]])
def test_other_classes_do_not_hide_other_sizes(folder, value):
    spoil(folder, "detector.config.box_head.config.units", value)
    with at_most(300), pytest.raises(PresetError, match="holds the weights of another model"):
        from_preset(folder, class_names=["a", "b", "c"])


def test_a_detector_that_fails_leaves_nothing_waiting(folder):
    spoil(folder, "detector.config.decoder.config.turbo", 1)
    refused(folder, "turbo")
    assert not global_state.get_global_attribute("uninitialized_variables")


def test_what_is_no_detector(folder):
    record = read_preset(folder)
    neck = record["detector"]["config"]["neck"]
    neck["config"] |= {"num_classes": 2, "backbone": None}
    spoil(folder, "detector", neck)
    refused(folder, "FPN|cannot be built")
    pool = {"module": "x", "class_name": "M", "registered_name": "keras_rcnn>MaskLoss", "config": {}}
    with pytest.raises(PresetError, match="M is no detector"):
        preset_build.build_detector(pool, folder / PRESET, {}, folder / WEIGHTS)


def test_weights_that_declare_too_much(folder):
    """The limits of weights files hold for a preset's too."""
    with open(folder / "weights.npz", "wb") as file:
        np.savez_compressed(file, a=np.zeros(10**8, np.float32))
    spoil(folder, "weights", {"file": "weights.npz"})
    refused(folder, "declares arrays of 400000000", "weights.npz")


def test_capitals_in_a_hash(folder):
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    spoil(folder, "weights.sha256", digest.upper())
    assert from_preset(folder).num_classes == 2
    spoil(folder, "weights.sha256", digest[::-1])
    refused(folder, re.escape(f"is not the file that {PRESET} beside it describes"), WEIGHTS)


# === Hundreds ===


def test_damaged_presets(tmp_path):
    assert fuzz("presets", 0, 10, tmp_path / "tiny") == []


@pytest.mark.slow
def test_many_damaged_presets(tmp_path):
    assert fuzz("presets", 10, 500, tmp_path / "tiny") == []
