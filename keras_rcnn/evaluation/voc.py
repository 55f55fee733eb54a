"""Pascal VOC average precision, written after the devkit's VOCevaldet.m."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import Detections


def voc_metrics(
    dataset: Dataset,
    detections: Sequence[Detections],
    iou: float = 0.5,
    eleven_point: bool = False,
    inclusive: bool = False,
) -> dict[str, Any]:
    """Pascal VOC's average precision per class, and its mean.

    The devkit's rules: class by class, detections are taken best score first, each goes to the object of its image
    that it overlaps most, and is right where their IoU is at least `iou` and the object was not found before; a
    second detection of the same object is wrong. Objects that are "difficult" (and COCO's crowds) are neither to be
    found nor wrong to find. There is no limit on the number of detections. A class without objects has no AP (NaN)
    and stays out of the mean.

    Args:
        dataset: `keras_rcnn.data.Dataset`, or anything with `class_names` and records to iterate.
        detections: list, one dict per record in record order, as `model.detect` returns: `"boxes"` `[n, 4]` xyxy
            pixels, `"scores"` `[n]`, `"labels"` `[n]`.
        iou: float. The overlap that a detection must reach.
        eleven_point: bool. `True` for VOC 2007's mean of the precision at recall 0, 0.1 .. 1; `False` for the area
            under the curve, the rule since VOC 2010. Recall levels are compared exactly: 3 of 10 reaches 0.3, which
            is missed by the rounding of the well-known Python version.
        inclusive: bool. `False`: a box is `x2 - x1` wide, since its coordinates are edges of pixels. This is the
            devkit's own number for data read by `load_voc`, which moves VOC's `xmin` (first pixel, counted from 1) to
            that pixel's left edge. `True`: `x2 - x1 + 1`, for boxes that kept the devkit's pixel numbers.

    Returns:
        dict `{"AP50": mean, "per_class": {name: {"AP50": ..}}}` of floats 0..1, named after `iou`.

    Raises:
        ValueError: `iou` outside (0, 1], or detections that do not fit the dataset.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou must be over 0 and at most 1, not {iou!r}.")
    records, detections = list(dataset), list(detections)
    if len(detections) != len(records):
        raise ValueError(f"{len(detections)} detections for the {len(records)} images of the dataset.")
    key = f"AP{100 * iou:g}"
    per_class = {}
    for label, name in enumerate(dataset.class_names):
        right, ignored, objects = match_class(records, detections, label, iou, inclusive)
        per_class[name] = {key: average_precision(right[~ignored], objects, eleven_point)}
    values = np.array([values[key] for values in per_class.values()])
    present = ~np.isnan(values)
    return {key: float(values[present].mean()) if present.any() else float("nan"), "per_class": per_class}


def match_class(
    records: Sequence[Record],
    detections: Sequence[Detections],
    label: int,
    iou: float = 0.5,
    inclusive: bool = False,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Which detections of one class are right.

    Args:
        records: list of records.
        detections: list of dicts, one per record.
        label: int, the class.
        iou: float. The overlap that a detection must reach.
        inclusive: bool, as in `voc_metrics`.

    Returns:
        `(right, ignored, objects)`: two boolean arrays over all detections of the class, best score first (equal
        scores stay in order), and the number of objects that count.
    """
    scores, right, ignored, objects = [], [], [], 0
    for record, own in zip(records, detections, strict=True):
        mine = np.asarray(record.labels) == label
        truth = np.asarray(record.boxes, "float64").reshape(-1, 4)[mine]
        skip = (record.difficult | record.crowd)[mine]
        objects += int((~skip).sum())

        chosen = np.asarray(own["labels"]).reshape(-1) == label
        score = np.asarray(own["scores"], "float64").reshape(-1)[chosen]
        order = np.argsort(-score, kind="stable")
        boxes = np.asarray(own["boxes"], "float64").reshape(-1, 4)[chosen][order]
        hit, free = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
        if len(boxes) and len(truth):
            overlap = pairwise_iou(boxes, truth, inclusive)
            best = overlap.argmax(axis=1)
            enough = overlap[np.arange(len(boxes)), best] >= iou
            free = enough & skip[best]
            claims = np.flatnonzero(enough & ~skip[best])
            _, first = np.unique(best[claims], return_index=True)  # each object's first claim, by score
            hit[claims[first]] = True
        scores.append(score[order])
        right.append(hit)
        ignored.append(free)
    if not scores:
        return np.zeros(0, bool), np.zeros(0, bool), 0
    # within an image the order is already by score, and a stable sort over all keeps it
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(right)[order], np.concatenate(ignored)[order], objects


def average_precision(right: np.ndarray, objects: int, eleven_point: bool = False) -> float:
    """Average precision of a ranked list.

    Args:
        right: boolean array, best score first: is this detection right?
        objects: int, how many objects there are to find.
        eleven_point: bool, as in `voc_metrics`.

    Returns:
        float 0..1; NaN where there is no object.
    """
    if not objects:
        return float("nan")
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    # the best precision at this recall or any higher one
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        # found / objects >= level / 10 in whole numbers
        at = [np.searchsorted(10 * hits, level * objects) for level in range(11)]
        return float(sum(envelope[i] for i in at if i < len(hits)) / 11)
    return float(envelope[np.asarray(right, bool)].sum() / objects)  # recall steps by 1 / objects at each right one
