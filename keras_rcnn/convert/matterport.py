"""Weights of Matterport's Mask_RCNN -> ours, by `variable.path`. Every array is used, dropped by name, or an error.

What differs silently, with the same shapes:

| Matterport's | ours |
|---|---|
| boxes and deltas (y, x, log h, log w) | (x, y, log w, log h): `rpn_bbox_pred`, `mrcnn_bbox_fc` |
| class 0 is the background | it is the last logit, and has no deltas and no masks, which nothing reads |
| the first dense layer is a 7x7 convolution | a dense layer over its rows, columns and channels, the same order |
| the second one, and `mrcnn_mask`'s kin, lie in TimeDistributed | as they are |
| `anchors` of TF2 forks, (images, anchors, 4) | dropped: they follow from the settings |
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.layouts import Layout, Tensors

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
MODEL = "Matterport's Mask_RCNN"


def matterport_facts(layers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """What the weights say of their model, by the names of Matterport's `Config`.

    Args:
        layers: as `read_keras_h5` returns them.

    Returns:
        A dict: `BACKBONE`, `NUM_CLASSES` (with background), `TOP_DOWN_PYRAMID_SIZE`, `FPN_CLASSIF_FC_LAYERS_SIZE`,
        `POOL_SIZE`, and `num_ratios`, how many RPN_ANCHOR_RATIOS there are. The file does not say MEAN_PIXEL, sizes,
        anchors' scales and thresholds.

    Raises:
        ConversionError: if these are no such weights; the message says what they look like.
    """
    shapes = {name: _kernel_shape(layers, name) for name in _TELLING}
    channels = shapes["conv1"][2]
    if channels != 3:
        raise ConversionError(f"{MODEL}: conv1 takes images of {channels} channels; here they have 3.")
    if shapes["rpn_class_raw"][-1] % 2:
        raise ConversionError(f"{MODEL}: rpn_class_raw has {shapes['rpn_class_raw'][-1]} outputs, not two an anchor.")
    return {
        "BACKBONE": "resnet101" if "res4g_branch2a" in layers else "resnet50",
        "NUM_CLASSES": shapes["mrcnn_class_logits"][-1],
        "TOP_DOWN_PYRAMID_SIZE": shapes["fpn_c5p5"][-1],
        "FPN_CLASSIF_FC_LAYERS_SIZE": shapes["mrcnn_class_conv1"][-1],
        "POOL_SIZE": shapes["mrcnn_class_conv1"][0],
        "num_ratios": shapes["rpn_class_raw"][-1] // 2,
    }


_TELLING = {"conv1": 4, "fpn_c5p5": 4, "rpn_class_raw": 4, "mrcnn_class_conv1": 4, "mrcnn_class_logits": 2}


def _kernel_shape(layers: Mapping[str, Mapping[str, np.ndarray]], name: str) -> tuple[int, ...]:
    kernel = layers.get(name, {}).get("kernel")
    if kernel is None:
        raise ConversionError(f"These are not the weights of {MODEL}: there is no {name}.{_hint(layers)}")
    if kernel.ndim != _TELLING[name] or 0 in kernel.shape:
        raise ConversionError(f"{MODEL}: the kernel of {name} has the unexpected shape {kernel.shape}.")
    return kernel.shape


def _hint(layers: Collection[str]) -> str:
    if "fpn_c5p5" in layers or "rpn_conv_shared" in layers:
        return " They look like a part of it."
    if "classification_submodel" in layers or "C5_reduced" in layers:
        return " They look like keras-retinanet or keras-maskrcnn (fizyr), which is another model."
    if "fc1000" in layers or "conv1" in layers or "conv1_conv" in layers:
        return " They look like a classifier's, such as the ImageNet weights that Matterport's training begins with."
    return f" They are of the layers {', '.join(sorted(layers)[:6])} and so on."


def convert_matterport(layers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The weights of Matterport's Mask_RCNN as ours.

    Args:
        layers: dict, name of a layer -> dict, name of a weight -> array, as `read_keras_h5` returns them. It is not
            changed.

    Returns:
        A dict, `variable.path` of `matterport_detector(...)` with the settings of `matterport_facts` -> float32 array.

    Raises:
        ConversionError: if an array is missing, left over, misshapen or not finite.

    Example:

    >>> assign(model, convert_matterport(read_keras_h5("mask_rcnn_coco.h5")))
    """
    facts = matterport_facts(layers)
    tensors = Tensors({f"{layer}/{name}": value for layer, own in layers.items() for name, value in own.items()}, MODEL)
    tensors.drop("anchors/Variable", "anchors/anchors")
    resnet_layers(tensors, BLOCKS[101 if facts["BACKBONE"] == "resnet101" else 50])
    for level, theirs in enumerate(("c2p2", "c3p3", "c4p4", "c5p5")):
        keras_layer(tensors, f"fpn_{theirs}", f"fpn/inner_{level}")
        keras_layer(tensors, f"fpn_p{level + 2}", f"fpn/output_{level}")
    keras_layer(tensors, "rpn_conv_shared", "rpn_head/conv")
    keras_layer(tensors, "rpn_class_raw", "rpn_head/objectness")
    keras_layer(tensors, "rpn_bbox_pred", "rpn_head/deltas")
    tensors.edit("rpn_head/deltas", _xywh)
    _box_head(tensors, facts["NUM_CLASSES"])
    _mask_head(tensors, facts["NUM_CLASSES"])
    return tensors.finish()


def resnet_layers(tensors: Tensors, blocks: Sequence[int]) -> None:
    """Takes the layers of a ResNet as Matterport and the first `keras.applications` name them."""
    keras_layer(tensors, "conv1", "stem_conv")
    _normed(tensors, "bn_conv1", "stem_bn")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            theirs, ours = f"{stage + 1}{chr(ord('a') + block)}_branch", f"stage{stage}_block{block}"
            for i, branch in enumerate("abc", start=1):
                keras_layer(tensors, f"res{theirs}2{branch}", f"{ours}_conv{i}")
                _normed(tensors, f"bn{theirs}2{branch}", f"{ours}_bn{i}")
            if block == 0:
                keras_layer(tensors, f"res{theirs}1", f"{ours}_shortcut_conv")
                _normed(tensors, f"bn{theirs}1", f"{ours}_shortcut_bn")


def _box_head(tensors: Tensors, classes: int) -> None:
    for i in (0, 1):
        keras_layer(tensors, f"mrcnn_class_conv{i + 1}", f"box_head/fc_{i}", _flattened)
        _normed(tensors, f"mrcnn_class_bn{i + 1}", f"box_head/fc_{i}_bn")
    keras_layer(tensors, "mrcnn_class_logits", "box_predictor/logits", rank=2)
    keras_layer(tensors, "mrcnn_bbox_fc", "box_predictor/deltas", rank=2)
    if tensors.rows("box_predictor/deltas") not in (None, 4 * classes):
        raise ConversionError(
            f"{MODEL}: mrcnn_bbox_fc has {tensors.rows('box_predictor/deltas')} outputs; four for each of {classes} "
            "classes were expected."
        )
    tensors.edit("box_predictor/logits", lambda values: np.roll(values, -1, axis=-1))
    tensors.edit("box_predictor/deltas", lambda values: _xywh(values)[..., 4:])


def _mask_head(tensors: Tensors, classes: int) -> None:
    for i in range(4):
        keras_layer(tensors, f"mrcnn_mask_conv{i + 1}", f"mask_head/conv_{i}")
        _normed(tensors, f"mrcnn_mask_bn{i + 1}", f"mask_head/conv_{i}_bn")
    tensors.move("mrcnn_mask_deconv/kernel", "mask_head/deconv/kernel", rank=4)
    tensors.move("mrcnn_mask_deconv/bias", "mask_head/deconv/bias")
    keras_layer(tensors, "mrcnn_mask", "mask_head/logits")
    if tensors.rows("mask_head/logits") not in (None, classes):
        raise ConversionError(
            f"{MODEL}: mrcnn_mask has {tensors.rows('mask_head/logits')} masks for {classes} classes."
        )
    tensors.edit("mask_head/logits", lambda values: values[..., 1:])


def keras_layer(tensors: Tensors, theirs: str, ours: str, layout: Layout | None = None, rank: int = 4) -> None:
    """Takes a layer's kernel and bias."""
    tensors.move(f"{theirs}/kernel", f"{ours}/kernel", layout, rank)
    tensors.move(f"{theirs}/bias", f"{ours}/bias")


def _normed(tensors: Tensors, theirs: str, ours: str) -> None:
    """Takes a BatchNorm's four vectors."""
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        tensors.move(f"{theirs}/{name}", f"{ours}/{name}")


def _flattened(kernel: np.ndarray) -> np.ndarray:
    """(h, w, in, out) of a convolution as large as its input -> (h * w * in, out)."""
    return kernel.reshape(-1, kernel.shape[-1])


def _xywh(values: np.ndarray) -> np.ndarray:
    """The last axis in fours (y, x, h, w) -> (x, y, w, h)."""
    fours = values.reshape(*values.shape[:-1], -1, 4)
    return fours[..., [1, 0, 3, 2]].reshape(values.shape)
