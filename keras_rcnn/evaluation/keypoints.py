"""COCO's keypoint metric: AP by object keypoint similarity (OKS), which pycocotools matches as it does boxes by IoU."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.evaluation.coco import checked_detections, coco_objects, mean_of, paired
from keras_rcnn.interfaces import Detections

MOST = 20  # detections an image and class that COCO's rule for keypoints looks at


def keypoint_metrics(dataset: Dataset, detections: Sequence[Detections]) -> dict[str, Any]:
    """COCO's ten numbers for keypoints, and AP per class.

    pycocotools' `COCOeval` does the matching, with the sigmas of the dataset's skeleton. Objects without an annotated
    keypoint are ignored regions, as crowds are, and size classes go by the annotation's area.

    Args:
        dataset: `keras_rcnn.data.Dataset` with a `skeleton`.
        detections: list, one dict per record in record order, as `model.detect` returns: `"boxes"`, `"scores"`,
            `"labels"` and `"keypoints"` `[n, K, 3]` in px of the image.

    Returns:
        dict of floats `AP`, `AP50`, `AP75`, `APm`, `APl`, `AR`, `AR50`, `AR75`, `ARm`, `ARl`, all 0..1, NaN for what
        does not occur, plus `"per_class"`: `{name: {"AP": .., "AP50": ..}}`.

    Raises:
        ValueError: a dataset or detections without keypoints, or that do not fit each other.

    Example:

    >>> detections = model.detect([record.image for record in dataset], score=0.0)
    >>> keypoint_metrics(dataset, detections)["AP50"]
    """
    from pycocotools.cocoeval import COCOeval

    if dataset.skeleton is None:
        raise ValueError(f"{dataset.name} has no keypoints to compare with.")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on stdout, and has no switch for it
        truth, results = _coco_objects(dataset, detections)
        evaluation = COCOeval(truth, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(dataset.skeleton.oks_sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # [oks, recall level, class, area, detections]; -1: nothing to find
    recall = evaluation.eval["recall"]  # [oks, class, area, detections]
    result: dict[str, Any] = {}
    for name, table in (("AP", precision), ("AR", recall)):
        result[name] = mean_of(table[..., 0, -1])
        result |= {f"{name}{oks}": mean_of(table[(oks - 50) // 5, ..., 0, -1]) for oks in (50, 75)}
        result |= {f"{name}{size}": mean_of(table[..., area, -1]) for area, size in ((1, "m"), (2, "l"))}
    column = {int(category): k for k, category in enumerate(evaluation.params.catIds)}  # pycocotools sorts them
    result["per_class"] = {
        name: {
            "AP": mean_of(precision[:, :, column[category], 0, -1]),
            "AP50": mean_of(precision[0, :, column[category], 0, -1]),
        }
        for name, category in zip(dataset.class_names, dataset.category_ids, strict=True)
    }
    return result


def keypoint_results(dataset: Dataset, detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in COCO's results format for keypoints, ready for `json.dump` and `pycocotools.coco.COCO.loadRes`.

    Args:
        dataset, detections: as in `keypoint_metrics`.

    Returns:
        list of dicts `{"image_id", "category_id", "score", "keypoints": [x, y, score, ...]}`.
    """
    results = []
    for record, own in paired(dataset, detections):
        image = record.image_id.item() if isinstance(record.image_id, np.generic) else record.image_id
        _, scores, labels, points = _checked(record, own, dataset)
        for score, label, each in zip(scores, labels, points, strict=True):
            row = {"image_id": image, "category_id": int(dataset.category_ids[label]), "score": float(score)}
            results.append({**row, "keypoints": each.ravel().tolist()})
    return results


def has_keypoints(dataset: Dataset, detections: Sequence[Detections]) -> bool:
    """Whether a dataset and all detections have keypoints, and there is one in the dataset."""
    if dataset.skeleton is None or not all("keypoints" in own for own in detections):
        return False
    return any(record.keypoints is not None and (record.keypoints[..., 2] > 0).any() for record in dataset)


def _checked(
    record: Record, own: Detections, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image's detections: boxes `[n, 4]` as xywh, scores, labels, and keypoints `[n, K, 3]` in float64."""
    count, where = len(dataset.skeleton or ()), f"Image {record.image_id!r}"
    boxes, scores, labels, _ = checked_detections(record, own, len(dataset.class_names), "bbox")
    if "keypoints" not in own:
        raise ValueError(f"{where}: detections without keypoints.")
    points = np.asarray(own["keypoints"], np.float64).reshape(-1, *np.shape(own["keypoints"])[1:])
    given = np.asarray(own["labels"]).reshape(-1)
    if points.shape != (len(given), count, 3) and len(given):
        raise ValueError(f"{where}: keypoints of the shape {points.shape}, not {(len(given), count, 3)}.")
    if not np.isfinite(points).all():
        raise ValueError(f"{where}: detected keypoints that are not finite.")
    return boxes, scores, labels, points.reshape(-1, count, 3)[given >= 0]


def _coco_objects(dataset: Dataset, detections: Sequence[Detections]) -> tuple[Any, Any]:
    count = len(dataset.skeleton or ())

    def truth(record: Record) -> list[dict[str, Any]]:
        points = np.zeros((len(record.boxes), count, 3)) if record.keypoints is None else record.keypoints
        return [
            {"keypoints": each.astype(np.float64).ravel().tolist(), "num_keypoints": int((each[:, 2] > 0).sum())}
            for each in points
        ]

    def found(record: Record, own: Detections) -> list[dict[str, Any]]:
        _, scores, labels, points = _checked(record, own, dataset)
        return [
            {"label": label, "score": float(score), "keypoints": each.ravel().tolist(), **_extent(each)}
            for label, score, each in zip(labels, scores, points, strict=True)
        ]

    return coco_objects(dataset, detections, truth, found)


def _extent(points: np.ndarray) -> dict[str, Any]:
    """The box and area of a detection's keypoints `[K, 3]`, as pycocotools' `loadRes` has them."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return {"bbox": [*low.tolist(), *(high - low).tolist()], "area": float((high - low).prod())}
