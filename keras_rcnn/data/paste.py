"""28x28 mask probabilities -> masks at the size of the photo, boolean or COCO RLE."""

import numpy as np


def paste_masks(masks, boxes, height, width, threshold=0.5, parts=None):
    """Pastes masks into the image, as torchvision does: padded by one cell, resized to the expanded integer box.

    Args:
        masks: float32 [n, M, M] probabilities in the box.
        boxes: float32 [n, 4] xyxy in pixels of the image.
        height: int, of the image.
        width: int, of the image.
        threshold: probability from which a pixel belongs to the object.
        parts: function that resizes the masks by another rule; see `_parts`.

    Returns:
        bool [n, height, width].
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for i, (y, x, part) in enumerate((parts or _parts)(masks, boxes, height, width)):
        np.greater_equal(part, threshold, out=pasted[i, y : y + part.shape[0], x : x + part.shape[1]])
    return pasted


def pasted(crops, boxes, size, form, parts=None):
    """Masks as `detect(masks=form)` answers them.

    Args:
        crops: float32 [n, M, M], the probabilities in the boxes.
        boxes: float32 [n, 4] xyxy, px.
        size: (height, width) of the image.
        form: `"crops"` for the crops as they are, `"rle"` for COCO RLEs, True for arrays of the image's size.
        parts: as in `paste_masks`.
    """
    if form == "crops":
        return crops
    return (paste_rle if form == "rle" else paste_masks)(crops, boxes, *size, parts=parts)


def paste_rle(masks, boxes, height, width, threshold=0.5, parts=None):
    """`paste_masks` as a list of n COCO RLEs, without an array of the image's size.

    Args:
        masks, boxes, height, width, threshold, parts: as in `paste_masks`.

    Returns:
        A list of dicts `{"size": [height, width], "counts": bytes}`, compressed as pycocotools has it.
    """
    from pycocotools import mask as coco

    answer = []
    for y, x, part in (parts or _parts)(masks, boxes, height, width):
        counts = _counts(part >= threshold, y, x, height, width)
        answer.append(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return answer


def _parts(masks, boxes, height, width):
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


def _expanded(boxes, size):
    """Boxes grown about their centres by (size + 2) / size, truncated towards zero to integers."""
    boxes = np.asarray(boxes, np.float32)
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32((size + 2) / size)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64).tolist()


def _counts(part, y, x, height, width):
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
