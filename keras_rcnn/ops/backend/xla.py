"""Kernels for graphs that XLA compiles: JAX always, TensorFlow where `jit_compile=True` or a TPU asks for it.

Written in keras.ops, with static shapes. XLA has no kernel for TensorFlow's CombinedNonMaxSuppression and
CropAndResize, and a loop of one step a box, as the portable NMS has, leaves a GPU idle.

Shapes: B images, N boxes, C classes, P = B * C sets of boxes, T boxes a tile, R regions, S bins a side.
"""

import itertools
from collections.abc import Sequence

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.boxes import iou
from keras_rcnn.ops.roi import bilinear, sample_points

_TILE = 256
_NOTHING = float("-inf")


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int) -> tuple[Tensor, Tensor]:
    """`ops.nms.nms`; see there."""
    order, _, kept = _tiled_nms(boxes[None], scores[None], iou_threshold, _NOTHING, max_output)
    order, kept = order[0], kept[0]
    position = ops.arange(ops.shape(kept)[0], dtype="int32")
    rank, place = _top_k(ops.where(kept, -position, -(2**30)), max_output, -(2**30))
    valid = rank > -(2**30)
    place = ops.where(valid, place, 0)
    return ops.where(valid, ops.take(order, place), 0), ops.sum(ops.cast(valid, "int32"))


def multiclass_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int, max_total: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`ops.nms.multiclass_nms`: every class of every image at once, tile by tile, then top-k."""
    batch, count, classes = ops.shape(scores)[0], ops.shape(scores)[1], scores.shape[2]
    shared = boxes.shape[2] == 1
    boxes = ops.transpose(boxes, (0, 2, 1, 3))  # [B, C or 1, N, 4]
    each = ops.broadcast_to(boxes, (batch, classes, count, 4)) if shared else boxes
    by_class = ops.reshape(ops.transpose(scores, (0, 2, 1)), (-1, count))
    order, ranked, kept = _tiled_nms(
        ops.reshape(each, (-1, count, 4)), by_class, iou_threshold, score_threshold, max_per_class
    )
    length = ops.shape(kept)[1]
    candidates = ops.reshape(ops.where(kept, ranked, _NOTHING), (batch, -1))
    best, place = _top_k(candidates, max_total, _NOTHING)
    valid = best > _NOTHING
    place = ops.where(valid, place, 0)
    label = place // length
    index = ops.take_along_axis(ops.reshape(order, (batch, -1)), place, axis=1)
    own = index if shared else label * count + index
    out = ops.take_along_axis(ops.reshape(boxes, (batch, -1, 4)), own[..., None], axis=1)
    return (
        ops.where(valid[..., None], out, 0.0),
        ops.where(valid, best, 0.0),
        ops.where(valid, label, -1),
    )


def _tiled_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy NMS of P sets of boxes at once, exactly.

    The boxes are sorted and cut into tiles. Each tile is held against the kept boxes of the tiles before it, then
    against itself: a box stays while no better box that stays suppresses it, which is repeated until nothing changes.
    After k rounds the first k boxes are final, so the end is the greedy answer; it comes after as many rounds as the
    longest chain of boxes that suppress one another, a handful. The loop ends with the last tile that can add a box.

    Args:
        boxes: [P, N, 4].
        scores: [P, N].
        iou_threshold, score_threshold: floats.
        most: int, boxes kept in a set.

    Returns:
        `(order, scores, kept)`, each [P, N'], best first, N' being N rounded up to whole tiles: index of the box, its
        score (-inf where it takes no part) and whether it is kept.
    """
    boxes, scores = ops.stop_gradient(boxes), ops.stop_gradient(scores)
    sets, count = ops.shape(scores)[0], scores.shape[1] if scores.shape[1] is not None else ops.shape(scores)[1]
    tile = min(_TILE, count) if isinstance(count, int) else _TILE
    tiles = (count + tile - 1) // tile
    length = tiles * tile
    scores = ops.where(scores > score_threshold, scores, _NOTHING)
    scores, order = ops.top_k(scores, count)
    boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
    more = ((0, 0), (0, length - count))
    scores = ops.pad(scores, more, constant_values=_NOTHING)
    order, boxes = ops.pad(ops.cast(order, "int32"), more), ops.pad(boxes, (*more, (0, 0)))

    def in_tiles(values: Tensor) -> Tensor:  # [P, N', ...] -> [tiles, P, T, ...]
        return ops.moveaxis(ops.reshape(values, (sets, tiles, tile, *values.shape[2:])), 1, 0)

    tile_boxes, tile_exists = in_tiles(boxes), in_tiles(scores > _NOTHING)
    better = ops.arange(tile)[:, None] < ops.arange(tile)[None]  # [T, T]: the row's box is the better one
    positions = ops.arange(tiles)[:, None, None]

    def can_add(t: Tensor, number: Tensor, kept: Tensor) -> Tensor:
        open_sets = ops.logical_and(ops.take(tile_exists, ops.minimum(t, tiles - 1), axis=0)[:, 0], number < most)
        return ops.logical_and(t < tiles, ops.any(open_sets))

    def add_tile(t: Tensor, number: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = ops.take(tile_boxes, t, axis=0)  # [P, T, 4]

        def against(j: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
            others, there = ops.take(tile_boxes, j, axis=0), ops.take(kept, j, axis=0)
            hit = ops.logical_and(iou(others, own) > iou_threshold, there[..., None])
            return j + 1, ops.logical_and(alive, ops.logical_not(ops.any(hit, axis=1)))

        start = ops.convert_to_tensor(0, "int32")
        _, alive = ops.while_loop(lambda j, _: j < t, against, (start, ops.take(tile_exists, t, axis=0)))
        suppresses = ops.logical_and(iou(own, own) > iou_threshold, better)

        def settle(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
            hit = ops.any(ops.logical_and(suppresses, now[..., None]), axis=1)
            return now, ops.logical_and(alive, ops.logical_not(hit))

        _, stays = ops.while_loop(
            lambda before, now: ops.any(ops.not_equal(before, now)), settle, (ops.zeros_like(alive), alive)
        )
        rank = number[:, None] + ops.cumsum(ops.cast(stays, "int32"), axis=1)
        stays = ops.logical_and(stays, rank <= most)
        number = number + ops.sum(ops.cast(stays, "int32"), axis=1)
        return t + 1, number, ops.where(positions == t, stays[None], kept)

    start = (ops.convert_to_tensor(0, "int32"), ops.zeros((sets,), "int32"), ops.zeros_like(tile_exists))
    _, _, kept = ops.while_loop(can_add, add_tile, start)
    return order, scores, ops.reshape(ops.moveaxis(kept, 0, 1), (sets, length))


def _top_k(values: Tensor, count: int, nothing: float) -> tuple[Tensor, Tensor]:
    """`ops.top_k` along the last axis, padded where there are fewer than `count`."""
    length = values.shape[-1]
    if length is None or length < count:
        more = count if length is None else count - length
        values = ops.pad(values, ((0, 0),) * (len(values.shape) - 1) + ((0, more),), constant_values=nothing)
    best, index = ops.top_k(values, count)
    return best, ops.cast(index, "int32")


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    """`ops.roi.multilevel_roi_align` by gathers from all levels laid end to end, one neighbour of one sample of every
    bin at a time: XLA makes a single loop over the output of it, and no sample is ever held in memory."""
    batch, count, channels = ops.shape(boxes)[0], ops.shape(boxes)[1], features[0].shape[-1]
    heights, widths = [ops.shape(level)[1] for level in features], [ops.shape(level)[2] for level in features]
    starts, cells = [], 0
    for height, width in zip(heights, widths, strict=True):
        starts.append(cells)
        cells = cells + height * width
    flat = ops.concatenate([ops.reshape(level, (batch, -1, channels)) for level in features], axis=1)
    flat = ops.reshape(flat, (-1, channels))

    def of_level(values: Sequence[float | Tensor], dtype: str) -> Tensor:
        return ops.take(ops.stack([ops.cast(value, dtype) for value in values]), levels)

    def by_sample(values: Tensor) -> Tensor:  # [B, R, S * samples] -> [B, R, S, samples]
        return ops.reshape(values, (batch, count, size, samples))

    y, x = sample_points(boxes * of_level(scales, "float32")[..., None], size, samples, aligned)
    top, bottom, top_weight, bottom_weight = bilinear(y, of_level(heights, "float32")[..., None])
    left, right, left_weight, right_weight = bilinear(x, of_level(widths, "float32")[..., None])
    first = of_level(starts, "int32") + ops.arange(batch, dtype="int32")[:, None] * cells
    width = of_level(widths, "int32")[..., None]
    rows = [
        (by_sample(first[..., None] + row * width), by_sample(weight))
        for row, weight in ((top, top_weight), (bottom, bottom_weight))
    ]
    columns = [(by_sample(left), by_sample(left_weight)), (by_sample(right), by_sample(right_weight))]
    pooled = 0.0
    for i, j in itertools.product(range(samples), repeat=2):
        for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
            index = row[..., i][..., :, None] + column[..., j][..., None, :]  # [B, R, S, S]
            weight = row_weight[..., i][..., :, None] * column_weight[..., j][..., None, :]
            pooled = pooled + ops.cast(ops.take(flat, index, axis=0), "float32") * weight[..., None]
    return ops.cast(pooled / samples**2, features[0].dtype)


def grouped_convolution(x: Tensor, values: Tensor, strides: Sequence[int], padding: str) -> Tensor:
    """`backbones.grouped.portable_grouped_convolution`, at once."""
    return ops.conv(x, values, strides, padding)
