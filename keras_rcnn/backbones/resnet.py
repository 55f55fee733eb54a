"""ResNet-50, -101 and -152 (He et al. 2015) in torchvision's form: the stride in the 3x3 convolution."""

from typing import Literal

import keras
from keras import layers

from keras_rcnn.backbones.base import Backbone, Parts
from keras_rcnn.interfaces import FilePath

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@keras.saving.register_keras_serializable("keras_rcnn")
class ResNet(Backbone):
    """ResNet's body: the maps C2 to C5 of strides 4 to 32 with 256, 512, 1024 and 2048 channels.

    Args:
        depth: int: 50, 101 or 152.
        weights: None (random) or the path of torchvision's ImageNet weights for that depth, such as
            resnet50-0676ba61.pth from https://download.pytorch.org/models/; the classifier in it is left out. They
            expect RGB images normalised by mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225) of 0..1.
        norm: `"frozen"`, statistics and scales as loaded, or `"batch"`, BatchNormalization.
        freeze_at: int, 0 trains everything, 1 freezes the stem, N >= 2 everything up to the map C{N}. torchvision's
            `trainable_layers=3` is 2.
        epsilon: of the normalisation: 1e-5, but 0.0 for torchvision's v1 COCO weights.
        momentum: of the moving statistics, with `norm="batch"`.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Example:

    >>> backbone = ResNet(50, weights="resnet50-0676ba61.pth", freeze_at=2)
    >>> backbone(images)["C5"]
    """

    def __init__(
        self,
        depth: Literal[50, 101, 152] = 50,
        weights: FilePath | None = None,
        norm: Literal["frozen", "batch"] = "frozen",
        freeze_at: int = 0,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
    ) -> None:
        if depth not in BLOCKS:
            raise ValueError(f"ResNet's depth is one of {list(BLOCKS)}, not {depth!r}.")
        config = {
            "depth": depth,
            "norm": norm,
            "freeze_at": freeze_at,
            "epsilon": epsilon,
            "momentum": momentum,
            "dtype": dtype,
        }
        parts = Parts(norm, epsilon, momentum, dtype)
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.normalize(parts.conv(inputs, 64, 7, 2, "stem_conv"), "stem_bn")
        x = parts.activate(x, "relu", "stem_relu")
        x, _ = parts.pad(x, 3, 2, "stem_pool")  # zeros: no less than the maximum of what ReLU leaves
        x = layers.MaxPooling2D(3, 2, dtype=dtype, name="stem_pool")(x)
        outputs = {}
        for stage, blocks in enumerate(BLOCKS[depth], start=1):
            for block in range(blocks):
                strides = 2 if block == 0 and stage > 1 else 1
                x = _block(parts, x, 32 * 2**stage, strides, block == 0, f"stage{stage}_block{block}")
            outputs[f"C{stage + 1}"] = x
        super().__init__(
            inputs,
            outputs,
            strides={"C2": 4, "C3": 8, "C4": 16, "C5": 32},
            stages={"stem": 1, "stage1": 2, "stage2": 3, "stage3": 4, "stage4": 5},
            config=config,
            name=name or f"resnet{depth}",
        )
        if weights is not None:
            _load(self, weights)


def _block(parts, x, channels, strides, project, name):
    """Bottleneck: 1x1, 3x3, 1x1 to four times the channels, with an identity or projected shortcut."""
    shortcut = x
    if project:
        shortcut = parts.conv(x, 4 * channels, 1, strides, f"{name}_shortcut_conv")
        shortcut = parts.normalize(shortcut, f"{name}_shortcut_bn")
    x = parts.normalize(parts.conv(x, channels, 1, 1, f"{name}_conv1"), f"{name}_bn1")
    x = parts.activate(x, "relu", f"{name}_relu1")
    x = parts.normalize(parts.conv(x, channels, 3, strides, f"{name}_conv2"), f"{name}_bn2")
    x = parts.activate(x, "relu", f"{name}_relu2")
    x = parts.normalize(parts.conv(x, 4 * channels, 1, 1, f"{name}_conv3"), f"{name}_bn3")
    return parts.activate(parts.add(x, shortcut, f"{name}_add"), "relu", f"{name}_relu3")


def _load(model, weights):
    from keras_rcnn.convert import assign, convert_resnet, read_torch_file

    if weights == "imagenet":
        raise ValueError(
            "No package carries ResNet's ImageNet weights: download one of resnet50-0676ba61.pth, "
            "resnet101-63fe2227.pth, resnet152-394f9c45.pth from https://download.pytorch.org/models/ "
            "and pass its path as `weights`."
        )
    assign(model, convert_resnet(model.get_config()["depth"], read_torch_file(weights)))
