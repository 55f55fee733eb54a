"""Caffe's layers and the three networks once more in NumPy, [C, H, W], window by window as Caffe defines them."""

import math

import numpy as np


def conv(x, blobs, stride=1, pad=0, groups=1):
    kernel, bias = (value.astype(np.float64) for value in blobs)
    filters, _, size, _ = kernel.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:])
    out = np.zeros((filters, height, width))
    inputs = np.split(x, groups)
    for g, kernels in enumerate(np.split(kernel.reshape(filters, -1), groups)):
        columns = [
            inputs[g][:, i * stride : i * stride + size, j * stride : j * stride + size].ravel()
            for i in range(height)
            for j in range(width)
        ]
        rows = slice(g * filters // groups, (g + 1) * filters // groups)
        out[rows] = (kernels @ np.stack(columns, axis=1)).reshape(-1, height, width)
    return out + bias[:, None, None]


def pool_windows(n, size, stride, pad):
    """The (start, end) of every window on n cells."""
    count = math.ceil((n + 2 * pad - size) / stride) + 1
    if pad and (count - 1) * stride >= n + pad:
        count -= 1
    starts = [i * stride - pad for i in range(count)]
    return [(max(start, 0), min(start + size, n)) for start in starts]


def max_pool(x, size, stride=2, pad=0):
    rows, columns = (pool_windows(n, size, stride, pad) for n in x.shape[1:])
    return np.stack([np.stack([x[:, a:b, c:d].max((1, 2)) for c, d in columns], -1) for a, b in rows], 1)


def lrn_across(x, size=5, alpha=1e-4, beta=0.75):
    out = np.zeros_like(x)
    for c in range(len(x)):
        near = x[max(c - size // 2, 0) : c + size // 2 + 1]
        out[c] = x[c] / (1 + alpha / size * (near**2).sum(0)) ** beta
    return out


def lrn_within(x, size=3, alpha=5e-5, beta=0.75):
    out, side = np.zeros_like(x), size // 2
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            near = x[:, max(i - side, 0) : i + side + 1, max(j - side, 0) : j + side + 1]
            out[:, i, j] = x[:, i, j] / (1 + alpha / size**2 * (near**2).sum((1, 2))) ** beta
    return out


def relu(x):
    return np.maximum(x, 0)


def vgg16(blobs, x):
    maps = {}
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, count + 1):
            x = relu(conv(x, blobs[f"conv{stage}_{i}"], pad=1))
        maps[f"C{stage - 1}"] = x
        x = max_pool(x, 2)
    return {"C2": maps["C2"], "C3": maps["C3"], "C4": maps["C4"], "C5": x}


def caffenet(blobs, x, padded=True):
    pad = int(padded)
    x = relu(conv(x, blobs["conv1"], stride=4, pad=5 * pad))
    x = lrn_across(max_pool(x, 3, pad=pad))
    x = relu(conv(x, blobs["conv2"], pad=2, groups=2))
    x = lrn_across(max_pool(x, 3, pad=pad))
    x = relu(conv(x, blobs["conv3"], pad=1))
    x = relu(conv(x, blobs["conv4"], pad=1, groups=2))
    x = relu(conv(x, blobs["conv5"], pad=1, groups=2))
    return {"C4": x, "C5": max_pool(x, 3)}


def zf(blobs, x):
    x = lrn_within(relu(conv(x, blobs["conv1"], stride=2, pad=3)))
    x = relu(conv(max_pool(x, 3, pad=1), blobs["conv2"], stride=2, pad=2))
    x = max_pool(lrn_within(x), 3, pad=1)
    for i in (3, 4, 5):
        x = relu(conv(x, blobs[f"conv{i}"], pad=1))
    return {"C4": x, "C5": max_pool(x, 3)}


def head(blobs, pooled, scale=1.0):
    """fc6 and fc7 of one region's [C, S, S] in testing; `scale` is what dropout does then."""
    x = relu(blobs["fc6"][0] @ pooled.ravel() + blobs["fc6"][1]) * scale
    return relu(blobs["fc7"][0] @ x + blobs["fc7"][1]) * scale


def anchors(sizes=(128, 256, 512)):
    """py-faster-rcnn's anchors, xyxy with the far corner inclusive, step by step as its generate_anchors."""
    found = []
    for ratio in (0.5, 1, 2):
        w = np.round(np.sqrt(16 * 16 / ratio))
        h = np.round(w * ratio)
        for size in sizes:
            ws, hs = w * size / 16, h * size / 16
            found.append([7.5 - 0.5 * (ws - 1), 7.5 - 0.5 * (hs - 1), 7.5 + 0.5 * (ws - 1), 7.5 + 0.5 * (hs - 1)])
    return np.array(found)


def decode(boxes, deltas):
    """Its bbox_transform_inv, with widths of + 1."""
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = deltas[:, 0] * w + boxes[:, 0] + 0.5 * w, deltas[:, 1] * h + boxes[:, 1] + 0.5 * h
    w, h = np.exp(deltas[:, 2]) * w, np.exp(deltas[:, 3]) * h
    return np.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], axis=1)
