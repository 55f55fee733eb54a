"""Run a model over a dataset and score it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.data.ahead import read_ahead
from keras_rcnn.data.proposals import ProposalSet, check_proposals, compute_proposals
from keras_rcnn.data.ready import check_images
from keras_rcnn.data.records import UNUSED, Dataset
from keras_rcnn.data.request import check_whole, refuse_proposals
from keras_rcnn.evaluation.coco import check_max_detections, coco_metrics, encode_masks, has_segmentation
from keras_rcnn.evaluation.keypoints import has_keypoints, keypoint_metrics
from keras_rcnn.evaluation.voc import voc_metrics
from keras_rcnn.interfaces import BatchDetector, Detections

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

_TOLD = weakref.WeakKeyDictionary()  # dataset -> what it was said to lack

METRICS = ("coco", "voc07", "voc10")


def evaluate(
    model: BatchDetector,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    metric: Literal["coco", "voc07", "voc10"] = "coco",
    max_detections: int = 100,
    progress: bool = True,
    proposals: ProposalSet | None = None,
) -> dict[str, Any]:
    """Detect on every image of a dataset and score the detections.

    Args:
        model: a detector: `model.detect(images, score=0.0, batch_size=..)` and `model.class_names`; a `ServedDetector`,
            too. Classes are matched by name, so that their order may differ from the dataset's; the model may have more
            classes than the dataset, whose detections are left out. The names of a model without `class_names`, as a
            served one is, are those that its detections have; that it lacks a class is not seen then.
        dataset: `keras_rcnn.data.Dataset`.
        batch_size: int. Images a call of `model.detect`.
        metric: `"coco"`, or Pascal VOC's AP at IoU 0.5: `"voc07"` (11 points) or `"voc10"` (area under the curve).
        max_detections: int, of the COCO metric, see `coco_metrics`. The model's own limit applies before it.
        progress: bool. Show a progress bar on stderr.
        proposals: `keras_rcnn.data.ProposalSet` for a model whose proposals come from outside; `None` runs selective
            search on every image. Another model refuses them.

    Returns:
        dict of dicts of floats 0..1, NaN for what does not occur:
        `{"bbox": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"},
        "per_class": {name: {"AP", "AP50"}}}`. Where both model and dataset have masks there is also `"segm"`, with
        the same twelve, and `"segm_AP"`, `"segm_AP50"` for each class; where both have keypoints `"keypoints"`, the ten
        of `keypoint_metrics`, and `"keypoints_AP"`, `"keypoints_AP50"`. A VOC metric has `"AP50"` alone in each place.

    Raises:
        ValueError: the dataset has classes that the model has not, or an argument is not as above: before anything is
            detected.
        keras_rcnn.data.DataError: images cannot be read; all are named.

    Example:

    >>> result = keras_rcnn.evaluation.evaluate(model, dataset, batch_size=4)
    >>> result["bbox"]["AP50"]
    """
    check_settings(batch_size, metric, max_detections)
    detections = detect_all(model, dataset, batch_size=batch_size, progress=progress, proposals=proposals)
    return metrics_of(dataset, detections, metric, max_detections)


def metrics_of(
    dataset: Dataset,
    detections: Sequence[Detections],
    metric: Literal["coco", "voc07", "voc10"] = "coco",
    max_detections: int = 100,
) -> dict[str, Any]:
    """What `evaluate` returns, for detections that are there already: see `detect_all`.

    Args:
        dataset, metric, max_detections: as in `evaluate`.
        detections: list, one dict per record in record order.
    """
    if metric != "coco":
        scores = voc_metrics(dataset, detections, eleven_point=metric == "voc07")
        per_class = scores.pop("per_class")
        return {"bbox": scores, "per_class": per_class}
    scores = coco_metrics(dataset, detections, max_detections=max_detections)
    per_class = scores.pop("per_class")
    result = {"bbox": scores}
    if best_iou_type(dataset, detections) == "segm":
        result["segm"] = coco_metrics(dataset, detections, "segm", max_detections=max_detections)
        for name, values in result["segm"].pop("per_class").items():
            per_class[name] |= {f"segm_{key}": value for key, value in values.items()}
    if has_keypoints(dataset, detections):
        result["keypoints"] = keypoint_metrics(dataset, detections)
        for name, values in result["keypoints"].pop("per_class").items():
            per_class[name] |= {f"keypoints_{key}": value for key, value in values.items()}
    result["per_class"] = per_class
    return result


def best_iou_type(dataset: Dataset, detections: Sequence[Detections]) -> Literal["bbox", "segm"]:
    """`"segm"` where all objects and all detections have masks, `"bbox"` else."""
    return "segm" if all("masks" in own for own in detections) and has_masks(dataset) else "bbox"


def check_settings(batch_size: int, metric: str, max_detections: int) -> None:
    """Raises a ValueError for one that is not as `evaluate` says."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}.")
    check_whole("batch_size", batch_size)
    check_max_detections(max_detections)


def detect_all(
    model: BatchDetector,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    progress: bool = True,
    proposals: ProposalSet | None = None,
) -> list[Detections]:
    """Every detection of a model on a dataset, whatever its score, with the dataset's labels.

    Args:
        model, dataset, batch_size, progress, proposals: as in `evaluate`.

    Returns:
        list of dicts, one per record in record order, as `model.detect` returns them; masks are compressed to COCO
        RLEs at once, since a data set's worth of whole masks does not fit into memory. `coco_metrics`,
        `coco_results`, `voc_metrics` and `draw` take them.
    """
    check_whole("batch_size", batch_size)
    check_proposals_for(model, dataset, proposals)
    new_label = label_map(model, dataset)
    check_images(dataset)  # a damaged photo is told of now, and not when the others are done
    # None: a server that does not tell beforehand
    arguments: dict[str, Any] = {} if getattr(model, "has_masks", False) is False else {"masks": "rle"}
    if proposals is None and getattr(model, "wants_proposals", False):
        proposals = compute_proposals(dataset, progress=progress)
    records, detections = list(dataset), []
    chunks = [range(i, min(i + batch_size, len(records))) for i in range(0, len(records), batch_size)]
    with _bar(len(dataset), progress) as bar:
        photos = read_ahead(lambda chunk: [records[i].read() for i in chunk], chunks)
        for chunk, images in zip(chunks, photos, strict=True):
            if proposals is not None:
                arguments["proposals"] = [proposals[records[i]] for i in chunk]
            for own in model.detect(images, score=0.0, batch_size=batch_size, **arguments):
                if new_label is not None:
                    own = _relabelled(own, new_label[np.asarray(own["labels"], int)])
                if "masks" in own:
                    own = own | {"masks": encode_masks(own["masks"])}
                detections.append(own)
            bar.update(len(images))
    if getattr(model, "class_names", None) is None and any("names" in own for own in detections):
        return _labelled_by_name(detections, dataset)
    return detections


def check_proposals_for(model: BatchDetector, dataset: Dataset, proposals: ProposalSet | None) -> None:
    """Raises a ValueError for proposals that do not fit the data set, or a model that finds its own; None is well."""
    if proposals is None:
        return
    if getattr(model, "wants_proposals", None) is False:
        refuse_proposals(type(model).__name__)
    check_proposals(proposals, dataset)


def label_map(model: BatchDetector, dataset: Dataset) -> np.ndarray | None:
    """An array from the model's labels to the dataset's, -1 for none, or None where they are the same.

    Raises:
        ValueError: the dataset has classes that the model has not.
    """
    ours = list(dataset.class_names)
    theirs = list(getattr(model, "class_names", None) or ours)
    # a model without names has "0", "1" ..: its labels are taken to be the dataset's
    if theirs == ours or theirs == [str(i) for i in range(len(ours))]:
        return None
    only_dataset = [name for name in ours if name not in theirs]
    if only_dataset:
        only_model = [name for name in theirs if name not in ours]
        raise ValueError(
            f"{dataset.name}: the model and the dataset differ in their classes. Only the model has "
            f"{_some(only_model)}; only the dataset has {_some(only_dataset)}. Evaluate on a dataset whose classes are "
            f"among the model's {len(theirs)}, or fit a model with the dataset's {len(ours)}."
        )
    return _places(theirs, dataset)


def _places(names: Sequence[str], dataset: Dataset) -> np.ndarray:
    """The labels that names have in a data set, -1 for none."""
    ours = list(dataset.class_names)
    unknown = [name for name in names if name not in (*ours, UNUSED)]
    told = _TOLD.setdefault(dataset, set())
    if unknown and _some(unknown) not in told:
        told.add(_some(unknown))
        logger.warning("%s has no %s: detections of these classes are left out.", dataset.name, _some(unknown))
    return np.array([ours.index(name) if name in ours else -1 for name in names], "int32")


def _labelled_by_name(detections: list[Detections], dataset: Dataset) -> list[Detections]:
    """Detections with the dataset's labels, of a model whose classes are known by the names of its detections alone."""
    pairs = {(int(label), name) for own in detections for label, name in zip(own["labels"], own["names"])}
    if all(name == str(label) for label, name in pairs):  # it has no names
        return detections
    names = sorted({name for _, name in pairs})
    if not set(names) & set(dataset.class_names):
        raise ValueError(
            f"The model and the dataset differ in their classes. The model has found {_some(names)}; the dataset has "
            f"{_some(list(dataset.class_names))}."
        )
    place = dict(zip(names, _places(names, dataset).tolist(), strict=True))
    return [_relabelled(own, np.array([place[name] for name in own["names"]], "int32")) for own in detections]


def _relabelled(own: Any, labels: np.ndarray) -> Any:
    """Detections with other labels, without those whose label is -1."""
    labels = np.asarray(labels, int)
    keep = labels >= 0
    chosen: dict[str, Any] = {"labels": labels[keep]}
    for key, values in own.items():
        if key != "labels":
            chosen[key] = values[keep] if isinstance(values, np.ndarray) else [v for v, k in zip(values, keep) if k]
    return chosen


def _some(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def has_masks(dataset: Dataset) -> bool:
    """Whether every object of a dataset has a mask (and there is an object)."""
    objects = [has_segmentation(record, i) for record in dataset for i in range(len(record.boxes))]
    return bool(objects) and all(objects)


def _bar(total: int, progress: bool) -> tqdm:
    from tqdm import tqdm

    return tqdm(total=total, desc="evaluate", unit="image", disable=not progress)
