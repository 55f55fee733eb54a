"""Detectron2's weights -> ours, by `variable.path`. Every tensor is used, dropped by name, or an error.

| quirk | what is done |
|---|---|
| layouts are PyTorch's | see `keras_rcnn.convert.layouts` |
| the first dense layer takes C, H, W | reordered to H, W, C |
| the background class is last | as ours |
| the shortcut is called `shortcut`, norms lie within their convolution | `res3.0.conv1.norm` -> `stage2_block0_bn1` |
| C4's last stage lies in `roi_heads.res5`, the rest in `backbone` | our names are the same wherever it lies |
| a cascade's heads are `box_head.0` to `.2` | `box_head`, `box_head_1`, `box_head_2`; the predictors likewise |
| two convolutions of the RPN are `conv.conv0`, `conv.conv1`, one is `conv` | `rpn_head/conv_0`, `conv_1` |
| anchors and pixel statistics were once saved along | compared with the settings, and dropped |
| Caffe2's ImageNet files have names of their own | renamed first |
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from keras_rcnn.convert.detectron2_settings import detectron2_config
from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.layouts import Tensors, deconv, dense_after_flatten
from keras_rcnn.convert.torchvision import RESNET_BLOCKS

Norm = Literal["frozen", "batch", "group"]

# Caffe2's names of a ResNet's tensors
_CAFFE2 = re.compile(r"(?:res_)?(conv1|res(\d)_(\d+)_branch(1|2a|2b|2c))_(w|b|(?:bn|gn)_\w+)")
_CAFFE2_CONVS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2_PARTS = {
    "w": "weight",
    "b": "bias",
    **dict.fromkeys(("bn_s", "bn_gamma", "gn_s"), "norm.weight"),
    **dict.fromkeys(("bn_b", "bn_beta", "gn_b"), "norm.bias"),
    **dict.fromkeys(("bn_rm", "bn_running_mean"), "norm.running_mean"),
    **dict.fromkeys(("bn_riv", "bn_running_var"), "norm.running_var"),
}
# of ImageNet's files: the classifiers, and a bias that Caffe's conv1 had before its norm
_UNUSED = ("fc1000_w", "fc1000_b", "pred_w", "pred_b", "stem.fc.weight", "stem.fc.bias", "stem.conv1.bias")
_BATCH_NORMS = ("FrozenBN", "BN", "SyncBN")


def convert_detectron2(
    name: str, state: Mapping[str, np.ndarray], overrides: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """The weights of one of Detectron2's detectors as ours.

    Args:
        name: of its config file, as `detectron2_config` takes it.
        state: dict, name -> array, as `read_detectron2_file` returns it. It is not changed.
        overrides: dict, what somebody's own config changed, by Detectron2's keys.

    Returns:
        A dict, `variable.path` of `detectron2_detector(name)` -> float32 array.

    Raises:
        ConversionError: if a tensor is missing, left over, misshapen or not finite, or the file's own anchors or pixel
            statistics are not the config's.

    Example:

    >>> state = read_detectron2_file("model_final_b275ba.pkl")
    >>> assign(model, convert_detectron2("faster_rcnn_R_50_FPN_1x", state))
    """
    config = detectron2_config(name, overrides)
    tensors = Tensors(state, name)
    _compare_settings(tensors, config)
    first = config["MODEL.ROI_HEADS.IN_FEATURES"][0]
    body = "backbone" if first in ("res4", "res5") else "backbone.bottom_up"
    last = "roi_heads" if first == "res4" else body
    norm = _norm(config, "MODEL.RESNETS.NORM")
    _resnet(tensors, config["MODEL.RESNETS.DEPTH"], norm, {2: body, 3: body, 4: body, 5: last})
    if body != "backbone":
        _fpn(tensors, _norm(config, "MODEL.FPN.NORM"))
    if not config["MODEL.LOAD_PROPOSALS"]:
        _rpn_head(tensors, len(config["MODEL.RPN.CONV_DIMS"]))
    classes = None
    for stage, suffix in _stages(config):
        if first != "res4":
            _box_head(tensors, config, stage, suffix)
        classes = _box_predictor(tensors, config, stage, suffix)
    if config["MODEL.MASK_ON"]:
        _mask_head(tensors, config, classes)
    if config["MODEL.KEYPOINT_ON"]:
        _keypoint_head(tensors, config)
    guess = detectron2_looks_like(state)
    return tensors.finish(f" They look like those of {guess}." if guess else "")


def convert_detectron2_backbone(
    depth: int, state: Mapping[str, np.ndarray], norm: Norm = "frozen", last: Literal["C4", "C5"] = "C5"
) -> dict[str, np.ndarray]:
    """The ImageNet weights of a ResNet that Detectron2's training begins with: MSRA's, FAIR's, or torchvision's in
    Detectron2's names.

    Args:
        depth: int: 50, 101 or 152.
        state: dict, name -> array, in Caffe2's names or Detectron2's; the classifier in it is left out.
        norm: `"group"` for a network with group norm; a fused norm without statistics gets the mean 0 and variance 1.
        last: `"C4"` leaves out the last stage.

    Returns:
        A dict, `variable.path` of `keras_rcnn.backbones.ResNet(depth, ...)` -> float32 array.

    Raises:
        ConversionError: as `convert_detectron2`.
    """
    if depth not in RESNET_BLOCKS or depth < 50:
        raise ConversionError(f"Detectron2's ResNets have depth 50, 101 or 152, not {depth}.")
    state = caffe2_renamed(state)
    tensors = Tensors(state if norm == "group" else _with_statistics(state), f"ResNet-{depth}")
    tensors.drop(*_UNUSED)
    _resnet(tensors, depth, norm, dict.fromkeys((2, 3, 4, 5), ""))
    values = tensors.finish()
    return values if last == "C5" else {key: v for key, v in values.items() if not key.startswith("stage4")}


def caffe2_renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict with Caffe2's names of a ResNet's tensors turned into Detectron2's; others stay as they are.

    Raises:
        ConversionError: if two names become the same.
    """
    renamed = {}
    for name, value in state.items():
        match = _CAFFE2.fullmatch(name)
        if match and match[5] in _CAFFE2_PARTS:
            where = "stem.conv1" if match[1] == "conv1" else f"res{match[2]}.{match[3]}.{_CAFFE2_CONVS[match[4]]}"
            name = f"{where}.{_CAFFE2_PARTS[match[5]]}"
        if name in renamed:
            raise ConversionError(f"The weights hold {name} twice, under Caffe2's name and under Detectron2's.")
        renamed[name] = value
    return renamed


def _with_statistics(state: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """With the mean 0 and the variance 1 beside norms that were fused, and have none."""
    if any(name.endswith(".running_mean") for name in state):
        return state
    more = {}
    for name, value in state.items():
        if name.endswith(".norm.weight"):
            more[name.replace(".weight", ".running_mean")] = np.zeros_like(value)
            more[name.replace(".weight", ".running_var")] = np.ones_like(value)
    return {**state, **more}


def detectron2_looks_like(state: Iterable[str]) -> str | None:
    """What a state dict in Detectron2's names seems to be of, or None if the names say nothing."""
    names = set(state)

    def has(part: str) -> bool:
        return any(part in name for name in names)

    for part, model in (
        ("roi_heads.box_head.0.", "a Cascade R-CNN"),
        ("head.cls_subnet.", "a RetinaNet"),
        ("sem_seg_head.", "a panoptic FPN"),
        ("conv2_offset.", "a model with deformable convolutions"),
        ("bottom_up.s1.", "a model with a RegNet"),
    ):
        if has(part):
            return model
    if not has("roi_heads.box_predictor."):
        return None
    depth = 101 if has("res4.22.") else 50
    body = "FPN" if has("fpn_lateral") else "C4" if has("roi_heads.res5.") else "DC5"
    families = {"keypoint_head.": "keypoint", "mask_head.": "mask", "rpn_head.": "faster", "": "fast"}
    family = next(family for part, family in families.items() if has(part))
    norm = " with norms in its heads" if has("box_head.conv1.norm.") else ""
    return f"{family}_rcnn_R_{depth}_{body}_...{norm}"


def _norm(config: Mapping[str, Any], key: str) -> Literal["batch", "group"] | None:
    """None, "batch" or "group"."""
    value = config[key]
    return None if value == "" else "batch" if value in _BATCH_NORMS else "group"


# === What the file repeats of the settings ===


def _compare_settings(tensors: Tensors, config: Mapping[str, Any]) -> None:
    for name, key in (("pixel_mean", "MODEL.PIXEL_MEAN"), ("pixel_std", "MODEL.PIXEL_STD")):
        _compare(tensors, name, key, np.reshape(config[key], (3, 1, 1)))
    ratios = np.array(config["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"][0], np.float64)
    for i, sizes in enumerate(config["MODEL.ANCHOR_GENERATOR.SIZES"]):
        wide = np.sqrt(np.square(np.array(sizes, np.float64))[:, None] / ratios).reshape(-1)
        high = wide * np.tile(ratios, len(sizes))
        anchors = np.stack([-wide, -high, wide, high], axis=1) / 2
        name = f"proposal_generator.anchor_generator.cell_anchors.{i}"
        _compare(tensors, name, "MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS", anchors)


def _compare(tensors: Tensors, name: str, key: str, expected: np.ndarray) -> None:
    given = tensors.left.pop(name, None)
    if given is not None and (given.shape != expected.shape or not np.allclose(given, expected, rtol=1e-4)):
        raise ConversionError(
            f"{tensors.model}: the file's {name} is {np.ravel(given)[:6].tolist()} ..., and not "
            f"{np.ravel(expected)[:6].round(3).tolist()} ..., as the config has it: say what {key} was."
        )


# === Parts ===


def _conv(tensors: Tensors, theirs: str, conv: str, bn: str, norm: Norm | None) -> None:
    """A convolution, and the norm within it that stands for its bias."""
    tensors.conv(theirs, conv, bias=norm is None)
    if norm == "group":
        tensors.layer_norm(f"{theirs}.norm", bn)  # as a LayerNorm, a scale and an offset
    elif norm:
        tensors.norm(f"{theirs}.norm", bn)


def _resnet(tensors: Tensors, depth: int, norm: Norm | None, prefixes: Mapping[int, str]) -> None:
    """The stages 2 to 5 under their prefixes."""

    def of(stage: int, name: str) -> str:
        return f"{prefixes[stage]}.{name}".removeprefix(".")

    _conv(tensors, of(2, "stem.conv1"), "stem_conv", "stem_bn", norm)
    for stage, blocks in enumerate(RESNET_BLOCKS[depth], start=2):
        for block in range(blocks):
            theirs, ours = of(stage, f"res{stage}.{block}"), f"stage{stage - 1}_block{block}"
            for i in (1, 2, 3):
                _conv(tensors, f"{theirs}.conv{i}", f"{ours}_conv{i}", f"{ours}_bn{i}", norm)
            if block == 0:
                _conv(tensors, f"{theirs}.shortcut", f"{ours}_shortcut_conv", f"{ours}_shortcut_bn", norm)


def _fpn(tensors: Tensors, norm: Norm | None) -> None:
    for theirs, ours in (("lateral", "inner"), ("output", "output")):
        for i in range(4):
            _conv(tensors, f"backbone.fpn_{theirs}{i + 2}", f"fpn/{ours}_{i}", f"fpn/{ours}_{i}_bn", norm)


def _rpn_head(tensors: Tensors, convs: int) -> None:
    theirs = "proposal_generator.rpn_head"
    for i in range(convs):
        tensors.conv(f"{theirs}.conv" if convs == 1 else f"{theirs}.conv.conv{i}", f"rpn_head/conv_{i}", bias=True)
    # channels a * C + c: the same order in both
    tensors.conv(f"{theirs}.objectness_logits", "rpn_head/objectness", bias=True)
    tensors.conv(f"{theirs}.anchor_deltas", "rpn_head/deltas", bias=True)


def _stages(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the box head's stages are told apart, there and here: `(".1", "_1")`, or once `("", "")`."""
    if config["MODEL.ROI_HEADS.NAME"] != "CascadeROIHeads":
        return [("", "")]
    count = len(config["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"])
    return [(f".{i}", f"_{i}" if i else "") for i in range(count)]


def _box_head(tensors: Tensors, config: Mapping[str, Any], stage: str, suffix: str) -> None:
    theirs, ours = f"roi_heads.box_head{stage}", f"box_head{suffix}"
    norm = _norm(config, "MODEL.ROI_BOX_HEAD.NORM")
    size = config["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"]
    for i in range(config["MODEL.ROI_BOX_HEAD.NUM_CONV"]):
        _conv(tensors, f"{theirs}.conv{i + 1}", f"{ours}/conv_{i}", f"{ours}/conv_{i}_bn", norm)
    tensors.dense(f"{theirs}.fc1", f"{ours}/fc_0", lambda kernel: dense_after_flatten(kernel, size, size))
    for i in range(1, config["MODEL.ROI_BOX_HEAD.NUM_FC"]):
        tensors.dense(f"{theirs}.fc{i + 1}", f"{ours}/fc_{i}")


def _box_predictor(tensors: Tensors, config: Mapping[str, Any], stage: str, suffix: str) -> int | None:
    """Returns the number of classes without background, or None if they are missing."""
    theirs, ours = f"roi_heads.box_predictor{stage}", f"box_predictor{suffix}"
    tensors.dense(f"{theirs}.cls_score", f"{ours}/logits")
    tensors.dense(f"{theirs}.bbox_pred", f"{ours}/deltas")
    logits, deltas = (tensors.rows(f"{ours}/{path}") for path in ("logits", "deltas"))
    if logits is None or deltas is None:
        return None
    expected = 4 if config["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"] else 4 * (logits - 1)
    if logits < 2 or deltas != expected:
        raise ConversionError(
            f"{tensors.model}: {logits} class logits and {deltas} box deltas; K + 1 and 4 * K, or 4 with "
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG, were expected."
        )
    return logits - 1


def _mask_head(tensors: Tensors, config: Mapping[str, Any], classes: int | None) -> None:
    theirs, norm = "roi_heads.mask_head", _norm(config, "MODEL.ROI_MASK_HEAD.NORM")
    if config["MODEL.ROI_HEADS.NAME"] != "Res5ROIHeads":
        for i in range(config["MODEL.ROI_MASK_HEAD.NUM_CONV"]):
            _conv(tensors, f"{theirs}.mask_fcn{i + 1}", f"mask_head/conv_{i}", f"mask_head/conv_{i}_bn", norm)
    tensors.conv(f"{theirs}.deconv", "mask_head/deconv", deconv, bias=True)
    tensors.conv(f"{theirs}.predictor", "mask_head/logits", bias=True)
    rows, expected = tensors.rows("mask_head/logits"), classes
    if config["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"]:
        expected = 1
    if None not in (rows, expected) and rows != expected:
        raise ConversionError(f"{tensors.model}: masks of {rows} classes, boxes of {classes}.")


def _keypoint_head(tensors: Tensors, config: Mapping[str, Any]) -> None:
    theirs, ours = "roi_heads.keypoint_head", "keypoint_branch/keypoint_head"
    for i in range(len(config["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"])):
        tensors.conv(f"{theirs}.conv_fcn{i + 1}", f"{ours}/conv_{i}", bias=True)
    # a transposed convolution: its outputs are the last but one axis of the kernel
    tensors.conv(f"{theirs}.score_lowres", f"{ours}/logits", deconv, bias=True)
