"""`data.pillow_resize` as a TensorFlow graph, number for number: whole numbers, as Pillow itself computes."""

from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.interfaces import Tensor

# of a weight, after the point; a pixel of 8 bits times it, twice over, fits into 32
_BITS = 22


def pillow_size(preprocessor: Preprocessor, sides: Tensor) -> Tensor:
    """`data.pillow_resize.pillow_size`, in the same double precision.

    Args:
        preprocessor: `Preprocessor`.
        sides: float64 [2], (height, width) of the photo.

    Returns:
        int32 [2].
    """
    import tensorflow as tf

    shorter = tf.range(2) == tf.cast(tf.math.argmin(sides), tf.int32)
    short = tf.constant(preprocessor.min_size, tf.float64)
    # divided before reduced, as in graph.resized_size
    sides = tf.where(shorter, short, tf.reduce_max(short / sides) * sides)
    longest = tf.constant(preprocessor.max_size, tf.float64)
    sides = tf.where(tf.reduce_max(sides) > longest, tf.reduce_min(longest / sides) * sides, sides)
    limits = preprocessor.fixed_size
    if limits is not None:
        sides = sides * tf.minimum(1.0, tf.reduce_min(tf.constant(limits, tf.float64) / sides))
    return tf.maximum(tf.cast(sides + 0.5, tf.int32), 1)


def resize_pillow(pixels: Tensor, size: Tensor) -> Tensor:
    """`data.pillow_resize.resize_pillow`: across first, then down, each rounded to 8 bits.

    Args:
        pixels: uint8 [B, H, W, 3].
        size: int32 [2], (height, width).

    Returns:
        int32 [B, height, width, 3], 0 to 255.
    """
    return _resize_axis(_resize_axis(pixels, size[1], 2), size[0], 1)


def _resize_axis(pixels: Tensor, n: Tensor, axis: int) -> Tensor:
    import tensorflow as tf

    old = tf.shape(pixels)[axis]
    first, weights = _weights(old, n)
    shape = [1, 1, -1, 1] if axis == 2 else [1, -1, 1, 1]

    def add(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        # one neighbour of every pixel at a time: all of them would be many copies of the photo
        values = tf.cast(tf.gather(pixels, tf.minimum(first + i, old - 1), axis=axis), tf.int32)
        return i + 1, total + values * tf.reshape(weights[:, i], shape)

    sides = [tf.shape(pixels)[0], n, tf.shape(pixels)[2], 3] if axis == 1 else [*tf.unstack(tf.shape(pixels)[:2]), n, 3]
    half = tf.fill(tf.stack(sides), 2 ** (_BITS - 1))
    shapes = [tf.TensorShape([]), tf.TensorShape([None, None, None, 3])]
    count = tf.shape(weights)[1]
    _, total = tf.while_loop(lambda i, _: i < count, add, (0, half), shape_invariants=tuple(shapes))
    return tf.clip_by_value(total // 2**_BITS, 0, 255)


def _weights(old: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Of each of `n` pixels along an axis the first one that it is made of, int32 [n], and the weights, int32 [n, K].

    A triangle as wide as two pixels of the smaller image, about the pixel's centre.
    """
    import tensorflow as tf

    limit = tf.cast(old, tf.float64)
    scale = limit / tf.cast(n, tf.float64)
    support = tf.maximum(scale, 1.0)
    centre = (tf.range(tf.cast(n, tf.float64), dtype=tf.float64) + 0.5) * scale
    low = tf.floor(tf.maximum(centre - support + 0.5, 0.0))
    high = tf.minimum(tf.floor(centre + support + 0.5), limit)
    place = low[:, None] + tf.range(2.0 * tf.math.ceil(support) + 1.0, dtype=tf.float64)
    weights = tf.maximum(1.0 - tf.abs(place - centre[:, None] + 0.5) / support, 0.0)
    weights = tf.where(place < high[:, None], weights, 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.cast(low, tf.int32), tf.cast(tf.floor(weights * 2.0**_BITS + 0.5), tf.int32)
