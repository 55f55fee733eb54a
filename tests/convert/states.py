"""Random state dicts with torchvision's names, written down a second time and without the converter.

Bodies have their true shapes; the heads may be narrow, which the converter does not mind.
"""

import numpy as np

RESNETS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# kernel, expanded, out, squeeze channels (0: none), of features 1 to 15
MOBILENET = (
    (3, 16, 16, 0),
    (3, 64, 24, 0),
    (3, 72, 24, 0),
    (5, 72, 40, 24),
    (5, 120, 40, 32),
    (5, 120, 40, 32),
    (3, 240, 80, 0),
    (3, 200, 80, 0),
    (3, 184, 80, 0),
    (3, 184, 80, 0),
    (3, 480, 112, 120),
    (3, 672, 112, 168),
    (5, 672, 160, 168),
    (5, 960, 160, 240),
    (5, 960, 160, 240),
)
# expansion, kernel, out, of EfficientNet-Lite0's 16 blocks
LITE0 = [(1, 3, 16)] + [(6, 3, 24)] * 2 + [(6, 5, 40)] * 2 + [(6, 3, 80)] * 3 + [(6, 5, 112)] * 3
LITE0 += [(6, 5, 192)] * 4 + [(6, 3, 320)]


class State(dict):
    """A state dict that is filled layer by layer."""

    def __init__(self, seed=0):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def conv(self, name, out, inner, size=1, bias=False):
        shape = (out, inner, size, size) if size else (out, inner)
        self[f"{name}.weight"] = self.rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        if bias:
            self[f"{name}.bias"] = self.rng.normal(0, 0.1, out).astype(np.float32)

    def dense(self, name, out, inner):
        self.conv(name, out, inner, size=0, bias=True)

    def layer_norm(self, name, channels):
        self[f"{name}.weight"] = self.rng.uniform(0.5, 1.5, channels).astype(np.float32)
        self[f"{name}.bias"] = self.rng.uniform(-0.2, 0.2, channels).astype(np.float32)

    def norm(self, name, channels):
        for part, low, high in (
            ("weight", 0.5, 0.9),
            ("bias", -0.2, 0.2),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
        ):
            self[f"{name}.{part}"] = self.rng.uniform(low, high, channels).astype(np.float32)
        self[f"{name}.num_batches_tracked"] = np.array(7)


def resnet(depth, prefix="", state=None, groups=1, width_per_group=64):
    state = State() if state is None else state
    state.conv(f"{prefix}conv1", 64, 3, 7)
    state.norm(f"{prefix}bn1", 64)
    inner = 64
    for stage, blocks in enumerate(RESNETS[depth]):
        planes = 64 * 2**stage
        width, out = (planes, planes) if depth < 50 else (planes * width_per_group // 64 * groups, 4 * planes)
        for block in range(blocks):
            name = f"{prefix}layer{stage + 1}.{block}"
            if depth < 50:
                state.conv(f"{name}.conv1", planes, inner, 3)
                state.norm(f"{name}.bn1", planes)
                state.conv(f"{name}.conv2", planes, planes, 3)
                state.norm(f"{name}.bn2", planes)
            else:
                state.conv(f"{name}.conv1", width, inner)
                state.norm(f"{name}.bn1", width)
                state.conv(f"{name}.conv2", width, width // groups, 3)
                state.norm(f"{name}.bn2", width)
                state.conv(f"{name}.conv3", out, width)
                state.norm(f"{name}.bn3", out)
            if block == 0 and inner != out:
                state.conv(f"{name}.downsample.0", out, inner)
                state.norm(f"{name}.downsample.1", out)
            inner = out
    if not prefix:
        state.dense("fc", 10, inner)
    return state


def convnext(blocks=(3, 3, 9, 3), channels=(96, 192, 384, 768)):
    state = State()
    state.conv("features.0.0", channels[0], 3, 4, bias=True)
    state.layer_norm("features.0.1", channels[0])
    for stage, (count, width) in enumerate(zip(blocks, channels, strict=True)):
        if stage:
            state.layer_norm(f"features.{2 * stage}.0", channels[stage - 1])
            state.conv(f"features.{2 * stage}.1", width, channels[stage - 1], 2, bias=True)
        for block in range(count):
            name = f"features.{2 * stage + 1}.{block}"
            state[f"{name}.layer_scale"] = state.rng.uniform(0.1, 0.5, (width, 1, 1)).astype(np.float32)
            state.conv(f"{name}.block.0", width, 1, 7, bias=True)
            state.layer_norm(f"{name}.block.2", width)
            state.dense(f"{name}.block.3", 4 * width, width)
            state.dense(f"{name}.block.5", width, 4 * width)
    state.layer_norm("classifier.0", channels[-1])
    state.dense("classifier.2", 10, channels[-1])
    return state


def mobilenet(prefix="features.", state=None):
    state = State() if state is None else state
    state.conv(f"{prefix}0.0", 16, 3, 3)
    state.norm(f"{prefix}0.1", 16)
    inner = 16
    for i, (size, expanded, out, squeeze) in enumerate(MOBILENET, start=1):
        layer = iter(range(4))
        if expanded != inner:
            step = f"{prefix}{i}.block.{next(layer)}"
            state.conv(f"{step}.0", expanded, inner)
            state.norm(f"{step}.1", expanded)
        step = f"{prefix}{i}.block.{next(layer)}"
        state.conv(f"{step}.0", expanded, 1, size)
        state.norm(f"{step}.1", expanded)
        if squeeze:
            step = f"{prefix}{i}.block.{next(layer)}"
            state.conv(f"{step}.fc1", squeeze, expanded, bias=True)
            state.conv(f"{step}.fc2", expanded, squeeze, bias=True)
        step = f"{prefix}{i}.block.{next(layer)}"
        state.conv(f"{step}.0", out, expanded)
        state.norm(f"{step}.1", out)
        inner = out
    state.conv(f"{prefix}16.0", 960, inner)
    state.norm(f"{prefix}16.1", 960)
    if prefix == "features.":
        state.dense("classifier.0", 8, 960)
        state.dense("classifier.3", 4, 8)
    return state


def lite0():
    state = State()
    state.conv("_conv_stem", 32, 3, 3)
    state.norm("_bn0", 32)
    inner = 32
    for i, (expansion, size, out) in enumerate(LITE0):
        wide = inner * expansion
        if expansion > 1:
            state.conv(f"_blocks.{i}._expand_conv", wide, inner)
            state.norm(f"_blocks.{i}._bn0", wide)
        state.conv(f"_blocks.{i}._depthwise_conv", wide, 1, size)
        state.norm(f"_blocks.{i}._bn1", wide)
        state.conv(f"_blocks.{i}._project_conv", out, wide)
        state.norm(f"_blocks.{i}._bn2", out)
        inner = out
    state.conv("_conv_head", 1280, inner)
    state.norm("_bn1", 1280)
    state.dense("_fc", 10, 1280)
    return state


def detector(name, classes=4, width=6):
    """One of torchvision's detectors; `classes` counts the background, `width` is that of FPN and heads."""
    state, second = State(), name.endswith("_v2")
    if "mobilenet" in name:
        mobilenet("backbone.body.", state)
        inputs, anchors = (160, 960), 15
    else:
        resnet(50, "backbone.body.", state)
        inputs, anchors = (256, 512, 1024, 2048), 3
    for block, size in (("inner", 1), ("layer", 3)):
        for i, channels in enumerate(inputs):
            place = f"backbone.fpn.{block}_blocks.{i}"
            state.conv(f"{place}.0", width, channels if block == "inner" else width, size, bias=not second)
            if second:
                state.norm(f"{place}.1", width)
    for i in range(2 if second else 1):
        state.conv(f"rpn.head.conv.{i}.0", width, width, 3, bias=True)
    state.conv("rpn.head.cls_logits", anchors, width, bias=True)
    state.conv("rpn.head.bbox_pred", 4 * anchors, width, bias=True)
    if second:
        for i in range(4):
            state.conv(f"roi_heads.box_head.{i}.0", width, width, 3)
            state.norm(f"roi_heads.box_head.{i}.1", width)
        state.dense("roi_heads.box_head.5", 12, width * 49)
    else:
        state.dense("roi_heads.box_head.fc6", 12, width * 49)
        state.dense("roi_heads.box_head.fc7", 12, 12)
    state.dense("roi_heads.box_predictor.cls_score", classes, 12)
    state.dense("roi_heads.box_predictor.bbox_pred", 4 * classes, 12)
    if name.startswith("mask"):
        for i in range(4):
            state.conv(f"roi_heads.mask_head.{i}.0", width, width, 3, bias=not second)
            if second:
                state.norm(f"roi_heads.mask_head.{i}.1", width)
        state.conv("roi_heads.mask_predictor.conv5_mask", width, width, 2, bias=True)
        state.conv("roi_heads.mask_predictor.mask_fcn_logits", classes, width, bias=True)
    return state
