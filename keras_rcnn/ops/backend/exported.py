"""TensorFlow graphs of operators that LiteRT and ONNX have too: gathers, top-k, and NMS of one set of boxes.

Everything whose shape is known stays static, and nothing depends on how many RoIs a pyramid level has.
"""

import tensorflow as tf

from keras_rcnn.ops.roi import cells


def nms(boxes, scores, iou_threshold, max_output):
    """`ops.nms.nms`; see there."""
    return _nms(boxes, scores, scores > float("-inf"), iou_threshold, max_output)


def multiclass_nms(boxes, scores, iou_threshold, score_threshold, max_per_class, max_total):
    """`ops.nms.multiclass_nms` as one NMS a class and image, then top-k. For one image."""
    # a class at a time and not, shifted apart, all at once: in float32 the shift would cost a hundredth of a pixel
    parts = []
    for i in range(scores.shape[2]):
        of_class = scores[0, :, i]
        own = boxes[0, :, min(i, boxes.shape[2] - 1)]
        index, count = _nms(own, of_class, of_class > score_threshold, iou_threshold, max_per_class)
        exists = tf.range(max_per_class) < count
        kept = tf.where(exists, tf.gather(of_class, index), float("-inf"))
        parts.append((tf.gather(own, index), kept, tf.fill([max_per_class], i)))
    boxes, scores, classes = (tf.concat(part, 0) for part in zip(*parts))
    scores, index = tf.math.top_k(*_padded(scores, max_total))
    exists = scores > float("-inf")
    index = tf.where(exists, index, 0)
    boxes = tf.where(exists[:, None], tf.gather(boxes, index), 0.0)
    classes = tf.where(exists, tf.gather(classes, index), -1)
    return boxes[None], tf.where(exists, scores, 0.0)[None], classes[None]


def _padded(scores, count):
    """At least as many scores as top_k is to return."""
    more = max(count - scores.shape[0], 0)
    return (tf.pad(scores, [[0, more]], constant_values=float("-inf")) if more else scores), count


def _nms(boxes, scores, takes_part, iou_threshold, max_output):
    """`(indices, count)`, best first, padded with 0.

    Equal scores rank by index, and LiteRT's and ONNX's NMS leave open how: they get ranks, which are all different.
    """
    count = tf.shape(scores)[0] if scores.shape[0] is None else scores.shape[0]
    scores = tf.where(takes_part, scores, float("-inf"))
    scores, order = tf.math.top_k(scores, count)
    ranks = tf.cast(tf.range(count, 0, -1), tf.float32)
    ranks = tf.where(scores > float("-inf"), ranks, 0.0)
    index, found = tf.raw_ops.NonMaxSuppressionV4(
        boxes=tf.gather(boxes, order),
        scores=ranks,
        max_output_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=0.5,
        pad_to_max_output_size=True,
    )
    return tf.gather(order, tf.ensure_shape(index, [max_output])), found


def multilevel_roi_align(features, boxes, levels, scales, size, samples, aligned):
    """`ops.roi.multilevel_roi_align`: from all levels laid end to end, one sample of every bin at a time, so that
    memory is that of a few outputs. For one image."""
    channels = features[0].shape[-1]
    sides = [[_side(level, axis) for axis in (1, 2)] for level in features]
    starts = [0]
    for height, width in sides[:-1]:
        starts.append(starts[-1] + height * width)
    flat = tf.concat([tf.reshape(level, [-1, channels]) for level in features], 0)
    levels = levels[0]

    def of_level(values, dtype):
        return tf.gather(tf.stack([tf.cast(value, dtype) for value in values]), levels)

    scaled = boxes[0] * of_level(scales, tf.float32)[:, None]
    if aligned:
        scaled = scaled - 0.5
    extent = scaled[:, 2:] - scaled[:, :2]
    if not aligned:
        extent = tf.maximum(extent, 1.0)
    limits = [of_level([level[axis] for level in sides], tf.float32)[:, None] for axis in (1, 0)]  # x, y
    width = of_level([level[1] for level in sides], tf.int32)[:, None, None]
    start = of_level(starts, tf.int32)[:, None, None]

    def cells(axis, sample):
        """The two neighbours of a sample of every bin along an axis, and their weights, each [R, size]."""
        steps = tf.constant([(i * samples + sample + 0.5) / (size * samples) for i in range(size)], tf.float32)
        at = scaled[:, axis, None] + extent[:, axis, None] * steps
        limit = limits[axis]
        inside = tf.cast((at >= -1.0) & (at <= limit), tf.float32)
        at = tf.maximum(at, 0.0)
        low = tf.minimum(tf.floor(at), limit - 1)
        high = tf.minimum(low + 1, limit - 1)
        fraction = tf.where(low >= limit - 1, 0.0, at - low)
        return (tf.cast(low, tf.int32), (1 - fraction) * inside), (tf.cast(high, tf.int32), fraction * inside)

    columns = [cells(0, i) for i in range(samples)]
    total = None
    for i in range(samples):
        for y, weight_y in cells(1, i):
            row = start + y[:, :, None] * width
            for x, weight_x in (sample for pair in columns for sample in pair):
                index = row + x[:, None, :]
                if total is not None:
                    # 0, but known only once the sum is: converters would gather all, then add, and hold all of them
                    index += tf.cast(total[0, 0, 0, 0] > float("inf"), tf.int32)
                values = tf.gather(flat, index)  # [R, size, size, C]
                weight = weight_y[:, :, None, None] * weight_x[:, None, :, None] / samples**2
                part = values * tf.cast(weight, values.dtype)
                total = part if total is None else total + part
    return tf.expand_dims(total, 0)


# cells of the largest bin on a map whose size is not known: 1/7 of 440 cells
_UNKNOWN = 63


def roi_pool(features, boxes, scale, size):
    """`ops.roi.roi_pool`, exactly: the maximum of a bin is that of four windows, overlapping, with sides that are
    powers of two, and the maxima of all such windows are known beforehand. For one image."""
    channels = features.shape[-1]
    height, width = _side(features, 1), _side(features, 2)
    corner = cells(boxes[0], scale)
    ys, level_y, some_y = _windows(corner[:, 1], corner[:, 3], size[0], height)
    xs, level_x, some_x = _windows(corner[:, 0], corner[:, 2], size[1], width)
    tables, levels_x = [], _levels(features.shape[2])
    row = features
    for i in range(_levels(features.shape[1])):
        row = row if i == 0 else tf.maximum(row, _shifted(row, 1, 2 ** (i - 1), height))
        table = row
        for j in range(levels_x):
            table = table if j == 0 else tf.maximum(table, _shifted(table, 2, 2 ** (j - 1), width))
            tables.append(tf.reshape(table, [-1, channels]))
    flat = tf.concat(tables, 0)
    start = (level_y[:, :, None] * levels_x + level_x[:, None, :]) * (height * width)
    pooled = None
    for y in ys:
        for x in xs:
            index = start + y[:, :, None] * width + x[:, None, :]
            if pooled is not None:  # one after another, as in multilevel_roi_align
                index += tf.cast(pooled[0, 0, 0, 0] > float("inf"), tf.int32)
            values = tf.gather(flat, index)
            pooled = values if pooled is None else tf.maximum(pooled, values)
    some = some_y[:, :, None, None] & some_x[:, None, :, None]
    return tf.expand_dims(tf.where(some, pooled, tf.zeros([], pooled.dtype)), 0)


def _windows(low, high, bins, limit):
    """Bins of the cells `low` to `high` inclusive -> where the two windows of each begin, both int32 [R, bins], the
    logarithm of their side, and whether there is any cell in it."""
    extent = tf.maximum(high - low + 1, 1)[:, None]
    i = tf.range(bins)[None]
    first = low[:, None] + i * extent // bins
    end = low[:, None] + ((i + 1) * extent + bins - 1) // bins
    first, end = tf.maximum(first, 0), tf.minimum(end, limit)
    count = end - first
    some = count > 0
    level = sum(tf.cast(count >= 2**k, tf.int32) for k in range(1, 12))
    side = tf.gather(tf.constant([2**k for k in range(12)]), level)
    first, last = tf.where(some, first, 0), tf.where(some, end - side, 0)
    return (first, last), level, some


def _levels(side):
    """How many powers of two there are in the largest bin: one of a RoI that sticks out can have the whole side."""
    return (side or _UNKNOWN).bit_length()


def _shifted(values, axis, by, limit):
    """The cells `by` farther along an axis; beyond the end the last one, which no window needs."""
    index = tf.minimum(tf.range(limit) + by, limit - 1)
    return tf.gather(values, index, axis=axis)


def _side(feature, axis):
    return feature.shape[axis] or tf.shape(feature)[axis]
