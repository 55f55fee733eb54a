"""28x28 mask probabilities -> masks at the size of the photo, boolean or COCO RLE.

A `rule` is whose way it is: torchvision's pads a mask by one cell and resizes it to the expanded integer box;
Detectron2's maps each pixel's centre linearly into the box as it is, and reads the mask there, zeros around it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from keras_rcnn.interfaces import RLE, MaskForm

# a function of masks [n, M, M], boxes [n, 4], height and width: for each mask the corner (y, x) and the probabilities
# [h, w] of its part inside the image
Parts = Callable[[np.ndarray, np.ndarray, int, int], Iterator[tuple[int, int, np.ndarray]]]
Rule = Literal["torchvision", "detectron2"]


def paste_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.5,
    rule: Rule | Parts = "torchvision",
) -> np.ndarray:
    """Pastes masks into the image.

    Args:
        masks: float32 [n, M, M] probabilities in the box.
        boxes: float32 [n, 4] xyxy in pixels of the image.
        height: int, of the image.
        width: int, of the image.
        threshold: probability from which a pixel belongs to the object.
        rule: `"torchvision"` or `"detectron2"`, see above, or a function that has the parts by another rule.

    Returns:
        bool [n, height, width].
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for i, (y, x, part) in enumerate(_by(rule)(masks, boxes, height, width)):
        np.greater_equal(part, threshold, out=pasted[i, y : y + part.shape[0], x : x + part.shape[1]])
    return pasted


def pasted(
    crops: np.ndarray, boxes: np.ndarray, size: Sequence[int], form: MaskForm, rule: Rule | Parts = "torchvision"
) -> np.ndarray | list[RLE]:
    """Masks as `detect(masks=form)` answers them.

    Args:
        crops: float32 [n, M, M], the probabilities in the boxes.
        boxes: float32 [n, 4] xyxy, px.
        size: (height, width) of the image.
        form: `"crops"` for the crops as they are, `"rle"` for COCO RLEs, True for arrays of the image's size.
        rule: as in `paste_masks`.
    """
    if form == "crops":
        return crops
    return (paste_rle if form == "rle" else paste_masks)(crops, boxes, size[0], size[1], rule=rule)


def paste_rle(
    masks: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.5,
    rule: Rule | Parts = "torchvision",
) -> list[RLE]:
    """`paste_masks` as a list of n COCO RLEs, without an array of the image's size.

    Args:
        masks, boxes, height, width, threshold, rule: as in `paste_masks`.

    Returns:
        A list of dicts `{"size": [height, width], "counts": bytes}`, compressed as pycocotools has it.
    """
    from pycocotools import mask as coco

    answer = []
    for y, x, part in _by(rule)(masks, boxes, height, width):
        runs: Any = {"size": [height, width], "counts": _counts(part >= threshold, y, x, height, width)}
        answer.append(coco.frPyObjects(runs, height, width))
    return answer


def _parts(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each mask the corner (y, x) and the probabilities [h, w] of its part inside the image."""
    import cv2

    size = masks.shape[1]
    padded = np.pad(np.asarray(masks, np.float32), ((0, 0), (1, 1), (1, 1)))
    for mask, (x1, y1, x2, y2) in zip(padded, _expanded(boxes, size), strict=True):
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
        if left >= right or top >= bottom:
            yield 0, 0, np.zeros((0, 0), np.float32)
            continue
        whole = cv2.resize(mask, (w, h), interpolation=cv2.INTER_LINEAR)
        yield top, left, whole[top - y1 : bottom - y1, left - x1 : right - x1]


def _detectron2_parts(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int
) -> Iterator[tuple[int, int, np.ndarray]]:
    """As `_parts`, in Detectron2's way; only pixels from floor(low) - 1 to ceil(high) + 1 of the box are looked at."""
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        top, rows = _along(y1, y2, height, mask.shape[0])
        left, columns = _along(x1, x2, width, mask.shape[1])
        yield top, left, rows @ mask @ columns.T


def _along(low: float, high: float, side: int, cells: int) -> tuple[int, np.ndarray]:
    """The first pixel of a box along an axis, and the weights float32 [pixels, cells] of bilinear interpolation."""
    first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, side)
    centres = np.arange(first, max(last, first), dtype=np.float32) + np.float32(0.5)
    # PyTorch's grid_sample in its own order: first to -1..1, then to cells
    grid = (centres - low) / max(high - low, np.finfo(np.float32).tiny) * 2 - 1
    at = ((grid + 1) * np.float32(cells) - 1) / 2
    return first, np.maximum(1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)), 0)


def _by(rule: Rule | Parts) -> Parts:
    return rule if callable(rule) else {"torchvision": _parts, "detectron2": _detectron2_parts}[rule]


def _expanded(boxes: np.ndarray, size: int) -> list[list[int]]:
    """Boxes grown about their centres by (size + 2) / size, truncated towards zero to integers."""
    boxes = np.asarray(boxes, np.float32)
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32((size + 2) / size)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64).tolist()


def _counts(part: np.ndarray, y: int, x: int, height: int, width: int) -> list[int]:
    """Uncompressed column-major run lengths, zeros first, of `part` at (y, x) in an image of zeros."""
    columns, rows = np.nonzero(part.T)
    if not len(rows):
        return [height * width]
    positions = (columns + x) * height + rows + y
    breaks = np.flatnonzero(np.diff(positions) != 1)
    starts = positions[np.concatenate([[0], breaks + 1])]
    ends = positions[np.concatenate([breaks, [len(positions) - 1]])] + 1
    runs = np.empty(2 * len(starts) + 1, np.int64)
    runs[0:-1:2], runs[1:-1:2] = starts - np.concatenate([[0], ends[:-1]]), ends - starts
    runs[-1] = height * width - ends[-1]
    return runs[: None if runs[-1] else -1].tolist()
