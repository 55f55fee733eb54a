"""What a detector is asked for: checked here, before a photo is read or sent."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.interfaces import MaskForm

DEFAULT_SCORE = 0.5  # of a class without a threshold of its own
MASKS = (True, False, "rle", "crops")


def check_request(
    images: Any,
    *,
    score: float,
    batch_size: int | None = None,
    masks: MaskForm = True,
    size: int | None = None,
    proposals: Any = None,
    finder: str | None = None,
) -> tuple[list[Any], list[np.ndarray] | None]:
    """Checks the arguments of a `detect`.

    Args:
        images: one, or a list of such; they are not looked at.
        score, batch_size, masks, size, proposals: as in `Detector.detect`.
        finder: the name of a detector that finds its proposals itself; None for one that is told where to look.

    Returns:
        `(images, proposals)`: a list, and a list of as many float32 [P, 4] or None.

    Raises:
        ValueError: an argument that is not what it should be; the message has its value and what is wanted.
    """
    many = isinstance(images, (list, tuple))
    images = list(images) if many else [images]
    check_score(score)
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    if not (isinstance(masks, (bool, np.bool_, str)) and masks in MASKS):
        raise ValueError(f"masks is one of {', '.join(map(repr, MASKS))}, not {masks!r}.")
    if size is not None:
        check_whole("size", size, "the shorter side of photos in pixels")
    if proposals is None:
        return images, None
    refuse_proposals(finder)
    if isinstance(proposals, Mapping):
        raise ValueError(
            f"proposals are boxes [P, 4], for a list of images a list of such, not a {type(proposals).__name__}: give "
            "each image its own, proposals[record]."
        )
    proposals = list(proposals) if many and hasattr(proposals, "__len__") else [proposals]
    if len(proposals) != len(images):
        raise ValueError(f"Proposals for {len(proposals)} images, but there are {len(images)} images.")
    wheres = [f"proposals of image {i + 1} of {len(images)}" if many else "proposals" for i in range(len(images))]
    return images, [check_boxes(boxes, where) for boxes, where in zip(proposals, wheres, strict=True)]


def refuse_proposals(finder: str | None) -> None:
    """Refuses proposals for the detector called `finder`, unless it is None."""
    if finder is not None:
        raise ValueError(
            f"{finder} finds its proposals itself: leave proposals out. Boxes from elsewhere are for FastRCNN and RCNN."
        )


def check_score(score: object, most: float = 1.0) -> None:
    """A least score: a number from 0 to `most`; raises a ValueError for anything else."""
    number = _plain(score)
    good = _is_real(number)
    if not good or not 0 <= number <= most or not math.isfinite(number):
        limit = f"from 0 to {most:g}" if math.isfinite(most) else "of at least 0"
        raise ValueError(f"score is a number {limit}, not {score!r}.")


def least_score(
    score: float | None, thresholds: Mapping[str, float] | None, class_names: Sequence[str]
) -> float | np.ndarray:
    """The least score of detections: a float, or float32 [classes] for the thresholds that a model has of its own.

    Args:
        score: as in `Detector.detect`, and not checked here.
        thresholds: dict, class name -> score, or None.
        class_names: list of str.
    """
    if score is not None or not thresholds:
        return DEFAULT_SCORE if score is None else score
    return np.array([thresholds.get(name, DEFAULT_SCORE) for name in class_names], np.float32)


def check_whole(name: str, value: object, what: str = "", least: int = 1) -> None:
    """A whole number of at least `least`; raises a ValueError for anything else, 2.0 and True too."""
    number = _plain(value)
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise ValueError(f"{name} is a whole number of at least {least}{f', {what}' if what else ''}, not {value!r}.")


def check_number(
    name: str, value: object, low: float, high: float = math.inf, what: str = "", open_low: bool = False
) -> None:
    """A finite number from `low`, or above it, to `high`; raises a ValueError for anything else."""
    number = _plain(value)
    good = _is_real(number) and math.isfinite(number)
    if not good or not low <= number <= high or (open_low and number == low):
        limit = f"{'above' if open_low else 'from'} {low:g}{f' to {high:g}' if math.isfinite(high) else ''}"
        raise ValueError(f"{name} is a number {limit}{f', {what}' if what else ''}, not {value!r}.")


def check_boxes(boxes: ArrayLike, where: str = "boxes") -> np.ndarray:
    """Boxes as float32 [n, 4], xyxy; raises a ValueError for anything else, zeros are padding."""
    wanted = f"{where}: wanted is [n, 4], [x1, y1, x2, y2] in pixels of the image"
    try:
        values = np.asarray(boxes)
    except (ValueError, TypeError) as error:  # rows of several lengths
        raise ValueError(f"{wanted}, not this ({error}).") from error
    if values.size == 0 and values.dtype.kind in "fiub":
        return np.zeros((0, 4), np.float32)
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"{wanted}, not an array of shape {values.shape}.")
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise ValueError(f"{wanted}, numbers, not {values.dtype}, as in {values[0].tolist()}.")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f"{wanted}: box {bad[0]} is {values[bad[0]].tolist()}.")
    bad = np.flatnonzero((values[:, 2:] < values[:, :2]).any(axis=1))
    if len(bad):
        raise ValueError(f"{wanted}: box {bad[0]}, {values[bad[0]].tolist()}, has x2 or y2 first: is it xywh?")
    return values


def _is_real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A number in an array of no dimensions as Python's."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
