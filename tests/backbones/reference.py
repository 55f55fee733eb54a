"""The backbones a second time: slow, obvious NumPy on a state dict in PyTorch's names and layouts.

Maps are [C, H, W]. These follow torchvision's sources (resnet.py, mobilenetv3.py) and TensorFlow's efficientnet_lite.
"""

import math

import numpy as np

from tests.convert.states import LITE0, MOBILENET, RESNETS


def conv(x, kernel, stride=1, padding=None, depthwise=False, groups=1):
    """`padding`: ((top, bottom), (left, right)); None is k // 2 on every side."""
    if groups > 1:
        parts = zip(np.split(x, groups), np.split(kernel, groups), strict=True)
        return np.concatenate([conv(part, own, stride, padding) for part, own in parts])
    size = kernel.shape[-1]
    x = np.pad(x, ((0, 0), *(padding or [(size // 2, size // 2)] * 2)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    if depthwise:
        return np.einsum("chwij,cij->chw", windows, kernel[:, 0], optimize=True)
    return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)


def tensorflow_same(x, size, stride):
    """The padding that makes ceil(n / stride) outputs, the odd cell on the right and bottom."""
    out = []
    for n in x.shape[1:]:
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        out.append((total // 2, total - total // 2))
    return out


def norm(x, state, name, epsilon):
    weight, bias, mean, variance = (state[f"{name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
    return ((x.T - mean) / np.sqrt(variance + epsilon) * weight + bias).T


def relu(x):
    return np.maximum(x, 0)


def relu6(x):
    return np.clip(x, 0, 6)


def hard_sigmoid(x):
    return relu6(x + 3) / 6


def hard_swish(x):
    return x * hard_sigmoid(x)


def resnet(state, x, depth, epsilon=1e-5, groups=1):
    def step(x, conv_name, norm_name, stride=1, groups=1):
        return norm(conv(x, state[f"{conv_name}.weight"], stride, groups=groups), state, norm_name, epsilon)

    x = relu(step(x, "conv1", "bn1", 2))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))
    maps = {}
    for stage, blocks in enumerate(RESNETS[depth], start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            if depth < 50:
                y = relu(step(x, f"{name}.conv1", f"{name}.bn1", stride))
                y = step(y, f"{name}.conv2", f"{name}.bn2")
            else:
                y = relu(step(x, f"{name}.conv1", f"{name}.bn1"))
                y = relu(step(y, f"{name}.conv2", f"{name}.bn2", stride, groups))
                y = step(y, f"{name}.conv3", f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = step(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = relu(x + y)
        maps[f"C{stage + 1}"] = x
    return maps


def layer_norm(x, state, name, epsilon=1e-6):
    """Over the channels of each cell."""
    x = x - x.mean(0)
    x = x / np.sqrt((x**2).mean(0) + epsilon)
    return (x.T * state[f"{name}.weight"] + state[f"{name}.bias"]).T


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / 2**0.5)) / 2


def convnext(state, x, blocks=(3, 3, 9, 3)):
    def patches(x, name, size):
        kernel = state[f"{name}.weight"]
        windows = conv(x, kernel, size, [(0, 0), (0, 0)])
        return windows + state[f"{name}.bias"][:, None, None]

    def dense(x, name):
        return (x.T @ state[f"{name}.weight"].T + state[f"{name}.bias"]).T

    maps, x = {}, layer_norm(patches(x, "features.0.0", 4), state, "features.0.1")
    for stage, count in enumerate(blocks):
        if stage:
            x = patches(layer_norm(x, state, f"features.{2 * stage}.0"), f"features.{2 * stage}.1", 2)
        for block in range(count):
            name = f"features.{2 * stage + 1}.{block}"
            y = conv(x, state[f"{name}.block.0.weight"], depthwise=True)
            y = layer_norm(y + state[f"{name}.block.0.bias"][:, None, None], state, f"{name}.block.2")
            y = dense(gelu(dense(y, f"{name}.block.3")), f"{name}.block.5")
            x = x + state[f"{name}.layer_scale"] * y
        maps[f"C{stage + 2}"] = x
    return maps


def mobilenet(state, x, epsilon=1e-3):
    def step(x, name, activation, stride=1, depthwise=False):
        x = conv(x, state[f"{name}.0.weight"], stride, depthwise=depthwise)
        return activation(norm(x, state, f"{name}.1", epsilon))

    x = step(x, "features.0", hard_swish, 2)
    outputs = [x]
    for i, (_, expanded, out, squeeze) in enumerate(MOBILENET, start=1):
        activation, stride = hard_swish if i >= 7 else relu, 2 if i in (2, 4, 7, 13) else 1
        y, layers = x, iter(f"features.{i}.block.{j}" for j in range(4))
        if expanded != len(x):
            y = step(y, next(layers), activation)
        y = step(y, next(layers), activation, stride, depthwise=True)
        if squeeze:
            name = next(layers)
            gate = relu(state[f"{name}.fc1.weight"][:, :, 0, 0] @ y.mean((1, 2)) + state[f"{name}.fc1.bias"])
            gate = state[f"{name}.fc2.weight"][:, :, 0, 0] @ gate + state[f"{name}.fc2.bias"]
            y = y * hard_sigmoid(gate)[:, None, None]
        y = step(y, next(layers), lambda x: x)
        x = x + y if stride == 1 and len(x) == out else y
        outputs.append(x)
    outputs.append(step(x, "features.16", hard_swish))
    return {
        "C1": outputs[1],
        "C2": outputs[3],
        "C3": outputs[6],
        "C4": outputs[12],
        "C5_in": outputs[13],
        "C5": outputs[16],
    }


def lite0(state, x, epsilon=1e-3):
    def step(x, conv_name, norm_name, stride=1, depthwise=False):
        kernel = state[f"{conv_name}.weight"]
        x = conv(x, kernel, stride, tensorflow_same(x, kernel.shape[-1], stride), depthwise)
        return norm(x, state, norm_name, epsilon)

    x = relu6(step(x, "_conv_stem", "_bn0", 2))
    outputs = []
    for i, (expansion, _, out) in enumerate(LITE0):
        name, stride = f"_blocks.{i}", 2 if i in (1, 3, 5, 11) else 1
        y = x if expansion == 1 else relu6(step(x, f"{name}._expand_conv", f"{name}._bn0"))
        y = relu6(step(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True))
        y = step(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and len(x) == out else y
        outputs.append(x)
    return {"C2": outputs[2], "C3": outputs[4], "C4": outputs[10], "C5": outputs[15]}
