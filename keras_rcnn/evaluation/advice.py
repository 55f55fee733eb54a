"""What an evaluation says to do next, in sentences."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rcnn.evaluation.curves import Curve

FEW = 20  # objects of a class below which its AP says little
REMEDIES = {
    "class": "more photos of the classes that are taken for each other, or one class instead of both",
    "localisation": "larger photos (min_size), anchors in the shapes of the objects (keras-rcnn check suggests them), "
    "tighter annotations, more epochs",
    "both": "nothing of its own: it goes with class and localisation",
    "duplicate": "a lower nms_iou",
    "background": "photos without objects and of what looks like one in the training data (negatives), a higher score",
    "missed": "more photos of such objects, a larger min_size, smaller anchors (anchor_scale), a lower score",
}


def error_advice(errors: Mapping[str, Any]) -> str:
    """About the kinds of errors, from `error_kinds`."""
    kinds = errors["kinds"]
    worst = max(kinds, key=lambda kind: kinds[kind]["dAP"])
    if not kinds[worst]["dAP"] > 0:
        return "No kind of error costs any AP."
    return f"Begin with the errors of kind {worst}, which cost the most ({_points(kinds[worst])}): {REMEDIES[worst]}."


def _points(kind: Mapping[str, Any]) -> str:
    return f"{100 * kind['dAP']:.1f} points of AP50"


def class_advice(curves: Mapping[str, Curve]) -> str:
    """About the classes, from `precision_recall`."""
    known = {name: curve for name, curve in curves.items() if curve.objects}
    if not known:
        return "There are no objects in these photos: evaluate on others."
    worst = min(known, key=lambda name: known[name].average_precision)
    few = [name for name, curve in known.items() if curve.objects < FEW]
    counted = f"{known[worst].objects} object{'s' * (known[worst].objects != 1)}"
    lowest = "has the lowest AP50" if len(known) > 1 else "has AP50"
    text = f"{worst} {lowest} ({known[worst].average_precision:.3f}, {counted}): "
    if worst in few:
        text += "so few objects that it says little; evaluate on more photos of it first."
    else:
        text += "more training photos of it would raise the mean the most." if len(known) > 1 else _of_one(known[worst])
    others = [name for name in few if name != worst]
    return text + (f" Fewer than {FEW} objects to measure on, too: {listed(others)}." if others else "")


def _of_one(curve: Curve) -> str:
    if curve.best_recall < curve.best_precision:
        return "it misses more than it finds wrongly, so see to the missed objects below first."
    return "it finds more wrongly than it misses, so see to the wrong detections below first."


def curve_advice(curves: Mapping[str, Curve]) -> str:
    """About precision and recall, from `precision_recall`."""
    ends = {name: float(np.count_nonzero(curve.precision)) - 1 for name, curve in curves.items() if curve.objects}
    short = sorted((name for name in ends if ends[name] < 80), key=lambda name: ends[name])
    if short:
        return (
            f"No score however low finds more than {max(ends[short[0]], 0):.0f} % of {short[0]}"
            + (f" (nor 80 % of {listed(short[1:])})" if short[1:] else "")
            + ": a lower threshold will not help, but larger photos, smaller anchors or more photos of it may."
        )
    return (
        "Every class reaches a recall of 80 %: a lower threshold finds more objects at the price of wrong detections; "
        "take another than the best F1 (the dots) if one costs you more than the other."
    )


def threshold_advice(count: int) -> str:
    """About the scores with the best F1."""
    if not count:
        return "Nothing is found, whatever the score: train longer, or look at the data (keras-rcnn check)."
    return (
        "Detect with these scores: keras-rcnn evaluate --store-thresholds writes them into the preset, and detect "
        "takes them where no other score is given."
    )


def confusion_advice(counts: np.ndarray, names: list[str]) -> str:
    """About the confusion matrix."""
    pairs = confused(counts)
    wrong, lost = int(counts[-1].sum()), int(counts[:, -1].sum())
    if pairs and sum(number for number, *_ in pairs) >= 0.1 * max(wrong, lost):
        number, true, detected = pairs[0]
        return (
            f"{names[true]} is taken for {names[detected]} the most ({number} times): compare how both are annotated, "
            "and train on more photos that tell them apart."
        )
    if wrong == lost == 0:
        return "Nothing is taken for anything else."
    more = f"wrong detections ({wrong}) outnumber" if wrong > lost else f"wrong detections ({wrong}) do not outnumber"
    remedy = "raise them, and train on such backgrounds" if wrong > lost else "lower them, or train on more objects"
    seldom = "Classes are seldom taken for each other; " if len(names) > 1 else ""
    more = more if seldom else more.capitalize()
    return f"{seldom}{more} missed objects ({lost}) at these scores: {remedy}."


def confused(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """`(number, true class, detected class)` of the classes that are taken for others, the most frequent first."""
    classes = len(counts) - 1
    pairs = [(int(counts[i, j]), i, j) for i in range(classes) for j in range(classes) if i != j and counts[i, j]]
    return sorted(pairs, key=lambda pair: -pair[0])


def listed(names: list[str], limit: int = 8) -> str:
    """Names with commas, not more than a few."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


PHOTO_ADVICE = (
    "Look at the red ones first: what is an object but not annotated belongs in the annotations before anything is "
    "trained again; what is no object belongs in the training data as a negative. Then look for what the amber ones "
    "have in common (small, hidden, dark, at the edge), and add photos of that."
)
