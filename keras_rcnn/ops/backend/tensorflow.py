"""TensorFlow's own kernels."""

import tensorflow as tf


def nms(boxes, scores, iou_threshold, max_output):
    """`ops.nms.nms` by NonMaxSuppressionV4."""
    indices, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes,
        scores=scores,
        max_output_size=max_output,
        iou_threshold=iou_threshold,
        score_threshold=float("-inf"),
        pad_to_max_output_size=True,
    )
    return indices, count


def multiclass_nms(boxes, scores, iou_threshold, score_threshold, max_per_class, max_total):
    """`ops.nms.multiclass_nms` by CombinedNonMaxSuppression, whose kernel runs images and classes in parallel."""
    with tf.device("CPU:0"):  # there is no GPU kernel
        boxes, scores, classes, valid = tf.image.combined_non_max_suppression(
            boxes,
            scores,
            max_output_size_per_class=max_per_class,
            max_total_size=max_total,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            pad_per_class=False,
            clip_boxes=False,
        )
    empty = tf.range(max_total)[None] >= valid[:, None]
    return boxes, scores, tf.where(empty, -1, tf.cast(classes, tf.int32))


def roi_align_level(features, boxes, image_index, size, samples, aligned):
    """RoIAlign of boxes already scaled to the map, through crop_and_resize.

    crop_and_resize samples once per output cell and puts its first and last samples *on* the box's edges, so the box is
    shrunk to the centres of its outermost samples and one sample each is taken at `samples * size`; the symmetric
    padding makes samples within one pixel of the border clamp, and those farther out read 0, as RoIAlign has it.

    Args:
        features: float32 [B, H, W, C].
        boxes: [R, 4] xyxy in cells of the map.
        image_index: int32 [R].
        size: int, bins a side.
        samples: int, samples a bin and axis.
        aligned: whether half a cell is subtracted from the boxes.

    Returns:
        [R, size, size, C].
    """
    shape = tf.cast(tf.shape(features), tf.float32)
    limit = tf.stack([shape[2], shape[1]])  # width, height
    low, high = boxes[:, :2], boxes[:, 2:]
    if aligned:
        low, high = low - 0.5, high - 0.5
    extent = high - low if aligned else tf.maximum(high - low, 1.0)
    total = size * samples
    half = extent / (2 * total)
    first = (low + half + 1) / (limit + 1)
    last = (low + extent - half + 1) / (limit + 1)
    normalised = tf.concat([first[:, ::-1], last[:, ::-1]], axis=1)  # y1, x1, y2, x2
    padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    return _pooled_crops(padded, normalised, image_index, size, samples)


def _pooled_crops(images, boxes, image_index, size, samples):
    """`tf.image.crop_and_resize`, then the mean of each bin's samples, with a gradient that is right on a CPU.

    TensorFlow's own gradient (CropAndResizeGradImage) adds from all threads at once to the same cells there, and loses
    some of the sums: on two cores a tenth of the gradient of a map of 10x10 cells with 512 RoIs. On a GPU it is right.
    Boxes have no gradient, here and in `ops.roi`.

    Args:
        images: float32 [B, H, W, C].
        boxes: float32 [R, 4], y1, x1, y2, x2 in sides of the image.
        image_index: int32 [R].
        size: int, bins a side.
        samples: int, samples a bin and axis.

    Returns:
        float32 [R, size, size, C].
    """

    def pooled(images):
        crops = tf.image.crop_and_resize(images, boxes, image_index, [size * samples] * 2)
        return tf.nn.avg_pool2d(crops, samples, samples, "VALID") if samples > 1 else crops

    if tf.config.list_logical_devices("GPU"):
        return pooled(images)

    @tf.custom_gradient
    def with_gradient(images):
        def gradient(of_bins):
            return tf.cond(
                tf.shape(of_bins)[0] > 0,  # the sparse matrix may not be empty
                lambda: _gradient_of_images(of_bins, tf.shape(images), boxes, image_index, samples),
                lambda: tf.zeros_like(images),
            )

        return pooled(images), gradient

    return with_gradient(images)


def _gradient_of_images(of_bins, shape, boxes, image_index, samples):
    """The sums of the bins' gradients in the cells that they were interpolated from, as a sparse matrix's product."""
    count, size, channels = tf.shape(of_bins)[0], of_bins.shape[1], shape[3]
    rows, row_weights = _interpolation(boxes[:, 0], boxes[:, 2], shape[1], size, samples)
    columns, column_weights = _interpolation(boxes[:, 1], boxes[:, 3], shape[2], size, samples)
    rows = image_index[:, None, None] * shape[1] + rows
    cells = rows[:, :, None, :, None] * shape[2] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :] / samples**2
    bins = count * size**2
    places = tf.stack([tf.repeat(tf.range(bins), (2 * samples) ** 2), tf.reshape(cells, [-1])], axis=1)
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(places, tf.int64),
        values=tf.reshape(weights, [-1]),
        dense_shape=tf.cast(tf.stack([bins, shape[0] * shape[1] * shape[2]]), tf.int64),
    )
    # transposed first, a row of the product is one thread's: the same sum in the same order every time
    matrix = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
    summed = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.reshape(of_bins, [bins, channels]))
    return tf.reshape(summed, shape)


def _interpolation(low, high, length, size, samples):
    """The cells along an axis that a bin's samples lie between, as crop_and_resize samples, and their weights.

    Returns:
        int32 and float32 [R, size, 2 * samples].
    """
    total, last = size * samples, tf.cast(length - 1, tf.float32)
    if total > 1:
        at = (low * last)[:, None] + tf.range(total, dtype=tf.float32) * ((high - low) * last / (total - 1))[:, None]
    else:
        at = (0.5 * (low + high) * last)[:, None]
    inside = tf.cast((at >= 0) & (at <= last), tf.float32)[..., None]
    before = tf.floor(at)
    cells = tf.clip_by_value(tf.cast(tf.stack([before, before + 1], axis=-1), tf.int32), 0, length - 1)
    weights = tf.stack([1 - (at - before), at - before], axis=-1) * inside
    return tf.reshape(cells, [-1, size, 2 * samples]), tf.reshape(weights, [-1, size, 2 * samples])


def multilevel_roi_align(features, boxes, levels, scales, size, samples, aligned):
    """`ops.roi.multilevel_roi_align`: every level's RoIs are gathered, aligned by `roi_align_level`, put back."""
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    flat = tf.reshape(boxes, [-1, 4])
    image_index = tf.repeat(tf.range(batch), count)
    dtype, channels = features[0].dtype, features[0].shape[-1]
    if len(features) == 1:
        pooled = roi_align_level(
            tf.cast(features[0], tf.float32), flat * scales[0], image_index, size, samples, aligned
        )
    else:
        levels = tf.reshape(levels, [-1])
        places, parts = [], []
        for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            place = tf.where(levels == level)[:, 0]
            places.append(tf.cast(place, tf.int32))
            chosen = tf.gather(flat, place) * scale
            feature = tf.cast(feature, tf.float32)
            parts.append(roi_align_level(feature, chosen, tf.gather(image_index, place), size, samples, aligned))
        # gather by the inverse permutation: its gradient is cheaper than dynamic_stitch's, and the order is restored
        order = tf.math.invert_permutation(tf.concat(places, 0))
        pooled = tf.gather(tf.concat(parts, 0), order)
    return tf.cast(tf.reshape(pooled, [batch, count, size, size, channels]), dtype)


def frozen_batch_norm(x, gamma, beta, mean, variance, epsilon):
    """Normalisation of float32 [B, H, W, C] by given statistics, as the one op that grappler fuses with the convolution
    before it and the ReLU behind it. (Its gradient also computes that of gamma and beta: not for training.)"""
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    )[0]


def without_padding(boxes, labels):
    """`ops.boxes.without_padding`; at least one column is left."""
    position = tf.range(1, tf.shape(labels)[1] + 1)[None]
    last = tf.maximum(tf.reduce_max(tf.where(labels >= 0, position, 1)), 1)
    return boxes[:, :last], labels[:, :last]


def grouped_convolution(x, values, strides, padding):
    """`backbones.grouped.portable_grouped_convolution`: at once on a GPU, group by group on a CPU."""
    if tf.config.list_logical_devices("GPU"):
        return tf.nn.conv2d(x, values, strides, padding.upper())
    groups = x.shape[-1] // values.shape[-2]
    parts = zip(tf.split(x, groups, -1), tf.split(values, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, strides, padding.upper()) for part, own in parts], -1)
