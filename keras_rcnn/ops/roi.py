"""Features of regions: RoIPool (Fast R-CNN, section 2.1) and RoIAlign (Mask R-CNN, section 3).

Shapes: B images, R regions an image, S bins a side. Feature maps are [B, H, W, C]; `scale` is map size / image size.
Regions are xyxy pixels of the preprocessed image; gradients flow to the features, never to the boxes.
"""

import math
from collections.abc import Callable, Sequence

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import kernel


def level_index(
    boxes: Tensor,
    lowest: int,
    highest: int,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
    inside: bool = False,
) -> Tensor:
    """The pyramid level of each region (FPN, eq. 1): floor(4 + log2(sqrt(area) / 224) + 1e-6).

    Args:
        boxes: [..., 4].
        lowest: int, the finest level, 2 for P2.
        highest: int, the coarsest level.
        canonical_size: the side that goes to `canonical_level`.
        canonical_level: int.
        inside: whether 1e-8 is added inside of the logarithm, as in Detectron2, and not 1e-6 outside.

    Returns:
        int32 [...], counted from 0 = `lowest`.
    """
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    side = ops.sqrt(sides[..., 0] * sides[..., 1])
    if inside:
        level = ops.floor(canonical_level + ops.log2(side / canonical_size + 1e-8))
        return ops.cast(ops.clip(level, lowest, highest) - lowest, "int32")
    # a float32 just under a power of two must not fall a level: hence 1e-6, added outside the logarithm
    level = ops.floor(canonical_level + ops.log(ops.maximum(side, 1e-8) / canonical_size) / math.log(2.0) + 1e-6)
    return ops.cast(ops.clip(level, lowest, highest) - lowest, "int32")


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int = 2,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign of every region on its own pyramid level.

    Args:
        features: list of maps [B, H_l, W_l, C].
        boxes: float32 [B, R, 4].
        levels: int32 [B, R], index into `features`.
        scales: one scale per map.
        size: int S.
        samples: samples a bin and axis; 0 is adaptive, see `roi_align`.
        aligned: whether coordinates are shifted by half a cell (Detectron2) or not (torchvision's detectors).

    Returns:
        [B, R, S, S, C] in the features' dtype.
    """
    boxes, scales = ops.stop_gradient(ops.cast(boxes, "float32")), [float(s) for s in scales]
    if samples <= 0:
        run = kernel("adaptive_roi_align", portable_adaptive_roi_align)
        return run(features, boxes, levels, scales, size, aligned)
    run = kernel("multilevel_roi_align", portable_multilevel_roi_align)
    return run(features, boxes, levels, scales, size, samples, aligned)


# regions at once: the memory of the adaptive twin is theirs, a strip of the map each
_CHUNK = 32


def portable_adaptive_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    aligned: bool,
) -> Tensor:
    """`multilevel_roi_align` with samples=0 in keras.ops alone: on every level of every region, of which one is taken.

    As products of matrices, a few regions at a time: slow beside a kernel, but its shapes are static.
    """
    count = ops.shape(boxes)[1]
    chunks = (count + _CHUNK - 1) // _CHUNK
    more = ((0, 0), (0, chunks * _CHUNK - count))

    def in_chunks(values: Tensor) -> Tensor:
        shape = (ops.shape(values)[0], chunks, _CHUNK, *values.shape[2:])
        return ops.moveaxis(ops.reshape(values, shape), 1, 0)

    def align(part: tuple[Tensor, Tensor]) -> Tensor:
        own, level = part
        pooled = 0.0
        for i, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            chosen = ops.where((level == i)[..., None], own, 0.0)
            aligned_to_it = roi_align(feature, chosen, scale, size, 0, aligned)
            pooled = pooled + ops.where((level == i)[..., None, None, None], aligned_to_it, 0.0)
        return ops.cast(pooled, features[0].dtype)

    done = ops.map(align, (in_chunks(ops.pad(boxes, (*more, (0, 0)))), in_chunks(ops.pad(levels, more))))
    done = ops.moveaxis(done, 0, 1)
    return ops.reshape(done, (ops.shape(boxes)[0], chunks * _CHUNK, *done.shape[3:]))[:, :count]


def portable_multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    size: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    """`multilevel_roi_align` in keras.ops alone: four gathers from all levels laid end to end, so shapes are static."""
    batch, count, channels = ops.shape(boxes)[0], ops.shape(boxes)[1], features[0].shape[-1]
    scale = ops.take(ops.stack([ops.cast(s, "float32") for s in scales]), levels)
    y, x = sample_points(boxes * scale[..., None], size, samples, aligned)
    pooled = interpolated(features, levels, y, x, bilinear)
    pooled = ops.reshape(pooled, (-1, size, samples, size, samples, channels))
    return ops.reshape(ops.mean(pooled, axis=(2, 4)), (batch, count, size, size, channels))


def interpolated(
    features: Sequence[Tensor], levels: Tensor, y: Tensor, x: Tensor, neighbours: Callable[..., tuple[Tensor, ...]]
) -> Tensor:
    """The values between the cells of each region's map, at a grid of points.

    Args:
        features: list of maps [B, H_l, W_l, C].
        levels: int32 [B, R], index into `features`.
        y, x: float32 [B, R, P] and [B, R, Q], the grid's rows and columns in cells of the region's map.
        neighbours: function of coordinates and of the map's length; the two cells beside each and their weights, as
            `bilinear`.

    Returns:
        [B, R * P * Q, C] in the features' dtype.
    """
    batch, channels = ops.shape(levels)[0], features[0].shape[-1]
    heights = [ops.shape(f)[1] for f in features]
    widths = [ops.shape(f)[2] for f in features]
    offsets, total = [], 0
    for h, w in zip(heights, widths, strict=True):
        offsets.append(total)
        total = total + h * w
    flat = ops.concatenate([ops.reshape(f, (batch, -1, channels)) for f in features], axis=1)

    def of_level(values: Sequence[float | Tensor], dtype: str) -> Tensor:
        return ops.take(ops.stack([ops.cast(v, dtype) for v in values]), levels)

    y0, y1, wy0, wy1 = neighbours(y, of_level(heights, "float32")[..., None])  # [B, R, P]
    x0, x1, wx0, wx1 = neighbours(x, of_level(widths, "float32")[..., None])
    width = of_level(widths, "int32")[..., None, None]
    offset = of_level(offsets, "int32")[..., None, None]
    pooled = 0.0
    for yi, wy in ((y0, wy0), (y1, wy1)):
        for xi, wx in ((x0, wx0), (x1, wx1)):
            index = offset + yi[..., :, None] * width + xi[..., None, :]
            values = ops.take_along_axis(flat, ops.reshape(index, (batch, -1, 1)), axis=1)
            weight = ops.reshape(wy[..., :, None] * wx[..., None, :], (batch, -1, 1))
            pooled = pooled + values * ops.cast(weight, values.dtype)
    return pooled


def sample_points(boxes: Tensor, size: int, samples: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """Sample coordinates (y, x), each [..., size * samples], of boxes in cells of their map."""
    if aligned:
        boxes = boxes - 0.5
    extent = boxes[..., 2:] - boxes[..., :2]
    if not aligned:
        extent = ops.maximum(extent, 1.0)
    steps = (ops.cast(ops.arange(size * samples), "float32") + 0.5) / (size * samples)
    x = boxes[..., 0:1] + extent[..., 0:1] * steps
    y = boxes[..., 1:2] + extent[..., 1:2] * steps
    return y, x


def bilinear(coordinate: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two neighbours of each coordinate and their weights: 0 beyond [-1, length], clamped within."""
    inside = ops.logical_and(coordinate >= -1.0, coordinate <= length)
    coordinate = ops.maximum(coordinate, 0.0)
    low = ops.minimum(ops.floor(coordinate), length - 1)
    high = ops.minimum(low + 1, length - 1)
    fraction = ops.where(low >= length - 1, 0.0, coordinate - low)
    inside = ops.cast(inside, coordinate.dtype)
    return ops.cast(low, "int32"), ops.cast(high, "int32"), (1 - fraction) * inside, fraction * inside


def roi_align(
    features: Tensor, boxes: Tensor, scale: float, size: int | Sequence[int], samples: int = 2, aligned: bool = False
) -> Tensor:
    """RoIAlign on one map; see `multilevel_roi_align`. `samples=0` takes ceil(side / size) samples a bin and axis,
    each RoI its own number, as the paper's code does (slower, and exact for mask targets).

    Args:
        features: [B, H, W, C].
        boxes: [B, R, 4].
        scale: float.
        size: int S, or (height, width) in bins.
        samples: int; 0 or less is adaptive.
        aligned: bool.

    Returns:
        [B, R, S, S, C].
    """
    if samples > 0 and isinstance(size, int):
        levels = ops.zeros(ops.shape(boxes)[:-1], dtype="int32")
        return multilevel_roi_align([features], boxes, levels, [scale], size, samples, aligned)
    rows, columns = (size, size) if isinstance(size, int) else size
    boxes = ops.cast(boxes, "float32") * scale
    if aligned:
        boxes = boxes - 0.5
    extent = boxes[..., 2:] - boxes[..., :2]
    if not aligned:
        extent = ops.maximum(extent, 1.0)
    height, width = ops.shape(features)[1], ops.shape(features)[2]
    across_y = _interpolation_matrix(boxes[..., 1], extent[..., 1], rows, samples, height)
    across_x = _interpolation_matrix(boxes[..., 0], extent[..., 0], columns, samples, width)
    features = ops.cast(features, "float32")
    return ops.einsum("brsh,bhwc,brtw->brstc", across_y, features, across_x)


def _interpolation_matrix(start: Tensor, extent: Tensor, bins: int, samples: int, length: int | Tensor) -> Tensor:
    """[B, R, bins, length]: mean over a bin's samples of the bilinear weights of every cell.

    Both the samples and the interpolation are products over the axes, so RoIAlign is two matrix products.
    """
    cells = ops.cast(ops.arange(length), "float32")
    limit = ops.cast(length, "float32")
    number = ops.ceil(extent / bins) if samples <= 0 else ops.full_like(extent, float(samples))
    first = start[..., None] + extent[..., None] / bins * ops.cast(ops.arange(bins), "float32")  # [B, R, bins]
    step = (extent / bins / ops.maximum(number, 1.0))[..., None]  # an empty RoI has no samples and gives 0

    def add(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        at = first + (ops.cast(i, "float32") + 0.5) * step
        inside = ops.logical_and(at >= -1.0, at <= limit)
        inside = ops.logical_and(inside, ops.cast(i, "float32") < number[..., None])
        at = ops.clip(at, 0.0, limit - 1)
        weights = ops.maximum(1.0 - ops.abs(at[..., None] - cells), 0.0)
        return i + 1, total + weights * ops.cast(inside, "float32")[..., None]

    most = ops.cast(ops.max(number), "int32")
    total = ops.zeros((*ops.shape(first), length), dtype="float32")
    _, total = ops.while_loop(lambda i, _: i < most, add, (ops.convert_to_tensor(0, "int32"), total))
    return total / ops.maximum(number, 1.0)[..., None, None]


def roi_pool(features: Tensor, boxes: Tensor, scale: float, size: int | Sequence[int]) -> Tensor:
    """RoIPool: the maximum of each bin (Fast R-CNN, section 2.1), with the paper's rounding.

    Corners are rounded half away from zero to cells, the far corner is inclusive, sides are at least one cell, an empty
    bin is 0, and of equal maxima the first in row-major order gets the gradient.

    Args:
        features: [B, H, W, C].
        boxes: [B, R, 4].
        scale: float.
        size: int S, or (height, width) in bins.

    Returns:
        [B, R, S, S, C].
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    return kernel("roi_pool", portable_roi_pool)(features, ops.cast(boxes, "float32"), scale, size)


def portable_roi_pool(features: Tensor, boxes: Tensor, scale: float, size: Sequence[int]) -> Tensor:
    """`roi_pool` in keras.ops alone; `size` is (height, width)."""
    rows, columns = size
    batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
    height, width, channels = ops.shape(features)[1], ops.shape(features)[2], features.shape[-1]
    index, filled = pooled_index(features, boxes, scale, (rows, columns))
    flat = ops.reshape(features, (batch, height * width, channels))
    values = ops.take_along_axis(flat, ops.reshape(index, (batch, -1, channels)), axis=1)
    values = ops.reshape(values, (batch, count, rows, columns, channels))
    return ops.where(filled, values, ops.zeros_like(values))


def cells(boxes: Tensor, scale: float) -> Tensor:
    """The corners of boxes in cells of a map, int32, with the paper's code's rounding: halves away from 0."""
    scaled = ops.cast(boxes, "float32") * scale
    return ops.cast(ops.sign(scaled) * ops.floor(ops.abs(scaled) + 0.5), "int32")


def pooled_index(features: Tensor, boxes: Tensor, scale: float, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which cell is each bin's maximum: int32 [B, R, rows, columns, C] flat index, and bool found, False where the bin
    is empty. The RoIs are taken one after another, so memory does not grow with their number."""
    rows, columns = size
    features = ops.stop_gradient(features)
    height, width = ops.shape(features)[1], ops.shape(features)[2]
    corner = cells(boxes, scale)

    def edges(low: Tensor, high: Tensor, bins: int, limit: int | Tensor) -> Tensor:
        # floor and ceil of i * extent / bins in integers: XLA turns a division by 7 into a product, rounded otherwise
        extent = ops.maximum(high - low + 1, 1)[..., None]
        i = ops.arange(bins, dtype="int32")
        start = low[..., None] + i * extent // bins
        end = low[..., None] - (-(i + 1) * extent) // bins
        cells = ops.arange(limit, dtype="int32")
        return ops.logical_and(cells >= start[..., None], cells < end[..., None])  # [B, R, bins, limit]

    in_row = edges(corner[..., 1], corner[..., 3], rows, height)
    in_column = edges(corner[..., 0], corner[..., 2], columns, width)
    lowest = float("-inf")

    def of_roi(masks: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # [B, rows, H] and [B, columns, W]: maximum over columns first, then rows; each keeps its first argmax
        row_mask, column_mask = masks
        indices, maxima = [], []
        for j in range(columns):
            part = ops.where(column_mask[:, j, None, :, None], features, lowest)  # [B, H, W, C]
            indices.append(ops.cast(ops.argmax(part, axis=2), "int32"))
            maxima.append(ops.max(part, axis=2))  # [B, H, C]
        indices, maxima = ops.stack(indices, 1), ops.stack(maxima, 1)  # [B, columns, H, C]
        out, filled = [], []
        for i in range(rows):
            part = ops.where(row_mask[:, i][:, None, :, None], maxima, lowest)
            y = ops.cast(ops.argmax(part, axis=2), "int32")  # [B, columns, C]
            x = ops.take_along_axis(indices, y[:, :, None], axis=2)[:, :, 0]
            out.append(y * width + x)
            filled.append(ops.max(part, axis=2) > lowest)
        return ops.stack(out, 1), ops.stack(filled, 1)

    masks = (ops.swapaxes(in_row, 0, 1), ops.swapaxes(in_column, 0, 1))
    index, filled = ops.map(of_roi, masks)
    return ops.swapaxes(index, 0, 1), ops.swapaxes(filled, 0, 1)
