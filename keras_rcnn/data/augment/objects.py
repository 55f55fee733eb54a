"""What the transforms share about boxes and masks: what of them is in view, and where their px lie."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.keypoints import hidden, like
from keras_rcnn.data.masks import InstanceMask

Masks = list[InstanceMask] | None
Sample = tuple[np.ndarray, np.ndarray, np.ndarray, Masks]  # image, boxes, labels, masks
Others = Callable[[], Sample]

PROPOSAL = -2
FILL = (124, 116, 104)  # ImageNet's mean: 0 once it is normalised


def float32(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas `[n]` of boxes `[n, 4]`."""
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def moved(masks: Iterable[InstanceMask], scale: ArrayLike, offset: ArrayLike) -> list[InstanceMask]:
    """Masks with their frames `[x1, y1, x2, y2]` at `frame * scale - offset`, two numbers each."""
    scales, offsets = np.tile(scale, 2), np.tile(offset, 2)

    def move(points: np.ndarray) -> np.ndarray:
        return points * scales[:2] - offsets[:2]

    return [like(mask, mask.crop, float32(mask.frame * scales - offsets), move) for mask in masks]


def trimmed(mask: InstanceMask, view: tuple[int, int, int, int]) -> InstanceMask | None:
    """The part of a mask whose px have their centres in a view, cut out as closely as can be; None if there is none.

    Args:
        mask: `InstanceMask`.
        view: `(x1, y1, x2, y2)` in px.

    Returns:
        `InstanceMask`, its frame the box around the mask.
    """
    crop, frame = mask
    if not crop.size:
        return None
    steps = (frame[2:] - frame[:2]) / (crop.shape[1], crop.shape[0])
    ends = np.ceil((np.reshape(view, (2, 2)) - frame[:2]) / steps - 0.5)
    (left, top), (right, bottom) = np.clip(ends, 0, (crop.shape[1], crop.shape[0])).astype(int)
    if right <= left or bottom <= top:
        return None
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(crop[top:bottom, left:right]))
    if not width:
        return None
    left, top = left + x, top + y
    corners = np.array([[left, top], [left + width, top + height]])
    frame = float32((corners * steps + frame[:2]).ravel())
    return like(mask, crop[top : top + height, left : left + width], frame)


def in_view(
    boxes: np.ndarray, labels: np.ndarray, masks: Masks, view: tuple[int, int, int, int], min_visible: float
) -> tuple[np.ndarray, np.ndarray, Masks]:
    """The objects that can be seen in a view, cut off at its edges.

    An object that is cut through has then the box of what its mask has in the view, or without a mask that of the part
    of its box.

    Args:
        boxes: float32 `[n, 4]`.
        labels: int32 `[n]`.
        masks: list of `n` `InstanceMask`, or None.
        view: `(x1, y1, x2, y2)` in px.
        min_visible: an object is left out if less than this share of its box is in view.

    Returns:
        `(boxes, labels, masks)` of those that are left.
    """
    limit = float32(view)
    visible = np.clip(boxes, np.tile(limit[:2], 2), np.tile(limit[2:], 2))
    kept = enough(boxes, visible, min_visible)
    if masks is not None:
        masks = [hidden(mask, view) for mask in masks]
        for i in np.flatnonzero(kept & (visible != boxes).any(axis=1) & (labels != PROPOSAL)):
            if not masks[i].crop.size:  # keypoints alone
                continue
            part = trimmed(masks[i], view)
            if part is None:
                kept[i] = False
                continue
            masks[i] = part
            visible[i] = np.clip(part.frame, np.tile(limit[:2], 2), np.tile(limit[2:], 2))
        kept &= (visible[:, 2:] - visible[:, :2] >= 1).all(axis=1)
        masks = [masks[i] for i in np.flatnonzero(kept)]
    return visible[kept], labels[kept], masks


def enough(boxes: np.ndarray, visible: np.ndarray, min_visible: float) -> np.ndarray:
    """Of which boxes `[n, 4]` the visible parts `[n, 4]` are large enough: bool `[n]`."""
    kept = areas(visible) >= np.maximum(min_visible * areas(boxes), 1e-3)
    return kept & (visible[:, 2:] - visible[:, :2] >= 1).all(axis=1)


def covers(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The share of each box `[n, 4]` that lies in each window `[m, 4]`: `[m, n]`."""
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=-1) / np.maximum(areas(boxes), 1e-6)


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image at another size, averaged where it shrinks."""
    shrinks = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def pixel_window(mask: InstanceMask, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole px under a mask's frame, within an image: `(x1, y1, x2, y2)`."""
    low = np.maximum(np.floor(mask.frame[:2]), 0).astype(int)
    high = np.minimum(np.ceil(mask.frame[2:]), (width, height)).astype(int)
    return (*low.tolist(), *high.tolist())


def pixels(mask: InstanceMask, window: tuple[int, int, int, int]) -> np.ndarray:
    """A mask as bool `[y2 - y1, x2 - x1]` on the px of a window `(x1, y1, x2, y2)`, by the nearest cell."""
    crop, frame = mask
    x1, y1, x2, y2 = window
    steps = (frame[2:] - frame[:2]) / (crop.shape[1], crop.shape[0])
    columns = np.floor((np.arange(x1, x2) + 0.5 - frame[0]) / steps[0]).astype(int)
    rows = np.floor((np.arange(y1, y2) + 0.5 - frame[1]) / steps[1]).astype(int)
    answer = np.zeros((y2 - y1, x2 - x1), bool)
    ys = np.flatnonzero((rows >= 0) & (rows < crop.shape[0]))
    xs = np.flatnonzero((columns >= 0) & (columns < crop.shape[1]))
    answer[np.ix_(ys, xs)] = crop[np.ix_(rows[ys], columns[xs])]
    return answer


def cells(mask: InstanceMask, canvas: np.ndarray) -> np.ndarray:
    """The values of a canvas, bool `[h, w]`, under the cells of a mask, bool `[rows, columns]`; False outside it."""
    crop, frame = mask
    steps = (frame[2:] - frame[:2]) / (crop.shape[1], crop.shape[0])
    columns = np.floor(frame[0] + (np.arange(crop.shape[1]) + 0.5) * steps[0]).astype(int)
    rows = np.floor(frame[1] + (np.arange(crop.shape[0]) + 0.5) * steps[1]).astype(int)
    answer = np.zeros(crop.shape, bool)
    ys = np.flatnonzero((rows >= 0) & (rows < canvas.shape[0]))
    xs = np.flatnonzero((columns >= 0) & (columns < canvas.shape[1]))
    answer[np.ix_(ys, xs)] = canvas[np.ix_(rows[ys], columns[xs])]
    return answer
