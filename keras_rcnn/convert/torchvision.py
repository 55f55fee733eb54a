"""torchvision's weights -> ours, by `variable.path`. Every tensor is used, dropped by name, or an error."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.layouts import Tensors, deconv, dense_after_flatten, depthwise

RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CONVNEXT_BLOCKS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}
# features 1 to 15 of MobileNetV3-Large: whether they expand, and whether they squeeze and excite
MOBILENET_BLOCKS = tuple((i > 1, i in (4, 5, 6, 11, 12, 13, 14, 15)) for i in range(1, 16))
# (body, whether it is a "v2" model, whether it has masks)
DETECTORS = {
    "fasterrcnn_resnet50_fpn": ("resnet50", False, False),
    "fasterrcnn_resnet50_fpn_v2": ("resnet50", True, False),
    "fasterrcnn_mobilenet_v3_large_fpn": ("mobilenet_v3_large", False, False),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("mobilenet_v3_large", False, False),
    "maskrcnn_resnet50_fpn": ("resnet50", False, True),
    "maskrcnn_resnet50_fpn_v2": ("resnet50", True, True),
}
# names before torchvision 0.13, which its published v1 files still have
OLD_NAMES = (
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(weight|bias)", r"backbone.fpn.\1_blocks.\2.0.\3"),
    (r"roi_heads\.mask_head\.mask_fcn1\.(weight|bias)", r"roi_heads.mask_head.0.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn2\.(weight|bias)", r"roi_heads.mask_head.1.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn3\.(weight|bias)", r"roi_heads.mask_head.2.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn4\.(weight|bias)", r"roi_heads.mask_head.3.0.\1"),
)


def convert_torchvision(name: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of one of torchvision's detectors as ours.

    Args:
        name: the model's name in torchvision, a key of `DETECTORS`.
        state: dict, name -> array, in torchvision's names (of today or of before 0.13) and layouts. It is not changed.

    Returns:
        A dict, `variable.path` of our detector -> float32 array: kernels as Keras lays them out, the first dense layer
        after flattening (H, W, C), the background column last among the class logits and absent from boxes and masks.

    Raises:
        ConversionError: if a tensor is missing, left over, misshapen or not finite; the message says which model the
            weights look like.

    Example:

    >>> state = read_torch_file("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    >>> assign(model, convert_torchvision("fasterrcnn_resnet50_fpn", state))
    """
    if name not in DETECTORS:
        raise ConversionError(f"{name!r} is none of torchvision's models that convert: {', '.join(DETECTORS)}.")
    body, second, masks = DETECTORS[name]
    tensors = Tensors(modern_names(state), name)
    _body(tensors, body, "backbone.body.")
    _fpn(tensors, 2 if body == "mobilenet_v3_large" else 4, second)
    _rpn_head(tensors, 2 if second else 1)
    _box_head(tensors, second)
    classes = _box_predictor(tensors)
    if masks:
        _mask_head(tensors, second, classes)
    return tensors.finish(_hint(name, state))


def convert_resnet(depth: int, state: Mapping[str, np.ndarray], name: str | None = None) -> dict[str, np.ndarray]:
    """torchvision's ImageNet weights of a ResNet or ResNeXt as ours; the classifier `fc` is left out.

    Args:
        depth: int: 18, 34, 50, 101 or 152.
        state: dict, name -> array.
        name: what the model is called in messages; None: `resnet{depth}`.

    Returns:
        A dict, `variable.path` of `keras_rcnn.backbones.ResNet(depth)` -> float32 array.

    Raises:
        ConversionError: as `convert_torchvision`.
    """
    return _classifier(name or f"resnet{depth}", f"resnet{depth}", state, "", ("fc.weight", "fc.bias"))


def convert_mobilenet_v3_large(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's ImageNet weights of MobileNetV3-Large as ours; the classifier is left out.

    Args:
        state: dict, name -> array.

    Returns:
        A dict, `variable.path` of `keras_rcnn.backbones.MobileNetV3Large()` -> float32 array.

    Raises:
        ConversionError: as `convert_torchvision`.
    """
    head = [f"classifier.{i}.{part}" for i in (0, 3) for part in ("weight", "bias")]
    return _classifier("mobilenet_v3_large", "mobilenet_v3_large", state, "features.", head)


def convert_convnext(name: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torchvision's ImageNet weights of ConvNeXt-T or -S as ours; the classifier is left out.

    Args:
        name: `"convnext_tiny"` or `"convnext_small"`.
        state: dict, name -> array.

    Returns:
        A dict, `variable.path` of `keras_rcnn.backbones.ConvNeXt` -> float32 array.

    Raises:
        ConversionError: as `convert_torchvision`.
    """
    head = [f"classifier.{i}.{part}" for i in (0, 2) for part in ("weight", "bias")]
    return _classifier(name, name, state, "features.", head)


def _classifier(
    name: str, body: str, state: Mapping[str, np.ndarray], prefix: str, head: Sequence[str]
) -> dict[str, np.ndarray]:
    tensors = Tensors(state, name)
    tensors.drop(*head)
    _body(tensors, body, prefix)
    return tensors.finish(_hint(body, state))


def modern_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict with the names of before torchvision 0.13 brought up to date."""
    renamed = {}
    for name, value in state.items():
        for old, new in OLD_NAMES:
            name = re.sub(f"^{old}$", new, name)
        if name in renamed:
            raise ConversionError(f"The weights hold {name} twice, under its old and its present name.")
        renamed[name] = value
    return renamed


def looks_like(state: Mapping[str, np.ndarray]) -> str | None:
    """The name of the model that a state dict seems to be of, or None.

    >>> looks_like(read_torch_file("resnet101-63fe2227.pth"))
    'resnet101'
    """
    names = set(modern_names(state))
    for sign, model in (
        ("transformer.", "DETR or another transformer"),
        ("backbone.bottom_up.", "a Detectron2 model"),
        ("head.classification_head.", "a RetinaNet, FCOS or SSD of torchvision"),
        ("roi_heads.keypoint_head.", "keypointrcnn_resnet50_fpn"),
        ("_conv_stem.", "efficientnet-lite0"),
    ):
        if any(name.startswith(sign) for name in names):
            return model
    for prefix, resnet_prefix in (("backbone.body.", "backbone.body."), ("features.", "")):
        body = _look_at_body(names, prefix, resnet_prefix)
        if body is not None:
            break
    else:
        return None
    if not any(name.startswith("rpn.") for name in names):
        return body
    second = "_v2" if "backbone.fpn.inner_blocks.0.1.weight" in names else ""
    family = "maskrcnn" if any(name.startswith("roi_heads.mask_head.") for name in names) else "fasterrcnn"
    return f"{family}_{body}_fpn{second}"


def _look_at_body(names: Collection[str], mobilenet_prefix: str, resnet_prefix: str) -> str | None:
    if f"{resnet_prefix}layer1.0.conv1.weight" in names:
        blocks = sum(name.startswith(f"{resnet_prefix}layer") and name.endswith(".conv1.weight") for name in names)
        deep = f"{resnet_prefix}layer1.0.conv3.weight" in names
        return {(8, False): "resnet18", (16, False): "resnet34", (16, True): "resnet50"}.get(
            (blocks, deep), f"resnet{3 * blocks + 2}" if deep else "a ResNet"
        )
    if f"{mobilenet_prefix}1.0.layer_scale" in names:
        return "convnext_small" if f"{mobilenet_prefix}5.26.layer_scale" in names else "convnext_tiny"
    if f"{mobilenet_prefix}16.0.weight" in names and f"{mobilenet_prefix}4.block.2.fc1.weight" in names:
        return "mobilenet_v3_large"
    return None


def _hint(name: str, state: Mapping[str, np.ndarray]) -> str:
    guess = looks_like(state)
    # the 320 model differs in settings alone
    if guess is None or guess == name.replace("_320", ""):
        return ""
    return f" They look like those of {guess}."


# === Parts ===


def _body(tensors: Tensors, body: str, prefix: str) -> None:
    if body == "mobilenet_v3_large":
        _mobilenet(tensors, prefix)
    elif body in CONVNEXT_BLOCKS:
        _convnext(tensors, CONVNEXT_BLOCKS[body], prefix)
    else:
        _resnet(tensors, int(body.removeprefix("resnet")), prefix)


def _resnet(tensors: Tensors, depth: int, prefix: str) -> None:
    if depth not in RESNET_BLOCKS:
        raise ConversionError(f"ResNet's depth is one of {list(RESNET_BLOCKS)}, not {depth}.")
    basic = depth in (18, 34)  # two convolutions a block, and nothing to project in the first stage
    tensors.conv(f"{prefix}conv1", "stem_conv")
    tensors.norm(f"{prefix}bn1", "stem_bn")
    for stage, blocks in enumerate(RESNET_BLOCKS[depth], start=1):
        for block in range(blocks):
            theirs, ours = f"{prefix}layer{stage}.{block}", f"stage{stage}_block{block}"
            for i in (1, 2) if basic else (1, 2, 3):
                tensors.conv(f"{theirs}.conv{i}", f"{ours}_conv{i}")
                tensors.norm(f"{theirs}.bn{i}", f"{ours}_bn{i}")
            if block == 0 and not (basic and stage == 1):
                tensors.conv(f"{theirs}.downsample.0", f"{ours}_shortcut_conv")
                tensors.norm(f"{theirs}.downsample.1", f"{ours}_shortcut_bn")


def _mobilenet(tensors: Tensors, prefix: str) -> None:
    tensors.conv(f"{prefix}0.0", "stem_conv")
    tensors.norm(f"{prefix}0.1", "stem_bn")
    for i, (expands, squeezes) in enumerate(MOBILENET_BLOCKS, start=1):
        theirs, ours, step = f"{prefix}{i}.block", f"block{i}", 0
        if expands:
            tensors.conv(f"{theirs}.0.0", f"{ours}_expand")
            tensors.norm(f"{theirs}.0.1", f"{ours}_expand_bn")
            step += 1
        tensors.conv(f"{theirs}.{step}.0", f"{ours}_depthwise", depthwise)
        tensors.norm(f"{theirs}.{step}.1", f"{ours}_depthwise_bn")
        step += 1
        if squeezes:
            tensors.conv(f"{theirs}.{step}.fc1", f"{ours}_se_reduce", bias=True)
            tensors.conv(f"{theirs}.{step}.fc2", f"{ours}_se_expand", bias=True)
            step += 1
        tensors.conv(f"{theirs}.{step}.0", f"{ours}_project")
        tensors.norm(f"{theirs}.{step}.1", f"{ours}_project_bn")
    tensors.conv(f"{prefix}16.0", "last_conv")
    tensors.norm(f"{prefix}16.1", "last_bn")


def _convnext(tensors: Tensors, stages: Sequence[int], prefix: str) -> None:
    tensors.conv(f"{prefix}0.0", "stem_conv", bias=True)
    tensors.layer_norm(f"{prefix}0.1", "stem_norm")
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            theirs, ours = f"{prefix}{2 * stage - 1}.{block}", f"stage{stage}_block{block}"
            tensors.conv(f"{theirs}.block.0", f"{ours}_depthwise", depthwise, bias=True)
            tensors.layer_norm(f"{theirs}.block.2", f"{ours}_norm")
            tensors.dense(f"{theirs}.block.3", f"{ours}_expand")
            tensors.dense(f"{theirs}.block.5", f"{ours}_project")
            tensors.move(f"{theirs}.layer_scale", f"{ours}_scale/gamma", lambda scale: scale.reshape(-1), rank=3)
        if stage < len(stages):
            tensors.layer_norm(f"{prefix}{2 * stage}.0", f"stage{stage + 1}_down_norm")
            tensors.conv(f"{prefix}{2 * stage}.1", f"stage{stage + 1}_down_conv", bias=True)


def _fpn(tensors: Tensors, levels: int, norm: bool) -> None:
    for theirs, ours in (("inner_blocks", "inner"), ("layer_blocks", "output")):
        for i in range(levels):
            tensors.conv(f"backbone.fpn.{theirs}.{i}.0", f"fpn/{ours}_{i}", bias=not norm)
            if norm:
                tensors.norm(f"backbone.fpn.{theirs}.{i}.1", f"fpn/{ours}_{i}_bn")


def _rpn_head(tensors: Tensors, convs: int) -> None:
    for i in range(convs):
        tensors.conv(f"rpn.head.conv.{i}.0", f"rpn_head/conv_{i}", bias=True)
    # channels a * C + c: the same order in both
    tensors.conv("rpn.head.cls_logits", "rpn_head/objectness", bias=True)
    tensors.conv("rpn.head.bbox_pred", "rpn_head/deltas", bias=True)


def _box_head(tensors: Tensors, second: bool) -> None:
    if not second:
        tensors.dense("roi_heads.box_head.fc6", "box_head/fc_0", _dense_of_pooled)
        tensors.dense("roi_heads.box_head.fc7", "box_head/fc_1")
        return
    for i in range(4):
        tensors.conv(f"roi_heads.box_head.{i}.0", f"box_head/conv_{i}")
        tensors.norm(f"roi_heads.box_head.{i}.1", f"box_head/conv_{i}_bn")
    tensors.dense("roi_heads.box_head.5", "box_head/fc_0", _dense_of_pooled)


def _dense_of_pooled(kernel: np.ndarray) -> np.ndarray:
    return dense_after_flatten(kernel, 7, 7)


def _box_predictor(tensors: Tensors) -> int | None:
    """Returns the number of classes without background, or None if they are missing."""
    theirs = "roi_heads.box_predictor"
    tensors.dense(f"{theirs}.cls_score", "box_predictor/logits")
    tensors.dense(f"{theirs}.bbox_pred", "box_predictor/deltas")
    rows: dict[str, Any] = {path: tensors.rows(f"box_predictor/{path}") for path in ("logits", "deltas")}
    if None in rows.values():
        return None
    if rows["logits"] < 2 or rows["deltas"] != 4 * rows["logits"]:
        raise ConversionError(
            f"{tensors.model}: {rows['logits']} class logits and {rows['deltas']} box deltas; K + 1 and 4 * (K + 1) "
            "were expected."
        )
    # torchvision has the background first, ours last among the logits and nowhere else
    tensors.edit("box_predictor/logits", lambda value: np.roll(value, -1, axis=-1))
    tensors.edit("box_predictor/deltas", lambda value: value[..., 4:])
    return rows["logits"] - 1


def _mask_head(tensors: Tensors, norm: bool, classes: int | None) -> None:
    for i in range(4):
        tensors.conv(f"roi_heads.mask_head.{i}.0", f"mask_head/conv_{i}", bias=not norm)
        if norm:
            tensors.norm(f"roi_heads.mask_head.{i}.1", f"mask_head/conv_{i}_bn")
    tensors.conv("roi_heads.mask_predictor.conv5_mask", "mask_head/deconv", deconv, bias=True)
    tensors.conv("roi_heads.mask_predictor.mask_fcn_logits", "mask_head/logits", bias=True)
    rows = tensors.rows("mask_head/logits")
    if None not in (rows, classes) and rows != classes + 1:
        raise ConversionError(f"{tensors.model}: masks of {rows} classes, boxes of {classes + 1}, background included.")
    tensors.edit("mask_head/logits", lambda value: value[..., 1:])
