"""Instance masks kept small: a crop of the image's mask and the frame, in px, that the crop fills.

Three hundred full-size masks of a 12 MP photo are 3.6 GB; three hundred crops are the size of the objects. Flipping,
scaling or moving the image changes a frame (and mirrors its crop), never resamples.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_rcnn.data.images import ImageError

_LIMIT = 1024  # px a side of a crop: larger ones are thinned out, so that full-frame objects stay bounded as well


class InstanceMask(NamedTuple):
    """One object's mask: `crop` uint8 `[h, w]` of 0 and 1, stretched over `frame` float32 `[x1, y1, x2, y2]` in px."""

    crop: np.ndarray
    frame: np.ndarray


def instance_mask(segmentation, height, width, box):
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
        crop = rle_window(rle_counts(segmentation["counts"]), *segmentation["size"], window)
    elif isinstance(segmentation, (list, tuple)):
        crop = polygon_window(segmentation, window)
    else:
        full = read_mask(segmentation)
        if full.shape != (height, width):
            name = segmentation if isinstance(segmentation, (str, Path)) else "array"
            raise ImageError(f"mask {name}: {full.shape[1]} x {full.shape[0]} px, but its image is {width} x {height}")
        crop = full[y1:y2, x1:x2]
    steps = [-(-side // _LIMIT) for side in crop.shape]
    return InstanceMask(np.ascontiguousarray(crop[:: steps[0], :: steps[1]]), np.array(window, np.float32))


def full_mask(segmentation, height, width):
    """One object's mask as uint8 `[height, width]` of 0 and 1."""
    if isinstance(segmentation, dict):
        return rle_window(rle_counts(segmentation["counts"]), *segmentation["size"], (0, 0, width, height))
    if isinstance(segmentation, (list, tuple)):
        return polygon_window(segmentation, (0, 0, width, height))
    return read_mask(segmentation)


def sample_mask(mask, box, size):
    """The mask as uint8 `[size, size]` over `box`, by the nearest px; 0 where the mask does not reach.

    Args:
        mask: `InstanceMask`.
        box: `[x1, y1, x2, y2]` in the px of the mask's frame.
        size: Side of the answer.
    """
    crop, frame = mask
    grid = (np.arange(size) + 0.5) / size
    answer, indices = np.zeros((size, size), np.uint8), []
    for axis, cells in ((1, crop.shape[0]), (0, crop.shape[1])):
        low, high = frame[axis], frame[axis + 2]
        at = np.floor((box[axis] + grid * (box[axis + 2] - box[axis]) - low) * (cells / (high - low))).astype(int)
        indices.append((np.flatnonzero((at >= 0) & (at < cells)), at))
    (rows, ys), (columns, xs) = indices
    answer[np.ix_(rows, columns)] = crop[np.ix_(ys[rows], xs[columns])]
    return answer


def resize_nearest(mask, height, width):
    """torchvision's nearest resize of a mask: `[h, w]` -> `[height, width]`."""
    rows, columns = (
        np.minimum((np.arange(n) * (np.float32(old) / np.float32(n))).astype(int), old - 1)
        for n, old in zip((height, width), mask.shape)
    )
    return mask[rows][:, columns]


def read_mask(source):
    """A binary mask from a PNG (or an array): uint8 `[height, width]`, 1 wherever the file is not 0."""
    if isinstance(source, (str, Path)):
        from PIL import Image

        path = Path(source)
        if not path.is_file():
            raise ImageError(f"{path}: no such mask file")
        try:
            with Image.open(path) as image:
                source = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"{path}: not a readable mask image ({error})") from error
    mask = np.asarray(source) != 0
    if mask.ndim == 3:
        mask = mask[..., :3].any(axis=-1)
    return mask.astype(np.uint8)


def rle_counts(counts):
    """COCO's run lengths as int64 `[runs]`, from a list of them or from the compressed text."""
    if not isinstance(counts, (str, bytes)):
        return np.asarray(counts, np.int64)
    if not counts:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    # 5 bits a character, the lowest first; bit 0x20 says that more follow, bit 0x10 of the last is the sign.
    last = (codes & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    runs = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    negative = (codes[last] & 0x10) != 0
    runs = np.where(negative, runs - (1 << (5 * (place[last] + 1))), runs)
    # From the fourth on a run is stored as the difference to the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def rle_window(counts, height, width, window):
    """The window `(x1, y1, x2, y2)` of a run-length mask as uint8 `[y2 - y1, x2 - x1]`; the rest is not decoded."""
    x1, y1, x2, y2 = window
    ends = np.clip(np.cumsum(counts), x1 * height, x2 * height)
    lengths = np.diff(ends, prepend=x1 * height)
    columns = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), lengths)
    missing = (x2 - x1) * height - len(columns)
    if missing:
        columns = np.concatenate([columns, np.zeros(missing, np.uint8)])
    return columns.reshape(x2 - x1, height).T[y1:y2]


def polygon_window(polygons, window):
    """COCO polygons (`[[x, y, x, y, ...], ...]`) as uint8 over a window, rasterised as COCO's own tools do."""
    from pycocotools import mask as coco_mask

    x1, y1, x2, y2 = window
    shifted = [(np.asarray(polygon, np.float64).reshape(-1, 2) - (x1, y1)).ravel().tolist() for polygon in polygons]
    size = (y2 - y1, x2 - x1)
    merged = coco_mask.merge(coco_mask.frPyObjects(shifted, *size))
    return rle_window(rle_counts(merged["counts"]), *size, (0, 0, size[1], size[0]))


def segmentation_problem(segmentation, height, width):
    """What is wrong with a COCO segmentation, as text; None if nothing is."""
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", [])) != [height, width]:
            return f"RLE size {segmentation.get('size')} is not the image's [{height}, {width}] (height, width)"
        counts = segmentation.get("counts")
        if not isinstance(counts, (str, bytes, list)):
            return f"RLE counts are {type(counts).__name__}, expected a list or text"
        try:
            runs = rle_counts(counts)
        except (ValueError, TypeError, IndexError) as error:
            return f"RLE counts cannot be decoded ({error})"
        if (runs < 0).any() or runs.sum() != height * width:
            return f"RLE covers {runs.sum()} px, its image has {height * width}"
    elif isinstance(segmentation, (list, tuple)):
        for polygon in segmentation:
            if not isinstance(polygon, (list, tuple)):
                return f"polygon {polygon!r} is not a list of coordinates [x, y, x, y, ...]"
            if len(polygon) % 2:
                return f"polygon has an odd number of coordinates ({len(polygon)})"
            if len(polygon) < 6:
                return f"polygon with {len(polygon) // 2} points, at least 3 are needed"
            try:
                finite = np.isfinite(np.asarray(polygon, np.float64)).all()
            except (ValueError, TypeError):
                return "polygon holds something that is no number"
            if not finite:
                return "polygon with NaN or infinite coordinates"
    elif isinstance(segmentation, (str, Path)):
        if not Path(segmentation).is_file():
            return f"no such mask file {segmentation}"
    elif np.shape(segmentation) != (height, width):
        return f"mask of shape {np.shape(segmentation)}, its image is {(height, width)}"
    return None
