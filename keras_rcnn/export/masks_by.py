"""How a detection's mask is laid over its photo, by the rule of the detector's preprocessor, as a TensorFlow graph."""

from collections.abc import Callable

from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.export import matterport_graph
from keras_rcnn.interfaces import Tensor


def probabilities_of(preprocessor: Preprocessor | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The function that lays a mask over a photo as this preprocessor's detector does."""
    if isinstance(preprocessor, MatterportPreprocessor):
        return matterport_graph.probabilities
    if preprocessor is not None and preprocessor.paste == "detectron2":
        return _at_centres
    return _resized


def _resized(mask: Tensor, box: Tensor, canvas: Tensor, photo: Tensor) -> Tensor:
    """A mask [M, M] as it is over a photo (height, width): [H, W] of `canvas`, 0 outside of its box and the photo."""
    import tensorflow as tf

    mask = tf.pad(mask, [[1, 1], [1, 1]])
    size = mask.shape[0]
    # grown about its centre by a cell on each side, and truncated to whole pixels
    half = (box[2:] - box[:2]) * 0.5 * (size / (size - 2))
    centre = (box[2:] + box[:2]) * 0.5
    corners = tf.cast(tf.concat([centre - half, centre + half], axis=-1), tf.int32)

    def along(low: Tensor, high: Tensor, side: Tensor, limit: Tensor) -> Tensor:
        """Weights [side, M + 2] of bilinear interpolation, 0 outside of the box and the photo."""
        pixel = tf.range(side)
        extent = tf.maximum(high - low + 1, 1)
        scale = tf.cast(size, tf.float64) / tf.cast(extent, tf.float64)
        source = tf.cast((tf.cast(pixel - low, tf.float64) + 0.5) * scale - 0.5, tf.float32)
        source = tf.clip_by_value(source, 0.0, size - 1.0)
        weights = tf.maximum(1.0 - tf.abs(source[:, None] - tf.range(size, dtype=tf.float32)), 0.0)
        inside = (pixel >= low) & (pixel < low + extent) & (pixel < limit)
        return tf.where(inside[:, None], weights, 0.0)

    rows = along(corners[1], corners[3], canvas[0], photo[0])
    columns = along(corners[0], corners[2], canvas[1], photo[1])
    return tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)


def _at_centres(mask: Tensor, box: Tensor, canvas: Tensor, photo: Tensor) -> Tensor:
    """The same by Detectron2's rule: read at each pixel's centre within the box as it is."""
    import tensorflow as tf

    size = mask.shape[0]

    def along(low: Tensor, high: Tensor, side: Tensor, limit: Tensor) -> Tensor:
        """Weights [side, M] of bilinear interpolation, 0 outside of the box and the photo."""
        pixel = tf.range(side)
        source = ((tf.cast(pixel, tf.float32) + 0.5 - low) / (high - low) * 2.0 * size - 1.0) / 2.0
        weights = tf.maximum(1.0 - tf.abs(source[:, None] - tf.range(size, dtype=tf.float32)), 0.0)
        return tf.where((pixel < limit)[:, None], weights, 0.0)

    rows = along(box[1], box[3], canvas[0], photo[0])
    columns = along(box[0], box[2], canvas[1], photo[1])
    return tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)
