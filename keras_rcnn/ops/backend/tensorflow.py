"""TensorFlow's own kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend.roi_adaptive import adaptive_roi_align as adaptive_roi_align
from keras_rcnn.ops.roi import bilinear, sample_points


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int) -> tuple[Tensor, Tensor]:
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


def multiclass_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int, max_total: int
) -> tuple[Tensor, Tensor, Tensor]:
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


def roi_align_level(
    features: Tensor, boxes: Tensor, image_index: Tensor, size: int, samples: int, aligned: bool
) -> Tensor:
    """RoIAlign of boxes already scaled to the map, through crop_and_resize, with a gradient that is right on a CPU.

    TensorFlow's own gradient (CropAndResizeGradImage) adds from all threads at once to the same cells there, and loses
    some of the sums: on two cores a tenth of the gradient of a map of 10x10 cells with 512 RoIs. Where there is a GPU,
    whose kernel adds atomically, it is left to TensorFlow. Boxes have no gradient, here and in `ops.roi`.

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
    settings = (boxes, image_index, size, samples, aligned)
    if tf.config.list_logical_devices("GPU"):
        return _pooled_crops(features, *settings)
    shape = tf.shape(features)

    @tf.custom_gradient
    def with_gradient(features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        def gradient(of_bins: Tensor) -> Tensor:
            return tf.cond(
                tf.shape(of_bins)[0] > 0,  # the sparse matrix may not be empty
                lambda: _gradient_of_features(of_bins, shape, *settings),
                lambda: tf.zeros(shape),
            )

        return _pooled_crops(features, *settings), gradient

    return with_gradient(features)


def _pooled_crops(
    features: Tensor, boxes: Tensor, image_index: Tensor, size: int, samples: int, aligned: bool
) -> Tensor:
    """crop_and_resize samples once per output cell and puts its first and last samples *on* the box's edges, so the box
    is shrunk to the centres of its outermost samples and one sample each is taken at `samples * size`; the symmetric
    padding makes samples within one pixel of the border clamp, and those farther out read 0, as RoIAlign has it."""
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
    crops = tf.image.crop_and_resize(padded, normalised, image_index, [total, total])
    return tf.nn.avg_pool2d(crops, samples, samples, "VALID") if samples > 1 else crops


def _gradient_of_features(
    of_bins: Tensor, shape: Tensor, boxes: Tensor, image_index: Tensor, size: int, samples: int, aligned: bool
) -> Tensor:
    """The sums of the bins' gradients in the cells that they were interpolated from, as a sparse matrix's product."""

    def neighbours(points: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The two cells beside each sample of a bin, and their weights, each [R, size, 2 * samples]."""
        before, after, weight_before, weight_after = bilinear(points, tf.cast(length, tf.float32))
        each_bin = [-1, size, 2 * samples]
        cells, weights = tf.stack([before, after], axis=-1), tf.stack([weight_before, weight_after], axis=-1)
        return tf.reshape(cells, each_bin), tf.reshape(weights, each_bin)

    y, x = sample_points(boxes, size, samples, aligned)
    rows, row_weights = neighbours(y, shape[1])
    columns, column_weights = neighbours(x, shape[2])
    rows = image_index[:, None, None] * shape[1] + rows
    cells = rows[:, :, None, :, None] * shape[2] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :] / samples**2
    bins = tf.shape(boxes)[0] * size**2
    places = tf.stack([tf.repeat(tf.range(bins), (2 * samples) ** 2), tf.reshape(cells, [-1])], axis=1)
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.cast(places, tf.int64),
        values=tf.reshape(weights, [-1]),
        dense_shape=tf.cast(tf.stack([bins, shape[0] * shape[1] * shape[2]]), tf.int64),
    )
    # transposed first, a row of the product is one thread's: the same sum in the same order every time
    matrix = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
    summed = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.reshape(of_bins, [bins, shape[3]]))
    return tf.reshape(summed, shape)


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
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


def frozen_batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Normalisation of float32 [B, H, W, C] by given statistics, as the one op that grappler fuses with the convolution
    before it and the ReLU behind it. (Its gradient also computes that of gamma and beta: not for training.)"""
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    )[0]


def without_padding(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`ops.boxes.without_padding`; at least one column is left."""
    position = tf.range(1, tf.shape(labels)[1] + 1)[None]
    last = tf.maximum(tf.reduce_max(tf.where(labels >= 0, position, 1)), 1)
    return boxes[:, :last], labels[:, :last]


def grouped_convolution(x: Tensor, values: Tensor, strides: Sequence[int], padding: str) -> Tensor:
    """`backbones.grouped.portable_grouped_convolution`: at once on a GPU, group by group on a CPU."""
    upper: Any = padding.upper()  # TensorFlow's types name both
    if tf.config.list_logical_devices("GPU"):
        return tf.nn.conv2d(x, values, strides, upper)
    groups = x.shape[-1] // values.shape[-2]
    parts = zip(tf.split(x, groups, -1), tf.split(values, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, strides, upper) for part, own in parts], -1)
