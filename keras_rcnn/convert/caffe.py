"""Caffe's weights -> ours, by `variable.path`: VGG16, CaffeNet and ZF, and the R-CNNs that were published on them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.convert.caffe_file import read_caffemodel
from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.keras_applications import convert_keras_applications
from keras_rcnn.convert.keras_file import read_keras_h5
from keras_rcnn.convert.layouts import Tensors, conv, dense_after_flatten
from keras_rcnn.convert.torch_file import read_torch_file
from keras_rcnn.interfaces import FilePath


class _Network(NamedTuple):
    convs: tuple  # names, the first sees the image
    first: int  # side of the first one's kernel
    side: int  # cells a side that fc6 sees
    dropped: float = 1.0  # what dropout multiplies fc6's and fc7's outputs by in testing


_FIVE = tuple(f"conv{i}" for i in range(1, 6))
CAFFE_MODELS = {
    "vgg16": _Network(tuple(f"conv{i}_{j}" for i in range(1, 6) for j in range(1, 3 if i < 3 else 4)), 3, 7),
    "caffenet": _Network(_FIVE, 11, 6),
    # its dropout has `scale_train: false`: nothing is scaled up in training, and everything down in testing. Ours is
    # the other kind, so what follows a dropout is scaled down here
    "zf": _Network(_FIVE, 7, 6, 0.5),
}
# of RGB in 0..255; these networks take images minus it, not divided by a deviation
CAFFE_MEAN = (122.7717, 115.9465, 102.9801)
HEADS = ("fc6", "fc7", "cls_score", "bbox_pred", "rpn_conv/3x3", "rpn_cls_score", "rpn_bbox_pred")
DENSE = ("fc6", "fc7", "cls_score", "bbox_pred")
# the classifiers of ImageNet and of R-CNN's fine-tuning
CLASSIFIERS = ("fc8", "fc8_pascal", "fc-rcnn")
ASPECT_RATIOS = (0.5, 1.0, 2.0)
# anchors a cell -> their sizes in px: those of the paper, and of py-faster-rcnn's COCO models
ANCHOR_SIZES: dict[int, tuple[int, ...]] = {9: (128, 256, 512), 12: (64, 128, 256, 512)}


def convert_caffe(
    model: str,
    blobs: Mapping[str, Sequence[np.ndarray]],
    *,
    heads: bool = True,
    box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    anchor_sizes: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """The weights of VGG16, CaffeNet or ZF, or of a Fast or Faster R-CNN on one of them, as ours.

    What differs and is taken care of: conv1 sees BGR in Caffe and RGB here; fc6 sees C x H x W cells in Caffe and
    H x W x C here; the background is Caffe's first class and our last, and has no box here; of the RPN's two scores an
    anchor the difference is our objectness. fc8, the classifier of ImageNet, is left out.

    Args:
        model: `"vgg16"`, `"caffenet"` or `"zf"`.
        blobs: dict, layer name -> list of arrays, as `read_caffemodel` gives it. It is not changed.
        heads: whether fc6, fc7 and the R-CNN's own layers are wanted, or the backbone alone.
        box_weights: weights of the deltas (dx, dy, dw, dh) of the detector's `BoxTargets` and decoder. Published
            weights of `bbox_pred` are already denormalised, that is, of weights 1, 1, 1, 1: they are multiplied.
        anchor_sizes: px, of the detector's `AnchorGenerator([anchor_sizes])`; by default (128, 256, 512) for 9 anchors
            a cell, as in the paper, and (64, 128, 256, 512) for 12, as in the COCO models. py-faster-rcnn's anchors
            have their centres 8 px further right and down, and other roundings; that goes into the RPN's deltas, and
            the proposals are the same.

    Returns:
        A dict, `variable.path` -> float32 array: `conv1_1/kernel` of the backbone, `box_head/fc_0` and `fc_1` (fc6 and
        fc7), and where the blobs have them `box_predictor/...` and `rpn_head/...`.

    Raises:
        ConversionError: if a blob is missing, left over, misshapen or not finite.

    Example:

    >>> blobs = read_caffemodel("VGG_ILSVRC_16_layers.caffemodel")
    >>> assign(backbone, convert_caffe("vgg16", blobs, heads=False))
    """
    if model not in CAFFE_MODELS:
        raise ConversionError(f"{model!r} is none of the Caffe models that convert: {', '.join(CAFFE_MODELS)}.")
    network = CAFFE_MODELS[model]
    side, scale = network.side, network.dropped
    unwanted = CLASSIFIERS if heads else CLASSIFIERS + HEADS
    state = {}
    for name, arrays in blobs.items():
        if name not in unwanted:
            state.update(_kernel_and_bias(model, name, arrays))
    tensors = Tensors(state, model)
    for i, name in enumerate(network.convs):
        tensors.conv(name, name, (lambda kernel: _conv_of_bgr(kernel, network.first)) if i == 0 else conv, bias=True)
    if heads and not tensors.missing:
        has_rpn = any(name.startswith("rpn_") for name in blobs)
        if not has_rpn or any(name in blobs for name in DENSE):  # the stages of 4-step training have an RPN alone
            tensors.dense("fc6", "box_head/fc_0", lambda kernel: dense_after_flatten(kernel, side, side))
            tensors.dense("fc7", "box_head/fc_1", lambda kernel: kernel.T * np.float32(scale))
        if any(name in blobs for name in ("cls_score", "bbox_pred")):
            _box_predictor(tensors, scale, box_weights)
        if has_rpn:
            _rpn_head(tensors, anchor_sizes)
    return tensors.finish(_hint(model, blobs))


def read_caffe_weights(model: str, path: FilePath, heads: bool = True) -> dict[str, np.ndarray]:
    """The weights in a .caffemodel, or in the .safetensors that `keras-rcnn convert caffe` made of one, as ours.

    VGG16's may also be in the `.h5` of `keras.applications`.

    Args:
        model: `"vgg16"`, `"caffenet"` or `"zf"`.
        path: str or path. A `.h5` or `.hdf5` is known by its name; of the others the content tells.
        heads: whether all are wanted, or the backbone's alone.

    Returns:
        A dict, `variable.path` -> float32 array.

    Raises:
        ConversionError: as `read_caffemodel` and `convert_caffe`.
        WeightsFileError: if a .safetensors file is truncated or malformed.
        FileNotFoundError: if there is no such file.

    Example:

    >>> values = read_caffe_weights("vgg16", "DIR/weights.safetensors")
    >>> box_head = {path: value for path, value in values.items() if path.startswith("box_head/")}
    >>> assign(detector.get_layer("box_head"), box_head)
    """
    if model == "vgg16" and str(path).endswith((".h5", ".hdf5")):
        return convert_keras_applications(model, read_keras_h5(path), heads)
    if not _is_safetensors(path):
        return convert_caffe(model, read_caffemodel(path), heads=heads)
    values = read_torch_file(path)
    return values if heads else {name: value for name, value in values.items() if name.startswith("conv")}


def _is_safetensors(path: FilePath) -> bool:
    path = Path(path)
    if not path.is_file():
        return False  # read_caffemodel says what it is
    with open(path, "rb") as file:
        head = file.read(9)
    # the length of its header and the header's brace; a .caffemodel's first bytes are a name, a huge length
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path) - 8


def _kernel_and_bias(model: str, name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    if len(arrays) != 2:
        raise ConversionError(f"{model}: {name} has {len(arrays)} blobs; a kernel and a bias were expected.")
    kernel, bias = arrays
    if name in DENSE and kernel.ndim == 4 and kernel.shape[:2] == (1, 1):  # blobs had four axes, always, until 2015
        kernel = kernel[0, 0]
    if bias.ndim == 4 and bias.shape[:3] == (1, 1, 1):
        bias = bias[0, 0, 0]
    return {f"{name}.weight": kernel, f"{name}.bias": bias}


def _hint(model: str, blobs: Mapping[str, Sequence[np.ndarray]]) -> str:
    for other, network in CAFFE_MODELS.items():
        if set(network.convs) <= set(blobs) and np.shape(blobs[network.convs[0]][0])[-1] == network.first:
            return f" They look like those of {other}." if other != model else ""
    return ""


# === Parts ===


def _conv_of_bgr(kernel: np.ndarray, side: int) -> np.ndarray:
    if kernel.shape[1:] != (3, side, side):
        raise ValueError(f"{side} x {side} cells of three channels, BGR, were expected")
    return conv(kernel[:, ::-1])


def _box_predictor(tensors: Tensors, scale: float, box_weights: Sequence[float]) -> None:
    tensors.dense("cls_score", "box_predictor/logits", lambda kernel: kernel.T * np.float32(scale))
    tensors.dense("bbox_pred", "box_predictor/deltas", lambda kernel: kernel.T * np.float32(scale))
    rows: dict[str, Any] = {path: tensors.rows(f"box_predictor/{path}") for path in ("logits", "deltas")}
    if None in rows.values():
        return
    if rows["logits"] < 2 or rows["deltas"] != 4 * rows["logits"]:
        raise ConversionError(
            f"{tensors.model}: {rows['logits']} class logits and {rows['deltas']} box deltas; K + 1 and 4 * (K + 1) "
            "were expected."
        )
    weights = np.tile(np.asarray(box_weights, np.float32), rows["logits"] - 1)
    tensors.edit("box_predictor/logits", lambda value: np.roll(value, -1, axis=-1))
    tensors.edit("box_predictor/deltas", lambda value: value[..., 4:] * weights)


def _rpn_head(tensors: Tensors, anchor_sizes: Sequence[float] | None) -> None:
    tensors.conv("rpn_conv/3x3", "rpn_head/conv_0", bias=True)
    tensors.conv("rpn_cls_score", "rpn_head/objectness", bias=True)
    tensors.conv("rpn_bbox_pred", "rpn_head/deltas", bias=True)
    rows = {path: tensors.rows(f"rpn_head/{path}") for path in ("objectness", "deltas")}
    if None in rows.values():
        return
    if anchor_sizes is None:
        anchor_sizes = ANCHOR_SIZES.get(rows["objectness"] // 2, ANCHOR_SIZES[9])
    count = len(ASPECT_RATIOS) * len(anchor_sizes)
    if rows != {"objectness": 2 * count, "deltas": 4 * count}:
        raise ConversionError(
            f"{tensors.model}: the RPN has {rows['objectness']} scores and {rows['deltas']} deltas a cell; "
            f"{2 * count} and {4 * count} were expected for anchors of {list(anchor_sizes)} px in 3 shapes. "
            "Pass the detector's `anchor_sizes`."
        )
    # the first A channels are the background's; a softmax over two is the sigmoid of their difference
    tensors.edit("rpn_head/objectness", lambda value: value[..., count:] - value[..., :count])
    factor, offset = _between_anchors(_caffe_anchors(anchor_sizes), _our_anchors(anchor_sizes))
    tensors.edit("rpn_head/deltas", lambda value: value * factor + (offset if value.ndim == 1 else 0))


# === Anchors ===


def _caffe_anchors(sizes: ArrayLike) -> np.ndarray:
    """py-faster-rcnn's anchors of a cell at 0, xyxy with the far corner exclusive, the shapes outermost.

    Sides are rounded for a 16 x 16 square, then scaled, and centred at the square's centre.
    """
    widths = np.round(np.sqrt(16 * 16 / np.asarray(ASPECT_RATIOS)))
    sides = np.stack([widths, np.round(widths * ASPECT_RATIOS)], axis=-1)  # [shapes, 2]
    half = (sides[:, None] * (np.asarray(sizes, float) / 16)[None, :, None]).reshape(-1, 2) / 2
    return np.concatenate([8 - half, 8 + half], axis=-1)


def _our_anchors(sizes: ArrayLike) -> np.ndarray:
    """The same of `keras_rcnn.ops.anchors.cell_anchors`, which this room does not import."""
    ratios = np.sqrt(np.asarray(ASPECT_RATIOS, np.float32))[:, None]
    sizes = np.asarray(sizes, np.float32)
    half = np.round(np.stack([sizes / ratios, sizes * ratios], axis=-1).reshape(-1, 2) / 2)
    return np.concatenate([-half, half], axis=-1).astype(float)


def _between_anchors(theirs: np.ndarray, ours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`factor, offset` [A * 4]: deltas of their anchors times factor plus offset are those of the same box for ours.

    dx * w + x is the same, and dw + log(w), so both are linear.
    """
    size, our_size = theirs[:, 2:] - theirs[:, :2], ours[:, 2:] - ours[:, :2]
    shift = (theirs[:, :2] + theirs[:, 2:] - ours[:, :2] - ours[:, 2:]) / 2
    factor = np.concatenate([size / our_size, np.ones_like(size)], axis=-1)
    offset = np.concatenate([shift / our_size, np.log(size / our_size)], axis=-1)
    return factor.ravel().astype(np.float32), offset.ravel().astype(np.float32)
