"""Keypoints in annotations, and what carries them through the augmentation: masks that hold the points of their object.

Keypoints are float32 `[K, 3]`: x, y in px and COCO's visibility, 0 for a point that is not annotated, 1 for one that
is hidden, 2 for one that is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from keras_rcnn.data.fields import numbers, shown
from keras_rcnn.data.masks import InstanceMask
from keras_rcnn.data.problems import DataError
from keras_rcnn.skeletons import Skeleton

if TYPE_CHECKING:
    from keras_rcnn.data.records import Dataset

NO_MASK = np.zeros((0, 0), np.uint8)
Move = Callable[[np.ndarray], np.ndarray]


class Posed(InstanceMask):
    """An object's mask with its keypoints, which the transforms move along; `NO_MASK` as `crop` where none is wanted.

    Args:
        crop: as of `InstanceMask`.
        frame: as of `InstanceMask`.
        points: float32 `[K, 3]`.
        mirrored: for each keypoint the place of its mirror image, see `keras_rcnn.skeletons.Skeleton`.
    """

    points: np.ndarray
    mirrored: tuple[int, ...]

    def __new__(cls, crop: np.ndarray, frame: np.ndarray, points: np.ndarray, mirrored: tuple[int, ...]) -> Self:
        own = super().__new__(cls, crop, frame)
        own.points, own.mirrored = points, mirrored
        return own


def like(
    mask: InstanceMask, crop: np.ndarray, frame: np.ndarray, move: Move | None = None, mirror: bool = False
) -> InstanceMask:
    """The mask with another crop and frame, and with its keypoints, if it has any, moved.

    Args:
        mask: `InstanceMask`.
        crop, frame: as of `InstanceMask`.
        move: function of points `[n, 2]`, x and y, that returns their new places; None leaves them.
        mirror: whether left becomes right.
    """
    if not isinstance(mask, Posed):
        return InstanceMask(crop, frame)
    points = mask.points.copy()
    if move is not None:
        points[:, :2] = move(points[:, :2])
    return Posed(crop, frame, points[list(mask.mirrored)] if mirror else points, mask.mirrored)


def hidden(mask: InstanceMask, outside: tuple[float, float, float, float]) -> InstanceMask:
    """The mask without the keypoints outside of a view `(x1, y1, x2, y2)`: their visibility is 0."""
    if not isinstance(mask, Posed):
        return mask
    points = mask.points.copy()
    x1, y1, x2, y2 = outside
    inside = (points[:, 0] >= x1) & (points[:, 0] <= x2) & (points[:, 1] >= y1) & (points[:, 1] <= y2)
    points[~inside, 2] = 0
    return Posed(mask.crop, mask.frame, points, mask.mirrored)


def behind(mask: InstanceMask, covered: np.ndarray) -> InstanceMask:
    """The mask with the keypoints hidden, of visibility 1, that lie behind what covers a photo, bool `[h, w]`."""
    if not isinstance(mask, Posed):
        return mask
    points = mask.points.copy()
    x, y = np.clip(points[:, :2].T.astype(int), 0, np.array(covered.shape[::-1])[:, None] - 1)
    points[covered[y, x] & (points[:, 2] == 2), 2] = 1
    return Posed(mask.crop, mask.frame, points, mask.mirrored)


def posed(
    masks: list[InstanceMask] | None, boxes: np.ndarray, points: np.ndarray | None, skeleton: Skeleton
) -> list[InstanceMask]:
    """Masks that hold their objects' keypoints.

    Args:
        masks: list of n `InstanceMask`, or None.
        boxes: float32 `[n, 4]`, the frames where there are no masks.
        points: float32 `[n, K, 3]`, or None for none.
        skeleton: of these.
    """
    if masks is None:
        masks = [InstanceMask(NO_MASK, box) for box in boxes]
    if points is None:
        points = np.zeros((len(masks), len(skeleton), 3), np.float32)
    return [Posed(*mask, each, skeleton.mirrored) for mask, each in zip(masks, points, strict=True)]


def points_of(masks: Iterable[InstanceMask] | None, size: tuple[int, ...]) -> np.ndarray:
    """The keypoints `[n, K, 3]` of masks in an image of `(height, width)`.

    Raises:
        ValueError: a transform has lost them.
    """
    seen = [hidden(mask, (0, 0, size[1], size[0])) for mask in masks or ()]
    points = [mask.points for mask in seen if isinstance(mask, Posed)]
    if len(points) < len(seen) or masks is None:
        raise ValueError("A transform of augment has lost the keypoints: make masks by keras_rcnn.data.keypoints.like.")
    return np.stack(points) if points else np.zeros((0, 0, 3), np.float32)


def checked_keypoints(values: Any, count: int, where: str) -> np.ndarray:
    """Keypoints of a record's objects as float32 `[count, K, 3]`."""
    points = np.asarray(values, np.float32)
    if points.ndim != 3 or points.shape[2] != 3 or len(points) != count:
        raise DataError(f"{where}: keypoints of the shape {points.shape}, not [{count}, K, 3]")
    if not np.isfinite(points).all():
        raise DataError(f"{where}: keypoints that are NaN or infinite")
    return points


def check_skeleton(dataset: Dataset) -> Skeleton:
    """The keypoints of a data set, which it must have.

    Raises:
        DataError: it has none.
    """
    if dataset.skeleton is None:
        raise DataError(f"{dataset.name}: keypoints=True, but the data set has no keypoints")
    return dataset.skeleton


# === COCO ===


class Keyed(NamedTuple):
    """What COCO's `categories` say of keypoints.

    Attributes:
        skeleton: of all categories with keypoints; None if there are none, or they differ.
        problem: what there is to tell about it, or None.
    """

    skeleton: Skeleton | None
    problem: str | None


def skeleton_of(categories: Iterable[Mapping[str, Any]]) -> Keyed:
    """The one skeleton of COCO's categories, whose `skeleton` counts from 1."""
    found = {}
    for category in categories:
        names, bones = category.get("keypoints"), category.get("skeleton") or []
        if not isinstance(names, list) or not names:
            continue
        try:
            skeleton = Skeleton.of(names, [[int(place) - 1 for place in bone] for bone in bones])
        except (TypeError, ValueError) as error:
            name = shown(category.get("name"))
            return Keyed(None, f"its keypoints are left out, since those of {name} are bad: {error}")
        found.setdefault(skeleton.names, skeleton)
    if len(found) > 1:
        counts = ", ".join(str(len(names)) for names in found)
        return Keyed(None, f"its keypoints are left out, since those of its categories differ ({counts} of them)")
    return Keyed(next(iter(found.values()), None), None)


def keypoints_of(value: Any, skeleton: Skeleton | None) -> np.ndarray | str | None:
    """A COCO annotation's `keypoints` as float32 `[K, 3]`; None if there are none, a text if they are bad.

    Points that are not annotated, of visibility 0, are 0.
    """
    if skeleton is None:
        return None
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return np.zeros((len(skeleton), 3), np.float32)
    values = numbers(value)
    if values is None or len(values) != 3 * len(skeleton) or not np.isfinite(values).all():
        return f"keypoints {shown(value)} are not {3 * len(skeleton)} numbers, x, y and visibility of each"
    points = np.array(values, np.float32).reshape(-1, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        return f"keypoints have a visibility other than 0, 1 and 2: {shown(points[:, 2].tolist())}"
    return np.where(points[:, 2:] > 0, points, np.float32(0))
