"""Matterport's weights as ours: names, layouts, settings, the command, and refusals."""

import json

import numpy as np
import pytest

from keras_rcnn import cli
from keras_rcnn.cli.arguments import changes_of
from keras_rcnn.cli.from_matterport import class_names_of, settings_of
from keras_rcnn.convert import ConversionError, assign, convert_matterport, matterport_facts
from keras_rcnn.matterport_detectors import (
    FIXED,
    NOT_USED,
    SETTINGS,
    SettingsError,
    matterport_detector,
    matterport_settings,
)
from tests.convert.matterport_layers import random_layers
from tests.convert.test_keras_file import write
from tests.matterport import facts
from tests.shared import needs_golden

SMALL = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128, "PRE_NMS_LIMIT": 50, "POST_NMS_ROIS_INFERENCE": 10}


@pytest.fixture(scope="module")
def layers():
    return random_layers()


def changed(layers, **changes):
    """A copy with some layers' weights changed; None leaves the layer out."""
    copy = {**layers, **changes}
    return {name: own for name, own in copy.items() if own is not None}


# === Weights ===


def test_facts(layers):
    assert matterport_facts(layers) == {
        "BACKBONE": "resnet50",
        "NUM_CLASSES": 3,
        "TOP_DOWN_PYRAMID_SIZE": 8,
        "FPN_CLASSIF_FC_LAYERS_SIZE": 16,
        "POOL_SIZE": 7,
        "num_ratios": 3,
    }


def test_every_array_arrives(layers):
    values = convert_matterport(layers)
    given = {name: value for name, value in matterport_facts(layers).items() if name != "num_ratios"}
    assign(matterport_detector(given), values)
    np.testing.assert_array_equal(values["stage3_block5_conv2/kernel"], layers["res4f_branch2b"]["kernel"])
    np.testing.assert_array_equal(values["stage1_block0_shortcut_bn/beta"], layers["bn2a_branch1"]["beta"])
    np.testing.assert_array_equal(values["fpn/inner_3/bias"], layers["fpn_c5p5"]["bias"])
    np.testing.assert_array_equal(values["fpn/output_0/kernel"], layers["fpn_p2"]["kernel"])
    # background last, and no deltas and masks of it
    bias = layers["mrcnn_class_logits"]["bias"]
    np.testing.assert_array_equal(values["box_predictor/logits/bias"], bias[[1, 2, 0]])
    np.testing.assert_array_equal(values["mask_head/logits/bias"], layers["mrcnn_mask"]["bias"][1:])
    np.testing.assert_array_equal(
        values["box_predictor/deltas/bias"], layers["mrcnn_bbox_fc"]["bias"][[5, 4, 7, 6, 9, 8, 11, 10]]
    )
    np.testing.assert_array_equal(
        values["rpn_head/deltas/kernel"][..., :4], layers["rpn_bbox_pred"]["kernel"][..., [1, 0, 3, 2]]
    )
    # rows, columns, channels
    kernel = layers["mrcnn_class_conv1"]["kernel"]
    np.testing.assert_array_equal(values["box_head/fc_0/kernel"][(2 * 7 + 3) * 8 + 5], kernel[2, 3, 5])


def test_what_forks_add_is_left_out(layers):
    forks = changed(layers, anchors={"Variable": np.zeros((2, 9, 4), np.float32)})
    assert set(convert_matterport(forks)) == set(convert_matterport(layers))


def without(layers, layer, weight):
    return changed(layers, **{layer: {key: value for key, value in layers[layer].items() if key != weight}})


def test_refuses(layers):
    for bad, match in (
        (without(layers, "res3b_branch2a", "bias"), "1 missing: res3b_branch2a/bias"),
        (changed(layers, extra={"kernel": np.zeros(3, np.float32)}), "1 left over: extra/kernel"),
        (changed(layers, conv1=None), "there is no conv1"),
        (changed(layers, mrcnn_class_logits=None), "mrcnn_class_logits.*a part of it"),
        ({"fc1000": layers["conv1"], "conv1": layers["conv1"]}, "a classifier's"),
        (changed(layers, conv1={"kernel": np.zeros((7, 7, 4, 64), np.float32)}), "images of 4 channels"),
        (changed(layers, conv1={"kernel": np.zeros(3, np.float32)}), "unexpected shape"),
        (changed(layers, rpn_class_raw={"kernel": np.zeros((1, 1, 512, 5), np.float32)}), "5 outputs"),
        (
            changed(layers, mrcnn_bbox_fc={"kernel": np.zeros((16, 8), "f4"), "bias": np.zeros(8, "f4")}),
            "has 8 outputs",
        ),
        (
            changed(layers, mrcnn_mask={"kernel": np.zeros((1, 1, 256, 2), "f4"), "bias": np.zeros(2, "f4")}),
            "2 masks for 3 classes",
        ),
        (changed(layers, fpn_p2={"kernel": np.full((3, 3, 8, 8), np.nan, "f4"), "bias": np.zeros(8, "f4")}), "NaN"),
    ):
        with pytest.raises(ConversionError, match=match):
            convert_matterport(bad)


# === Settings ===


@needs_golden
@pytest.mark.parametrize("model", ["coco_resnet101", "balloon_resnet101", "nucleus_resnet50"])
def test_a_whole_config_is_understood(model):
    for config in facts(model)["configs"].values():
        assert set(config) == {*SETTINGS, *FIXED, *NOT_USED}
        settings = matterport_settings(config)
        assert settings["NUM_CLASSES"] == config["NUM_CLASSES"] and set(settings) == set(SETTINGS)


def test_arrays_and_none():
    settings = matterport_settings({"MEAN_PIXEL": np.array([1.5, 2, 3]), "IMAGE_MIN_DIM": None})
    assert settings["MEAN_PIXEL"] == (1.5, 2, 3) and settings["IMAGE_MIN_DIM"] == 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"IMAGE_MAX_SIDE": 3}, "has no IMAGE_MAX_SIDE.*IMAGE_MAX_DIM.*LEARNING_RATE"),
        ({"BACKBONE": "vgg16"}, "resnet50, resnet101"),
        ({"IMAGE_RESIZE_MODE": "crop"}, "pad64"),
        ({"RPN_ANCHOR_SCALES": [8, 16]}, "five, one a level"),
        ({"RPN_ANCHOR_SCALES": "8"}, "a list of numbers"),
        ({"IMAGE_MAX_DIM": 512.5}, "a whole number"),
        ({"IMAGE_MAX_DIM": True}, "a whole number"),
        ({"DETECTION_MIN_CONFIDENCE": "high"}, "a number from 0"),
        ({"NUM_CLASSES": 1}, "from 2"),
        ({"BBOX_STD_DEV": [1, 1, 1, 1]}, "BBOX_STD_DEV is"),
        ({"TRAIN_BN": None}, "TRAIN_BN is False"),
        ({"ROI_POSITIVE_RATIO": 0}, "ROI_POSITIVE_RATIO"),
    ],
)
def test_settings_that_cannot_be(given, match):
    with pytest.raises(SettingsError, match=match):
        matterport_settings(given)


def test_what_the_parts_refuse_is_a_setting_too():
    with pytest.raises(SettingsError, match="multiples of 64"):
        matterport_detector({"IMAGE_MAX_DIM": 1000, "BACKBONE": "resnet50"})


def test_settings_from_the_command_line():
    changes = ["IMAGE_MAX_DIM=512", "RPN_ANCHOR_SCALES=[8, 16]", "IMAGE_RESIZE_MODE=pad64"]
    expected = {"IMAGE_MAX_DIM": 512, "RPN_ANCHOR_SCALES": [8, 16], "IMAGE_RESIZE_MODE": "pad64"}
    assert changes_of(changes) == expected
    assert settings_of({"NUM_CLASSES": 3, "num_ratios": 3}, {"NUM_CLASSES": 3}, "f.h5") == {"NUM_CLASSES": 3}
    with pytest.raises(ValueError, match=r"f\.h5 is of NUM_CLASSES=3, not 2"):
        settings_of({"NUM_CLASSES": 3}, {"NUM_CLASSES": 2}, "f.h5")
    with pytest.raises(ValueError, match=r"5 RPN_ANCHOR_RATIOS"):
        settings_of({"num_ratios": 5}, {}, "f.h5")


def test_class_names():
    names = class_names_of(80, None, "f.h5")
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")
    assert class_names_of(2, None, "f.h5") == ["0", "1"]
    with pytest.raises(ValueError, match=r"--classes has 1 names; f\.h5 has 2"):
        class_names_of(2, ["a"], "f.h5")


# === The detector and the command ===


def test_a_preprocessor_with_another_canvas_is_refused():
    model = matterport_detector({**SMALL, "BACKBONE": "resnet50", "NUM_CLASSES": 2})
    model.preprocessor = model.preprocessor.replace(min_size=96)
    with pytest.raises(ValueError, match="decoder is for images on the canvas 128|proposals is for images"):
        model.preprocessor = model.preprocessor.replace(max_size=192)


def test_command(layers, tmp_path, capsys):
    weights = {}
    for name, own in layers.items():
        weights[name] = {f"{name}_1/{key}:0": value for key, value in own.items()}
    path, out = write(tmp_path / "mask_rcnn_0030.h5", weights), tmp_path / "out"
    command = ["convert", "matterport", "--weights", str(path), "--out", str(out)]
    command += [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    for more, match in (
        (["--classes", "a"], "--classes has 1 names"),
        (["--set", "NAMES=2"], "has no NAMES"),
        (["--set", "BACKBONE=resnet101"], "BACKBONE=resnet50"),
    ):
        assert cli.main([*command, *more]) == 2
        assert match in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*command, "--classes", "circle,square", "--set", "LEARNING_RATE=0.1"]) == 0
    printed = capsys.readouterr().out
    assert "2 classes (circle, square)" in printed and "Not used, as it makes no detector: LEARNING_RATE" in printed
    config = json.loads((out / "preset.json").read_text())["detector"]["config"]
    assert config["class_names"] == ["circle", "square"]
    assert config["preprocessor"]["config"]["max_size"] == config["decoder"]["config"]["canvas"] == 128
    assert config["proposals"]["config"]["pre_nms"] == [50, 50]
    path.write_bytes(path.read_bytes()[:-1000])
    assert cli.main([*command, "--overwrite"]) == 2
    assert "mask_rcnn_0030.h5 is truncated" in capsys.readouterr().err
