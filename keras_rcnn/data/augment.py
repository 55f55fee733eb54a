"""Random changes of an image that take its boxes and masks along.

Every transform is called as `transform(image, boxes, labels, masks, rng)` and returns the first four:

- image: uint8 RGB `[h, w, 3]`;
- boxes: float32 `[n, 4]`, xyxy px;
- labels: int32 `[n]`; `PROPOSAL` marks a box that is no object but a proposal, and moves along;
- masks: list of `n` `InstanceMask`, or None;
- rng: `numpy.random.Generator`.

`keeps_size` says that the image's size never changes.
"""

import cv2
import numpy as np

from keras_rcnn.data.masks import InstanceMask
from keras_rcnn.data.request import check_number

PROPOSAL = -2
_FILL = (124, 116, 104)  # ImageNet's mean: 0 once it is normalised


def standard():
    """What training uses unless told otherwise: mirroring every other image."""
    return Compose([HorizontalFlip(0.5)])


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms):
        self.transforms = list(transforms)

    @property
    def keeps_size(self):
        return all(getattr(transform, "keeps_size", False) for transform in self.transforms)

    def __call__(self, image, boxes, labels, masks, rng):
        for transform in self.transforms:
            image, boxes, labels, masks = transform(image, boxes, labels, masks, rng)
        return image, boxes, labels, masks


class HorizontalFlip:
    """Mirrors left and right with probability `p`."""

    keeps_size = True

    def __init__(self, p=0.5):
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(self, image, boxes, labels, masks, rng):
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        return _flip(image, boxes, labels, masks, axis=1)


class VerticalFlip:
    """Mirrors top and bottom with probability `p`: where no side is up, as in microscopy."""

    keeps_size = True

    def __init__(self, p=0.5):
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(self, image, boxes, labels, masks, rng):
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        return _flip(image, boxes, labels, masks, axis=0)


class Rotate90:
    """Turns by 90, 180 or 270 degrees, with probability `p`: where no side is up."""

    keeps_size = False

    def __init__(self, p=0.75):
        check_number("p", p, 0, 1, "a probability")
        self.p = p

    def __call__(self, image, boxes, labels, masks, rng):
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        for _ in range(rng.integers(1, 4)):  # counterclockwise: (x, y) -> (y, width - x)
            width = image.shape[1]
            image, boxes = np.rot90(image), _turn(boxes, width)
            if masks is not None:
                masks = [InstanceMask(np.rot90(crop), _turn(frame, width)) for crop, frame in masks]
        return np.ascontiguousarray(image), boxes, labels, masks


class ScaleJitter:
    """Zooms by a random factor and crops or pads to the original size (large-scale jitter).

    Args:
        low: Smallest factor; below 1 the image shrinks and is padded.
        high: Largest factor; above 1 a random part is cut out.
        min_visible: An object is dropped if less than this share of its box stays in the picture.
    """

    keeps_size = True

    def __init__(self, low=0.5, high=2.0, min_visible=0.25):
        check_number("low", low, 0, what="a factor", open_low=True)
        check_number("high", high, low, what="a factor of at least low")
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.low, self.high, self.min_visible = low, high, min_visible

    def __call__(self, image, boxes, labels, masks, rng):
        height, width = image.shape[:2]
        factor = np.exp(rng.uniform(np.log(self.low), np.log(self.high)))  # halving is as likely as doubling
        zoomed = (max(round(width * factor), 1), max(round(height * factor), 1))
        zoom = np.array([zoomed[0] / width, zoomed[1] / height])
        limit = np.array([width, height, width, height], np.float32)
        for attempt in rng.random((4, 2)):  # rather a part with objects in it than one without
            # The top-left corner of the view, in px of the zoomed image; negative where there is padding.
            corner = np.floor(attempt * (np.array(zoomed) - [width, height]))
            moved = _f32(boxes * np.tile(zoom, 2) - np.tile(corner, 2))
            visible = np.clip(moved, 0, limit)
            kept = _areas(visible) >= np.maximum(self.min_visible * _areas(moved), 1e-3)
            kept &= (visible[:, 2:] - visible[:, :2] >= 1).all(axis=1)
            if (kept & (labels != PROPOSAL)).any():
                break
        if factor < 1:
            image = cv2.resize(image, zoomed, interpolation=cv2.INTER_AREA)  # averages, which warpAffine does not
            matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], np.float64)
        else:  # px centres, so that px and boxes move alike: x' + .5 = (x + .5) * zoom - corner
            shift = 0.5 * zoom - 0.5 - corner
            matrix = np.array([[zoom[0], 0, shift[0]], [0, zoom[1], shift[1]]])
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=_FILL)
        if masks is not None:
            scale, offset = np.tile(zoom, 2), np.tile(corner, 2)
            masks = [InstanceMask(masks[i].crop, _f32(masks[i].frame * scale - offset)) for i in np.flatnonzero(kept)]
        return image, visible[kept], labels[kept], masks


class ColorJitter:
    """Changes brightness, contrast and saturation, each by a factor within `1 - x .. 1 + x`, and the hue.

    Args:
        brightness, contrast, saturation: x.
        hue: the most that colours are turned about the grey axis either way, in whole turns: 0.5 is any hue. For
            photos whose colour says little, such as those of stained tissue.
    """

    keeps_size = True

    def __init__(self, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0):
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            check_number(name, value, 0, 1)
        check_number("hue", hue, 0, 0.5, "in whole turns")
        self.ranges, self.hue = (brightness, contrast, saturation), hue

    def __call__(self, image, boxes, labels, masks, rng):
        brightness, contrast, saturation = (1 + rng.uniform(-x, x) for x in self.ranges)
        grey = np.array([0.299, 0.587, 0.114])
        mean = float(image.reshape(-1, 3).mean(axis=0) @ grey)
        mix = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * grey  # all three in one pass over the px
        if self.hue:
            mix = mix @ _turned_colours(2 * np.pi * rng.uniform(-self.hue, self.hue))
        offset = np.full((3, 1), brightness * (1 - contrast) * mean)
        return cv2.transform(image, np.hstack([brightness * contrast * mix, offset])), boxes, labels, masks


def _turned_colours(angle):
    """The rotation [3, 3] of RGB about the grey axis; grey stays, red becomes green at a third of a turn."""
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cos * np.eye(3) + (1 - cos) / 3 * np.ones((3, 3)) + sin * cross


def _flip(image, boxes, labels, masks, axis):
    side, low, high = image.shape[axis], 1 - axis, 3 - axis

    def mirror(frames):
        frames = frames.copy()
        frames[..., low], frames[..., high] = side - frames[..., high], side - frames[..., low]
        return frames

    if masks is not None:
        masks = [InstanceMask(np.flip(crop, axis), mirror(frame)) for crop, frame in masks]
    return np.ascontiguousarray(np.flip(image, axis)), mirror(boxes), labels, masks


def _turn(frames, width):
    return np.stack([frames[..., 1], width - frames[..., 2], frames[..., 3], width - frames[..., 0]], axis=-1)


def _areas(boxes):
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def _f32(values):
    return np.asarray(values, np.float32)
