"""RoIAlign with as many samples as a region needs, for TensorFlow: one sparse matrix, multiplied with all maps.

A bin is a weighted sum of the cells that its samples lie between. Both the samples and the interpolation are products
over the axes, so a bin's weights are the outer product of one row of weights for each axis, a few cells long.

Shapes: B images, R regions, S bins a side, N samples of the bin that has most, K cells of the bin that has most, E
entries of the matrix.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_rcnn.interfaces import Tensor


def adaptive_roi_align(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, scales: Sequence[float], size: int, aligned: bool
) -> Tensor:
    """`ops.roi.multilevel_roi_align` with samples=0; see there."""
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    channels, dtype = features[0].shape[-1], features[0].dtype
    heights, widths = ([tf.shape(level)[axis] for level in features] for axis in (1, 2))
    areas = [height * width for height, width in zip(heights, widths, strict=True)]
    starts = [batch * area for area in tf.unstack(tf.cumsum(tf.stack(areas), exclusive=True))]
    flat = tf.concat([tf.reshape(tf.cast(level, tf.float32), [-1, channels]) for level in features], 0)

    levels = tf.reshape(levels, [-1])
    image = tf.repeat(tf.range(batch), count)
    first = tf.gather(tf.stack(starts), levels) + image * tf.gather(tf.stack(areas), levels)
    width = tf.gather(tf.stack(widths), levels)
    boxes = tf.reshape(boxes, [-1, 4]) * tf.gather(tf.constant(scales), levels)[:, None]
    if aligned:
        boxes = boxes - 0.5
    rows, row_weights = _bins(boxes[:, 1], boxes[:, 3], size, tf.gather(tf.stack(heights), levels), aligned)
    columns, column_weights = _bins(boxes[:, 0], boxes[:, 2], size, width, aligned)
    places, weights = _entries(first, width, rows, row_weights, columns, column_weights)
    pooled = _product(places, weights, batch * count * size * size, flat)
    return tf.cast(tf.reshape(pooled, [batch, count, size, size, channels]), dtype)


def _bins(low: Tensor, high: Tensor, size: int, length: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """Of every bin along an axis the first cell, int32 [R, S], and the weights of its cells, [R, S, K].

    Args:
        low, high: float32 [R], in cells of the map.
        size: int S.
        length: int32 [R], cells of the map.
        aligned: whether a region may be smaller than a cell.
    """
    extent = high - low if aligned else tf.maximum(high - low, 1.0)
    number = tf.maximum(tf.math.ceil(extent / size), 0.0)
    start = low[:, None] + extent[:, None] / size * tf.range(size, dtype=tf.float32)
    step = (extent / size / tf.maximum(number, 1.0))[:, None, None]
    sample = tf.range(tf.reduce_max(number), dtype=tf.float32)
    at = start[..., None] + (sample + 0.5) * step  # [R, S, N]
    limit = tf.cast(length, tf.float32)[:, None, None]
    counts = (at >= -1.0) & (at <= limit) & (sample < number[:, None, None])
    clipped: Tensor = tf.clip_by_value(at, 0.0, limit - 1)
    # a bin's cells are those between its first and its last sample, one more, and no farther than the map
    first = tf.floor(tf.clip_by_value(start, 0.0, limit[..., 0] - 1))
    most = tf.reduce_max(tf.math.ceil(extent / size)) + 2
    cell = first[..., None] + tf.range(most)  # [R, S, K]
    weights = tf.maximum(1.0 - tf.abs(clipped[..., None] - cell[:, :, None]), 0.0)  # [R, S, N, K]
    weights = tf.reduce_sum(tf.where(counts[..., None], weights, 0.0), 2) / tf.maximum(number, 1.0)[:, None, None]
    return tf.cast(first, tf.int32), weights


def _entries(
    first: Tensor, width: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The entries of the matrix [R * S * S, cells of all maps]: int64 [E, 2] places, and weights [E].

    Args:
        first: int32 [R], where a region's map begins among all cells.
        width: int32 [R], of its map.
        rows, row_weights, columns, column_weights: of `_bins`.
    """
    size = rows.shape[1]
    high, wide = _count(row_weights), _count(column_weights)
    each = tf.reshape(high[:, :, None] * wide[:, None, :], [-1])
    bin_index = tf.repeat(tf.range(tf.size(each)), each)
    within = tf.range(tf.size(bin_index)) - tf.gather(tf.cumsum(each, exclusive=True), bin_index)
    # of an entry: its region and, flat in [R, S], its bin along either axis
    region = bin_index // size**2
    row = bin_index // size
    column = region * size + bin_index % size
    across = tf.gather(tf.reshape(wide, [-1]), column)
    down, across = within // across, within % across
    cell = (tf.gather(tf.reshape(rows, [-1]), row) + down) * tf.gather(width, region)
    cell += tf.gather(first, region) + tf.gather(tf.reshape(columns, [-1]), column) + across
    most_rows, most_columns = tf.shape(row_weights)[2], tf.shape(column_weights)[2]
    weights = tf.gather(tf.reshape(row_weights, [-1]), row * most_rows + down)
    weights *= tf.gather(tf.reshape(column_weights, [-1]), column * most_columns + across)
    return tf.cast(tf.stack([bin_index, cell], axis=1), tf.int64), weights


def _count(weights: Tensor) -> Tensor:
    """How many cells up to the last that weighs anything: int32 [R, S] of [R, S, K]."""
    return tf.reduce_max(tf.where(weights > 0, tf.range(1, tf.shape(weights)[2] + 1), 0), axis=2)


def _product(places: Tensor, weights: Tensor, bins: Tensor, flat: Tensor) -> Tensor:
    """The matrix times the maps, [bins, C], with a gradient for the maps alone."""
    cells = tf.shape(flat)[0]
    # a sparse matrix may not be empty: one entry more, of 0, and at the beginning, since the rows come in order
    places = tf.concat([tf.zeros([1, 2], tf.int64), places], 0)
    weights = tf.concat([tf.zeros([1]), weights], 0)

    def matrix() -> Tensor:
        shape = tf.cast(tf.stack([bins, cells]), tf.int64)
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=places, values=weights, dense_shape=shape)

    @tf.custom_gradient
    def multiplied(flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        def gradient(of_bins: Tensor) -> Tensor:
            # made anew, since no SavedModel can hold a gradient that refers to it; and transposed first, a row of the
            # product is one thread's: the same sum in the same order every time
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix(), type=tf.float32)
            return tf.raw_ops.SparseMatrixMatMul(a=transposed, b=of_bins)

        return tf.raw_ops.SparseMatrixMatMul(a=matrix(), b=flat), gradient

    return multiplied(flat)
