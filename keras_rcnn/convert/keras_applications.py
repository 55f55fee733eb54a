"""The first `.h5` files of `keras.applications`, of Keras 1 and 2 -> our backbones, by `variable.path`.

These networks were trained on BGR, and ours see RGB: the first kernel's inputs are turned round. Later files of
`keras.applications` belong to its own models, which `backbones.from_features` takes as they are.
"""

from collections.abc import Mapping

import numpy as np

from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.layouts import Tensors
from keras_rcnn.convert.matterport import keras_layer, resnet_layers

MODELS = ("resnet50", "vgg16")
_CLASSIFIERS = ("fc1000", "predictions")


def convert_keras_applications(
    model: str, layers: Mapping[str, Mapping[str, np.ndarray]], heads: bool = True
) -> dict[str, np.ndarray]:
    """The weights of `keras.applications`' ResNet50 or VGG16 as ours; ImageNet's classifier is left out.

    Args:
        model: `"resnet50"`, for `MatterportResNet(50)`, or `"vgg16"`, for `VGG16`.
        layers: dict, layer -> its arrays, as `read_keras_h5` gives it, of `..._kernels.h5` or `..._kernels_notop.h5`.
        heads: whether VGG16's fc1 and fc2 are wanted, as `box_head/fc_0` and `fc_1`.

    Returns:
        A dict, `variable.path` -> float32 array.

    Raises:
        ConversionError: if an array is missing, left over, misshapen or not finite.

    Example:

    >>> layers = read_keras_h5("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5")
    >>> assign(MatterportResNet(50), convert_keras_applications("resnet50", layers))
    """
    if model not in MODELS:
        raise ConversionError(f"{model!r} is none of keras.applications' models that convert: {', '.join(MODELS)}.")
    state = {f"{layer}/{name}": value for layer, own in layers.items() for name, value in own.items()}
    tensors = Tensors(state, f"keras.applications' {model}")
    tensors.drop(*(f"{layer}/{name}" for layer in _CLASSIFIERS for name in ("kernel", "bias")))
    if model == "resnet50":
        resnet_layers(tensors, (3, 4, 6, 3))
        first = "stem_conv"
    else:
        for block, convs in enumerate((2, 2, 3, 3, 3), start=1):
            for i in range(1, convs + 1):
                keras_layer(tensors, f"block{block}_conv{i}", f"conv{block}_{i}")
        first = "conv1_1"
        for i in (1, 2):
            if heads and f"fc{i}/kernel" in tensors.left:
                keras_layer(tensors, f"fc{i}", f"box_head/fc_{i - 1}", rank=2)
            tensors.drop(f"fc{i}/kernel", f"fc{i}/bias")
    if f"{first}/kernel" in tensors.taken:
        tensors.taken[f"{first}/kernel"] = np.ascontiguousarray(tensors.taken[f"{first}/kernel"][:, :, ::-1])
    hint = ""
    if "conv1_conv" in layers:
        hint = (
            " They are those of a later keras.applications: give the file to keras.applications.ResNet50(weights=...), "
            "and that model to backbones.from_features."
        )
    return tensors.finish(hint)
