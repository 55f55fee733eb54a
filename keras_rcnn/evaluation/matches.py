"""Which detection is which object: COCO's matching at one IoU, kept for everything that is to be said about errors."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.evaluation.coco import checked_detections, image_ids, object_mask, paired, xywh
from keras_rcnn.interfaces import Detections, IoUType

# at or below it, a detection and an object have nothing to do with each other: TIDE's t_b
BACKGROUND_IOU = 0.1


class PhotoMatches(NamedTuple):
    """The detections of one photo, best first, and its objects.

    Attributes:
        record_index: int, the place of the photo in the data set.
        places: int `[n]`, the places of the detections in what the model returned.
        labels, scores: `[n]`.
        objects: int `[n]`, the object that each detection finds, or -1.
        ignored: bool `[n]`, of those that find none: whether they lie on a crowd or a difficult object of their class.
        true_labels: int `[m]`, of the objects.
        counted: bool `[m]`, whether an object is to be found: neither a crowd nor difficult.
        found_by: int `[m]`, the detection that finds each object, or -1.
        own, own_iou: `[n]`, the object of a detection's class that it overlaps most, or -1, and their IoU.
        taken_iou: `[n]`, the highest IoU with an object of the detection's class that some detection finds.
        other, other_iou: `[n]`, the object of another class that it overlaps most, or -1, and their IoU.
        mixed: int `[k, 2]`, all pairs of a detection and an object of another class with at least the IoU of a match.
    """

    record_index: int
    places: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    objects: np.ndarray
    ignored: np.ndarray
    true_labels: np.ndarray
    counted: np.ndarray
    found_by: np.ndarray
    own: np.ndarray
    own_iou: np.ndarray
    taken_iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    mixed: np.ndarray


class Matches(NamedTuple):
    """All photos of a data set, in the order in which pycocotools goes through them.

    Attributes:
        class_names: list of str.
        iou: float, of a match.
        iou_type: `"bbox"` or `"segm"`.
        photos: list of `PhotoMatches`.
    """

    class_names: list[str]
    iou: float
    iou_type: Literal["bbox", "segm"]
    photos: list[PhotoMatches]

    def objects_of(self, label: int) -> int:
        """How many objects of a class are to be found."""
        return sum(int((photo.counted & (photo.true_labels == label)).sum()) for photo in self.photos)


def match_detections(
    dataset: Dataset,
    detections: Sequence[Detections],
    iou_type: Literal["bbox", "segm"] = "bbox",
    iou: float = 0.5,
    max_detections: int = 100,
) -> Matches:
    """Says of each detection which object it finds.

    COCO's rule: class by class and photo by photo, the detections are taken best score first; each finds the object
    that it overlaps most among those of its class that are not found yet, if their IoU is at least `iou`. One that
    finds none, but lies on a crowd, is ignored. So is one on an object that is "difficult" (Pascal VOC), which
    `coco_metrics`, as COCO itself, counts as an ordinary one.

    Args:
        dataset: `keras_rcnn.data.Dataset`.
        detections: list, one dict per record in record order, as `detect_all` returns them.
        iou_type: `"bbox"`, or `"segm"` for the overlap of masks.
        iou: float, above 0.1. The overlap that a detection must reach.
        max_detections: int. How many of a photo and a class count, best first.

    Returns:
        `Matches`, for `precision_recall`, `confusion_matrix` and `error_kinds`.

    Raises:
        ValueError: detections that do not fit the dataset, naming the image.

    Example:

    >>> matches = match_detections(dataset, detect_all(model, dataset))
    >>> error_kinds(matches)["kinds"]["duplicate"]["dAP"]
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f'iou_type must be "bbox" or "segm", not {iou_type!r}.')
    if not BACKGROUND_IOU < iou <= 1:
        raise ValueError(f"iou must be over {BACKGROUND_IOU} and at most 1, not {iou!r}.")
    pairs = paired(dataset, detections)
    photos: list[Any] = [
        _matched(index, record, own, len(dataset.class_names), iou_type, iou, max_detections)
        for index, (record, own) in enumerate(pairs)
    ]
    order = np.argsort(np.array(image_ids(pairs)), kind="stable")
    return Matches(list(dataset.class_names), iou, iou_type, [photos[i] for i in order])


def _matched(
    index: int, record: Record, detections: Detections, num_classes: int, iou_type: IoUType, iou: float, limit: int
) -> PhotoMatches:
    boxes, scores, labels, masks = checked_detections(record, detections, num_classes, iou_type)
    kept = np.flatnonzero(np.asarray(detections["labels"]).astype(int).reshape(-1) >= 0)
    order = _best(scores, labels, limit)
    labels, scores = labels[order], scores[order]
    true_labels = np.asarray(record.labels, int)
    crowd = np.asarray(record.crowd, bool)
    counted = ~(crowd | np.asarray(record.difficult, bool))
    overlap = _overlap(boxes[order], masks and [masks[i] for i in order], record, crowd, iou_type)
    same = labels[:, None] == true_labels[None]

    objects, found_by = np.full(len(labels), -1), np.full(len(true_labels), -1)
    candidates = np.where(same & counted, overlap, -1.0)
    ignored = (np.where(same & ~counted, overlap, -1.0) >= iou).any(axis=1)
    for i in np.flatnonzero((candidates >= iou).any(axis=1)):
        j = candidates.shape[1] - 1 - candidates[i, ::-1].argmax()  # the last of equals, as in COCOeval
        if candidates[i, j] >= iou:
            objects[i], found_by[j] = j, i
            candidates[:, j] = -1.0

    own, own_iou = _most(np.where(same & counted, overlap, 0.0))
    other, other_iou = _most(np.where(~same & counted, overlap, 0.0))
    return PhotoMatches(
        record_index=index,
        places=kept[order],
        labels=labels,
        scores=scores,
        objects=objects,
        ignored=ignored & (objects < 0),
        true_labels=true_labels,
        counted=counted,
        found_by=found_by,
        own=own,
        own_iou=own_iou,
        taken_iou=_most(np.where(same & (found_by >= 0), overlap, 0.0))[1],
        other=other,
        other_iou=other_iou,
        mixed=np.argwhere(~same & counted & (overlap >= iou)),
    )


def _best(scores: np.ndarray, labels: np.ndarray, limit: int) -> np.ndarray:
    """The places of the best detections of each class, best first."""
    order = np.argsort(-scores, kind="stable")
    places = np.concatenate([np.zeros(0, int), *(order[labels[order] == k][:limit] for k in np.unique(labels))])
    return order[np.isin(order, places)]


def _overlap(boxes: np.ndarray, masks: Any, record: Record, crowd: np.ndarray, iou_type: IoUType) -> np.ndarray:
    """IoU `[n, m]`; with a crowd, the share of the detection that lies on it."""
    from pycocotools import mask as rle

    if not len(boxes) or not len(crowd):
        return np.zeros((len(boxes), len(crowd)))
    if iou_type == "bbox":
        return np.asarray(rle.iou(boxes, xywh(record.boxes), crowd.astype(int).tolist()))
    truth = [object_mask(record, j) for j in range(len(crowd))]
    return np.asarray(rle.iou(masks, truth, crowd.astype(int).tolist()))


def _most(overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The object that each detection overlaps most, or -1, and how much."""
    if not overlap.shape[1]:
        return np.full(len(overlap), -1), np.zeros(len(overlap))
    place = overlap.argmax(axis=1)
    value = overlap[np.arange(len(overlap)), place]
    return np.where(value > 0, place, -1), value
