"""What is wrong in a source of annotations, found field by field and said all at once."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.fields import number
from keras_rcnn.data.images import ImageError, image_size
from keras_rcnn.interfaces import OnBad

logger = logging.getLogger(__name__)

TOLERANCE = 2.0  # px that a box may stick out of its image and is clipped without a word: annotation tools round
LARGEST_SIDE = 1_000_000  # px; what claims more is not believed


class DataError(ValueError):
    """Annotations that cannot be used; the message names the file, the value and the way out."""


def clean_boxes(
    boxes: ArrayLike, height: ArrayLike, width: ArrayLike, raw: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Clips boxes to their image and says what is wrong with the rest.

    Args:
        boxes: `[n, 4]`, `[x1, y1, x2, y2]` in px.
        height: The image's height in px, or of each box's image `[n]`.
        width: The image's width in px, or `[n]`.
        raw: The boxes as the file has them, for the messages. None: `boxes`.

    Returns:
        The clipped boxes float32 `[n, 4]`, which of them are good bool `[n]`, and a dict from the index of each bad box
        to the reason.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    raw = boxes if raw is None else raw
    width, height = (np.broadcast_to(side, len(boxes)) for side in (width, height))
    limit = np.stack([width, height, width, height], axis=1).astype(np.float64)
    clipped = np.clip(boxes, 0, limit)
    finite = np.all(np.isfinite(boxes), axis=1)
    empty = ~np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    outside = (np.abs(clipped - boxes) > TOLERANCE).any(axis=1) | ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    good = finite & ~empty & ~outside
    reasons = {}
    for i in np.flatnonzero(~good):
        shown = [round(float(value), 2) for value in raw[i]]
        if not finite[i]:
            reasons[int(i)] = f"box {shown} is not finite"
        elif empty[i]:
            reasons[int(i)] = f"box {shown} has no width or no height (x2 <= x1 or y2 <= y1)"
        else:
            reasons[int(i)] = f"box {shown} is outside its image of {width[i]:g} x {height[i]:g} px (width x height)"
    return clipped.astype(np.float32), good, reasons


class Problems:
    """Collects what is wrong in a source, to say all of it at once.

    Args:
        source: Its name.
        on_bad: `"error"` raises on `finish`; `"skip"` logs one warning that counts what was left out.
        item: What is bad, in the singular.
    """

    def __init__(self, source: object, on_bad: OnBad = "error", item: str = "annotation") -> None:
        if on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad must be 'error' or 'skip', got {on_bad!r}")
        self.source, self.on_bad, self.item, self.found = str(source), on_bad, item, []

    def add(self, where: object, problem: str) -> None:
        """Notes one problem."""
        self.found.append(f"{where}: {problem}"[:1000])

    def finish(self, shown: int = 20) -> None:
        """Raises a `DataError` with the problems, or logs them."""
        if not self.found:
            return
        counted = f"{len(self.found)} bad {self.item}{'' if len(self.found) == 1 else 's'}"
        lines = self.found[:shown] + ([f"... and {len(self.found) - shown} more"] if len(self.found) > shown else [])
        if self.on_bad == "skip":
            logger.warning("%s: skipped %s: %s", self.source, counted, "; ".join(lines))
            return
        raise DataError(f"{self.source}: {counted}\n  " + "\n  ".join(lines))


def checked_size(path: Path, declared: Sequence[Any] | None, problems: Problems) -> tuple[int, int] | None:
    """`(height, width)` of an image: as declared, else from its header; None, and a problem noted, if it has none.

    Args:
        path: Of the image file, which exists.
        declared: `(height, width)` as the annotations have them: of any type, and believed only where they are whole
            numbers of px over 0.
        problems: `Problems`.
    """
    sides: list[Any] = [number(side) for side in declared or ()]
    if len(sides) == 2 and all(side is not None and 0 < side <= LARGEST_SIDE and side % 1 == 0 for side in sides):
        return int(sides[0]), int(sides[1])
    try:
        return image_size(path)
    except ImageError as error:
        problems.add(path, str(error).removeprefix(f"{path}: "))
        return None


def refuse_swapped(
    boxes: ArrayLike, sizes: ArrayLike, source: object, hint: str, *, given: Literal["xyxy", "xywh"], on_bad: OnBad
) -> None:
    """Raises if the boxes make sense only in the other of the two formats.

    Args:
        boxes: `[n, 4]` as the file has them.
        sizes: `[n, 2]`, (height, width) of each box's image.
        source: The file, for the message.
        hint: What to do about it, for the message.
        given: `"xyxy"` or `"xywh"`, what the boxes were taken for.
        on_bad: With `"skip"` one or two odd boxes are left to be skipped, however small the file.
    """
    boxes, sizes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    if not len(boxes):
        return
    other = "[x, y, width, height]" if given == "xyxy" else "[x1, y1, x2, y2]"
    limit = sizes[:, ::-1] + TOLERANCE
    inside, ordered = (boxes[:, :2] + boxes[:, 2:] <= limit).all(axis=1), (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if given == "xyxy":
        wrong = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        plausible = inside & (boxes[:, 2:] > 0).all(axis=1)
    else:
        wrong = ~inside
        plausible = ordered & (boxes[:, 2:] <= limit).all(axis=1)
    # A tenth is more than slips of annotators make, and the other reading has to fit nearly all of the boxes.
    if wrong.mean() >= 0.1 and plausible.mean() >= 0.9 and wrong.sum() >= (3 if on_bad == "skip" else 1):
        shown = boxes[np.flatnonzero(wrong)[0]].round(2).tolist()
        raise DataError(
            f"{source}: {wrong.sum()} of {len(boxes)} boxes make no sense as {given}, e.g. {shown}; "
            f"these look like {other}: {hint}"
        )


def refuse_relative(boxes: ArrayLike, sizes: ArrayLike, source: object, hint: str) -> None:
    """Raises if (nearly) all boxes lie in 0..1: shares of the image's sides, not px.

    Args:
        boxes: `[n, 4]` as the file has them, corners or corner and size.
        sizes: `[n, 2]`, (height, width) of each box's image.
        source: The file, for the message.
        hint: What to do about it, for the message.
    """
    boxes, sizes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    boxes = boxes[np.isfinite(boxes).all(axis=1) & (sizes > 2).all(axis=1)]
    boxes = boxes[(boxes != 0).any(axis=1)]
    inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
    if len(boxes) and inside.mean() >= 0.9 and (boxes[inside] % 1 != 0).any():
        raise DataError(
            f"{source}: {inside.sum()} of {len(boxes)} boxes lie in 0..1, e.g. {boxes[inside][0].round(4).tolist()}: "
            f"these look like shares of the image's width and height, not px; {hint}"
        )


def in_px(boxes: ArrayLike, sizes: ArrayLike) -> np.ndarray:
    """Boxes in shares of the image's sides -> in px.

    Args:
        boxes: `[n, 4]`, corners or corner and size.
        sizes: (height, width) of their image, or of each box's `[n, 2]`.
    """
    sizes = np.asarray(sizes, np.float64)
    return np.asarray(boxes, np.float64).reshape(-1, 4) * sizes[..., [1, 0, 1, 0]]
