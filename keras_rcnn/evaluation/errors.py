"""Errors by kind, and the AP that mending each kind would gain: TIDE (Bolya et al. 2020, arXiv:2008.08115)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_rcnn.data.request import DEFAULT_SCORE
from keras_rcnn.evaluation.confusion import least_scores, shown_and_missed
from keras_rcnn.evaluation.curves import interpolated_precision
from keras_rcnn.evaluation.matches import BACKGROUND_IOU, Matches, PhotoMatches

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")
RIGHT, IGNORED = "right", "ignored"


class _Pool(NamedTuple):
    """All detections that count, photo by photo, and what mending them makes of them."""

    scores: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    kinds: np.ndarray
    mended: np.ndarray  # the label of the object that the detection would find, or -1: it would go
    objects: np.ndarray  # [classes]
    unfound: np.ndarray  # [classes], objects that no detection finds
    missed: np.ndarray  # [classes], those of them that no other error accounts for


def error_kinds(matches: Matches, score: float | Mapping[str, float] = DEFAULT_SCORE) -> dict[str, Any]:
    """Sorts every error into one of six kinds, and says what AP each kind costs.

    The kinds of section 2.2 of the paper, with IoU thresholds 0.5 (or that of the matches) and 0.1, for detections
    that find no object:

    - `"localisation"`: right class, IoU from 0.1 to 0.5. Mended, the detection finds its object.
    - `"class"`: IoU of 0.5 with an object of another class. Mended, it has that class.
    - `"duplicate"`: right class, IoU of 0.5, but a better detection has found the object. Mended, it is gone.
    - `"background"`: IoU of at most 0.1 with every object. Mended, it is gone.
    - `"both"`: all others, wrong in class and place. Mended, it is gone.
    - `"missed"`: an object that no detection finds and no error of class or localisation accounts for. Mended, it is
      not to be found.

    If several detections would find the same object when mended, the best of them does and the others are gone. Each
    kind is mended alone, with all others as they are (section 2.3), so that the gains add up to no whole. AP is COCO's
    at the IoU of the matches, the mean over the classes with objects. Where every class has some, and no photo has a
    crowd or more detections than `match_detections` allows, the numbers are those of the authors' program, `tidecv`;
    it sorts the detections of a crowd, too.

    Args:
        matches: of `match_detections`.
        score: float, or a dict, class name -> score: the least score of the errors that are counted as `"shown"`.
            AP depends on all detections, whatever their score.

    Returns:
        dict: `"AP"`, as it is; `"kinds"`: `{kind: {"dAP": .., "count": .., "shown": ..}}`, gain, errors, and those at
        or above `score`; `"false_positives"` and `"false_negatives"`, the gain without any wrong detections, and
        without any objects that are not found. Fractions, NaN without objects.

    Example:

    >>> errors = error_kinds(match_detections(dataset, detections))
    >>> max(errors["kinds"], key=lambda kind: errors["kinds"][kind]["dAP"])
    'localisation'
    """
    pool = _pooled(matches)
    base = _mean_ap(pool, pool.scores, pool.labels, pool.right, pool.objects)
    counts, shown = Counter(pool.kinds.tolist()), _shown(matches, score)
    counts["missed"] = int(pool.missed.sum())
    kinds = {
        kind: {
            # below 0 it is a matter of the 101 levels of recall
            "dAP": float(np.maximum(_mended(pool, kind) - base, 0.0)),
            "count": counts[kind],
            "shown": shown[kind],
        }
        for kind in KINDS
    }
    sure = np.where(pool.right, 1.0, 0.0)
    return {
        "AP": base,
        "kinds": kinds,
        "false_positives": _mean_ap(pool, sure, pool.labels, pool.right, pool.objects) - base,
        "false_negatives": _mean_ap(pool, pool.scores, pool.labels, pool.right, pool.objects - pool.unfound) - base,
    }


def photo_kinds(photo: PhotoMatches, iou: float = 0.5) -> np.ndarray:
    """What each detection of a photo is.

    Args:
        photo: `PhotoMatches`.
        iou: float, of a match.

    Returns:
        array `[n]` of texts: `"right"`, `"ignored"`, or one of the first five kinds of `error_kinds`.
    """
    cases = [
        (photo.objects >= 0, RIGHT),
        (photo.ignored, IGNORED),
        ((photo.own_iou >= BACKGROUND_IOU) & (photo.own_iou <= iou), "localisation"),
        (photo.other_iou >= iou, "class"),
        (photo.taken_iou >= iou, "duplicate"),
        (np.maximum(photo.own_iou, photo.other_iou) <= BACKGROUND_IOU, "background"),
    ]
    conditions, names = zip(*cases, strict=True)
    return np.select(conditions, names, "both")


def _pooled(matches: Matches) -> _Pool:
    classes = len(matches.class_names)
    unfound, missed, rows = np.zeros(classes, int), np.zeros(classes, int), []
    for photo in matches.photos:
        kinds = photo_kinds(photo, matches.iou)
        mended, usable = np.full(len(kinds), -1), np.zeros(len(photo.counted), bool)
        for i, kind in enumerate(kinds):
            j = {"class": photo.other[i], "localisation": photo.own[i]}.get(kind, -1)
            if j >= 0 and photo.found_by[j] < 0 and not usable[j]:  # best first
                mended[i], usable[j] = photo.true_labels[j], True
        free = photo.counted & (photo.found_by < 0)
        np.add.at(unfound, photo.true_labels[free], 1)
        np.add.at(missed, photo.true_labels[free & ~usable], 1)
        keep = kinds != IGNORED
        rows.append([values[keep] for values in (photo.scores, photo.labels, photo.objects >= 0, kinds, mended)])
    empty = [np.zeros(0), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, "<U12"), np.zeros(0, int)]
    columns = [np.concatenate(column) for column in zip(empty, *rows, strict=True)]
    objects = np.array([matches.objects_of(label) for label in range(classes)])
    return _Pool(*columns[:5], objects=objects, unfound=unfound, missed=missed)


def _mended(pool: _Pool, kind: str) -> float:
    """AP with all errors of one kind mended."""
    if kind == "missed":
        return _mean_ap(pool, pool.scores, pool.labels, pool.right, pool.objects - pool.missed)
    wrong = pool.kinds == kind
    found = wrong & (pool.mended >= 0)
    keep = ~wrong | found
    labels = np.where(found, pool.mended, pool.labels)
    return _mean_ap(pool, pool.scores[keep], labels[keep], (pool.right | found)[keep], pool.objects)


def _mean_ap(pool: _Pool, scores: np.ndarray, labels: np.ndarray, right: np.ndarray, objects: np.ndarray) -> float:
    """COCO's mean AP. A class whose objects are all mended away has AP 0 for its detections, or none without such."""
    order = np.argsort(-scores, kind="stable")
    values = []
    for label in np.flatnonzero(pool.objects):
        own = right[order][labels[order] == label]
        if objects[label]:
            values.append(interpolated_precision(own, objects[label]).mean())
        elif len(own):
            values.append(0.0)
    return float(np.mean(values)) if values else float("nan")


def _shown(matches: Matches, score: float | Mapping[str, float]) -> Counter[str]:
    """Errors that are seen at the least scores."""
    least, counts = least_scores(matches.class_names, score), Counter()
    for photo in matches.photos:
        shown, right, missed = shown_and_missed(photo, least)
        counts.update(photo_kinds(photo, matches.iou)[shown & ~right].tolist())
        counts["missed"] += int(missed.sum())
    return counts
