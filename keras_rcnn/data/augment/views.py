"""Parts of a photo, at another scale: the objects that are in view, cut off at its edges."""

import cv2
import numpy as np

from keras_rcnn.data.augment.objects import FILL, PROPOSAL, Masks, Sample, covers, enough, float32, in_view, moved
from keras_rcnn.data.request import check_number


class ScaleJitter:
    """Zooms by a random factor and crops or pads to the original size (large-scale jitter).

    An object that is cut through keeps the part of its box that is in view; `LargeScaleJitter` looks at its mask.

    Args:
        low: Smallest factor; below 1 the image shrinks and is padded.
        high: Largest factor; above 1 a random part is cut out.
        min_visible: An object is dropped if less than this share of its box stays in the picture.
    """

    keeps_size = True
    _by_mask = False

    def __init__(self, low: float = 0.5, high: float = 2.0, min_visible: float = 0.25) -> None:
        check_number("low", low, 0, what="a factor", open_low=True)
        check_number("high", high, low, what="a factor of at least low")
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.low, self.high, self.min_visible = low, high, min_visible

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        height, width = image.shape[:2]
        factor = np.exp(rng.uniform(np.log(self.low), np.log(self.high)))  # halving is as likely as doubling
        zoomed = (max(round(width * factor), 1), max(round(height * factor), 1))
        zoom = np.array([zoomed[0] / width, zoomed[1] / height])
        limit = np.array([width, height, width, height], np.float32)
        attempts = list(rng.random((4, 2)))
        while True:  # rather a part with objects in it than one without
            # The top-left corner of the view, in px of the zoomed image; negative where there is padding.
            corner = np.floor(attempts.pop(0) * (np.array(zoomed) - [width, height]))
            zoomed_boxes = float32(boxes * np.tile(zoom, 2) - np.tile(corner, 2))
            visible = np.clip(zoomed_boxes, 0, limit)
            kept = enough(zoomed_boxes, visible, self.min_visible)
            if (kept & (labels != PROPOSAL)).any() or not attempts:
                break
        if factor < 1:
            image = cv2.resize(image, zoomed, interpolation=cv2.INTER_AREA)  # averages, which warpAffine does not
            matrix = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], np.float64)
        else:  # px centres, so that px and boxes move alike: x' + .5 = (x + .5) * zoom - corner
            shift = 0.5 * zoom - 0.5 - corner
            matrix = np.array([[zoom[0], 0, shift[0]], [0, zoom[1], shift[1]]])
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=FILL)
        if masks is not None:
            masks = moved([masks[i] for i in np.flatnonzero(kept)], zoom, corner)
        if self._by_mask:
            view = (0, 0, width, height)
            return image, *in_view(zoomed_boxes[kept], labels[kept], masks, view, self.min_visible)
        return image, visible[kept], labels[kept], masks


class LargeScaleJitter(ScaleJitter):
    """`ScaleJitter` from a tenth to double size, as training from scratch and copy-paste want it (Ghiasi et al. 2021,
    section 3, "Large scale jittering").

    An object that is cut through gets the box of what its mask has in view.

    Args:
        low, high, min_visible: as in `ScaleJitter`.

    Example:

    >>> LargeScaleJitter(0.1, 2.0)(image, boxes, labels, masks, np.random.default_rng(0))
    """

    _by_mask = True

    def __init__(self, low: float = 0.1, high: float = 2.0, min_visible: float = 0.25) -> None:
        super().__init__(low, high, min_visible)


class ObjectCrop:
    """Cuts out a random part with at least one object in it (SSD, Liu et al. 2016, section 2.2, "Data augmentation").

    Of some object a share drawn among 0.1, 0.3, 0.5, 0.7 and 0.9 lies in the part, whose sides are as 1 : 2 to 2 : 1 in
    relation to the photo's. SSD asks for this IoU between the part and an object, which no small object has; the share
    is that of TensorFlow's `sample_distorted_bounding_box`. If 40 parts are tried in vain, the photo stays whole.

    Args:
        p: How often; else the photo stays whole.
        min_scale: The least width and height of the part, as a share of the photo's.
        min_visible: An object is dropped if less than this share of its box is in the part.

    Example:

    >>> ObjectCrop(0.5)(image, boxes, labels, masks, np.random.default_rng(0))
    """

    keeps_size = False
    _SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)

    def __init__(self, p: float = 0.5, min_scale: float = 0.3, min_visible: float = 0.25) -> None:
        check_number("p", p, 0, 1, "a probability")
        check_number("min_scale", min_scale, 0, 1, "a share", open_low=True)
        check_number("min_visible", min_visible, 0, 1, "a share")
        self.p, self.min_scale, self.min_visible = p, min_scale, min_visible

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        if rng.random() >= self.p:
            return image, boxes, labels, masks
        size = np.array(image.shape[1::-1])
        windows = self._windows(size, rng)
        objects = boxes[labels != PROPOSAL]
        if len(objects):
            least = max(float(rng.choice(self._SHARES)), self.min_visible)
            windows = windows[(covers(objects, windows) >= least).any(axis=1)]
        if not len(windows):
            return image, boxes, labels, masks
        x1, y1, x2, y2 = windows[0].tolist()
        corner = np.array([x1, y1])
        if masks is not None:
            masks = moved(masks, np.ones(2), corner)
        view = (0, 0, x2 - x1, y2 - y1)
        seen = in_view(float32(boxes - np.tile(corner, 2)), labels, masks, view, self.min_visible)
        return np.ascontiguousarray(image[y1:y2, x1:x2]), *seen

    def _windows(self, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Parts of an image of `(width, height)`, whose sides' shares are not more unlike than 1 : 2; int `[m, 4]`."""
        shares = rng.uniform(self.min_scale, 1, (40, 2))
        shares = shares[(shares.max(axis=1) <= 2 * shares.min(axis=1))]
        sides = np.maximum(np.rint(shares * size), 1).astype(int)
        corners = np.floor(rng.random(sides.shape) * (size - sides + 1)).astype(int)
        return np.concatenate([corners, corners + sides], axis=1)
