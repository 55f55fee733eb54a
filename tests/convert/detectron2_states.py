"""The tensors of Detectron2's models, written down a second time from its own code: names and shapes, in order."""

import numpy as np

from keras_rcnn.convert import detectron2_config

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def norm_tensors(name, channels, norm):
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)
    if norm != "GN":
        yield f"{name}.running_mean", (channels,)
        yield f"{name}.running_var", (channels,)
    if norm == "SyncBN":
        yield f"{name}.num_batches_tracked", ()


def conv(name, out, channels, size, norm=""):
    yield f"{name}.weight", (out, channels, size, size)
    if norm:
        yield from norm_tensors(f"{name}.norm", out, norm)
    else:
        yield f"{name}.bias", (out,)


def stage(prefix, index, config):
    """res2 to res5."""
    depth, norm = config["MODEL.RESNETS.DEPTH"], config["MODEL.RESNETS.NORM"]
    groups = config["MODEL.RESNETS.NUM_GROUPS"]
    width = groups * config["MODEL.RESNETS.WIDTH_PER_GROUP"] * 2 ** (index - 2)
    out = 2 ** (index + 6)
    for block in range(BLOCKS[depth][index - 2]):
        name = f"{prefix}res{index}.{block}"
        before = out if block else 64 if index == 2 else out // 2
        if block == 0:
            yield from conv(f"{name}.shortcut", out, before, 1, norm)
        yield from conv(f"{name}.conv1", width, before, 1, norm)
        yield from conv(f"{name}.conv2", width, width // groups, 3, norm)
        yield from conv(f"{name}.conv3", out, width, 1, norm)


def dense(name, out, features):
    yield f"{name}.weight", (out, features)
    yield f"{name}.bias", (out,)


def tensors(name):
    """`[(name, shape)]` of the state dict of one of the zoo's models."""
    return list(_tensors(detectron2_config(name)))


def _tensors(config):
    first = config["MODEL.ROI_HEADS.IN_FEATURES"][0]
    body = "backbone." if first in ("res4", "res5") else "backbone.bottom_up."
    channels = {"res4": 1024, "res5": 2048}.get(first, 256)
    if channels == 256:
        for i in range(2, 6):
            yield from conv(f"backbone.fpn_lateral{i}", 256, 2 ** (i + 6), 1, config["MODEL.FPN.NORM"])
            yield from conv(f"backbone.fpn_output{i}", 256, 256, 3, config["MODEL.FPN.NORM"])
    yield from conv(f"{body}stem.conv1", 64, 3, 7, config["MODEL.RESNETS.NORM"])
    for index in (2, 3, 4) if first == "res4" else (2, 3, 4, 5):
        yield from stage(body, index, config)
    if not config["MODEL.LOAD_PROPOSALS"]:
        yield from _rpn(config, channels)
    yield from _heads(config, first, channels)


def _rpn(config, channels):
    name, count = "proposal_generator.rpn_head", len(config["MODEL.RPN.CONV_DIMS"])
    anchors = 3 * len(config["MODEL.ANCHOR_GENERATOR.SIZES"][0])
    for i in range(count):
        yield from conv(f"{name}.conv.conv{i}" if count > 1 else f"{name}.conv", channels, channels, 3)
    yield from conv(f"{name}.objectness_logits", anchors, channels, 1)
    yield from conv(f"{name}.anchor_deltas", 4 * anchors, channels, 1)


def _heads(config, first, channels):
    classes, features = config["MODEL.ROI_HEADS.NUM_CLASSES"], 1024
    if first == "res4":
        yield from stage("roi_heads.", 5, config)
        features = mask_channels = 2048
    cascade = config["MODEL.ROI_HEADS.NAME"] == "CascadeROIHeads"
    stages = (".0", ".1", ".2") if cascade else ("",)
    for number in stages if first != "res4" else ():
        convs, head = config["MODEL.ROI_BOX_HEAD.NUM_CONV"], f"roi_heads.box_head{number}"
        for i in range(convs):
            yield from conv(f"{head}.conv{i + 1}", 256, 256, 3, config["MODEL.ROI_BOX_HEAD.NORM"])
        yield from dense(f"{head}.fc1", 1024, 49 * (256 if convs else channels))
        if not convs:
            yield from dense(f"{head}.fc2", 1024, 1024)
    for number in stages:
        yield from dense(f"roi_heads.box_predictor{number}.cls_score", classes + 1, features)
        yield from dense(f"roi_heads.box_predictor{number}.bbox_pred", 4 if cascade else 4 * classes, features)
    for i, out in enumerate(config["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"] if config["MODEL.KEYPOINT_ON"] else ()):
        yield from conv(f"roi_heads.keypoint_head.conv_fcn{i + 1}", out, 512 if i else channels, 3)
    if config["MODEL.KEYPOINT_ON"]:
        yield "roi_heads.keypoint_head.score_lowres.weight", (512, 17, 4, 4)
        yield "roi_heads.keypoint_head.score_lowres.bias", (17,)
    if not config["MODEL.MASK_ON"]:
        return
    if first != "res4":
        mask_channels = 256
        for i in range(4):
            before = 256 if i else channels
            yield from conv(f"roi_heads.mask_head.mask_fcn{i + 1}", 256, before, 3, config["MODEL.ROI_MASK_HEAD.NORM"])
    yield "roi_heads.mask_head.deconv.weight", (mask_channels, 256, 2, 2)
    yield "roi_heads.mask_head.deconv.bias", (256,)
    yield from conv("roi_heads.mask_head.predictor", classes, 256, 1)


def random_state(name, seed=0):
    """A state dict of random numbers."""
    rng = np.random.default_rng(seed)
    return {key: rng.random(shape, np.float32) if shape else np.array(7, np.int64) for key, shape in tensors(name)}
