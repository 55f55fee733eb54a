"""Keypoints as heatmaps (Mask R-CNN, section 5): a keypoint is one of M x M cells of its region, and back.

Shapes: B images, R regions, K keypoints, M cells a side.
"""

from typing import Any

import numpy as np
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import kernel
from keras_rcnn.ops.losses import crossentropy, normalise

# places along each side of a box at which its resized heatmap is looked at first, and how many of the peaks found
# there are looked at px by px
SAMPLES, PEAKS = 168, 16
_LOW = -1e30


def keypoint_cells(keypoints: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """In which cell of its region each keypoint lies.

    Args:
        keypoints: float32 [B, R, K, 3]: x, y in px of the image, and visibility, 0 for none.
        boxes: float32 [B, R, 4], the regions.
        size: int, M.

    Returns:
        `(cells, used)`: int32 [B, R, K], row * M + column, and bool [B, R, K], whether the keypoint is visible and in
        the region, whose right and lower edges belong to its last cells.
    """
    low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    sides = ops.where(high > low, high - low, 1.0)
    at = keypoints[..., :2]
    place = ops.floor((at - low) * (size / sides))
    place = ops.where(at == high, size - 1.0, place)
    used = ops.all(ops.logical_and(place >= 0, place < size), axis=-1)
    used = ops.logical_and(used, ops.logical_and(keypoints[..., 2] > 0, boxes[:, :, None, 2] > boxes[:, :, None, 0]))
    place = ops.cast(ops.clip(place, 0, size - 1), "int32")
    return place[..., 1] * size + place[..., 0], used


def keypoint_loss(logits: Tensor, cells: Tensor, used: Tensor) -> Tensor:
    """Softmax cross-entropy over the cells of a region, of keypoints that are used.

    Args:
        logits: float32 [B, R, M, M, K].
        cells: int32 [B, R, K].
        used: bool [B, R, K].

    Returns:
        [B], divided by the number of used keypoints of the batch; 0 where there is none.
    """
    shape = ops.shape(logits)
    rows = ops.moveaxis(ops.reshape(logits, (shape[0], shape[1], shape[2] * shape[3], shape[4])), 2, 3)
    weight = ops.cast(used, "float32")
    each = crossentropy(rows, cells) * weight
    return normalise(ops.sum(each, axis=(1, 2)), ops.sum(weight, axis=(1, 2)))


def decode_heatmaps(logits: Tensor, boxes: Tensor, longest: Any) -> Tensor:
    """The keypoints in regions: the best px of each heatmap once it is resized, bicubically, to its region's px.

    A region has as many px as its sides are long, rounded up. To look at all of them is slow in a large one, so the
    resized heatmap is computed at up to `SAMPLES` of its rows and columns, and then at every px around the `PEAKS`
    highest of its local maxima there. In regions of up to `SAMPLES` px a side, these are all px.

    Args:
        logits: float32 [B, R, M, M, K].
        boxes: float32 [B, R, 4]; those without an area are padding.
        longest: int, or a scalar int32; no box has a longer side, in px.

    Returns:
        float32 [B, R, K, 3]: x and y in px, and the score: 1 / the sum over the M x M cells of exp(logit - best), where
        best is the resized heatmap's maximum. 0 for padding.
    """
    batch, count = ops.shape(logits)[0], ops.shape(logits)[1]
    size, number = logits.shape[2], logits.shape[4]
    maps = ops.reshape(ops.moveaxis(logits, -1, 2), (-1, number, size, size))
    boxes = ops.reshape(boxes, (-1, 4))

    either = kernel("either", ops.cond)

    def decoded(region: tuple[Tensor, Tensor]) -> Tensor:
        own, box = region
        exists = ops.all(box[2:] > box[:2])
        return either(exists, lambda: _decoded(own, box, longest), lambda: ops.zeros((number, 3)))

    # one region after another: all at once are too much for the memory, and most are padding
    points = ops.map(decoded, (maps, boxes))
    return ops.reshape(points, (batch, count, number, 3))


def _decoded(maps: Tensor, box: Tensor, longest: Any) -> Tensor:
    """A region's heatmaps [K, M, M] and box [4] -> [K, 3]."""
    size = maps.shape[1]
    sides = ops.maximum(box[2:] - box[:2], 1.0)
    whole = ops.ceil(sides)  # width and height
    border = _bordered(maps)
    columns, rows = (_spread(whole[axis]) for axis in (0, 1))
    across, down = (_cubic(places, whole[axis], size) for axis, places in ((0, columns), (1, rows)))
    values = ops.matmul(ops.matmul(down[None], border), ops.transpose(across)[None])
    exists = ops.logical_and((rows >= 0)[:, None], (columns >= 0)[None])
    values = ops.where(exists[None], values, _LOW)
    highest = ops.max_pool(values[..., None], 3, 1, padding="same", data_format="channels_last")[..., 0]
    peaks = ops.reshape(ops.where(values >= highest, values, _LOW), (-1, SAMPLES * SAMPLES))
    index = ops.cast(ops.top_k(peaks, PEAKS)[1], "int32")  # [K, PEAKS]

    reach = longest // SAMPLES + 1
    around = ops.cast(ops.arange(-reach, reach + 1, dtype="int32"), "float32")
    window = ops.shape(around)[0]
    places, weights = [], []
    for axis, samples, at in ((0, columns, index % SAMPLES), (1, rows, index // SAMPLES)):
        near = ops.clip(ops.take(samples, at)[..., None] + around, 0.0, whole[axis] - 1.0)
        places.append(near)  # [K, PEAKS, window]
        weights.append(_cubic(near, whole[axis], size))
    values = ops.matmul(ops.matmul(weights[1], border[:, None]), ops.swapaxes(weights[0], 2, 3))
    values = ops.reshape(values, (-1, PEAKS * window * window))
    best, index = ops.top_k(values, 1)  # LiteRT lacks what Keras's argmax is made of
    index = ops.cast(index, "int32")
    peak, inside = index // (window * window), index % (window * window)
    points = []
    for axis, at in ((0, inside % window), (1, inside // window)):
        px = ops.take_along_axis(ops.reshape(places[axis], (-1, PEAKS * window)), peak * window + at, axis=1)
        points.append((px + 0.5) * (sides[axis] / whole[axis]) + box[axis])
    cells = ops.reshape(maps, (-1, size * size))
    points.append(1.0 / ops.sum(ops.exp(cells - best), axis=1, keepdims=True))
    return ops.concatenate(points, axis=1)


def _spread(length: Tensor) -> Tensor:
    """Whole px among `length`, evenly: float32 [SAMPLES], all of them if they are so few, and then -1."""
    place = ops.arange(SAMPLES, dtype="float32")
    some = ops.minimum(ops.floor((place + 0.5) * (length / SAMPLES)), length - 1.0)
    every = ops.where(place < length, place, -1.0)
    return ops.where(length > SAMPLES, some, every)


def _bordered(maps: Tensor) -> Tensor:
    """Maps [K, M, M] with their edges repeated twice all around."""
    rows = [maps[:, :1]] * 2 + [maps] + [maps[:, -1:]] * 2
    maps = ops.concatenate(rows, axis=1)
    return ops.concatenate([maps[:, :, :1]] * 2 + [maps] + [maps[:, :, -1:]] * 2, axis=2)


def _cubic(places: Tensor, length: Tensor, size: int) -> Tensor:
    """Weights [..., M + 4] by which the px at `places` [...] of a side of `length` px is made of M cells with their
    border: PyTorch's bicubic, of half-pixel centres and a = -0.75."""
    source = (size / length) * (places + 0.5) - 0.5
    far = ops.abs(source[..., None] - np.arange(-2, size + 2, dtype=np.float32))
    a = -0.75
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    outer = ((far - 5) * far + 8) * far * a - 4 * a
    return ops.where(far <= 1, near, ops.where(far < 2, outer, 0.0))
