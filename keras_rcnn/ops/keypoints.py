"""Keypoints as heatmaps (Mask R-CNN, section 5): a keypoint is one of M x M cells of its region, and back.

Shapes: B images, R regions, K keypoints, M cells a side.
"""

from typing import Any

import numpy as np
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.losses import crossentropy, normalise

# places along each side of a box at which its resized heatmap is looked at first, and how many of the peaks found
# there are looked at px by px
SAMPLES, PEAKS = 112, 4
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

    A region has as many px as its sides are long, rounded up. To look at all of them is slow, and their number differs
    from region to region; so the resized heatmap is computed at up to `SAMPLES` of its rows and columns, and then at
    every px around the `PEAKS` highest of its local maxima. In regions of up to `SAMPLES` px a side, these are all px.

    Args:
        logits: float32 [B, R, M, M, K].
        boxes: float32 [B, R, 4].
        longest: int, a scalar; no box has a longer side, in px.

    Returns:
        float32 [B, R, K, 3]: x and y in px, and the score: 1 / the sum over the M x M cells of exp(logit - best), where
        best is the resized heatmap's maximum.
    """
    batch, count = ops.shape(logits)[0], ops.shape(logits)[1]
    size, number = logits.shape[2], logits.shape[4]
    maps = ops.reshape(ops.moveaxis(logits, -1, 2), (-1, number, size, size))  # [N, K, M, M]
    boxes = ops.reshape(boxes, (-1, 4))
    sides = ops.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    whole = ops.ceil(sides)  # [N, 2], width and height
    columns, rows = (_spread(whole[:, axis]) for axis in (0, 1))
    border = _bordered(maps)
    weights = [_cubic(places, whole[:, axis, None], size) for axis, places in ((0, columns), (1, rows))]
    values = ops.matmul(ops.matmul(weights[1][:, None], border), ops.swapaxes(weights[0], 1, 2)[:, None])
    exists = ops.logical_and((rows >= 0)[:, :, None], (columns >= 0)[:, None, :])
    values = ops.reshape(ops.where(exists[:, None], values, _LOW), (-1, SAMPLES, SAMPLES, 1))
    peaks = ops.where(values >= ops.max_pool(values, 3, 1, padding="same"), values, _LOW)
    _, index = ops.top_k(ops.reshape(peaks, (-1, SAMPLES * SAMPLES)), PEAKS)
    index = ops.cast(index, "int32")

    # from here on each keypoint by itself: [N * K, ...]
    def every(values: Tensor) -> Tensor:
        """[N, ...] for each keypoint of a region: [N * K, ...]."""
        return ops.repeat(values, number, axis=0)

    around = ops.arange(-(longest // SAMPLES) - 1, longest // SAMPLES + 2, dtype="int32")
    window = ops.shape(around)[0]
    found, place = [], []
    for axis, samples, at in ((0, columns, index % SAMPLES), (1, rows, index // SAMPLES)):
        last = every(whole[:, axis])[:, None, None] - 1.0
        middle = ops.take_along_axis(every(samples), at, axis=1)[..., None]
        near = ops.clip(middle + ops.cast(around, "float32"), 0.0, last)  # [N * K, PEAKS, window]
        place.append(near)
        found.append(_cubic(near, last + 1.0, size))
    alone = ops.reshape(border, (-1, 1, size + 4, size + 4))
    values = ops.matmul(ops.matmul(found[1], alone), ops.swapaxes(found[0], 2, 3))
    values = ops.reshape(values, (-1, PEAKS * window * window))
    best = ops.max(values, axis=1)
    index = ops.cast(ops.argmax(values, axis=1), "int32")
    peak, inside = index // (window * window), index % (window * window)
    points = []
    for axis, at in ((0, inside % window), (1, inside // window)):
        flat = ops.reshape(place[axis], (-1, PEAKS * window))
        px = ops.take_along_axis(flat, (peak * window + at)[:, None], axis=1)[:, 0]
        points.append((px + 0.5) * every(sides[:, axis] / whole[:, axis]) + every(boxes[:, axis]))
    cells = ops.reshape(maps, (-1, size * size))
    points.append(1.0 / ops.sum(ops.exp(cells - best[:, None]), axis=1))
    return ops.reshape(ops.stack(points, axis=-1), (batch, count, number, 3))


def _spread(length: Tensor) -> Tensor:
    """Whole px among `length` [N], evenly: float32 [N, SAMPLES], all of them if they are so few, and then -1."""
    place = ops.arange(SAMPLES, dtype="float32")[None]
    length = length[:, None]
    some = ops.minimum(ops.floor((place + 0.5) * (length / SAMPLES)), length - 1.0)
    every = ops.where(place < length, place, -1.0)
    return ops.where(length > SAMPLES, some, every)


def _bordered(maps: Tensor) -> Tensor:
    """Maps [N, K, M, M] with their edges repeated twice all around."""
    for axis in (2, 3):
        first, last = ops.split(maps, [1], axis=axis)[0], ops.split(maps, [maps.shape[axis] - 1], axis=axis)[1]
        maps = ops.concatenate([first, first, maps, last, last], axis=axis)
    return maps


def _cubic(places: Tensor, length: Tensor, size: int) -> Tensor:
    """Weights [..., M + 4] by which the px at `places` [...] of a side of `length` px is made of M cells with their
    border: PyTorch's bicubic, of half-pixel centres and a = -0.75."""
    source = (size / length) * (places + 0.5) - 0.5
    far = ops.abs(source[..., None] - np.arange(-2, size + 2, dtype=np.float32))
    a = -0.75
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    outer = ((far - 5) * far + 8) * far * a - 4 * a
    return ops.where(far <= 1, near, ops.where(far < 2, outer, 0.0))
