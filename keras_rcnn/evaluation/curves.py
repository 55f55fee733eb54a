"""Precision against recall, class by class, and the score at which F1 is best."""

from typing import NamedTuple

import numpy as np

from keras_rcnn.evaluation.matches import Matches

RECALL_LEVELS = np.linspace(0, 1, 101)  # pycocotools' recThrs
LEAST_F1 = 0.3  # of a class with a threshold


class Curve(NamedTuple):
    """One class's precision and recall.

    Attributes:
        objects: int, how many there are to find.
        precision: float64 `[101]`, the best precision at recall 0, 0.01 .. 1 or any higher one, as COCO has it; NaN
            without objects. Its mean is AP.
        threshold: the score at which F1 is best, or None where nothing is found.
        best_f1, best_precision, best_recall: floats, of the detections with at least that score; 0 where it is None.
    """

    objects: int
    precision: np.ndarray
    threshold: float | None
    best_f1: float
    best_precision: float
    best_recall: float

    @property
    def average_precision(self) -> float:
        """AP at the IoU of the matches; NaN without objects."""
        return float(self.precision.mean())


def precision_recall(matches: Matches) -> dict[str, Curve]:
    """Precision and recall of each class.

    The arrays are those of pycocotools, `COCOeval.eval["precision"]` at one IoU and area "all" (but for objects that
    are "difficult", see `match_detections`).

    The threshold lies in the middle between the lowest score that is to be kept and the next one below, so that it
    does not hang on the last digits of a score. It is measured on these very photos: with few objects of a class, it
    is as uncertain as the F1 that it belongs to.

    Args:
        matches: of `match_detections`.

    Returns:
        dict, class name -> `Curve`.

    Example:

    >>> curves = precision_recall(match_detections(dataset, detections))
    >>> curves["nucleus"].threshold
    """
    return {name: _curve(matches, label) for label, name in enumerate(matches.class_names)}


def best_thresholds(matches: Matches) -> dict[str, float]:
    """The score of each class at which F1, the harmonic mean of precision and recall, is best on these photos.

    Args:
        matches: of `match_detections`.

    Returns:
        dict, class name -> score, 0..1. `model.thresholds` takes it. Classes whose best F1 is below 0.3 are left out:
        where most of what is found is wrong, the best threshold is nearly 0, and photos would be full of them.

    Example:

    >>> model.thresholds = best_thresholds(match_detections(validation, detect_all(model, validation)))
    >>> model.detect("photo.jpg")["names"]
    """
    curves = precision_recall(matches)
    return {
        name: curve.threshold
        for name, curve in curves.items()
        if curve.threshold is not None and curve.best_f1 >= LEAST_F1
    }


def interpolated_precision(right: np.ndarray, objects: int) -> np.ndarray:
    """COCO's precision at 101 levels of recall.

    Args:
        right: bool `[n]`, best score first: is this detection right?
        objects: int, how many there are to find.

    Returns:
        float64 `[101]`, NaN where there is no object.
    """
    if not objects:
        return np.full(len(RECALL_LEVELS), np.nan)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / objects, RECALL_LEVELS, side="left")
    return np.append(envelope, 0.0)[np.minimum(places, len(envelope))]


def _curve(matches: Matches, label: int) -> Curve:
    chosen = [(photo, (photo.labels == label) & ~photo.ignored) for photo in matches.photos]
    scores = np.concatenate([np.zeros(0), *(photo.scores[own] for photo, own in chosen)])
    right = np.concatenate([np.zeros(0, bool), *(photo.objects[own] >= 0 for photo, own in chosen)])
    order = np.argsort(-scores, kind="stable")
    objects = matches.objects_of(label)
    return Curve(objects, interpolated_precision(right[order], objects), *_best(scores[order], right[order], objects))


def _best(scores: np.ndarray, right: np.ndarray, objects: int) -> tuple[float | None, float, float, float]:
    """The threshold with the best F1, the highest of equals, and F1, precision and recall from there on."""
    if not right.any():
        return None, 0.0, 0.0, 0.0
    hits, kept = np.cumsum(right), np.arange(1, len(right) + 1)
    f1 = 2 * hits / (kept + objects)  # 2 TP / (2 TP + FP + FN)
    last = np.append(scores[1:] != scores[:-1], True)  # of equal scores: all or none
    place = int(np.where(last, f1, -1.0).argmax())
    below = scores[place + 1] if place + 1 < len(scores) else scores[place]
    threshold = float(np.clip((scores[place] + below) / 2, 0.0, 1.0))
    return threshold, float(f1[place]), float(hits[place] / kept[place]), float(hits[place] / objects)
