"""torchvision's weights as ours: names, layouts, the background's place, and refusals."""

import numpy as np
import pytest

from keras_rcnn.backbones import MobileNetV3Large, ResNet
from keras_rcnn.convert import (
    COCO_NAMES,
    ConversionError,
    assign,
    convert_efficientnet_lite0,
    convert_mobilenet_v3_large,
    convert_resnet,
    convert_torchvision,
    looks_like,
)
from keras_rcnn.convert.torchvision import DETECTORS
from tests.convert import states
from tests.shared import golden_state, needs_golden

FASTER, MASK, MOBILENET = "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn"
HEADS = ("fpn", "rpn_head", "box_head", "box_predictor", "mask_head")
every = pytest.mark.parametrize("name", list(DETECTORS))


@pytest.fixture(scope="module")
def built():
    """State dicts and their conversions, made once; tests change copies."""
    cache = {}

    def get(name):
        if name not in cache:
            state = states.detector(name)
            cache[name] = state, convert_torchvision(name, state)
        return cache[name]

    return get


# === Names ===


@every
def test_every_tensor_arrives(name, built):
    state, ours = built(name)
    real = {key for key in state if not key.endswith("num_batches_tracked")}
    assert len(ours) == len(real)
    assert {value.dtype for value in ours.values()} == {np.dtype("float32")}
    lost = 0  # the background's boxes and masks
    for key, value in state.items():
        if "bbox_pred" in key and "box_predictor" in key:
            lost += value.size // 4
        if "mask_fcn_logits" in key:
            lost += value.size // 4
    assert sum(value.size for value in ours.values()) == sum(state[key].size for key in real) - lost


@every
def test_body_fits_the_backbone(name, built):
    body = {path: value for path, value in built(name)[1].items() if not path.startswith(HEADS)}
    assign(MobileNetV3Large() if "mobilenet" in name else ResNet(50), body)


@every
def test_heads_have_the_contracts_paths(name, built):
    levels, second = 2 if "mobilenet" in name else 4, name.endswith("_v2")
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    conv = ("kernel",) if second else ("kernel", "bias")
    paths = {f"fpn/{part}_{i}/{w}" for part in ("inner", "output") for i in range(levels) for w in conv}
    paths |= {f"rpn_head/{part}/{w}" for part in ("conv_0", "objectness", "deltas") for w in ("kernel", "bias")}
    paths |= {f"box_predictor/{part}/{w}" for part in ("logits", "deltas") for w in ("kernel", "bias")}
    paths |= {f"box_head/fc_{i}/{w}" for i in range(1 if second else 2) for w in ("kernel", "bias")}
    if name.startswith("mask"):
        paths |= {f"mask_head/{part}/{w}" for part in ("deconv", "logits") for w in ("kernel", "bias")}
        paths |= {f"mask_head/conv_{i}/{w}" for i in range(4) for w in conv}
    if second:
        paths |= {f"rpn_head/conv_1/{w}" for w in ("kernel", "bias")}
        paths |= {f"fpn/{part}_{i}_bn/{w}" for part in ("inner", "output") for i in range(4) for w in norm}
        paths |= {f"box_head/conv_{i}/kernel" for i in range(4)}
        for head in ("box_head", "mask_head") if name.startswith("mask") else ("box_head",):
            paths |= {f"{head}/conv_{i}_bn/{w}" for i in range(4) for w in norm}
    assert {path for path in built(name)[1] if path.startswith(HEADS)} == paths


@pytest.mark.parametrize("name", [FASTER, MASK, MOBILENET])
def test_names_before_013(name, built):
    """As the published v1 files have them: one level less of nesting, and no counters."""
    state, ours = built(name)
    old = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "_blocks." in key:
            key = key.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        for i in range(4):
            key = key.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
        if not key.endswith("num_batches_tracked"):
            old[key] = value
    assert not set(old) & {"rpn.head.conv.0.0.weight", "backbone.fpn.inner_blocks.0.0.bias"}
    assert looks_like(old) == name
    again = convert_torchvision(name, old)
    assert set(again) == set(ours)
    assert all(np.array_equal(again[path], ours[path]) for path in ours)
    old["rpn.head.conv.0.0.weight"] = old["rpn.head.conv.weight"]
    with pytest.raises(ConversionError, match=r"rpn\.head\.conv\.0\.0\.weight twice"):
        convert_torchvision(name, old)


@needs_golden
@pytest.mark.parametrize("name", [MASK, "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_golden_weights(name):
    state = golden_state(name)
    before = {key: value.copy() for key, value in state.items()}
    ours = convert_torchvision(name, state)
    assert len(ours) == len(state)
    assert all(np.array_equal(state[key], value) for key, value in before.items())  # not changed
    assert looks_like(state) == name.replace("_320", "")
    assert ours["box_head/fc_0/kernel"].shape == (12544, 1024)
    assert ours["box_predictor/logits/kernel"].shape == (1024, 91)
    assert ours["box_predictor/deltas/kernel"].shape == (1024, 360)
    body = {path: value for path, value in ours.items() if not path.startswith(HEADS)}
    assign(MobileNetV3Large() if "mobilenet" in name else ResNet(50), body)


# === Layouts ===


def test_background_moves_last(built):
    state, ours = built(MASK)
    kernel, bias = (state[f"roi_heads.box_predictor.cls_score.{part}"] for part in ("weight", "bias"))
    np.testing.assert_array_equal(ours["box_predictor/logits/kernel"], kernel[[1, 2, 3, 0]].T)
    np.testing.assert_array_equal(ours["box_predictor/logits/bias"], bias[[1, 2, 3, 0]])
    kernel, bias = (state[f"roi_heads.box_predictor.bbox_pred.{part}"] for part in ("weight", "bias"))
    np.testing.assert_array_equal(ours["box_predictor/deltas/kernel"], kernel[4:].T)
    np.testing.assert_array_equal(ours["box_predictor/deltas/bias"], bias[4:])
    kernel, bias = (state[f"roi_heads.mask_predictor.mask_fcn_logits.{part}"] for part in ("weight", "bias"))
    np.testing.assert_array_equal(ours["mask_head/logits/kernel"][0, 0], kernel[1:, :, 0, 0].T)
    np.testing.assert_array_equal(ours["mask_head/logits/bias"], bias[1:])


@pytest.mark.parametrize(("name", "layer"), [(FASTER, "fc6"), (f"{FASTER}_v2", "5")])
def test_first_dense_layer_flattens_height_width_channels(name, layer, built):
    state, ours = built(name)
    pooled = np.random.default_rng(0).normal(size=(6, 7, 7))  # [C, H, W]
    theirs = state[f"roi_heads.box_head.{layer}.weight"] @ pooled.ravel()
    out = np.moveaxis(pooled, 0, -1).ravel() @ ours["box_head/fc_0/kernel"]
    np.testing.assert_allclose(out, theirs, rtol=1e-6)


def test_convolutions(built):
    state, ours = built(MOBILENET)
    theirs = state["backbone.body.4.block.0.0.weight"]
    np.testing.assert_array_equal(ours["block4_expand/kernel"][0, 0], theirs[:, :, 0, 0].T)
    theirs = state["backbone.body.4.block.1.0.weight"]
    np.testing.assert_array_equal(ours["block4_depthwise/kernel"][2, 3, :, 0], theirs[:, 0, 2, 3])
    theirs = state["rpn.head.conv.0.0.weight"]
    np.testing.assert_array_equal(ours["rpn_head/conv_0/kernel"][2, 0, 4, 5], theirs[5, 4, 2, 0])
    state, ours = built(MASK)
    theirs = state["roi_heads.mask_predictor.conv5_mask.weight"]  # (in, out, h, w)
    np.testing.assert_array_equal(ours["mask_head/deconv/kernel"][1, 0, 4, 5], theirs[5, 4, 1, 0])


# === Refusals ===


def changed(state, **values):
    """A copy with tensors replaced, or left out where the value is None."""
    state = {**state, **{key.replace("__", "."): value for key, value in values.items()}}
    return {key: value for key, value in state.items() if value is not None}


def test_missing_and_left_over_tensors(built):
    state = built(FASTER)[0]
    with pytest.raises(ConversionError, match=r"1 missing: roi_heads\.box_head\.fc7\.bias\.$"):
        convert_torchvision(FASTER, changed(state, roi_heads__box_head__fc7__bias=None))
    with pytest.raises(ConversionError, match=r"1 left over: extra\.weight\.$"):
        convert_torchvision(FASTER, changed(state, extra__weight=np.zeros(1, np.float32)))
    with pytest.raises(ConversionError, match="2 missing: .*cls_score"):
        missing = {f"roi_heads__box_predictor__cls_score__{part}": None for part in ("weight", "bias")}
        convert_torchvision(FASTER, changed(state, **missing))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone__body__conv1__weight", np.full((64, 3, 7, 7), np.nan, np.float32), "NaN"),
        ("backbone__body__bn1__bias", np.full(64, np.inf, np.float32), "infinite"),
        ("backbone__body__conv1__weight", np.zeros((64, 3, 7, 7), np.int64), r"is int64 \(64, 3, 7, 7\); float32"),
        ("backbone__body__conv1__weight", np.zeros((64, 147), np.float32), "4 axes"),
        ("roi_heads__box_head__fc6__weight", np.zeros((12, 50), np.float32), r"unexpected shape \(12, 50\)"),
        ("roi_heads__box_predictor__bbox_pred__bias", np.zeros(8, np.float32), "16 outputs and 8 biases"),
    ],
)
def test_bad_tensors(key, value, message, built):
    with pytest.raises(ConversionError, match=message) as error:
        convert_torchvision(FASTER, changed(built(FASTER)[0], **{key: value}))
    assert key.replace("__", ".") in str(error.value) or "box_predictor/deltas" in str(error.value)


def test_classes_must_agree(built):
    five = states.detector(MASK, classes=5)
    state = built(MASK)[0]
    with pytest.raises(ConversionError, match=r"4 class logits and 20 box deltas"):
        convert_torchvision(MASK, {**state, **{key: five[key] for key in five if "bbox_pred" in key}})
    with pytest.raises(ConversionError, match="masks of 5 classes, boxes of 4"):
        convert_torchvision(MASK, {**state, **{key: five[key] for key in five if "mask_fcn_logits" in key}})


@every
def test_other_models_are_recognised(name, built):
    state = built(name)[0]
    assert looks_like(state) == name.replace("_320", "")
    for other in DETECTORS:
        if other.replace("_320", "") != name.replace("_320", ""):
            with pytest.raises(ConversionError, match=f"not the weights of {other}: .*those of {looks_like(state)}"):
                convert_torchvision(other, state)


def test_classifiers():
    state = states.resnet(101)
    assert looks_like(state) == "resnet101"
    with pytest.raises(ConversionError, match=r"left over: layer3\.6\..*those of resnet101"):
        convert_resnet(50, state)
    with pytest.raises(ConversionError, match=r"50, 101, 152\], not 35"):
        convert_resnet(35, state)
    assert "fc.weight" not in convert_resnet(101, state)
    state = states.mobilenet()
    assert looks_like(state) == "mobilenet_v3_large"
    with pytest.raises(ConversionError, match="those of mobilenet_v3_large"):
        convert_torchvision(MOBILENET, state)
    assert len(convert_mobilenet_v3_large(state)) == len(
        [key for key in state if "classifier" not in key and "tracked" not in key]
    )
    with pytest.raises(ConversionError, match="not the weights of EfficientNet-Lite0"):
        convert_efficientnet_lite0(state)
    assert looks_like(states.lite0()) == "efficientnet-lite0"
    assert looks_like({"a": 1}) is None


def test_unknown_name():
    with pytest.raises(ConversionError, match=f"'fasterrcnn' is none of .*{MASK}"):
        convert_torchvision("fasterrcnn", {})


def test_assign():
    model = MobileNetV3Large()
    values = convert_mobilenet_v3_large(states.mobilenet())
    before = model.get_weights()
    with pytest.raises(ConversionError, match=r"without a value: stem_conv/kernel"):
        assign(model, {path: value for path, value in values.items() if path != "stem_conv/kernel"})
    with pytest.raises(ConversionError, match=r"no weights named: other/kernel"):
        assign(model, {**values, "other/kernel": np.zeros(1)})
    with pytest.raises(ConversionError, match=r"last_bn/beta \(960,\) \(given \(961,\)\)"):
        assign(model, {**values, "last_bn/beta": np.zeros(961, np.float32)})
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assign(model, values)
    np.testing.assert_array_equal(model.get_layer("last_bn").get_weights()[1], values["last_bn/beta"])


def test_coco_names():
    assert len(COCO_NAMES) == 90
    assert (COCO_NAMES[0], COCO_NAMES[89], COCO_NAMES.count("N/A")) == ("person", "toothbrush", 10)
    assert len(set(COCO_NAMES) - {"N/A"}) == 80
    assert all(name == name.strip() and "\n" not in name for name in COCO_NAMES)
    assert [COCO_NAMES[i - 1] for i in (13, 18, 44, 70, 84)] == ["stop sign", "dog", "bottle", "toilet", "book"]
