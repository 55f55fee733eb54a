"""Mirrored and turned photos."""

from collections.abc import Callable

import cv2
import numpy as np

from keras_rcnn.data.augment.objects import FILL, PROPOSAL, Masks, Sample, enough, float32, trimmed
from keras_rcnn.data.keypoints import like
from keras_rcnn.data.masks import LIMIT, InstanceMask
from keras_rcnn.data.request import check_number


class HorizontalFlip:
    """Mirrors left and right with probability `p`."""

    keeps_size = True

    def __init__(self, p: float = 0.5) -> None:
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        return _flip(image, boxes, labels, masks, axis=1)


class VerticalFlip:
    """Mirrors top and bottom with probability `p`: where no side is up, as in microscopy."""

    keeps_size = True

    def __init__(self, p: float = 0.5) -> None:
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        return _flip(image, boxes, labels, masks, axis=0)


class Rotate90:
    """Turns by 90, 180 or 270 degrees, with probability `p`: where no side is up."""

    keeps_size = False

    def __init__(self, p: float = 0.75) -> None:
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        for _ in range(rng.integers(1, 4)):  # counterclockwise: (x, y) -> (y, width - x)
            width = image.shape[1]
            image, boxes = np.rot90(image), _turn(boxes, width)
            if masks is not None:
                move = _turn_points(width)
                masks = [like(mask, np.rot90(mask.crop), _turn(mask.frame, width), move) for mask in masks]
        return np.ascontiguousarray(image), boxes, labels, masks


def _turn_points(width: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function that turns points `[n, 2]` of an image of this width by 90 degrees, counterclockwise."""
    return lambda points: np.stack([points[:, 1], width - points[:, 0]], axis=1)


class Rotate:
    """Turns by a random angle about the centre; the size stays, and the corners are filled with ImageNet's mean.

    An object with a mask gets the box of the turned mask. Without a mask nobody knows where in its box the object is;
    the box is then that of the turned ellipse inscribed in it, which fits objects better than the box around its turned
    corners, which grows to twice the area (Kalra et al. 2021, "Towards rotation invariance in object detection",
    section 3.2). A circle's box stays as it is.

    Args:
        degrees: The largest angle either way, from 0 to 180.
        p: How often.
        min_visible: An object is dropped if less than this share of it (of its mask, else of its box) stays in the
            picture.

    Example:

    >>> Rotate(15)(image, boxes, labels, masks, np.random.default_rng(0))
    """

    keeps_size = True

    def __init__(self, degrees: float = 15, p: float = 1.0, min_visible: float = 0.25) -> None:
        check_number("degrees", degrees, 0, 180)
        check_number("p", p, 0, 1, "a probability")
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.degrees, self.p, self.min_visible = degrees, p, min_visible

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        height, width = image.shape[:2]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([width, height]) / 2
        matrix = np.hstack([turn, (centre - turn @ centre)[:, None]])
        image = cv2.warpAffine(image, _of_centres(matrix), (width, height), flags=cv2.INTER_LINEAR, borderValue=FILL)
        turned = _turned_ellipses(boxes, matrix)
        visible = np.clip(turned, 0, float32([width, height, width, height]))
        kept = enough(turned, visible, self.min_visible)
        if masks is None:
            return image, visible[kept], labels[kept], None
        parts = list(masks)
        for i, mask in enumerate(masks):
            if labels[i] == PROPOSAL:
                parts[i] = InstanceMask(mask.crop, turned[i])
                continue
            if not mask.crop.size:  # keypoints alone
                parts[i] = like(mask, mask.crop, turned[i], lambda points: points @ turn.T + matrix[:, 2])
                continue
            part = _turned_mask(mask, matrix, width, height, self.min_visible)
            kept[i] = part is not None
            if part is not None:
                parts[i], visible[i] = part, part.frame
        return image, visible[kept], labels[kept], [parts[i] for i in np.flatnonzero(kept)]


def _of_centres(matrix: np.ndarray) -> np.ndarray:
    """A map [2, 3] of points in the plane, where the first px is from 0 to 1, as one of px by their centres."""
    shift = matrix[:, :2] @ [0.5, 0.5] + matrix[:, 2] - 0.5
    return np.hstack([matrix[:, :2], shift[:, None]])


def _turned_ellipses(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes `[n, 4]` of the ellipses inscribed in boxes, once these are turned by a matrix [2, 3]."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (matrix[:, :2].T ** 2))
    return float32(np.concatenate([centres - half, centres + half], axis=1))


def _turned_mask(
    mask: InstanceMask, matrix: np.ndarray, width: int, height: int, min_visible: float
) -> InstanceMask | None:
    """A mask turned by a matrix [2, 3] into an image of this size; None if too little of it stays in the image."""
    crop, (x1, y1, x2, y2) = mask
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) @ matrix[:, :2].T + matrix[:, 2]
    low = np.floor(np.clip(corners.min(axis=0), 0, (width, height)))
    high = np.ceil(np.clip(corners.max(axis=0), 0, (width, height)))
    if (high - low < 1).any():
        return None
    rows, columns = (min(int(side), LIMIT) for side in (high - low)[::-1])
    steps, old = (high - low) / (columns, rows), np.array([x2 - x1, y2 - y1]) / (crop.shape[1], crop.shape[0])
    # from the old cells to the plane, turned, and to the new cells
    linear = matrix[:, :2] * old / steps[:, None]
    shift = (matrix[:, :2] @ [x1, y1] + matrix[:, 2] - low) / steps
    cells = _of_centres(np.hstack([linear, shift[:, None]]))
    turned = cv2.warpAffine(np.ascontiguousarray(crop), cells, (columns, rows), flags=cv2.INTER_NEAREST)
    before, after = np.count_nonzero(crop) * old.prod(), np.count_nonzero(turned) * steps.prod()
    if not after or after < min_visible * before:
        return None
    mask = like(mask, turned, float32([*low, *high]), lambda points: points @ matrix[:, :2].T + matrix[:, 2])
    return trimmed(mask, (0, 0, width, height))


def _flip(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, axis: int) -> Sample:
    side, low, high = image.shape[axis], 1 - axis, 3 - axis

    def mirror(frames: np.ndarray) -> np.ndarray:
        frames = frames.copy()
        frames[..., low], frames[..., high] = side - frames[..., high], side - frames[..., low]
        return frames

    def opposite(points: np.ndarray) -> np.ndarray:
        return np.where(np.arange(2) == low, side - points, points)

    if masks is not None:
        masks = [like(mask, np.flip(mask.crop, axis), mirror(mask.frame), opposite, mirror=True) for mask in masks]
    return np.ascontiguousarray(np.flip(image, axis)), mirror(boxes), labels, masks


def _turn(frames: np.ndarray, width: int) -> np.ndarray:
    return np.stack([frames[..., 1], width - frames[..., 2], frames[..., 3], width - frames[..., 0]], axis=-1)
