"""Photos made of several photos of the data set."""

import cv2
import numpy as np

from keras_rcnn.data.augment import objects
from keras_rcnn.data.augment.objects import (
    PROPOSAL,
    Masks,
    Others,
    Sample,
    covers,
    float32,
    in_view,
    moved,
    resized,
    trimmed,
)
from keras_rcnn.data.keypoints import behind, like
from keras_rcnn.data.masks import InstanceMask
from keras_rcnn.data.request import check_number


class CopyPaste:
    """Pastes objects of another photo, cut out by their masks (Ghiasi et al. 2021, section 3).

    A random choice of the other photo's objects is pasted without blending, which the paper finds as good as smoothed
    edges. Objects that are then hidden in part get the rest of their mask and its box. The other photo is first scaled
    to fit into this one; jitter it and this one by `HorizontalFlip` and `LargeScaleJitter`, standing before this in
    `Compose`, as the paper does.

    Args:
        p: How often.
        min_visible: An object is dropped if less than this share of its mask can still be seen.

    Raises:
        ValueError: when it is called without masks, or without other photos.

    Example:

    >>> Compose([HorizontalFlip(), LargeScaleJitter(0.1, 2.0), CopyPaste(0.5)])
    """

    keeps_size, photos, needs_masks = True, 2, True

    def __init__(self, p: float = 0.5, min_visible: float = 0.1) -> None:
        check_number("p", p, 0, 1, "a probability")
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.p, self.min_visible = p, min_visible

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        masks: Masks,
        rng: np.random.Generator,
        others: Others | None = None,
    ) -> Sample:
        if masks is None:
            raise ValueError("CopyPaste cuts objects out by their masks, and there are none.")
        _check_others(self, others)
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        source, _, new_labels, new_masks = others()
        candidates = np.flatnonzero(new_labels != PROPOSAL)
        height, width = image.shape[:2]
        fit = min(height / source.shape[0], width / source.shape[1])
        size = np.maximum(np.rint(np.array(source.shape[1::-1]) * fit), 1).astype(int)
        corner = np.floor(rng.random(2) * (np.array([width, height]) - size + 1)).astype(int)
        if not len(candidates):
            return image, boxes, labels, masks
        chosen = np.sort(rng.choice(candidates, rng.integers(1, len(candidates) + 1), replace=False))
        new_masks = moved([new_masks[i] for i in chosen], size / source.shape[1::-1], -corner)
        view = (*corner.tolist(), *(corner + size).tolist())
        pasted = [(part, label) for mask, label in zip(new_masks, new_labels[chosen]) if (part := trimmed(mask, view))]
        if not pasted:
            return image, boxes, labels, masks
        new_masks = [part for part, _ in pasted]
        covered = np.zeros((height, width), bool)
        for mask in new_masks:
            x1, y1, x2, y2 = window = objects.pixel_window(mask, width, height)
            covered[y1:y2, x1:x2] |= objects.pixels(mask, window)
        image = image.copy()
        x1, y1, x2, y2 = view
        cv2.copyTo(resized(source, *size.tolist()), covered[y1:y2, x1:x2].view(np.uint8), image[y1:y2, x1:x2])
        boxes, labels, masks = self._behind(covered, boxes, labels, masks)
        frames = np.clip([mask.frame for mask in new_masks], 0, [width, height, width, height])
        boxes = np.concatenate([boxes, float32(frames)])
        labels = np.concatenate([labels, np.array([label for _, label in pasted], labels.dtype)])
        return image, boxes, labels, [*masks, *new_masks]

    def _behind(
        self, covered: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: list[InstanceMask]
    ) -> tuple[np.ndarray, np.ndarray, list[InstanceMask]]:
        """What is left of the objects behind the px that are covered, bool `[h, w]`."""
        height, width = covered.shape
        boxes, masks, kept = boxes.copy(), list(masks), np.ones(len(boxes), bool)
        for i, mask in enumerate(masks):
            x1, y1, x2, y2 = objects.pixel_window(mask, width, height)
            if labels[i] == PROPOSAL or not covered[y1:y2, x1:x2].any():
                continue
            mask = masks[i] = behind(mask, covered)
            rest = like(mask, mask.crop * ~objects.cells(mask, covered), mask.frame)
            before, after = np.count_nonzero(mask.crop), np.count_nonzero(rest.crop)
            if after == before:
                continue
            part = trimmed(rest, (0, 0, width, height))
            kept[i] = part is not None and after >= self.min_visible * before
            if part is not None and kept[i]:
                masks[i], boxes[i] = part, np.clip(part.frame, 0, [width, height, width, height])
        return boxes[kept], labels[kept], [masks[i] for i in np.flatnonzero(kept)]


class Mosaic:
    """Four photos in one, around a random point (YOLOv4, Bochkovskiy et al. 2020, section 3.3).

    The result is as large as the first photo. Each quarter is filled with a part of its photo, rather one with objects,
    at a scale between `low` and `high` of that at which the whole photo would fill the result; so objects get smaller,
    stand in other surroundings, and four photos' statistics are in one. There is no padding.

    Args:
        p: How often.
        low: Smallest scale.
        high: Largest scale.
        min_visible: An object is dropped if less than this share of its box is in view.

    Raises:
        ValueError: when it is called without other photos.

    Example:

    >>> Compose([Mosaic(0.5), HorizontalFlip(), ColorJitter()])
    """

    keeps_size, photos = True, 4

    def __init__(self, p: float = 0.5, low: float = 0.5, high: float = 1.0, min_visible: float = 0.25) -> None:
        check_number("p", p, 0, 1, "a probability")
        check_number("low", low, 0, what="a factor", open_low=True)
        check_number("high", high, low, what="a factor of at least low")
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.p, self.low, self.high, self.min_visible = p, low, high, min_visible

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        masks: Masks,
        rng: np.random.Generator,
        others: Others | None = None,
    ) -> Sample:
        _check_others(self, others)
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        height, width = image.shape[:2]
        x, y = (int(np.rint(side * rng.uniform(0.3, 0.7))) for side in (width, height))
        corners = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        canvas, parts = np.empty_like(image), []
        for i, place in enumerate(corners):
            sample = others() if i else (image, boxes, labels, masks)
            x1, y1, x2, y2 = place
            if x2 > x1 and y2 > y1:
                canvas[y1:y2, x1:x2], *part = self._part(sample, place, (width, height), rng)
                parts.append(part)
        all_boxes, all_labels, all_masks = zip(*parts)
        if masks is not None:
            masks = [mask for part in all_masks for mask in part]
        return canvas, np.concatenate(all_boxes), np.concatenate(all_labels), masks

    def _part(
        self, sample: Sample, place: tuple[int, int, int, int], size: tuple[int, int], rng: np.random.Generator
    ) -> Sample:
        """A photo's part for a place `(x1, y1, x2, y2)` of the result, with its objects in px of the result."""
        image, boxes, labels, masks = sample
        old, low, high = np.array(image.shape[1::-1]), np.array(place[:2]), np.array(place[2:])
        scale = min(size / old) * rng.uniform(self.low, self.high)
        scale = max(scale, *((high - low) / old))  # enough to fill the place
        sides = np.clip(np.rint((high - low) / scale), 1, old).astype(int)  # of the window to be cut out
        corners = np.floor(rng.random((4, 2)) * (old - sides + 1)).astype(int)
        shares = covers(boxes[labels != PROPOSAL], np.concatenate([corners, corners + sides], axis=1))
        corner = corners[int(np.argmax((shares >= 0.5).any(axis=1)))]
        (left, top), (right, bottom) = corner.tolist(), (corner + sides).tolist()
        image = resized(image[top:bottom, left:right], *(high - low).tolist())
        zoom = (high - low) / sides
        offset = corner * zoom - low
        if masks is not None:
            masks = moved(masks, zoom, offset)
        boxes = float32(boxes * np.tile(zoom, 2) - np.tile(offset, 2))
        return image, *in_view(boxes, labels, masks, place, self.min_visible)


def _check_others(transform: object, others: Others | None) -> None:
    if others is None:
        raise ValueError(
            f"{type(transform).__name__} takes other photos of a data set: give it to dataset.batches(augment=...), or "
            "call it with others=, a function that returns (image, boxes, labels, masks)."
        )
