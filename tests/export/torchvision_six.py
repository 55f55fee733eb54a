"""torchvision's six detectors with random weights that find some dozens of things in the golden photos.

Four have golden weights, of themselves or of a model with the same tensors and more. For the two "v2" ones, whose
BatchNorm can be trained, weights are made here in the manner of the golden folder's make/make_golden.py: seeded noise,
then each BatchNorm is given the statistics of the photos, and each last layer outputs of a certain spread, so that
scores are varied and confident.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_rcnn.convert import assign, convert_torchvision
from keras_rcnn.data import read_image
from keras_rcnn.torchvision_detectors import TORCHVISION_MODELS, torchvision_detector
from tests.shared import SHARED, golden_module, golden_state

PHOTOS = ("china", "china_wide", "astronaut_tall", "coffee_small")
MASK, MOBILENET = "maskrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"
# whose golden weights a model gets
_GOLDEN = {
    MASK: MASK,
    "fasterrcnn_resnet50_fpn": MASK,
    MOBILENET: MOBILENET,
    "fasterrcnn_mobilenet_v3_large_fpn": MOBILENET,
}
_CLASSES, _CHANNELS, _SEED = 91, 256, 3


def photos():
    """The golden photos as files."""
    return [SHARED / "golden" / "images" / f"{name}.png" for name in PHOTOS]


def detector(name, small=False):
    """One of the six, converted.

    The Mask R-CNN's golden weights are those of the Faster R-CNN, too, and the MobileNets differ in settings alone.

    Args:
        name: torchvision's.
        small: for tests: photos a third as large, the first 20 of 90 classes, and 200 proposals of 1000, so that there
            is less to compute, and four times less graph to convert.
    """
    classes = 21 if small else 91
    model = torchvision_detector(name, classes - 1)
    if small:
        own = model.preprocessor
        model.preprocessor = own.replace(min_size=max(own.min_size // 3, 160), max_size=own.max_size // 3)
        proposals = model.parts["proposals"]
        proposals.post_nms = (proposals.post_nms[0], min(proposals.post_nms[1], 200))
    if name in _GOLDEN:
        state = golden_state(_GOLDEN[name])
        state = {key: value for key, value in state.items() if name.startswith("mask") or ".mask_" not in key}
        _keep_classes(state, classes)
        assign(model, convert_torchvision(name, state))
    else:
        _calibrate(model, *_noise(name, classes))
    return model


def _keep_classes(state, classes):
    """Leaves the first classes, background included, and makes the others' detections up: the background is rarer."""
    for key, value in state.items():
        rows = {"cls_score": classes, "bbox_pred": 4 * classes, "mask_fcn_logits": classes}.get(key.split(".")[-2])
        if rows is not None and key.startswith("roi_heads."):
            state[key] = value[:rows]
    if classes < _CLASSES:
        state["roi_heads.box_predictor.cls_score.bias"][0] -= 1.5


def _noise(name, classes):
    """Weights of a "v2" model under PyTorch's names: the golden ResNet, and noise in front of it."""
    seeded = functools.partial(golden_module("weights").seeded, seed=_SEED)
    rng = np.random.default_rng(_SEED)
    found = {key: value for key, value in golden_state(MASK).items() if key.startswith("backbone.body.")}

    def layer(key, out, inner, size=None, bias=True):
        shape = (out, inner) if size is None else (out, inner, size, size)
        found[f"{key}.weight"] = seeded(f"{key}.weight", shape)
        if bias:
            found[f"{key}.bias"] = np.float32(rng.normal(0, 0.02, out))

    def with_norm(key, inner, size):
        layer(f"{key}.0", _CHANNELS, inner, size, bias=False)
        found[f"{key}.1.weight"] = np.float32(rng.uniform(0.7, 1.3, _CHANNELS))
        found[f"{key}.1.bias"] = np.float32(rng.normal(0, 0.15, _CHANNELS))
        found[f"{key}.1.running_mean"] = np.zeros(_CHANNELS, np.float32)
        found[f"{key}.1.running_var"] = np.ones(_CHANNELS, np.float32)

    for i, inner in enumerate((256, 512, 1024, 2048)):
        with_norm(f"backbone.fpn.inner_blocks.{i}", inner, 1)
        with_norm(f"backbone.fpn.layer_blocks.{i}", _CHANNELS, 3)
    for i in range(2):
        layer(f"rpn.head.conv.{i}.0", _CHANNELS, _CHANNELS, 3)
    layer("rpn.head.cls_logits", 3, _CHANNELS, 1)
    layer("rpn.head.bbox_pred", 12, _CHANNELS, 1)
    for i in range(4):
        with_norm(f"roi_heads.box_head.{i}", _CHANNELS, 3)
    layer("roi_heads.box_head.5", 1024, _CHANNELS * 49)
    layer("roi_heads.box_predictor.cls_score", classes, 1024)
    layer("roi_heads.box_predictor.bbox_pred", 4 * classes, 1024)
    if name.startswith("mask"):
        for i in range(4):
            with_norm(f"roi_heads.mask_head.{i}", _CHANNELS, 3)
        layer("roi_heads.mask_predictor.conv5_mask", _CHANNELS, _CHANNELS, 2)
        layer("roi_heads.mask_predictor.mask_fcn_logits", classes, _CHANNELS, 1)
    return found, rng


# === Calibration ===


def _calibrate(model, found, rng):
    """Gives the model the weights `found`, changed so that on the golden photos, at the size of the model's
    preprocessor, outputs are spread as a trained one's."""
    parts = model.parts

    def update():
        assign(model, convert_torchvision(model.name, found))

    def norms(key, layer, suffixes, *inputs):
        """The statistics of `inputs` for the BatchNorms `{suffix}_bn` of a layer, whose names there are `key.*.1`."""
        found_norms = {one.name: one for one in layer._flatten_layers() if one.name.endswith("_bn")}
        for one in found_norms.values():
            one.momentum = 0.0  # the moving averages become those of the last call
        layer(*inputs, training=True)
        for suffix, place in suffixes.items():
            one = found_norms[f"{suffix}_bn"]
            mean, variance = np.array(one.moving_mean), np.array(one.moving_variance)
            deviation = np.sqrt(variance)
            jitter = np.exp(rng.normal(0, 0.2, len(variance)))
            found[f"{key}.{place}.1.running_mean"] = np.float32(mean + 0.1 * deviation * rng.normal(size=len(mean)))
            # a channel whose variance is far below the others' would only amplify rounding
            found[f"{key}.{place}.1.running_var"] = np.float32(np.maximum(variance * jitter, 0.15 * variance.mean()))
        update()

    def last(key, rows, mean, spread):
        """Makes each output of the last layer `key` about `mean` with deviation `spread` on `rows` [n, inputs]."""
        weight = np.float64(found[f"{key}.weight"]).reshape(len(found[f"{key}.bias"]), -1)
        rows = np.float64(rows)
        middle = rows.mean(0)
        # orthogonal to what all rows have in common: no output is a small difference of large numbers
        weight -= np.outer(weight @ middle, middle) / (middle @ middle)
        mean, spread = (np.broadcast_to(np.float64(value), len(weight)) for value in (mean, spread))
        weight *= (spread / ((rows - middle) @ weight.T).std(0))[:, None]
        found[f"{key}.weight"] = np.float32(weight.reshape(found[f"{key}.weight"].shape))
        found[f"{key}.bias"] = np.float32(mean + 0.1 * spread * rng.normal(size=len(weight)) - weight @ middle)
        update()

    update()
    batch = model.preprocessor.batch([read_image(one) for one in photos()])
    # in a graph: Keras's eager functional model keeps every activation until its end, 22 GB at full size
    maps = tf.function(parts["backbone"])(batch["images"])
    levels = {f"{kind}_{i}": f"{kind}_blocks.{i}" for kind in ("inner", "output") for i in range(4)}
    levels = {key: place.replace("output", "layer") for key, place in levels.items()}
    norms("backbone.fpn", parts["neck"], levels, maps)
    features = parts["neck"](maps)

    # === Regions ===
    rows = []
    for x in features:
        for conv in parts["rpn_head"].convs:
            x = conv(x)
        x = np.reshape(x, (-1, _CHANNELS))
        rows.append(x[rng.integers(len(x), size=1000)])
    rows = np.concatenate(rows)
    last("rpn.head.cls_logits", rows, -1.0, 1.5)
    last("rpn.head.bbox_pred", rows, 0.0, np.tile([0.25, 0.25, 0.18, 0.18], 3))
    grid = parts["anchors"](features, batch["images"])
    regions, _ = parts["proposals"](grid, *parts["rpn_head"](features), batch["image_sizes"], training=False)
    chosen = np.sort(rng.permutation(regions.shape[1])[:300])
    some = np.array(regions)[:, chosen]

    # === Classes and boxes ===
    heads = {f"conv_{i}": str(i) for i in range(4)}
    pooled = parts["box_pool"](features, some)
    norms("roi_heads.box_head", parts["box_head"], heads, pooled)
    rows = np.reshape(parts["box_head"](pooled), (-1, 1024))
    spread = 1.6 + 1.6 * rng.random(model.num_classes + 1)
    spread[0] = 1.0
    last("roi_heads.box_predictor.cls_score", rows, 0.0, spread)
    last("roi_heads.box_predictor.bbox_pred", rows, 0.0, 0.6)
    logits, deltas = parts["box_predictor"](parts["box_head"](parts["box_pool"](features, regions)))
    logits = np.array(logits)
    # the background's bias, column 0 of torchvision's and the last of ours: up to 60 detections a photo
    step = np.float32(0.1)
    for _ in range(200):
        detections = parts["decoder"](logits, deltas, regions, batch["image_sizes"])
        if np.sum(np.asarray(detections["labels"]) >= 0) < 60 * len(PHOTOS):
            break
        logits[..., -1] += step
        found["roi_heads.box_predictor.cls_score.bias"][0] += step
    update()
    if not model.has_masks:
        return

    # === Masks ===
    pooled = parts["mask_pool"](features, detections["boxes"])
    norms("roi_heads.mask_head", parts["mask_head"], heads, pooled)
    x = np.reshape(pooled, (-1, *pooled.shape[2:]))[np.ravel(detections["labels"]) >= 0]
    x = parts["mask_head"].deconv(parts["mask_head"]._run_convs(x, False))
    rows = np.reshape(x, (-1, _CHANNELS))
    last("roi_heads.mask_predictor.mask_fcn_logits", rows[rng.integers(len(rows), size=8000)], 0.3, 3.0)


ALL = TORCHVISION_MODELS
