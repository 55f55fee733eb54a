"""The arithmetic in which Matterport's Mask_RCNN differs from torchvision and Detectron2.

Boxes come and go as everywhere here, float32 xyxy pixels of the preprocessed image, zeros for padding. Matterport's own
run from the middle of the first pixel to the middle of the last, as shares of the image's side minus 1. All it does to
boxes is the same if they are not divided by that: a box *of centres* is xyxy with x2 and y2 smaller by 1.

Shapes: B images, R regions, S samples a side.
"""

import math
from collections.abc import Sequence
from typing import Literal

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.roi import interpolated

# the side of a square in pixels; each side up to the next multiple of 64; the image as it is
Canvas = int | Literal["pad64", "none"]
CANVAS_DIVISOR = 64  # P6's stride
# Matterport does not clamp dw and dh: this is the most that exp() makes a float32 of with room for a factor
NO_CLAMP = 80.0


def check_canvas(canvas: Canvas) -> Canvas:
    """The canvas, if it is one.

    Raises:
        ValueError: if it is none.
    """
    square = isinstance(canvas, int) and not isinstance(canvas, bool) and canvas > 0 and canvas % CANVAS_DIVISOR == 0
    if not square and canvas not in ("pad64", "none"):
        raise ValueError(f"A canvas is a side in px that {CANVAS_DIVISOR} divides, 'pad64' or 'none', not {canvas!r}.")
    return canvas


def canvas_sizes(image_sizes: Tensor, canvas: Canvas) -> Tensor:
    """The (height, width) [B, 2] of the canvas in whose middle each image of these sizes [B, 2] lies."""
    if isinstance(canvas, int):
        return ops.full_like(image_sizes, canvas)
    return ops.ceil(image_sizes / CANVAS_DIVISOR) * CANVAS_DIVISOR if canvas == "pad64" else image_sizes


def windows(image_sizes: Tensor, canvas: Canvas) -> Tensor:
    """Where on its canvas each image lies: boxes [B, 4] in pixels. An odd pixel of padding is right or below."""
    corner = ops.floor((canvas_sizes(image_sizes, canvas) - image_sizes) / 2)
    return ops.concatenate([ops.flip(corner, -1), ops.flip(corner + image_sizes, -1)], axis=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] in pixels -> boxes of centres; zeros, which are padding, stay zeros."""
    exists = ops.any(boxes != 0, axis=-1, keepdims=True)
    return ops.where(exists, boxes - ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0]), 0.0)


def to_pixels(boxes: Tensor, exists: Tensor) -> Tensor:
    """Boxes of centres [..., 4] -> boxes in pixels; zeros where `exists` [...] is False."""
    return ops.where(exists[..., None], boxes + ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0]), 0.0)


def clip_to(boxes: Tensor, limits: Tensor) -> Tensor:
    """Clips boxes [B, R, 4] to one box an image, [B, 4]."""
    low, high = limits[:, None, :2], limits[:, None, 2:]
    return ops.concatenate(
        [ops.minimum(ops.maximum(part, low), high) for part in (boxes[..., :2], boxes[..., 2:])], axis=-1
    )


def level_index(boxes: Tensor, side: Sequence[int | Tensor], levels: int = 4) -> Tensor:
    """The pyramid level of each region: 4 + log2(sqrt(area) / 224), rounded half to even.

    The area is that of the box as a share of (side - 1), times the whole image's.

    Args:
        boxes: boxes of centres [..., 4].
        side: (height, width) of the padded image in pixels.
        levels: int, how many there are, from P2.

    Returns:
        int32 [...], counted from 0 = P2, where boxes without an area go, too.
    """
    height, width = (ops.cast(value, "float32") for value in side)
    shares = (boxes[..., 3] - boxes[..., 1]) / (height - 1) * ((boxes[..., 2] - boxes[..., 0]) / (width - 1))
    size = ops.sqrt(ops.maximum(shares, 1e-12)) / (224.0 / ops.sqrt(height * width))
    level = 4 + ops.round(ops.log(size) / math.log(2.0))
    return ops.cast(ops.clip(level, 2, levels + 1) - 2, "int32")


def multilevel_crop_and_resize(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, side: Sequence[int | Tensor], size: int
) -> Tensor:
    """`tf.image.crop_and_resize` of every region on its own level: one bilinear sample a bin, the first and the last on
    the box's edges (a single one at its middle); a sample outside of the map is 0.

    Args:
        features: list of maps [B, H_l, W_l, C].
        boxes: boxes of centres, float32 [B, R, 4].
        levels: int32 [B, R], index into `features`.
        side: (height, width) in pixels of the image that the maps are of.
        size: int S.

    Returns:
        [B, R, S, S, C] in the features' dtype. No gradient flows to the boxes.
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    steps = [0.5] if size == 1 else [i / (size - 1) for i in range(size)]

    def samples(axis: int) -> Tensor:
        """Where the samples [B, R, S] lie, in cells of the region's map."""
        cells = ops.take(ops.stack([ops.cast(ops.shape(f)[1 + axis] - 1, "float32") for f in features]), levels)
        scale = (cells / (ops.cast(side[axis], "float32") - 1))[..., None]
        low, high = boxes[..., 1 - axis, None] * scale, boxes[..., 3 - axis, None] * scale
        return low + (high - low) * ops.convert_to_tensor(steps, dtype="float32")

    shape = (*ops.shape(boxes)[:2], size, size, features[0].shape[-1])
    return ops.reshape(interpolated(features, levels, samples(0), samples(1), neighbours), shape)


def neighbours(coordinate: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two neighbours of each coordinate and their weights: 0 outside of [0, length - 1]."""
    # TensorFlow's kernel has no slack: there a rounding puts the last row of one box in 26 that end with the image
    # outside of it, and which ones hangs on the last bit of their coordinates
    slack = 1e-3
    inside = ops.logical_and(coordinate >= -slack, coordinate <= length - 1 + slack)
    coordinate = ops.clip(coordinate, 0.0, length - 1)
    low = ops.floor(coordinate)
    high = ops.minimum(low + 1, length - 1)
    fraction, inside = coordinate - low, ops.cast(inside, "float32")
    return ops.cast(low, "int32"), ops.cast(high, "int32"), (1 - fraction) * inside, fraction * inside
