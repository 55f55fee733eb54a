"""A data set measured, and what is to be said about it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_rcnn.data import Dataset, Record
from keras_rcnn.survey.anchors import View, best_anchor_iou, kmeans_shapes, seen_boxes
from keras_rcnn.survey.copies import duplicates
from keras_rcnn.survey.suggested import suggestions

MATCHED = 0.5  # IoU with the best anchor from which on an object counts as matched
FEW = 20  # objects of a class below which it is hardly learned
SHAPES = 5


class Finding(NamedTuple):
    """Something to know about a data set.

    Attributes:
        level: `"error"`, what is wrong; `"warning"`, what will cost accuracy; `"note"`.
        text: a sentence.
    """

    level: str
    text: str


def survey(
    training: Dataset,
    validation: Dataset | None = None,
    view: View | None = None,
    *,
    fixed: Collection[str] = (),
    compare_photos: bool = True,
) -> dict[str, Any]:
    """Measures a data set.

    Args:
        training: `Dataset` to train on.
        validation: `Dataset`, or None.
        view: `View`, how a detector will look at it; None leaves out what depends on that.
        fixed: names of settings that are no matter of choice, see `suggestions`.
        compare_photos: whether to look for photos that occur twice, which reads all of them.

    Returns:
        dict that JSON can say: `"splits"` (`{"train": counts, "val": counts}`), `"objects"` (sizes as the detector
        sees them), `"anchors"`, `"duplicates"`, `"suggestions"` (settings) and `"findings"` (`Finding`s).

    Example:

    >>> result = keras_rcnn.survey.survey(dataset, validation, keras_rcnn.survey.View.of(model))
    >>> print(keras_rcnn.survey.survey_text(result))
    """
    datasets = {"train": training} | ({"val": validation} if validation is not None else {})
    result: dict[str, Any] = {"splits": {name: _counts(dataset) for name, dataset in datasets.items()}}
    findings = [found for name, dataset in datasets.items() for found in _of_split(name, dataset)]
    findings += _of_classes(result["splits"])
    if view is not None:
        boxes, sizes, _ = seen_boxes(training, view)
        if len(boxes):
            result["objects"] = _sizes(boxes, view)
            if view.sizes is not None:
                result["anchors"] = _anchors(boxes, sizes, view)
        result["suggestions"] = suggestions(training, view, fixed)
        findings += _of_view(result, view)
    if compare_photos:
        result["duplicates"] = duplicates(datasets)
        findings += _of_duplicates(result["duplicates"])
    order = ("error", "warning", "note")
    result["findings"] = sorted(findings, key=lambda finding: order.index(finding.level))
    return result


def _counts(dataset: Dataset) -> dict[str, Any]:
    objects = Counter(int(label) for record in dataset for label in record.labels)
    images = Counter(int(label) for record in dataset for label in set(record.labels.tolist()))
    short = [min(record.height, record.width) for record in dataset]
    long = [max(record.height, record.width) for record in dataset]
    each = [len(record.boxes) for record in dataset]
    return {
        "name": dataset.name,
        "images": len(dataset),
        "objects": sum(objects.values()),
        "crowd": sum(int(record.crowd.sum()) for record in dataset),
        "difficult": sum(int(record.difficult.sum()) for record in dataset),
        "without_objects": sum(count == 0 for count in each),
        "with_masks": sum(record.segmentations is not None for record in dataset),
        "left_out": list(dataset.bad),
        "shorter_side": _spread(short),
        "longer_side": _spread(long),
        "objects_an_image": _spread(each),
        "classes": {
            name: {"objects": objects[label], "images": images[label]} for label, name in enumerate(dataset.class_names)
        },
    }


def _spread(values: Sequence[int]) -> dict[str, float]:
    """Least, median and most."""
    return {"least": int(min(values)), "median": float(np.median(values)), "most": int(max(values))}


def _sizes(boxes: np.ndarray, view: View) -> dict[str, Any]:
    sides = boxes[:, 2:] - boxes[:, :2]
    side = np.sqrt(sides.prod(axis=1))
    quantiles = {f"{share:.0%}": round(float(np.quantile(side, share)), 1) for share in (0, 0.1, 0.5, 0.9, 1)}
    return {
        "min_size": view.min_size,
        "max_size": view.max_size,
        "side_px": quantiles,
        "shapes_px": [
            [round(float(side), 1) for side in shape] for shape in kmeans_shapes(boxes[:, 2:] - boxes[:, :2], SHAPES)
        ],
    }


def _anchors(boxes: np.ndarray, sizes: np.ndarray, view: View) -> dict[str, Any]:
    best = best_anchor_iou(boxes, sizes, view)
    return {
        "sizes_px": [list(map(float, sides)) for sides in view.sizes],
        "aspect_ratios": list(view.aspect_ratios),
        "mean_iou": float(best.mean()),
        "matched": float((best >= MATCHED).mean()),
        "matched_at_0.7": float((best >= 0.7).mean()),
    }


# === What is to be said ===


def _of_split(name: str, dataset: Dataset) -> Iterator[Finding]:
    if dataset.bad:
        count = _counted(len(dataset.bad), "annotation or image is", "annotations or images are")
        yield Finding("error", f"{name}: {count} bad, and left out.")
    empty = sum(not len(record.boxes) for record in dataset)
    if empty > len(dataset) / 2:
        yield Finding("warning", f"{name}: {empty} of {len(dataset)} images have no objects.")
    boxes = [box for record in dataset for box in _twice(record)]
    if boxes:
        count = _counted(len(boxes), "object is", "objects are")
        yield Finding("warning", f"{name}: {count} annotated twice, with the same box and class.")


def _twice(record: Record) -> list[tuple[tuple[float, ...], int]]:
    """The boxes of a record that occur once more with the same label."""
    seen = Counter((tuple(box), int(label)) for box, label in zip(record.boxes.tolist(), record.labels, strict=True))
    return [key for key, count in seen.items() for _ in range(count - 1)]


def _of_classes(splits: Mapping[str, Any]) -> Iterator[Finding]:
    training = splits["train"]["classes"]
    empty = [name for name, count in training.items() if not count["objects"]]
    if empty:
        yield Finding("warning", f"Nothing to learn of {_listed(empty)}: no object in the training data.")
    few = [name for name, count in training.items() if 0 < count["objects"] < FEW]
    if few:
        yield Finding("warning", f"Fewer than {FEW} objects to learn of {_listed(few)}.")
    counts = [count["objects"] for count in training.values() if count["objects"]]
    if len(counts) > 1 and max(counts) > 50 * min(counts):
        yield Finding("note", f"The commonest class has {max(counts)} objects, the rarest {min(counts)}.")
    if "val" in splits:
        validation = splits["val"]["classes"]
        unknown = [name for name in validation if name not in training]
        if unknown:
            yield Finding("error", f"{_listed(unknown)}: in the validation data only.")
        unseen = [
            name for name, count in training.items() if count["objects"] and not validation.get(name, {}).get("objects")
        ]
        if unseen:
            yield Finding(
                "warning", f"{_listed(unseen)}: not in the validation data, so that their AP is not measured."
            )


def _of_view(result: Mapping[str, Any], view: View) -> Iterator[Finding]:
    anchors, sizes = result.get("anchors"), result.get("objects")
    if sizes and sizes["side_px"]["10%"] < 8:
        yield Finding(
            "warning",
            f"A tenth of the objects are smaller than {sizes['side_px']['10%']} px a side as the detector sees them "
            f"(min_size={view.min_size}).",
        )
    if anchors and anchors["matched"] < 0.95:
        yield Finding(
            "warning",
            f"{1 - anchors['matched']:.1%} of the objects have no anchor of IoU {MATCHED} or more.",
        )
    most = result["splits"]["train"]["objects_an_image"]["most"]
    if most > view.max_detections:
        yield Finding(
            "warning",
            f"An image has {most} objects, but max_detections={view.max_detections} are the most that are found.",
        )


def _of_duplicates(groups: list[list[tuple[str, str]]]) -> Iterator[Finding]:
    across = [group for group in groups if len({name for name, _ in group}) > 1]
    within = len(groups) - len(across)
    if across:
        yield Finding(
            "error",
            f"{_counted(len(across), 'photo is', 'photos are')} in both the training and the validation data, e.g. "
            f"{across[0][0][1]}: AP is measured on what was learned by heart.",
        )
    if within:
        yield Finding("warning", f"{_counted(within, 'photo occurs', 'photos occur')} more than once in one split.")


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"


def _listed(names: Iterable[str]) -> str:
    names = list(map(str, names))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
