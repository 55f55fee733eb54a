"""The photos with the most errors, and what they look like."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.masks import resize_nearest
from keras_rcnn.data.records import Record
from keras_rcnn.evaluation.coco import encode_masks, has_segmentation, object_mask
from keras_rcnn.evaluation.confusion import shown_and_missed
from keras_rcnn.evaluation.errors import KINDS, photo_kinds
from keras_rcnn.evaluation.matches import Matches, PhotoMatches
from keras_rcnn.interfaces import RLE, Detections
from keras_rcnn.visualize import draw

SIDE = 640  # px of the longer side of a photo
GAP = 8  # px between two
MASK_PIXELS = 2e8  # of all masks of a photo; with more it is shown with boxes alone
GREEN, RED, AMBER, GREY = (0, 200, 140), (255, 60, 60), (255, 193, 7), (150, 150, 150)


def worst_photos(matches: Matches, least: np.ndarray, count: int) -> list[PhotoMatches]:
    """The photos with the most objects that are missed and detections that are wrong, the worst first.

    Args:
        matches: of `match_detections`.
        least: least score of each class, of `least_scores`.
        count: int, how many photos at most. Those without errors are never among them.
    """
    errors = {}
    for photo in matches.photos:
        shown, right, missed = shown_and_missed(photo, least)
        errors[photo.record_index] = int((shown & ~right).sum() + missed.sum())
    ranked = sorted(matches.photos, key=lambda photo: -errors[photo.record_index])
    return [photo for photo in ranked[:count] if errors[photo.record_index]]


def photo_caption(record: Record, photo: PhotoMatches, matches: Matches, least: np.ndarray) -> str:
    """What is wrong in a photo, in words."""
    names = matches.class_names
    shown, right, missed = shown_and_missed(photo, least)
    kinds = Counter(photo_kinds(photo, matches.iou)[shown & ~right].tolist())
    wrong = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    lost = Counter(names[label] for label in photo.true_labels[missed])
    words = ", ".join(f"{name} {number}" for name, number in lost.most_common(5)) + (", ..." if len(lost) > 5 else "")
    return (
        f"{Path(record.name).name}: {missed.sum()} of {photo.counted.sum()} missed{f' ({words})' if lost else ''}, "
        f"{(shown & ~right).sum()} wrong{f' ({wrong})' if wrong else ''}, {right.sum()} right"
    )


def photo_pair(
    record: Record, detections: Detections, photo: PhotoMatches, matches: Matches, least: np.ndarray
) -> np.ndarray:
    """A photo twice: what is in it and what was detected.

    On the left, the objects that are found are green, those that are missed are amber and named, crowds and difficult
    ones grey. On the right, right detections are green; wrong ones are red, with class, kind of error and score.

    Args:
        record: `Record`.
        detections: the photo's, as the model returned them.
        photo, matches: of `match_detections`.
        least: least score of each class.

    Returns:
        uint8 array [height, width, 3], with masks if those were matched.

    Raises:
        keras_rcnn.data.ImageError: the photo cannot be read.
    """
    picture, scale = _small(read_image(record.read()))
    shown, right, missed = shown_and_missed(photo, least)
    names = [matches.class_names[label] for label in photo.true_labels]
    masked = matches.iou_type == "segm"

    truth = {"boxes": np.asarray(record.boxes, "float64").reshape(-1, 4) * scale, "labels": photo.true_labels}
    if masked and all(has_segmentation(record, i) for i in range(len(names))):
        truth["masks"] = _Masks([object_mask(record, i) for i in range(len(names))])
    left = picture
    for chosen, colour in ((~photo.counted, GREY), (photo.counted & ~missed, GREEN)):
        left = _with(left, truth, chosen, colour)
    left = _with(left, truth, missed, AMBER, names=names)

    places = photo.places
    found: dict[str, Any] = {
        "boxes": np.asarray(detections["boxes"], "float64").reshape(-1, 4)[places] * scale,
        "labels": photo.labels,
    }
    if masked:
        masks: Any = detections.get("masks")
        found["masks"] = _Masks(encode_masks([masks[i] for i in places] if isinstance(masks, list) else masks[places]))
    kinds = photo_kinds(photo, matches.iou)
    texts = [f"{matches.class_names[label]}, {kind}" for label, kind in zip(photo.labels, kinds, strict=True)]
    drawn = _with(picture, found, right, GREEN)
    drawn = _with(drawn, found, shown & ~right, RED, names=texts, scores=photo.scores)
    return np.concatenate([left, np.full((len(left), GAP, 3), 255, np.uint8), drawn], axis=1)


class _Masks:
    """RLEs that become arrays when they are drawn."""

    def __init__(self, masks: list[RLE]) -> None:
        self.masks = masks

    def small(self, chosen: np.ndarray, size: tuple[int, int]) -> list[np.ndarray] | None:
        """The chosen ones as arrays of a picture's size, or None if they would fill the memory."""
        from pycocotools import mask as rle

        places = np.flatnonzero(chosen)
        if len(places) * size[0] * size[1] > MASK_PIXELS:
            return None
        return [resize_nearest(rle.decode(self.masks[i]) > 0, *size) for i in places]


def _with(
    picture: np.ndarray,
    objects: Mapping[str, Any],
    chosen: np.ndarray,
    colour: tuple[int, int, int],
    names: Sequence[str] | None = None,
    scores: np.ndarray | None = None,
) -> np.ndarray:
    """A picture with the chosen objects in one colour."""
    if not chosen.any():
        return picture
    own: dict[str, Any] = {"boxes": objects["boxes"][chosen], "labels": objects["labels"][chosen]}
    masks = objects["masks"].small(chosen, picture.shape[:2]) if "masks" in objects else None
    if masks is not None:
        own["masks"] = masks
    if names is not None:
        own["names"] = [name for name, keep in zip(names, chosen, strict=True) if keep]
    if scores is not None:
        own["scores"] = scores[chosen]
    return draw(picture, own, colours=[colour] * int(chosen.sum()))


def _small(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """A picture of at most `SIDE` px, and its scale."""
    import cv2

    scale = min(1.0, SIDE / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), scale
