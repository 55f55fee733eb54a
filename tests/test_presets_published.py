"""The presets of Detectron2's and Matterport's published models: every row of their tables, from names to values."""

import hashlib
import json
import pickle
import re

import h5py
import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.convert import convert_detectron2, convert_matterport
from keras_rcnn.preset_build import build_detector
from keras_rcnn.preset_file import PRESET, PresetError, read_preset_file
from keras_rcnn.presets import from_preset, read_preset, zoo_folder
from tests.convert.detectron2_states import tensors
from tests.convert.matterport_layers import random_layers
from tests.detectron2 import DETECTRON2, configs, needs_detectron2
from tests.matterport import FOLDER as MATTERPORT
from tests.shared import gated
from tools.pages import published

ROWS = {row["config"]: published.detectron2_record(row) for row in published.rows()}
NAMES = [record["name"] for record in published.records()]
FEW = ("mask_rcnn_R_50_C4_1x", "mask_rcnn_R_50_FPN_400ep_LSJ", "fast_rcnn_R_50_FPN_1x", "matterport_mask_rcnn_coco")
needs_matterport = pytest.mark.skipif(
    not MATTERPORT.is_dir(), reason=f"Matterport's golden files are not at {MATTERPORT}"
)


# === The table and its folders ===


def test_every_row_that_can_be_built_has_its_folder():
    for record in published.records():
        written = json.loads((zoo_folder() / record["name"] / PRESET).read_text(encoding="utf-8"))
        facts = {key: written["detector"].pop(key) for key in ("class_name", "names_and_shapes")}
        assert written == record, "run python tools/refresh_zoo.py"
        assert re.fullmatch("[0-9a-f]{16}", facts["names_and_shapes"])
    listed = {
        preset["name"] for preset in keras_rcnn.list_presets() if preset["origin"] in ("detectron2", "matterport")
    }
    assert listed == set(NAMES), "a folder whose row is gone"
    assert len(NAMES) == len(set(map(str.lower, NAMES))) >= 40


@needs_detectron2
def test_the_table_is_detectron2s():
    """Figures, addresses and sizes against the model zoo's page, and the values that Detectron2 itself counts."""
    zoo = json.loads((DETECTRON2 / "model_zoo.json").read_text())
    rows = {row["config_file"]: row for row in zoo["rows"] if row.get("config_file")}
    for config, record in ROWS.items():
        weights, row = record["weights"], rows.get(config, {})
        assert record["license"] in zoo["licence_of_all_weights_on_that_page"]
        assert not row or weights["url"] == zoo["url_prefix"] + row["url_suffix"]
        assert not row or weights["md5_prefix"] == row["md5_prefix"]
        assert weights["size"] == 4 * configs()[config]["state_values"]
        for task, key, theirs in (
            ("bbox", "AP", "box_ap"),
            ("bbox", "AP50", "box_ap50"),
            ("segm", "AP", "mask_ap"),
            ("keypoints", "AP", "keypoint_ap"),
        ):
            ours = record["metrics"].get(task, {}).get(key)
            assert (ours is None) == (not row.get(theirs)), config
            assert ours is None or abs(100 * ours - float(row[theirs])) < 1e-9
    # the keypoints among the comparisons with Detectron 1 pool by rules that its name does not say
    assert set(ROWS) == set(configs()) - {"Detectron1-Comparisons/keypoint_rcnn_R_50_FPN_1x.yaml"}


def test_titles():
    assert published.title("mask_rcnn_R_50_FPN_3x_gn") == "Mask R-CNN, ResNet-50 + FPN, 3x, GroupNorm"
    assert published.title("faster_rcnn_X_101_32x8d_FPN_3x") == "Faster R-CNN, ResNeXt-101 32x8d + FPN, 3x"
    assert published.title("cascade_mask_rcnn_R_50_FPN_1x") == "Cascade Mask R-CNN, ResNet-50 + FPN, 1x"
    assert published.title("rpn_R_50_C4_1x") == "RPN, ResNet-50 C4, 1x"
    assert published.title("keypoint_rcnn_R_101_FPN_3x") == "Keypoint R-CNN, ResNet-101 + FPN, 3x"


def test_a_builder_is_for_our_own_presets_alone(tmp_path):
    folder = tmp_path / "mask_rcnn_R_50_FPN_3x"
    folder.mkdir()
    text = (zoo_folder() / folder.name / PRESET).read_text(encoding="utf-8")
    (folder / PRESET).write_text(text)
    with pytest.raises(PresetError, match="no 'detector' with a 'config'"):
        from_preset(folder)
    record = json.loads(text)
    record["detector"]["config"] = {"num_classes": 80, "backbone": {}}
    (folder / PRESET).write_text(json.dumps(record))
    with pytest.raises(PresetError, match="only presets of keras_rcnn itself name a builder"):
        from_preset(folder)


def test_a_builder_of_a_newer_version(tmp_path, monkeypatch):
    record = json.loads((zoo_folder() / FEW[0] / PRESET).read_text(encoding="utf-8"))
    record["detector"]["builder"] = "mmdetection"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / PRESET).write_text(json.dumps(record))
    monkeypatch.setattr(keras_rcnn.presets, "zoo_folder", lambda: tmp_path)
    with pytest.raises(PresetError, match="no builder 'mmdetection'.*newer version"):
        read_preset(tmp_path / "new")


# === Every row: names, shapes, values ===


def random_weights(name, empty=False):
    """`(what the file of a preset holds, the same converted)`; `empty`: of zeros that take no memory."""
    if name.startswith("matterport"):
        layers = random_layers(classes=81, width=256, units=1024, depth=101)
        return layers, convert_matterport(layers)
    config = read_preset(zoo_folder() / name)["weights"]["model"]
    rng = np.random.default_rng(0)
    state = {
        key: np.broadcast_to(np.float32(0), shape) if empty else rng.random(shape, np.float32) if shape else np.array(7)
        for key, shape in tensors(config)
    }
    return state, convert_detectron2(config, state)


def consumed(name, values):
    """The detector of a preset with these weights; they are all that it has, and none is left over."""
    folder = zoo_folder() / name
    record = read_preset(folder)
    model = build_detector(record["detector"], folder / PRESET, values, folder)
    assert type(model).__name__ == record["detector"]["class_name"]
    assert published.names_and_shapes(model.weights) == record["detector"]["names_and_shapes"], (
        "run tools/refresh_zoo.py"
    )
    assert model.num_classes == record["detector"]["config"]["num_classes"]
    return model


def value_of(model, path):
    return keras.ops.convert_to_numpy(next(weight for weight in model.weights if weight.path == path))


def lost(model, values):
    """The weights that have other values than these."""
    held = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    return [path for path, value in held.items() if not np.array_equal(value, values[path])]


def hwc(kernel, channels):
    """One row of a dense layer over 7 x 7 cells: C, H, W -> H, W, C."""
    return kernel.reshape(channels, 7, 7).transpose(1, 2, 0).ravel()


def check_detectron2(model, state):
    """One output of each kind of tensor, found by hand in the file."""
    resnet = "backbone.bottom_up.res3.1." if "backbone.fpn_lateral3.weight" in state else "backbone.res3.1."
    kernel = state[f"{resnet}conv2.weight"]
    np.testing.assert_array_equal(value_of(model, "stage2_block1_conv2/kernel")[..., 5], kernel[5].transpose(1, 2, 0))
    np.testing.assert_array_equal(value_of(model, "stage2_block1_bn2/gamma"), state[f"{resnet}conv2.norm.weight"])
    if f"{resnet}conv2.norm.running_var" in state:
        variance = state[f"{resnet}conv2.norm.running_var"]
        np.testing.assert_array_equal(value_of(model, "stage2_block1_bn2/moving_variance"), variance)
    stage = ".0" if "roi_heads.box_head.0.fc1.weight" in state else ""  # a cascade's first
    box = f"roi_heads.box_predictor{stage}."
    for theirs, ours in (("cls_score", "logits"), ("bbox_pred", "deltas")):
        row = state[f"{box}{theirs}.weight"][1]
        np.testing.assert_array_equal(value_of(model, f"box_predictor/{ours}/kernel")[:, 1], row)
        np.testing.assert_array_equal(value_of(model, f"box_predictor/{ours}/bias"), state[f"{box}{theirs}.bias"])
    if (dense := state.get(f"roi_heads.box_head{stage}.fc1.weight")) is not None:  # C4 has none
        expected = hwc(dense[3], dense.shape[1] // 49)
        np.testing.assert_array_equal(value_of(model, "box_head/fc_0/kernel")[:, 3], expected)
    else:
        kernel = state["roi_heads.res5.0.conv1.weight"]
        np.testing.assert_array_equal(value_of(model, "stage4_block0_conv1/kernel")[0, 0, :, 4], kernel[4, :, 0, 0])
    if (lateral := state.get("backbone.fpn_lateral3.weight")) is not None:
        np.testing.assert_array_equal(value_of(model, "fpn/inner_1/kernel")[0, 0, :, 6], lateral[6, :, 0, 0])
    if (anchors := state.get("proposal_generator.rpn_head.anchor_deltas.weight")) is not None:
        np.testing.assert_array_equal(value_of(model, "rpn_head/deltas/kernel")[0, 0, :, 7], anchors[7, :, 0, 0])
    if (up := state.get("roi_heads.mask_head.deconv.weight")) is not None:  # in, out, h, w -> h, w, out, in
        np.testing.assert_array_equal(value_of(model, "mask_head/deconv/kernel")[1, 0, 8], up[:, 8, 1, 0])
        masks = state["roi_heads.mask_head.predictor.weight"]
        np.testing.assert_array_equal(value_of(model, "mask_head/logits/kernel")[0, 0, :, -1], masks[-1, :, 0, 0])
    if (points := state.get("roi_heads.keypoint_head.score_lowres.weight")) is not None:
        np.testing.assert_array_equal(
            value_of(model, "keypoint_branch/keypoint_head/logits/kernel")[1, 0, 8], points[:, 8, 1, 0]
        )


def check_matterport(model, layers):
    """The same for Matterport's: boxes are y, x, h, w there, and the background is first."""
    kernel = layers["res3b_branch2b"]["kernel"]
    np.testing.assert_array_equal(value_of(model, "stage2_block1_conv2/kernel")[..., 5], kernel[..., 5])
    variance = layers["bn3b_branch2b"]["moving_variance"]
    np.testing.assert_array_equal(value_of(model, "stage2_block1_bn2/moving_variance"), variance)
    logits = layers["mrcnn_class_logits"]["bias"]
    np.testing.assert_array_equal(value_of(model, "box_predictor/logits/bias"), [*logits[1:], logits[0]])
    boxes = layers["mrcnn_bbox_fc"]["bias"].reshape(81, 4)
    np.testing.assert_array_equal(value_of(model, "box_predictor/deltas/bias")[4:8], boxes[2, [1, 0, 3, 2]])
    first = layers["mrcnn_class_conv1"]["kernel"]
    np.testing.assert_array_equal(value_of(model, "box_head/fc_0/kernel")[:, 3], first[..., 3].ravel())
    np.testing.assert_array_equal(value_of(model, "mask_head/logits/bias"), layers["mrcnn_mask"]["bias"][1:])
    deconv = layers["mrcnn_mask_deconv"]["kernel"]
    np.testing.assert_array_equal(value_of(model, "mask_head/deconv/kernel")[1, 0, 8], deconv[1, 0, 8])
    anchors = layers["rpn_bbox_pred"]["bias"].reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()
    np.testing.assert_array_equal(value_of(model, "rpn_head/deltas/bias"), anchors)


@pytest.mark.parametrize("name", FEW[:3])
def test_names_and_shapes(name):
    """Quickly, of one model of a kind: without values."""
    _, values = random_weights(name, empty=True)
    consumed(name, values)


@needs_matterport
def test_matterports_layout_is_the_random_one():
    """`random_layers` has the names and shapes of the real file, which Keras 2.2.4 wrote."""
    sets = json.loads((MATTERPORT / "layout" / "coco_resnet101.json").read_text())["datasets"]
    shapes = {}
    for path, facts in sets.items() if isinstance(sets, dict) else ((one["path"], one) for one in sets):
        layer, weight = path.strip("/").split("/")[-2:]
        shapes[layer, weight.partition(":")[0]] = tuple(facts["shape"] if isinstance(facts, dict) else facts)
    layers = random_layers(classes=81, width=256, units=1024, depth=101)
    ours = {(layer, weight): value.shape for layer, own in layers.items() for weight, value in own.items()}
    assert ours == shapes


@gated  # minutes
@pytest.mark.slow
@needs_detectron2
@needs_matterport
@pytest.mark.parametrize("name", NAMES)
def test_every_row_from_names_to_values(name):
    held, values = random_weights(name)
    if not name.startswith("matterport"):
        facts = configs()[read_preset(zoo_folder() / name)["weights"]["model"]]
        lines = "\n".join(f"{key} {','.join(map(str, value.shape))}" for key, value in held.items())
        assert hashlib.sha256(lines.encode()).hexdigest()[:16] == facts["sha256_16_of_names_and_shapes"]
    model = consumed(name, values)
    (check_matterport if name.startswith("matterport") else check_detectron2)(model, held)
    assert not lost(model, values)


# === From a file to a detector ===


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster_rcnn_R_50_C4_1x", "matterport_mask_rcnn_coco"])
def test_from_the_published_file_to_a_detector(name, tmp_path, monkeypatch, server):
    """As from its publisher, but from a mirror on this machine, and with an MD5 of its own."""
    held, values = random_weights(name)
    file = tmp_path / "file"
    if name.startswith("matterport"):
        write_h5(file, held)
    else:
        file.write_bytes(pickle.dumps({"model": held, "__author__": "Detectron2 Model Zoo"}))
    server.content = file.read_bytes()
    record = json.loads((zoo_folder() / name / PRESET).read_text(encoding="utf-8"))
    record["weights"]["md5_prefix"] = hashlib.md5(server.content).hexdigest()[:6]
    (tmp_path / "zoo" / name).mkdir(parents=True)
    (tmp_path / "zoo" / name / PRESET).write_text(json.dumps(record))
    monkeypatch.setattr(keras_rcnn.presets, "zoo_folder", lambda: tmp_path / "zoo")
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_RCNN_MIRROR", server.url.rpartition("/")[0])
    model = from_preset(name)
    assert server.requests == 1 and model.class_names[:2] == ["person", "bicycle"]
    assert not lost(model, values)
    assert json.loads((tmp_path / "home" / "pins.json").read_text())[record["weights"]["url"]]["preset"] == name
    # what is kept says all, and is anybody's preset
    (kept,) = (tmp_path / "home" / "presets").glob(f"*/{PRESET}")
    assert read_preset_file(kept)["license"] == record["license"]
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    fig = from_preset(name, class_names=["fig", "person"])
    assert fig.class_names == ["fig", "person"] and fig.num_classes == 2


def write_h5(path, layers):
    """As Keras 2.2.4's save_weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{weight}:0".encode() for weight in weights]
            for weight, value in weights.items():
                group[f"{layer}/{weight}:0"] = value
