"""ResNet (He et al. 2015) and ResNeXt (Xie et al. 2017), in torchvision's form and in Detectron2's."""

from typing import Literal

import keras
from keras import layers

from keras_rcnn.backbones.base import Backbone, Parts
from keras_rcnn.interfaces import FilePath, Tensor

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)  # of two 3x3 convolutions a block


@keras.saving.register_keras_serializable("keras_rcnn")
class ResNet(Backbone):
    """ResNet's body: the maps C2 to C5 of strides 4 to 32 with 256, 512, 1024 and 2048 channels (depth 18 and 34: 64,
    128, 256, 512). With `groups` and `width_per_group` it is ResNeXt's.

    Args:
        depth: int: 18, 34, 50, 101 or 152.
        weights: None (random), `"imagenet"`, torchvision's published ImageNet weights (IMAGENET1K_V1), downloaded the
            first time, or the path of such a file, such as resnet50-0676ba61.pth, or of a `.pkl` that Detectron2's
            training begins with, such as MSRA's R-50.pkl (with `stride_in_1x1=True`, and BGR images from a
            `Preprocessor` as `keras_rcnn.detectron2_detectors` has it); the classifier in it is left out.
        norm: `"frozen"`, statistics and scales as loaded, `"batch"`, BatchNormalization, or `"group"`,
            GroupNormalization in 32 groups.
        freeze_at: int, 0 trains everything, 1 freezes the stem, N >= 2 everything up to the map C{N}. torchvision's
            `trainable_layers=3` is 2.
        epsilon: of the normalisation: 1e-5, but 0.0 for torchvision's v1 COCO weights.
        momentum: of the moving statistics, with `norm="batch"`.
        groups: int, of the 3x3 convolutions: 32 or 64 in ResNeXt.
        width_per_group: int, channels of each group in the first stage; twice as many in each further one.
        stride_in_1x1: whether a bottleneck that halves the map does so in its first 1x1 convolution, as the article and
            the weights of MSRA have it, and not in the 3x3, as torchvision.
        dilated: whether C5 keeps C4's stride of 16, its 3x3 convolutions looking twice as far instead (Detectron2's
            DC5).
        last: `"C5"`, or `"C4"` for a body without the last stage, which then belongs to the heads (`ResNetRegions`).
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Example:

    >>> backbone = ResNet(50, weights="imagenet", freeze_at=2)
    >>> resnext = ResNet(101, weights="resnext101_64x4d-173b62eb.pth", groups=64, width_per_group=4)
    >>> backbone(images)["C5"]
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        weights: FilePath | None = None,
        norm: Literal["frozen", "batch", "group"] = "frozen",
        freeze_at: int = 0,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = False,
        dilated: bool = False,
        last: Literal["C4", "C5"] = "C5",
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"ResNet's depth is one of {list(BLOCKS)}, not {depth!r}.")
        if depth in BASIC and (groups, width_per_group) != (1, 64):
            raise ValueError(f"ResNet-{depth} has no groups; ResNeXt begins with depth 50.")
        if depth in BASIC and (stride_in_1x1 or dilated):
            raise ValueError(f"ResNet-{depth} has no 1x1 convolutions; stride_in_1x1 and dilated begin with depth 50.")
        if dilated and groups != 1:
            raise ValueError("ResNeXt's convolutions in groups are not dilated here: dilated=True wants groups=1.")
        if last not in ("C4", "C5"):
            raise ValueError(f"ResNet's last map is 'C4' or 'C5', not {last!r}.")
        config = {
            "depth": depth,
            "norm": norm,
            "freeze_at": freeze_at,
            "epsilon": epsilon,
            "momentum": momentum,
            "groups": groups,
            "width_per_group": width_per_group,
            "stride_in_1x1": bool(stride_in_1x1),
            "dilated": bool(dilated),
            "last": last,
            "dtype": dtype,
        }
        parts = Parts(norm, epsilon, momentum, dtype)
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.normalize(parts.conv(inputs, 64, 7, 2, "stem_conv"), "stem_bn")
        x = parts.activate(x, "relu", "stem_relu")
        x, _ = parts.pad(x, 3, 2, "stem_pool")  # zeros: no less than the maximum of what ReLU leaves
        x = layers.MaxPooling2D(3, 2, dtype=dtype, name="stem_pool")(x)
        outputs = {}
        for stage, blocks in enumerate(BLOCKS[depth][: 4 if last == "C5" else 3], start=1):
            if depth in BASIC:
                for block in range(blocks):
                    strides = 2 if block == 0 and stage > 1 else 1
                    x = _basic_block(parts, x, 32 * 2**stage, strides, f"stage{stage}_block{block}")
            else:
                x = bottlenecks(parts, x, stage, blocks, groups, width_per_group, stride_in_1x1, dilated and stage == 4)
            outputs[f"C{stage + 1}"] = x
        super().__init__(
            inputs,
            outputs,
            strides={key: stride for key, stride in strides_of(dilated).items() if key in outputs},
            stages={"stem": 1, "stage1": 2, "stage2": 3, "stage3": 4, "stage4": 5},
            config=config,
            name=name or published_name(depth, groups, width_per_group),
        )
        if weights is not None:
            _load(self, weights)


def published_name(depth: int, groups: int, width_per_group: int) -> str:
    """What torchvision calls it."""
    return f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{width_per_group}d"


def strides_of(dilated: bool) -> dict[str, int]:
    """The stride of each map."""
    return {"C2": 4, "C3": 8, "C4": 16, "C5": 16 if dilated else 32}


def bottlenecks(
    parts: Parts,
    x: Tensor,
    stage: int,
    blocks: int,
    groups: int,
    width_per_group: int,
    stride_in_1x1: bool,
    dilated: bool,
) -> Tensor:
    """The blocks of stage 1 (C2) to 4 (C5) of a ResNet of depth 50 or more."""
    width = width_per_group * groups * 2 ** (stage - 1)
    for block in range(blocks):
        halves = block == 0 and stage > 1 and not dilated
        strides = ((2, 1) if stride_in_1x1 else (1, 2)) if halves else (1, 1)
        name = f"stage{stage}_block{block}"
        x = _bottleneck(parts, x, width, groups, 128 * 2**stage, strides, 2 if dilated else 1, name)
    return x


def _bottleneck(
    parts: Parts,
    x: Tensor,
    width: int,
    groups: int,
    channels: int,
    strides: tuple[int, int],
    dilation: int,
    name: str,
) -> Tensor:
    """1x1, 3x3, 1x1, with an identity or projected shortcut; the strides are the first two convolutions'."""
    shortcut = _shortcut(parts, x, channels, max(strides), name)
    x = parts.normalize(parts.conv(x, width, 1, strides[0], f"{name}_conv1"), f"{name}_bn1")
    x = parts.activate(x, "relu", f"{name}_relu1")
    x = parts.conv(x, width, 3, strides[1], f"{name}_conv2", groups=groups, dilation=dilation)
    x = parts.normalize(x, f"{name}_bn2")
    x = parts.activate(x, "relu", f"{name}_relu2")
    x = parts.normalize(parts.conv(x, channels, 1, 1, f"{name}_conv3"), f"{name}_bn3")
    return parts.activate(parts.add(x, shortcut, f"{name}_add"), "relu", f"{name}_relu3")


def _basic_block(parts: Parts, x: Tensor, channels: int, strides: int, name: str) -> Tensor:
    """3x3, 3x3, with an identity or projected shortcut."""
    shortcut = _shortcut(parts, x, channels, strides, name)
    x = parts.normalize(parts.conv(x, channels, 3, strides, f"{name}_conv1"), f"{name}_bn1")
    x = parts.activate(x, "relu", f"{name}_relu1")
    x = parts.normalize(parts.conv(x, channels, 3, 1, f"{name}_conv2"), f"{name}_bn2")
    return parts.activate(parts.add(x, shortcut, f"{name}_add"), "relu", f"{name}_relu2")


def _shortcut(parts: Parts, x: Tensor, channels: int, strides: int, name: str) -> Tensor:
    if strides == 1 and x.shape[-1] == channels:
        return x
    x = parts.conv(x, channels, 1, strides, f"{name}_shortcut_conv")
    return parts.normalize(x, f"{name}_shortcut_bn")


def _load(model: keras.Model, weights: FilePath) -> None:
    from keras_rcnn.backbones.imagenet import published_file
    from keras_rcnn.convert import (
        assign,
        convert_detectron2_backbone,
        convert_resnet,
        read_detectron2_file,
        read_torch_file,
    )

    config = model.get_config()
    depth, groups, width = (config[key] for key in ("depth", "groups", "width_per_group"))
    if str(weights).endswith(".pkl"):
        state = read_detectron2_file(weights)
        assign(model, convert_detectron2_backbone(depth, state, config["norm"], config["last"]))
        return
    name = published_name(depth, groups, width)
    state = read_torch_file(published_file(name) if weights == "imagenet" else weights)
    assign(model, convert_resnet(depth, state, name))
