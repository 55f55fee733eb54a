"""Detectron2's weights: every model of the zoo that converts, ImageNet's files, and what is refused."""

import csv
import hashlib
import json

import numpy as np
import pytest

from keras_rcnn.backbones import ResNet
from keras_rcnn.convert import (
    ConversionError,
    assign,
    convert_detectron2,
    convert_detectron2_backbone,
    detectron2_config,
    detectron2_looks_like,
    read_detectron2_file,
)
from keras_rcnn.convert.detectron2 import caffe2_renamed
from keras_rcnn.convert.detectron2_names import detectron2_class_names
from keras_rcnn.detectron2_detectors import detectron2_detector
from tests.convert.detectron2_states import random_state, tensors
from tests.detectron2 import DETECTRON2, OUT_OF_SCOPE, configs, needs_detectron2
from tests.shared import whole_model

FPN, MASK = "faster_rcnn_R_50_FPN_1x", "mask_rcnn_R_50_FPN_1x"


# === Every model of the zoo ===


@needs_detectron2
def test_every_model_of_the_zoo_has_a_config():
    with open(DETECTRON2 / "model_zoo.csv", newline="") as file:
        rows = {row["config_file"] for row in csv.DictReader(file) if row["config_file"]}
    wanted = {row for row in rows if not any(part in f"/{row}" for part in OUT_OF_SCOPE)}
    assert wanted == set(configs())
    for row in rows - wanted:
        with pytest.raises(ConversionError, match="no config of Detectron2's zoo that converts"):
            detectron2_config(row)


@needs_detectron2
@pytest.mark.parametrize(("path", "facts"), configs().items(), ids=list(configs()))
def test_the_tensors_are_those_of_detectron2(path, facts):
    listed = tensors(path)
    lines = "\n".join(f"{name} {','.join(map(str, shape))}" for name, shape in listed)
    assert len(listed) == facts["tensors"]
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == facts["sha256_16_of_names_and_shapes"]


# a family each: DC5, FPN with normed heads, ResNeXt, and the one with two convolutions in its RPN
IN_CI = (
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml",
    "Misc/mask_rcnn_R_50_FPN_3x_gn.yaml",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml",
    "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py",
)


@needs_detectron2
@pytest.mark.parametrize("path", [whole_model(path, in_ci=path in IN_CI) for path in configs()])
def test_every_tensor_has_its_place(path):
    state = random_state(path)
    values = convert_detectron2(path, state)
    model = detectron2_detector(path)
    assign(model, values)
    assert sum(np.size(value) for name, value in state.items() if "num_batches" not in name) == model.count_params()


def test_rows_and_columns(name=MASK):
    state = random_state(name)
    values = convert_detectron2(name, state)
    rpn, heads = "proposal_generator.rpn_head", "roi_heads"
    # the first and the last output of a layer each: (out, in, h, w) and (in, out, h, w) there
    for theirs, ours, row in (
        ("backbone.bottom_up.stem.conv1", "stem_conv", lambda w, i: w[i].transpose(1, 2, 0)),
        ("backbone.bottom_up.res4.5.conv2", "stage3_block5_conv2", lambda w, i: w[i].transpose(1, 2, 0)),
        ("backbone.bottom_up.res5.0.shortcut", "stage4_block0_shortcut_conv", lambda w, i: w[i].transpose(1, 2, 0)),
        ("backbone.fpn_lateral3", "fpn/inner_1", lambda w, i: w[i].transpose(1, 2, 0)),
        ("backbone.fpn_output5", "fpn/output_3", lambda w, i: w[i].transpose(1, 2, 0)),
        (f"{rpn}.conv", "rpn_head/conv_0", lambda w, i: w[i].transpose(1, 2, 0)),
        (f"{rpn}.objectness_logits", "rpn_head/objectness", lambda w, i: w[i].transpose(1, 2, 0)),
        (f"{rpn}.anchor_deltas", "rpn_head/deltas", lambda w, i: w[i].transpose(1, 2, 0)),
        (f"{heads}.box_head.fc1", "box_head/fc_0", lambda w, i: w[i].reshape(256, 7, 7).transpose(1, 2, 0).ravel()),
        (f"{heads}.box_head.fc2", "box_head/fc_1", lambda w, i: w[i]),
        (f"{heads}.box_predictor.cls_score", "box_predictor/logits", lambda w, i: w[i]),
        (f"{heads}.box_predictor.bbox_pred", "box_predictor/deltas", lambda w, i: w[i]),
        (f"{heads}.mask_head.mask_fcn4", "mask_head/conv_3", lambda w, i: w[i].transpose(1, 2, 0)),
        (f"{heads}.mask_head.predictor", "mask_head/logits", lambda w, i: w[i].transpose(1, 2, 0)),
    ):
        for i in (0, -1):
            np.testing.assert_array_equal(values[f"{ours}/kernel"][..., i], row(state[f"{theirs}.weight"], i), theirs)
    deconv = values["mask_head/deconv/kernel"]
    np.testing.assert_array_equal(deconv[:, :, 3, 5], state["roi_heads.mask_head.deconv.weight"][5, 3])
    for theirs, ours in (("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean")):
        of_norm = state[f"backbone.bottom_up.res3.1.conv2.norm.{theirs}"]
        np.testing.assert_array_equal(values[f"stage2_block1_bn2/{ours}"], of_norm)


def test_the_last_stage_of_c4_lies_in_the_heads():
    state = random_state("voc_faster_rcnn_R_50_C4")
    values = convert_detectron2("voc_faster_rcnn_R_50_C4", state)
    kernel = state["roi_heads.res5.2.conv3.weight"]
    np.testing.assert_array_equal(values["stage4_block2_conv3/kernel"][0, 0], kernel[:, :, 0, 0].T)


# === What else may be in a file ===


def anchors(sizes):
    """As Detectron2 writes them: all ratios of a size, then the next size."""
    cells = [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in (0.5, 1, 2)]
    return np.float32([(-w / 2, -h / 2, w / 2, h / 2) for w, h in cells])


def test_saved_settings_are_compared_and_dropped():
    state = random_state(FPN)
    for i, size in enumerate((32, 64, 128, 256, 512)):
        state[f"proposal_generator.anchor_generator.cell_anchors.{i}"] = anchors([size])
    state["pixel_mean"] = np.float32([103.53, 116.28, 123.675]).reshape(3, 1, 1)
    state["pixel_std"] = np.ones((3, 1, 1), np.float32)
    convert_detectron2(FPN, state)
    with pytest.raises(ConversionError, match=r"pixel_std is .*MODEL\.PIXEL_STD"):
        convert_detectron2(FPN, {**state, "pixel_std": 2 * state["pixel_std"]})
    key = "proposal_generator.anchor_generator.cell_anchors.0"
    with pytest.raises(ConversionError, match=r"MODEL\.ANCHOR_GENERATOR\.SIZES"):
        convert_detectron2(FPN, {**state, key: anchors([16])})
    sizes = {"MODEL.ANCHOR_GENERATOR.SIZES": [[16], [64], [128], [256], [512]]}
    convert_detectron2(FPN, {**state, key: anchors([16])}, sizes)


def test_one_level_of_anchors():
    name = "voc_faster_rcnn_R_50_C4"
    state = random_state(name)
    state["proposal_generator.anchor_generator.cell_anchors.0"] = anchors([32, 64, 128, 256, 512])
    convert_detectron2(name, state)


@pytest.mark.parametrize("change", ["missing", "more", "shape", "classes"])
def test_other_tensors_are_refused(change):
    state = random_state(MASK)
    if change == "missing":
        del state["roi_heads.box_head.fc2.bias"]
    elif change == "more":
        state["roi_heads.box_head.fc3.bias"] = np.zeros(3, np.float32)
    elif change == "shape":
        state["backbone.fpn_output2.weight"] = np.zeros((256, 256), np.float32)
    else:
        state["roi_heads.box_predictor.bbox_pred.bias"] = np.zeros(8, np.float32)
    with pytest.raises(ConversionError, match=MASK):
        convert_detectron2(MASK, state)


@pytest.mark.parametrize(
    ("given", "guess"),
    [
        (MASK, "mask_rcnn_R_50_FPN"),
        ("fast_rcnn_R_50_FPN_1x", "fast_rcnn_R_50_FPN"),
        ("mask_rcnn_R_101_C4_3x", "R_101_C4"),
    ],
)
def test_another_models_weights_are_named(given, guess):
    names = dict.fromkeys(name for name, _ in tensors(given))
    assert guess in detectron2_looks_like(names)
    with pytest.raises(ConversionError, match=f"look like those of .*{guess}"):
        convert_detectron2(FPN, random_state(given))


def test_what_cannot_be_converted_is_named():
    assert detectron2_looks_like(["roi_heads.keypoint_head.conv_fcn1.weight"]) == "a Keypoint R-CNN"
    assert detectron2_looks_like(["head.cls_subnet.0.weight"]) == "a RetinaNet"
    assert detectron2_looks_like(["a"]) is None


# === Settings ===


def test_settings():
    config = detectron2_config("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml", {"INPUT.MIN_SIZE_TEST": 600})
    assert (config["INPUT.MIN_SIZE_TEST"], config["MODEL.RPN.PRE_NMS_TOPK_TEST"]) == (600, 6000)
    with pytest.raises(ConversionError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES"):  # the known ones are listed
        detectron2_config(FPN, {"MODEL.ROI_HEADS.CLASSES": 3})
    for key, value in (("INPUT.MIN_SIZE_TEST", "600"), ("MODEL.MASK_ON", 1), ("MODEL.PIXEL_STD", 1.0)):
        with pytest.raises(ConversionError, match="is something like"):
            detectron2_config(FPN, {key: value})


def test_names_of_classes():
    assert detectron2_class_names(MASK, 80)[::79] == ["person", "toothbrush"]
    assert detectron2_class_names("PascalVOC-Detection/faster_rcnn_R_50_C4.yaml", 20)[14] == "person"
    assert detectron2_class_names("Cityscapes/mask_rcnn_R_50_FPN", 8)[1] == "rider"
    assert detectron2_class_names(MASK, 3) is None


# === ImageNet's files ===


def imagenet_state(depth=50, norm="MSRA"):
    """A file's arrays in Caffe2's names, and the same in Detectron2's."""
    parts = {"MSRA": ("bn_beta", "bn_gamma", "bn_running_mean", "bn_running_var"), "GN": ("gn_b", "gn_s")}[norm]
    short = {"bias": 0, "weight": 1, "running_mean": 2, "running_var": 3}
    state, names = {}, {"1": "branch2a", "2": "branch2b", "3": "branch2c"}
    for name, value in random_state(f"mask_rcnn_R_{depth}_FPN_3x_gn" if norm == "GN" else f"{FPN}").items():
        name = name.removeprefix("backbone.bottom_up.")
        if not name.startswith(("stem", "res")):
            continue
        *where, last = name.split(".")
        if where[0] == "stem":
            ours = "conv1_" if "norm" not in where or norm == "GN" else "res_conv1_"
        else:
            branch = "branch1" if where[2] == "shortcut" else names[where[2][-1]]
            ours = f"{where[0]}_{where[1]}_{branch}_"
        state[ours + (parts[short[last]] if "norm" in where else "w")] = value
    return {**state, "conv1_b": np.zeros(64, np.float32), "fc1000_w": np.zeros((1000, 2048), np.float32)}


@pytest.mark.parametrize("norm", ["MSRA", "GN"])
def test_imagenets_backbones(norm):
    state = imagenet_state(norm=norm)
    ours = {"MSRA": "frozen", "GN": "group"}[norm]
    backbone = ResNet(50, norm=ours, stride_in_1x1=norm == "MSRA")
    assign(backbone, convert_detectron2_backbone(50, state, ours))
    kernel = state["res3_0_branch2b_w"].transpose(2, 3, 1, 0)
    weights = {weight.path: weight for weight in backbone.weights}
    np.testing.assert_array_equal(weights["stage2_block0_conv2/kernel"], kernel)
    shorter = convert_detectron2_backbone(50, state, ours, last="C4")
    assign(ResNet(50, norm=ours, last="C4"), shorter)


def test_fused_norms_have_no_statistics():
    state = {key.replace("bn_gamma", "bn_s").replace("bn_beta", "bn_b"): v for key, v in imagenet_state().items()}
    state = {key: value for key, value in state.items() if "running" not in key}
    values = convert_detectron2_backbone(50, state)
    assert not values["stem_bn/moving_mean"].any() and (values["stem_bn/moving_variance"] == 1).all()


@needs_detectron2
def test_names_of_caffe2():
    renamed = json.loads((DETECTRON2 / "manifests" / "caffe2_names.json").read_text())
    checked = 0
    for group, names in renamed.items():
        if group.startswith(("R-50", "batch norm", "group norm")):
            theirs = {old: new for old, new in names.items() if not old.startswith("fc1000")}
            state = {old: np.zeros(1) for old in theirs}
            assert list(caffe2_renamed(state)) == list(theirs.values())
            checked += len(theirs)
    assert checked > 250


@needs_detectron2
@pytest.mark.parametrize("name", ["imagenet_msra_caffe2_protocol3", "imagenet_fair_x101_caffe2_protocol2_py2"])
def test_imagenets_sample_files_have_known_names(name):
    state = caffe2_renamed(read_detectron2_file(DETECTRON2 / "pkl_samples" / f"{name}.pkl"))
    unused = {"fc1000_w", "fc1000_b", "pred_w", "pred_b"}
    assert all(key.startswith(("stem.conv1.", "res")) or key in unused for key in state)
    assert not any("_" in key.split(".")[0] for key in set(state) - unused)
