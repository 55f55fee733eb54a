"""What `keras_rcnn.data.MatterportPreprocessor` does, as a TensorFlow graph, number for number.

Shapes: B photos of H x W pixels.
"""

from typing import Any

from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.ops.matterport import CANVAS_DIVISOR


def preprocess(preprocessor: MatterportPreprocessor, pixels: Any) -> tuple[Any, Any]:
    """`MatterportPreprocessor.batch` of photos of one size.

    Args:
        preprocessor: `MatterportPreprocessor`.
        pixels: uint8 [B, H, W, 3].

    Returns:
        `(images, size)`: float32 [B, H', W', 3] on their canvas, and int32 [2], (height, width) of a photo on it.
    """
    import tensorflow as tf

    size = resized_size(preprocessor, tf.shape(pixels)[1:3])
    resized = tf.cast(_resized(tf.cast(pixels, tf.float64), size), tf.uint8)  # the cast truncates
    corner = _corner(preprocessor, size)
    rest = _canvas(preprocessor, size) - size - corner
    padding = tf.stack([corner, rest], axis=1)
    canvas = tf.pad(resized, tf.concat([[[0, 0]], padding, [[0, 0]]], 0))
    images = tf.cast(tf.cast(canvas, tf.float64) - tf.constant(preprocessor.mean_pixel, tf.float64), tf.float32)
    return tf.ensure_shape(images, [pixels.shape[0], None, None, 3]), size


def resized_size(preprocessor: MatterportPreprocessor, size: Any) -> Any:
    """`MatterportPreprocessor.size`: int32 [2] (height, width) -> int32 [2]."""
    import tensorflow as tf

    if preprocessor.mode == "none":
        fits = tf.debugging.Assert(
            tf.reduce_all(size % CANVAS_DIVISOR == 0), [f"{CANVAS_DIVISOR} must divide the photo's sides:", size]
        )
        with tf.control_dependencies([fits]):
            return tf.identity(size)
    sides = tf.cast(size, tf.float64)
    # divided before reduced, as in graph.resized_size
    scale = tf.maximum(tf.reduce_max(preprocessor.min_size / sides), max(1.0, preprocessor.min_scale))
    if preprocessor.mode == "square":
        most = float(preprocessor.max_size)
        scale = tf.where(tf.round(tf.reduce_max(sides) * scale) > most, tf.reduce_min(most / sides), scale)
    return tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)


def _canvas(preprocessor: MatterportPreprocessor, size: Any) -> Any:
    """(height, width) of the canvas of a photo of this resized size, int32 [2]."""
    import tensorflow as tf

    if preprocessor.fixed_size is not None:
        return tf.constant(preprocessor.fixed_size)
    return (size + CANVAS_DIVISOR - 1) // CANVAS_DIVISOR * CANVAS_DIVISOR


def _corner(preprocessor: MatterportPreprocessor, size: Any) -> Any:
    return (_canvas(preprocessor, size) - size) // 2


def _resized(images: Any, size: Any) -> Any:
    """`resize_as_skimage` of float64 [B, H, W, C]."""
    import tensorflow as tf

    shape = tf.shape(images)
    lowest, highest = (reduce(images, axis=[1, 2, 3], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    answer: Any = 0.0
    for y, weight_y in _neighbours(shape[1], size[0]):
        rows = tf.gather(padded, y, axis=1) * weight_y[:, None, None]
        for x, weight_x in _neighbours(shape[2], size[1]):
            answer += tf.gather(rows, x, axis=2) * weight_x[:, None]
    least, most = (reduce(answer, axis=[1, 2, 3], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    # where black has been mixed in until nothing else was left, it is one of the values that there are
    black = (lowest > 0) | (highest < 0)
    black = black & (least <= 0) & (most >= 0)
    lowest = tf.where(black, tf.minimum(lowest, 0.0), lowest)
    highest = tf.where(black, tf.maximum(highest, 0.0), highest)
    return tf.clip_by_value(answer, lowest, highest)


def _neighbours(old: Any, new: Any) -> tuple[tuple[Any, Any], ...]:
    """The two neighbours of each new pixel among the old ones, which begin at 1, each with its weights."""
    import tensorflow as tf

    ratio = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    source = (tf.range(tf.cast(new, tf.float64), dtype=tf.float64) + 0.5) * ratio - 0.5
    low = tf.floor(source)
    first = 1.0 - (source - low)
    low = tf.cast(low, tf.int32) + 1
    return (low, first), (low + 1, 1.0 - first)


def restore(preprocessor: MatterportPreprocessor, boxes: Any, size: Any, original: Any) -> Any:
    """`MatterportPreprocessor.restore`: [..., 4] of a canvas -> of the photo, whole pixels.

    Args:
        preprocessor: `MatterportPreprocessor`.
        boxes: float32 [..., 4].
        size: int32 [2], (height, width) of the photo on the canvas.
        original: int32 [2], of the photo.
    """
    import tensorflow as tf

    ends = tf.constant([0.0, 0.0, 1.0, 1.0])
    shift = tf.tile(tf.cast(_corner(preprocessor, size)[::-1], tf.float32), [2])
    last_old, last_new = (tf.maximum(tf.cast(side, tf.float32) - 1.0, 1e-6) for side in (size, original))
    factor = tf.tile((last_new / last_old)[::-1], [2])
    return tf.round((boxes - shift - ends) * factor + ends)


def probabilities(mask: Any, box: Any, canvas: Any, photo: Any) -> Any:
    """A mask resized to its box as photos are, for `graph.paste`.

    Args:
        mask: float32 [M, M].
        box: float32 [4], whole pixels of the photo.
        canvas: int32 [2], (height, width) of the answer.
        photo: int32 [2], (height, width) of the photo.

    Returns:
        float32 [H, W], 0 outside of the box.
    """
    import tensorflow as tf

    corners = tf.cast(tf.round(box), tf.int32)
    sides = tf.maximum(corners[2:] - corners[:2], 1)
    low = tf.clip_by_value(corners[:2], 0, photo[::-1])
    high = tf.clip_by_value(corners[2:], low, photo[::-1])
    whole = tf.cast(_resized(tf.cast(mask, tf.float64)[None, :, :, None], sides[::-1])[0, :, :, 0], tf.float32)
    start = low - corners[:2]
    part = whole[start[1] : start[1] + high[1] - low[1], start[0] : start[0] + high[0] - low[0]]
    # TensorFlow's types know no tensor in a list
    padding: Any = [[low[1], canvas[0] - high[1]], [low[0], canvas[1] - high[0]]]
    return tf.pad(part, padding)
