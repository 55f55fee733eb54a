"""R-CNN's warp: a region of the image, with some of its surroundings, stretched to the size that the CNN wants.

Shapes: B images of H x W, R regions, S the side of a crop.
"""

from keras import ops

from keras_rcnn.interfaces import Tensor

MODES = ("warp", "square", "square_without_context")


def warp_regions(
    images: Tensor,
    boxes: Tensor,
    image_sizes: Tensor,
    size: int,
    context: int = 16,
    mode: str = "warp",
) -> Tensor:
    """Cuts regions out and resizes them to a fixed size (R-CNN, section 2.1 and appendix A).

    The box is grown so that `context` pixels of the crop, on each side, show its surroundings; corners are rounded to
    whole pixels; what lies outside the image is 0, the mean of normalised images. Bilinear without antialiasing, as
    MATLAB's imresize in the paper's code, whose boxes however include their last pixel.

    Args:
        images: [B, H, W, C], normalised.
        boxes: float32 [B, R, 4] xyxy in pixels.
        image_sizes: float32 [B, 2], height and width without padding.
        size: int S.
        context: int, pixels of the crop.
        mode: `"warp"`, both axes by their own factor (the paper's choice, D in its figure 7); `"square"`, the tightest
            square around the box (B); `"square_without_context"`, the same with what is outside the box set to 0 (C).

    Returns:
        [B, R, S, S, C].
    """
    if mode not in MODES:
        raise ValueError(f"The warp's mode is one of {', '.join(MODES)}, not {mode!r}.")
    boxes, image_sizes = ops.cast(boxes, "float32"), ops.cast(image_sizes, "float32")
    half = (boxes[..., 2:] - boxes[..., :2]) / 2
    centre = boxes[..., :2] + half
    if mode != "warp":
        half = ops.broadcast_to(ops.max(half, axis=-1, keepdims=True), ops.shape(half))
    half = half * (size / (size - 2 * context))
    # the first pixel and the one after the last
    low, high = _round(centre - half), _round(centre + half)
    high = ops.maximum(high, low + 1)
    limit = ops.flip(image_sizes, axis=1)[:, None]
    visible = (ops.maximum(low, 0.0), ops.minimum(high, limit))
    if mode == "square_without_context":
        inner = (_round(boxes[..., :2]), _round(boxes[..., 2:]))
        visible = (ops.maximum(visible[0], inner[0]), ops.minimum(visible[1], inner[1]))
    axes = [_axis(low[..., i], high[..., i], visible[0][..., i], visible[1][..., i], size) for i in (0, 1)]
    (x0, x1, wx, inside_x), (y0, y1, wy, inside_y) = axes
    batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
    width, channels = ops.shape(images)[2], images.shape[-1]
    flat = ops.reshape(images, (batch, -1, channels))

    def pixels(y: Tensor, x: Tensor) -> Tensor:
        index = y[..., :, None] * width + x[..., None, :]
        return ops.reshape(
            ops.take_along_axis(flat, ops.reshape(index, (batch, -1, 1)), axis=1), (batch, count, size, size, channels)
        )

    wx, wy = wx[..., None, :, None], wy[..., :, None, None]
    top = pixels(y0, x0) * (1 - wx) + pixels(y0, x1) * wx
    bottom = pixels(y1, x0) * (1 - wx) + pixels(y1, x1) * wx
    inside = ops.logical_and(inside_y[..., :, None], inside_x[..., None, :])[..., None]
    return ops.where(inside, top * (1 - wy) + bottom * wy, 0.0)


def _axis(low: Tensor, high: Tensor, first: Tensor, end: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis: both neighbours of every pixel of the crop, the second's weight, and whether it is visible.

    The visible pixels `first` to `end` of the region `low` to `high` fill their rounded share of the crop.
    """
    extent = high - low
    cells = ops.maximum(end - first, 1.0)
    start = _round((first - low) * size / extent)
    length = ops.minimum(ops.maximum(_round(cells * size / extent), 1.0), size - start)
    at = ops.cast(ops.arange(size), "float32") - start[..., None]
    inside = ops.logical_and(at >= 0, at < length[..., None])
    inside = ops.logical_and(inside, (end > first)[..., None])
    source = (at + 0.5) * (cells / ops.maximum(length, 1.0))[..., None] - 0.5
    source = ops.clip(source, 0.0, cells[..., None] - 1)
    below = ops.floor(source)
    above = ops.minimum(below + 1, cells[..., None] - 1)
    offset = ops.where(inside, first[..., None], 0.0)
    below, above = (ops.where(inside, neighbour, 0.0) + offset for neighbour in (below, above))
    return ops.cast(below, "int32"), ops.cast(above, "int32"), source - ops.floor(source), inside


def _round(x: Tensor) -> Tensor:
    """Halves upwards on every backend; NumPy's, and with it Keras's, go to the even number."""
    return ops.floor(x + 0.5)
