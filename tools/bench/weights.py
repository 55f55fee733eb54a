"""Seeded weights in torchvision's names, for machines without a checkpoint: the same on both sides, NumPy alone.

Noise whose variance keeps the features' size from layer to layer; kernels sum to zero over what they read wherever it
has been rectified, so that the mean of rectified values does not grow into all there is. The last layers are scaled so
that every stage is as busy as with trained weights: 1000 proposals from all levels, 100 detections with masks.
"""

import zlib

import numpy as np

# ResNet-50: blocks and channels of each stage
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
# MobileNetV3-Large: side of the kernel, channels within, channels behind, whether it squeezes and excites
_BLOCKS = (
    *((3, 16, 16, False), (3, 64, 24, False), (3, 72, 24, False), (5, 72, 40, True), (5, 120, 40, True)),
    *((5, 120, 40, True), (3, 240, 80, False), (3, 200, 80, False), (3, 184, 80, False), (3, 184, 80, False)),
    *((3, 480, 112, True), (3, 672, 112, True), (5, 672, 160, True), (5, 960, 160, True), (5, 960, 160, True)),
)
# of a rectified normal variable the variance is 0.34, the mean square 0.5
_RECTIFIED = 0.34


def seeded_weights(model, seed=0, classes=91):
    """A whole checkpoint.

    Args:
        model: torchvision's name of the detector, such as `"maskrcnn_resnet50_fpn"`.
        seed: int.
        classes: int, background included.

    Returns:
        dict, name -> float32 array in PyTorch's layout, as `model.state_dict()` of torchvision has them, without
        `num_batches_tracked`.

    Raises:
        ValueError: for a model that is none of torchvision's six on ResNet-50 and MobileNetV3-Large.
    """
    second, small = model.endswith("_v2"), "mobilenet_v3_large" in model
    if not (small or "resnet50" in model) or "_fpn" not in model:
        raise ValueError(f"There are no seeded weights for {model!r}, only for detectors on resnet50 and mobilenet.")
    state = _State(seed)
    (_mobilenet if small else _resnet)(state)
    _fpn(state, (160, 960) if small else (256, 512, 1024, 2048), second)
    _rpn(state, 15 if small else 3, 2 if second else 1)
    _box_head(state, second, classes)
    if model.startswith("maskrcnn"):
        _mask_head(state, second, classes)
    return state.values


class _State:
    def __init__(self, seed):
        self.seed, self.values = seed, {}

    def noise(self, name, shape, size):
        """Normal noise of PCG64's stream of (seed, crc32 of the tensor's name), as the golden weights have it."""
        rng = np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(name.encode())]))
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(size)

    def kernel(self, name, shape, scale=1.0, rectified=True, bias=None):
        """A convolution's or dense layer's weights, whose outputs have the variance `scale ** 2`."""
        read = int(np.prod(shape[1:]))
        value = self.noise(f"{name}.weight", shape, scale / np.sqrt(read * (_RECTIFIED if rectified else 1.0)))
        if rectified and shape[1] > 1:
            value -= value.mean(axis=1, keepdims=True)
        self.values[f"{name}.weight"] = value
        if bias is not None:
            self.values[f"{name}.bias"] = np.full(shape[0], bias, np.float32)

    def norm(self, name, channels, scale=1.0):
        """A batch normalisation that multiplies by `scale`: the kernels before it leave nothing to normalise."""
        for part, value in (("weight", scale), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.values[f"{name}.{part}"] = np.full(channels, value, np.float32)


def _resnet(state):
    body = "backbone.body."
    state.kernel(f"{body}conv1", (64, 3, 7, 7), 2.0, rectified=False)
    state.norm(f"{body}bn1", 64)
    before = 64
    for stage, (blocks, channels) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            name = f"{body}layer{stage}.{block}"
            shapes = (channels, before, 1, 1), (channels, channels, 3, 3), (4 * channels, channels, 1, 1)
            for i, shape in enumerate(shapes, start=1):
                state.kernel(f"{name}.conv{i}", shape)
                # the branch is weaker than the identity, as in trained networks
                state.norm(f"{name}.bn{i}", shape[0], 0.4 if i == 3 else 1.0)
            if block == 0:
                state.kernel(f"{name}.downsample.0", (4 * channels, before, 1, 1))
                state.norm(f"{name}.downsample.1", 4 * channels)
            before = 4 * channels


def _mobilenet(state):
    body, before = "backbone.body.", 16
    state.kernel(f"{body}0.0", (16, 3, 3, 3), 2.0, rectified=False)
    state.norm(f"{body}0.1", 16)
    for i, (side, within, behind, squeezes) in enumerate(_BLOCKS, start=1):
        name, step = f"{body}{i}.block", 0
        if within != before:
            state.kernel(f"{name}.0.0", (within, before, 1, 1), rectified=False)
            state.norm(f"{name}.0.1", within)
            step = 1
        state.kernel(f"{name}.{step}.0", (within, 1, side, side))
        state.norm(f"{name}.{step}.1", within)
        if squeezes:
            step += 1
            inner = max(8, (within // 4 + 4) // 8 * 8)
            inner += 8 if inner < 0.9 * (within // 4) else 0
            state.kernel(f"{name}.{step}.fc1", (inner, within, 1, 1), bias=0.0)
            state.kernel(f"{name}.{step}.fc2", (within, inner, 1, 1), bias=3.0)  # a gate that is all but open
        state.kernel(f"{name}.{step + 1}.0", (behind, within, 1, 1))
        state.norm(f"{name}.{step + 1}.1", behind)
        before = behind
    state.kernel(f"{body}16.0", (960, 160, 1, 1), rectified=False)
    state.norm(f"{body}16.1", 960)


def _fpn(state, channels, norm):
    # found by trial: the maps' sizes are about 1, the coarser ones the larger, so that all levels have proposals
    scales = (0.04, 0.06, 0.1, 0.17) if len(channels) == 4 else (0.003, 0.005)
    for i, (read, scale) in enumerate(zip(channels, scales)):
        for kind, shape, size in (("inner", (256, read, 1, 1), 1.0), ("layer", (256, 256, 3, 3), scale)):
            name = f"backbone.fpn.{kind}_blocks.{i}"
            state.kernel(f"{name}.0", shape, size, rectified=kind == "inner", bias=None if norm else 0.0)
            if norm:
                state.norm(f"{name}.1", 256)


def _rpn(state, anchors, convs):
    for i in range(convs):
        state.kernel(f"rpn.head.conv.{i}.0", (256, 256, 3, 3), rectified=i > 0, bias=0.0)
    state.kernel("rpn.head.cls_logits", (anchors, 256, 1, 1), 1.5, bias=-1.0)
    state.kernel("rpn.head.bbox_pred", (4 * anchors, 256, 1, 1), 0.2, bias=0.0)


def _box_head(state, second, classes):
    head = "roi_heads.box_head."
    if second:
        for i in range(4):
            state.kernel(f"{head}{i}.0", (256, 256, 3, 3), rectified=i > 0)
            state.norm(f"{head}{i}.1", 256)
        state.kernel(f"{head}5", (1024, 256 * 49), bias=0.0)
    else:
        state.kernel(f"{head}fc6", (1024, 256 * 49), rectified=False, bias=0.0)
        state.kernel(f"{head}fc7", (1024, 1024), bias=0.0)
    state.kernel("roi_heads.box_predictor.cls_score", (classes, 1024), 2.5, bias=0.0)
    state.values["roi_heads.box_predictor.cls_score.bias"][0] = 4.5  # most regions are background
    state.kernel("roi_heads.box_predictor.bbox_pred", (4 * classes, 1024), 0.6, bias=0.0)


def _mask_head(state, norm, classes):
    head = "roi_heads.mask_"
    for i in range(4):
        state.kernel(f"{head}head.{i}.0", (256, 256, 3, 3), rectified=i > 0, bias=None if norm else 0.0)
        if norm:
            state.norm(f"{head}head.{i}.1", 256)
    # of a transposed convolution the first axis is what it reads; each output reads one cell
    state.kernel(f"{head}predictor.conv5_mask", (256, 256, 2, 2), 2.0, bias=0.0)
    state.kernel(f"{head}predictor.mask_fcn_logits", (classes, 256, 1, 1), 3.0, bias=0.0)
