"""An evaluation as one HTML page that says what to do next."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.data.request import DEFAULT_SCORE
from keras_rcnn.evaluation import advice
from keras_rcnn.evaluation.coco import coco_metrics
from keras_rcnn.evaluation.confusion import confusion_matrix, least_scores
from keras_rcnn.evaluation.curves import RECALL_LEVELS, Curve, precision_recall
from keras_rcnn.evaluation.errors import KINDS, error_kinds
from keras_rcnn.evaluation.matches import Matches, PhotoMatches, match_detections
from keras_rcnn.evaluation.worst import photo_caption, photo_pair, worst_photos
from keras_rcnn.html_page import (
    Markup,
    bar,
    colour_key,
    element,
    figure,
    html_table,
    sheet,
    unit_plot,
    write_html,
)
from keras_rcnn.interfaces import Detections, FilePath
from keras_rcnn.visualize import class_colour

PHOTOS = 24
WIDE = 25  # classes above which the confusion matrix is a list of pairs
PAIRS = 30


def write_report(
    path: FilePath,
    dataset: Dataset,
    detections: Sequence[Detections],
    iou_type: Literal["bbox", "segm"] = "bbox",
    *,
    metrics: Mapping[str, Any] | None = None,
    title: str = "Evaluation",
    photos: int = PHOTOS,
) -> Path:
    """Writes what is right and wrong about detections as one HTML file that needs nothing else.

    It has AP, the precision-recall curve and the score with the best F1 for each class, the confusion matrix, the kinds
    of errors and the AP that each costs (`error_kinds`), and the photos with the most errors. Everything but AP takes
    an IoU of 0.5 for right and leaves out crowds and objects that are difficult; the confusions, the errors "shown"
    and the photos are those at the scores with the best F1.

    Args:
        path: of the file.
        dataset: `keras_rcnn.data.Dataset`.
        detections: list, one dict per record in record order, as `detect_all` returns them.
        iou_type: `"bbox"`, or `"segm"` for the overlap of masks.
        metrics: what `evaluate` returned for them; None: COCO's.
        title: str, of the page.
        photos: int, how many are shown at most.

    Returns:
        `path` as a `pathlib.Path`.

    Raises:
        ValueError: detections that do not fit the dataset.

    Example:

    >>> detections = keras_rcnn.evaluation.detect_all(model, dataset)
    >>> keras_rcnn.evaluation.write_report("report.html", dataset, detections)
    """
    matches = match_detections(dataset, detections, iou_type)
    curves = precision_recall(matches)
    thresholds = {name: curve.threshold for name, curve in curves.items() if curve.threshold is not None}
    least = least_scores(matches.class_names, thresholds)
    errors, counts = error_kinds(matches, thresholds), confusion_matrix(matches, thresholds)
    if metrics is None:
        values = coco_metrics(dataset, detections, iou_type)
        metrics = {iou_type: values, "per_class": values["per_class"]}
    objects = sum(curve.objects for curve in curves.values())
    measured = "masks" if iou_type == "segm" else "boxes"
    parts = [
        element("h1", title),
        element(
            "p", f"{dataset.name}: {len(dataset)} images, {objects} objects. Right is an IoU of {measured} of 0.5."
        ),
        *_difficult(dataset),
        *_section("What to do next", advice.error_advice(errors)),
        *_errors(errors),
        *_section("Average precision and thresholds", advice.class_advice(curves)),
        *_classes(curves, metrics),
        *_section("Precision and recall", advice.curve_advice(curves)),
        _curves(curves),
        *_section("Confusion matrix", advice.confusion_advice(counts, matches.class_names)),
        *_confusion(counts, matches.class_names),
        *_section("The worst photos", advice.PHOTO_ADVICE),
        *_photos(dataset, detections, matches, least, photos),
    ]
    return write_html(path, title, parts)


def _section(head: str, sentence: str) -> tuple[Markup, Markup]:
    return element("h2", head), element("p", sentence, "todo")


def _difficult(dataset: Dataset) -> Iterator[Markup]:
    difficult = sum(int(record.difficult.sum()) for record in dataset)
    if difficult:
        words = f"{difficult} difficult objects count in COCO's AP, and nowhere else on this page."
        yield element("p", words)


def _errors(errors: Mapping[str, Any]) -> Iterator[Markup]:
    kinds = errors["kinds"]
    most = max([value["dAP"] for value in kinds.values()] + [1e-9])
    rows = [
        [
            kind,
            bar(kinds[kind]["dAP"] / most, _figure(kinds[kind]["dAP"])) if kinds[kind]["dAP"] > 0 else "0.000",
            kinds[kind]["count"],
            kinds[kind]["shown"],
            element("small", advice.REMEDIES[kind]),
        ]
        for kind in KINDS
    ]
    yield html_table(
        ["error", "AP50 that it costs", "at any score", "at the best F1", element("small", "what helps")], rows
    )
    yield element(
        "p",
        f"AP50 is {_figure(errors['AP'])}. Without any wrong detections it would be "
        f"{_figure(errors['AP'] + errors['false_positives'])}, without any missed objects "
        f"{_figure(errors['AP'] + errors['false_negatives'])}. Each kind is mended alone, so that the figures add up "
        "to no whole; localisation is an IoU of 0.1 to 0.5, background less (TIDE, Bolya et al. 2020).",
    )


def _classes(curves: Mapping[str, Curve], metrics: Mapping[str, Any]) -> Iterator[Markup]:
    per_class = metrics["per_class"]
    columns = list(dict.fromkeys(key for values in per_class.values() for key in values))
    rows = []
    for label, (name, curve) in enumerate(curves.items()):
        figures = [_figure(per_class.get(name, {}).get(key)) for key in columns]
        best = [_figure(value) for value in (curve.best_precision, curve.best_recall, curve.best_f1)]
        threshold = [_figure(curve.threshold), *(best if curve.threshold is not None else ["-"] * 3)]
        rows.append([colour_key(class_colour(label), name), curve.objects, *figures, *threshold])
    means = [_figure(_overall(metrics, key)) for key in columns]
    rows.append(["all", sum(curve.objects for curve in curves.values()), *means, "", "", "", ""])
    yield html_table(["class", "objects", *columns, "best score", "precision", "recall", "F1"], rows)
    yield element("p", advice.threshold_advice(sum(curve.threshold is not None for curve in curves.values())))


def _overall(metrics: Mapping[str, Any], key: str) -> float | None:
    task = "segm" if key.startswith("segm_") or "bbox" not in metrics else "bbox"
    return metrics.get(task, {}).get(key.removeprefix("segm_"))


def _curves(curves: Mapping[str, Curve]) -> Markup:
    lines, points = [], []
    for label, (name, curve) in enumerate(curves.items()):
        if curve.objects:
            words = f"{name}: AP50 {curve.average_precision:.3f}"
            lines.append((words, class_colour(label), list(zip(RECALL_LEVELS, curve.precision, strict=True))))
        if curve.threshold is not None:
            words = f"{name}: best F1 {curve.best_f1:.3f} from a score of {curve.threshold:.3f}"
            points.append((words, class_colour(label), (curve.best_recall, curve.best_precision)))
    return unit_plot(lines, points, ("recall", "precision"))


def _confusion(counts: np.ndarray, names: list[str]) -> Iterator[Markup]:
    yield element(
        "p",
        "Rows are what is there, columns what is detected at the scores above. The last row is what is detected where "
        f"there is nothing (or twice), the last column what is missed. A class without a score has {DEFAULT_SCORE}.",
    )
    if len(names) > WIDE:
        rows = [[names[true], names[detected], number] for number, true, detected in advice.confused(counts)[:PAIRS]]
        rows += [[names[i], "background", int(counts[i, -1])] for i in np.argsort(-counts[:-1, -1])[:PAIRS]]
        rows += [["background", names[i], int(counts[-1, i])] for i in np.argsort(-counts[-1, :-1])[:PAIRS]]
        yield html_table(["is", "detected as", "times"], [row for row in rows if row[2]])
        return
    labels = [*names, "background"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[-1] = counts[-1] / np.maximum(counts.sum(axis=0), 1)  # of what is detected
    shades = [[None, *row] for row in shares.tolist()]
    shades[-1][-1] = None
    rows = [[label, *row] for label, row in zip(labels, counts.tolist(), strict=True)]
    rows[-1][-1] = ""
    yield html_table(["", *labels], rows, shades)


def _photos(
    dataset: Dataset, detections: Sequence[Detections], matches: Matches, least: np.ndarray, count: int
) -> Iterator[Markup]:
    chosen, records = worst_photos(matches, least, count), list(dataset)
    if not chosen:
        yield element("p", "No photo has an error.")
        return
    yield element(
        "p",
        "Left: the objects, green where they are found, amber where they are missed, grey where they do not count. "
        "Right: the detections, green where they are right, red where they are wrong, with the kind of error.",
    )
    yield sheet(
        (_pair(records[photo.record_index], detections[photo.record_index], photo, matches, least) for photo in chosen),
        "pairs",
    )


def _pair(record: Record, detections: Detections, photo: PhotoMatches, matches: Matches, least: np.ndarray) -> Markup:
    caption = photo_caption(record, photo, matches, least)
    try:
        return figure(photo_pair(record, detections, photo, matches, least), caption, side=1400)
    except ValueError as error:
        return figure(None, f"{caption}: {error}")


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
