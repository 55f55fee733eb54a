"""Instance masks kept small: a crop of the image's mask and the frame, in px, that the crop fills.

Three hundred full-size masks of a 12 MP photo are 3.6 GB; three hundred crops are the size of the objects. Flipping,
scaling or moving the image changes a frame (and mirrors its crop), never resamples.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.fields import number, numbers, shown
from keras_rcnn.data.images import ImageError, read_mask_file
from keras_rcnn.data.problems import DataError
from keras_rcnn.interfaces import RLE, Segmentation

FAR = 100_000  # px: pycocotools walks along a polygon's edges and takes memory for each px, or ends the process
LIMIT = 1024  # px a side of a crop: larger ones are thinned out, so that full-frame objects stay bounded as well


class InstanceMask(NamedTuple):
    """One object's mask: `crop` uint8 `[h, w]` of 0 and 1, stretched over `frame` float32 `[x1, y1, x2, y2]` in px."""

    crop: np.ndarray
    frame: np.ndarray


def instance_mask(segmentation: Segmentation, height: int, width: int, box: np.ndarray) -> InstanceMask:
    """Decodes one object's mask inside its box.

    Args:
        segmentation: COCO polygons, COCO RLE (compressed or not), path of a binary PNG, or an array `[height, width]`.
        height: The image's height in px.
        width: The image's width in px.
        box: `[x1, y1, x2, y2]` in px.

    Returns:
        `InstanceMask`, its frame the box rounded outwards to whole px.
    """
    x1, y1 = np.floor(np.maximum(box[:2], 0)).astype(int)
    x2, y2 = np.maximum(np.ceil(np.minimum(box[2:], [width, height])).astype(int), [x1 + 1, y1 + 1])
    window = (int(x1), int(y1), int(x2), int(y2))
    if isinstance(segmentation, dict):
        crop = _rle_window(segmentation, window)
    elif isinstance(segmentation, (list, tuple)):
        crop = polygon_window(segmentation, window)
    else:
        full = read_mask(segmentation)
        if full.shape != (height, width):
            name = segmentation if isinstance(segmentation, (str, Path)) else "array"
            raise ImageError(f"mask {name}: {full.shape[1]} x {full.shape[0]} px, but its image is {width} x {height}")
        crop = full[y1:y2, x1:x2]
    steps = [-(-side // LIMIT) for side in crop.shape]
    return InstanceMask(np.ascontiguousarray(crop[:: steps[0], :: steps[1]]), np.array(window, np.float32))


def full_mask(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """One object's mask as uint8 `[height, width]` of 0 and 1."""
    if isinstance(segmentation, dict):
        return _rle_window(segmentation, (0, 0, width, height))
    if isinstance(segmentation, (list, tuple)):
        return polygon_window(segmentation, (0, 0, width, height))
    return read_mask(segmentation)


def sample_mask(mask: InstanceMask, box: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    """The mask as uint8 `[size, size]` over `box`, by the nearest px; 0 where the mask does not reach.

    Args:
        mask: `InstanceMask`.
        box: `[x1, y1, x2, y2]` in the px of the mask's frame.
        size: Side of the answer.
    """
    crop, frame = mask
    grid = (np.arange(size) + 0.5) / size
    sampled, indices = np.zeros((size, size), np.uint8), []
    for axis, cells in ((1, crop.shape[0]), (0, crop.shape[1])):
        low, high = frame[axis], frame[axis + 2]
        at = np.floor((box[axis] + grid * (box[axis + 2] - box[axis]) - low) * (cells / (high - low))).astype(int)
        indices.append((np.flatnonzero((at >= 0) & (at < cells)), at))
    (rows, ys), (columns, xs) = indices
    sampled[np.ix_(rows, columns)] = crop[np.ix_(ys[rows], xs[columns])]
    return sampled


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """torchvision's nearest resize of a mask: `[h, w]` -> `[height, width]`."""
    rows, columns = (
        np.minimum((np.arange(n) * (np.float32(old) / np.float32(n))).astype(int), old - 1)
        for n, old in zip((height, width), mask.shape)
    )
    return mask[rows][:, columns]


def read_mask(source: str | Path | np.ndarray) -> np.ndarray:
    """A binary mask from a PNG (or an array): uint8 `[height, width]`, 1 wherever the file is not 0."""
    if isinstance(source, (str, Path)):
        source = read_mask_file(source)
    mask = np.asarray(source) != 0
    if mask.ndim == 3:
        mask = mask[..., :3].any(axis=-1)
    return mask.astype(np.uint8)


def rle_counts(counts: str | bytes | Sequence[float] | np.ndarray) -> np.ndarray:
    """COCO's run lengths as int64 `[runs]`, from a list of them or from the compressed text."""
    if not isinstance(counts, (str, bytes)):
        runs = np.asarray(counts, np.float64)
        if runs.ndim != 1 or not (np.abs(runs) < 2**53).all() or (runs != np.rint(runs)).any():
            raise ValueError("not a flat list of whole numbers")
        return runs.astype(np.int64)
    if not counts:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    # 5 bits a character, the lowest first; bit 0x20 says that more follow, bit 0x10 of the last is the sign.
    last = (codes & 0x20) == 0
    if codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise ValueError("it is no compressed text of run lengths")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    if place.max() > 9:
        raise ValueError("a run of more than 50 bits")
    runs = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[last] & 0x10) != 0
    runs = np.where(negative, runs - (1 << (5 * (place[last] + 1))), runs)
    # From the fourth on a run is stored as the difference to the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def rle_window(counts: np.ndarray, height: int, width: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """The window `(x1, y1, x2, y2)` of a run-length mask as uint8 `[y2 - y1, x2 - x1]`; the rest is not decoded."""
    x1, y1, x2, y2 = window
    ends = np.clip(np.cumsum(counts), x1 * height, x2 * height)
    lengths = np.diff(ends, prepend=x1 * height)
    columns = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), lengths)
    missing = (x2 - x1) * height - len(columns)
    if missing:
        columns = np.concatenate([columns, np.zeros(missing, np.uint8)])
    return columns.reshape(x2 - x1, height).T[y1:y2]


def _rle_window(segmentation: dict[str, Any] | RLE, window: tuple[int, int, int, int]) -> np.ndarray:
    size = segmentation["size"]
    if len(size) != 2 or not all(isinstance(side, (int, np.integer)) for side in size):
        raise DataError(f"the size of a run-length mask is {shown(size)}; it should be [height, width] in whole px")
    return rle_window(rle_counts(segmentation["counts"]), size[0], size[1], window)


def polygon_window(polygons: Sequence[ArrayLike], window: tuple[int, int, int, int]) -> np.ndarray:
    """COCO polygons (`[[x, y, x, y, ...], ...]`) as uint8 over a window, rasterised as COCO's own tools do."""
    from pycocotools import mask as coco_mask

    x1, y1, x2, y2 = window
    refuse_far(polygons, max(x2, y2))
    points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    shifted: list[Any] = [(polygon - (x1, y1)).ravel().tolist() for polygon in points]
    size = (y2 - y1, x2 - x1)
    merged = coco_mask.merge(coco_mask.frPyObjects(shifted, *size))
    return rle_window(rle_counts(merged["counts"]), *size, (0, 0, size[1], size[0]))


def refuse_far(polygons: Iterable[ArrayLike], side: float) -> None:
    """Raises a `DataError` before pycocotools sees coordinates that are far outside an image of this longer side."""
    for polygon in polygons:
        if not (np.abs(np.asarray(polygon, np.float64)) <= FAR + side).all():  # also catches NaN
            raise DataError(f"polygon {shown(polygon)} has coordinates that are no px of an image (or near it)")


def segmentation_problem(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with a COCO segmentation, as text; None if nothing is."""
    if isinstance(segmentation, dict):
        if numbers(segmentation.get("size")) != [height, width]:
            return f"RLE size {segmentation.get('size')} is not the image's [{height}, {width}] (height, width)"
        counts = segmentation.get("counts")
        if not isinstance(counts, (str, bytes, list)):
            return f"RLE counts are {type(counts).__name__}, expected a list or text"
        try:
            runs = rle_counts(counts)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            return f"RLE counts cannot be decoded ({error})"
        if (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
            return f"RLE covers {runs.sum()} px, its image has {height * width}"
    elif isinstance(segmentation, (list, tuple)):
        for polygon in segmentation:
            reason = polygon_problem(polygon, height, width)
            if reason:
                return reason
    elif isinstance(segmentation, (str, Path)):
        if not os.path.isfile(segmentation):  # Path.is_file raises for a name too long
            return f"no such mask file {segmentation}"
    elif np.shape(segmentation) != (height, width):
        return f"mask of shape {np.shape(segmentation)}, its image is {(height, width)}"
    return None


def polygon_problem(polygon: Any, height: int, width: int) -> str | None:
    """What is wrong with one polygon `[x, y, x, y, ...]`, as text; None if nothing is."""
    if not isinstance(polygon, (list, tuple)):
        return f"polygon {shown(polygon)} is not a list of coordinates [x, y, x, y, ...]"
    if len(polygon) % 2:
        return f"polygon has an odd number of coordinates ({len(polygon)})"
    if len(polygon) < 6:
        return f"polygon with {len(polygon) // 2} points, at least 3 are needed"
    polygon = numbers(polygon)
    if polygon is None:
        return "polygon holds something that is no number"
    x, y = np.array(polygon).reshape(-1, 2).T
    if not (np.isfinite(x) & np.isfinite(y)).all():
        return "polygon with NaN or infinite coordinates"
    far = max(abs(x).max() - width, abs(y).max() - height)
    if far > FAR:
        return f"polygon with coordinates {far:.6g} px outside its image of {width} x {height} px"
    x, y = x - x[0], y - y[0]
    if x[:-1] @ y[1:] - y[:-1] @ x[1:] == 0:
        return "polygon without an area"
    return None


def clean_segmentation(
    value: Any, height: int, width: int, folder: Path | None = None
) -> tuple[Segmentation | None, list[str]]:
    """A COCO `segmentation` as tools write it -> as it should be, and what is wrong with the rest.

    Numbers as text become numbers, a flat list one polygon, `[[x, y], ...]` too; parts that are bad are left out, and
    parts that are empty.

    Args:
        value: What the file has.
        height: The image's height in px.
        width: The image's width in px.
        folder: Path that mask files are relative to.

    Returns:
        `(polygons, RLE, path or None, [reasons])`.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0]
    if value is None or (isinstance(value, (str, dict, list, tuple)) and not value):
        return None, []
    if isinstance(value, str):
        path = value if folder is None else str(folder / value)
        reason = segmentation_problem(path, height, width)
        return (None if reason else path), [reason] if reason else []
    if isinstance(value, dict):
        counts = value.get("counts")
        plain: list[Any] | None = [number(count) for count in counts] if isinstance(counts, list) else None
        if plain is not None and None in plain:
            return None, [f"RLE counts {shown(counts)} are not a flat list of numbers"]
        rle = {"size": value.get("size"), "counts": counts if plain is None else plain}
        reason = segmentation_problem(rle, height, width)
        if reason:
            return None, [reason]
        if plain is not None:
            rle["counts"] = [int(count) for count in plain]
        return {"size": [height, width], "counts": rle["counts"]}, []
    if not isinstance(value, (list, tuple)):
        return None, [f"segmentation {shown(value)} is neither polygons nor RLE"]
    if not any(isinstance(part, (list, tuple, dict)) for part in value):
        value = [value]
    elif len(value) > 2 and _are_points(value):
        value = [[side for point in value for side in point]]
    good, reasons = [], []
    for part in value:
        if isinstance(part, (list, tuple)):
            if not part:
                continue
            if _are_points(part):
                part = [side for point in part for side in point]
            part = numbers(part) or part
        reason = polygon_problem(part, height, width)
        (reasons if reason else good).append(reason or part)
    return good or None, reasons


def _are_points(values: Sequence[Any]) -> bool:
    return isinstance(values[0], (list, tuple)) and all(
        isinstance(point, (list, tuple)) and len(point) == 2 for point in values
    )


def text_rle(rle: RLE) -> RLE:
    """A compressed COCO RLE in values that JSON has: `{"size": [height, width], "counts": text}`."""
    counts = rle["counts"]
    text = counts if isinstance(counts, str) else bytes(counts).decode("ascii")
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def segmentation_box(segmentation: Segmentation, height: int, width: int) -> list[float] | None:
    """The box `[x1, y1, x2, y2]`, in px, around a good segmentation; None if it is empty."""
    if isinstance(segmentation, (list, tuple)):
        points = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in segmentation])
        return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    if isinstance(segmentation, dict):
        ends = np.cumsum(rle_counts(segmentation["counts"]))
        first, last = ends[:-1:2], ends[1::2] - 1
        first, last = first[: len(last)], last
        first, last = first[last >= first], last[last >= first]
        if not len(first):
            return None
        whole = (first // height != last // height).any()
        top, bottom = (0, height) if whole else ((first % height).min(), (last % height).max() + 1)
        return [int(side) for side in (first[0] // height, top, last[-1] // height + 1, bottom)]
    mask = read_mask(segmentation)
    if mask.shape != (height, width):
        raise DataError(f"mask of shape {mask.shape}, its image is {(height, width)}")
    ys, xs = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1] if len(xs) else None
