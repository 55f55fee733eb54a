"""COCO metrics: pycocotools' COCOeval on objects in memory, and detections in COCO's results format."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.masks import full_mask, refuse_far
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import RLE, Detections, IoUType

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

AREAS = ("all", "small", "medium", "large")  # pycocotools' area ranges, in its order


def coco_metrics(
    dataset: Dataset,
    detections: Sequence[Detections],
    iou_type: Literal["bbox", "segm"] = "bbox",
    max_detections: int = 100,
) -> dict[str, Any]:
    """COCO's twelve numbers, and AP per class.

    pycocotools' `COCOeval` does the matching; the means are taken here from its precision and recall tables, because
    its own `summarize` knows no limit but 100. With `max_detections=100` they are pycocotools' numbers exactly.

    Crowd objects are ignored regions, and size classes go by the annotation's area, as COCO has it. Objects that are
    "difficult" (Pascal VOC) count as ordinary ones: COCO has no such thing.

    Args:
        dataset: `keras_rcnn.data.Dataset`, or anything with `class_names`, `category_ids` and records to iterate.
        detections: list, one dict per record in record order, as `model.detect` returns: `"boxes"` `[n, 4]` xyxy
            pixels, `"scores"` `[n]`, `"labels"` `[n]`; for `"segm"` also `"masks"`: boolean `[n, height, width]` or a
            list of `n` COCO RLEs, in the frame of the image.
        iou_type: `"bbox"` or `"segm"`.
        max_detections: int over 10. How many detections per image and class count, best first. COCO's rule is 100;
            images with more objects than that cannot be evaluated fairly under it.

    Returns:
        dict of floats `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl`, all
        0..1, plus `"per_class"`: `{name: {"AP": .., "AP50": ..}}`. What no object counts for (a size or a class that
        does not occur) is NaN where pycocotools has -1. `AR100` is named after `max_detections`: `AR300` for 300.

    Raises:
        ValueError: detections that do not fit the dataset, naming the image.

    Example:

    >>> detections = model.detect([record.image for record in dataset], score=0.0)
    >>> coco_metrics(dataset, detections)["AP50"]
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f'iou_type must be "bbox" or "segm", not {iou_type!r}.')
    check_max_detections(max_detections)
    evaluation = _run(dataset, detections, iou_type, int(max_detections))

    precision = evaluation.eval["precision"]  # [iou, recall level, class, area, detections]; -1: nothing to find
    recall = evaluation.eval["recall"]  # [iou, class, area, detections]
    iou = {round(100 * t): i for i, t in enumerate(evaluation.params.iouThrs)}
    result: dict[str, Any] = {
        "AP": mean_of(precision[:, :, :, 0, -1]),
        "AP50": mean_of(precision[iou[50], :, :, 0, -1]),
        "AP75": mean_of(precision[iou[75], :, :, 0, -1]),
    }
    result |= {f"AP{AREAS[a][0]}": mean_of(precision[:, :, :, a, -1]) for a in (1, 2, 3)}
    result |= {f"AR{n}": mean_of(recall[:, :, 0, m]) for m, n in enumerate(evaluation.params.maxDets)}
    result |= {f"AR{AREAS[a][0]}": mean_of(recall[:, :, a, -1]) for a in (1, 2, 3)}

    column = {int(category): k for k, category in enumerate(evaluation.params.catIds)}  # pycocotools sorts them
    result["per_class"] = {
        name: {
            "AP": mean_of(precision[:, :, column[category], 0, -1]),
            "AP50": mean_of(precision[iou[50], :, column[category], 0, -1]),
        }
        for name, category in zip(dataset.class_names, dataset.category_ids, strict=True)
    }
    return result


def check_max_detections(value: int) -> None:
    """Raises a ValueError unless it is a whole number over 10."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 10:
        raise ValueError(f"max_detections must be a whole number over 10, not {value!r}.")


def coco_results(
    dataset: Dataset, detections: Sequence[Detections], iou_type: Literal["bbox", "segm"] = "bbox"
) -> list[dict[str, Any]]:
    """Detections in COCO's results format, ready for `json.dump` and for `pycocotools.coco.COCO.loadRes`.

    Args:
        dataset: the dataset that was detected on, for image and category ids.
        detections: as in `coco_metrics`.
        iou_type: `"bbox"`, or `"segm"`, whose results leave the box out: with one, pycocotools would take the
            box's area for the mask's.

    Returns:
        list of dicts `{"image_id", "category_id", "score", "bbox": [x, y, width, height]}`, or `"segmentation"` (a
        compressed RLE) in place of `"bbox"`.
    """
    results = []
    for record, own in paired(dataset, detections):
        image = record.image_id.item() if isinstance(record.image_id, np.generic) else record.image_id
        boxes, scores, labels, masks = checked_detections(record, own, len(dataset.class_names), iou_type)
        for i in range(len(boxes)):
            row = {"image_id": image, "category_id": int(dataset.category_ids[labels[i]]), "score": float(scores[i])}
            if iou_type == "segm":
                counts = masks[i]["counts"]
                row["segmentation"] = {
                    "size": [int(side) for side in masks[i]["size"]],
                    "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
                }
            else:
                row["bbox"] = boxes[i].tolist()
            results.append(row)
    return results


def encode_masks(masks: np.ndarray | Sequence[RLE]) -> list[RLE]:
    """Masks as compressed COCO RLEs.

    Args:
        masks: boolean array `[n, height, width]`, or a list of RLEs, whose uncompressed ones are compressed.

    Returns:
        list of `n` dicts `{"size": [height, width], "counts": bytes or str}`.
    """
    from pycocotools import mask as rle

    if isinstance(masks, np.ndarray):
        if masks.ndim != 3:
            raise ValueError(f"Masks must have shape [n, height, width], not {masks.shape}.")
        if not len(masks):
            return []
        encoded: Any = rle.encode(np.asfortranarray(masks.astype("uint8").transpose(1, 2, 0)))
        return encoded
    return [rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask for mask in masks]


def _run(dataset: Dataset, detections: Sequence[Detections], iou_type: IoUType, max_detections: int) -> COCOeval:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on stdout, and has no switch for it
        truth, results = _coco_objects(dataset, detections, iou_type)
        evaluation = COCOeval(truth, results, iou_type)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco_objects(dataset: Dataset, detections: Sequence[Detections], iou_type: IoUType) -> tuple[COCO, COCO]:
    def truth(record: Record) -> list[dict[str, Any]]:
        return [
            {"segmentation": _segmentation(record, i)} if iou_type == "segm" else {} for i in range(len(record.boxes))
        ]

    def found(record: Record, own: Detections) -> list[dict[str, Any]]:
        boxes, scores, labels, masks = checked_detections(record, own, len(dataset.class_names), iou_type)
        areas = boxes[:, 2] * boxes[:, 3] if masks is None else _mask_areas(masks)
        rows = [
            {"label": label, "score": float(score), "bbox": box.tolist(), "area": float(area)}
            for label, score, box, area in zip(labels, scores, boxes, areas, strict=True)
        ]
        return rows if masks is None else [{**row, "segmentation": mask} for row, mask in zip(rows, masks, strict=True)]

    return coco_objects(dataset, detections, truth, found)


def coco_objects(
    dataset: Dataset,
    detections: Sequence[Detections],
    truth: Callable[[Record], Sequence[Mapping[str, Any]]],
    found: Callable[[Record, Detections], Sequence[Mapping[str, Any]]],
) -> tuple[COCO, COCO]:
    """The ground truth and the detections as two pycocotools `COCO` objects.

    Args:
        dataset, detections: as in `coco_metrics`.
        truth: from a record to a dict for each of its objects: what it has besides box, area and class.
        found: from a record and its detections to a dict for each of these: `label`, `score`, `bbox` as xywh, `area`,
            and whatever else.
    """
    pairs = paired(dataset, detections)
    images, objects, results = [], [], []
    for image, (record, own) in zip(image_ids(pairs), pairs, strict=True):
        images.append({"id": int(image), "height": int(record.height), "width": int(record.width)})
        for i, (box, more) in enumerate(zip(xywh(record.boxes), truth(record), strict=True)):
            row = {
                "id": len(objects) + 1,  # from 1: a match with id 0 reads as "no match" in COCOeval
                "image_id": int(image),
                "category_id": int(dataset.category_ids[record.labels[i]]),
                "bbox": box.tolist(),
                "area": float(record.areas[i]),
                "iscrowd": int(record.crowd[i]),
            }
            objects.append({**row, **more})
        for row in found(record, own):
            category = int(dataset.category_ids[row["label"]])
            results.append(
                {**row, "id": len(results) + 1, "image_id": int(image), "category_id": category, "iscrowd": 0}
            )
    categories = [
        {"id": int(category), "name": name}
        for name, category in zip(dataset.class_names, dataset.category_ids, strict=True)
    ]
    return _coco(images, categories, objects), _coco(images, categories, results)


def _coco(images: list[Any], categories: list[Any], annotations: list[Any]) -> COCO:
    """What would be in a COCO json file as a pycocotools `COCO`."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco


def image_ids(pairs: Sequence[tuple[Record, Detections]]) -> list[Any]:
    """The ids of the images of `paired`, whole numbers: pycocotools goes through the images in their order."""
    ids = [record.image_id for record, _ in pairs]
    if not all(isinstance(i, (int, np.integer)) for i in ids):
        return list(range(1, len(pairs) + 1))  # VOC's are file names
    return ids


def paired(dataset: Dataset, detections: Sequence[Detections]) -> list[tuple[Record, Detections]]:
    """Records with their detections."""
    if len(detections) != len(dataset):
        raise ValueError(
            f"{len(detections)} detections for the {len(dataset)} images of the dataset: "
            "give one dict per record, in the order of the records."
        )
    return list(zip(dataset, detections, strict=True))


def checked_detections(
    record: Record, detections: Detections, num_classes: int, iou_type: IoUType
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[RLE] | None]:
    """One image's detections: boxes `[n, 4]` as xywh in float64, scores, labels, and RLEs for "segm" (else None)."""
    labels = np.asarray(detections["labels"]).astype(int).reshape(-1)
    scores = np.asarray(detections["scores"], "float64").reshape(-1)
    boxes = xywh(detections["boxes"])
    where = f"Image {record.image_id!r}"
    if not len(boxes) == len(scores) == len(labels):
        raise ValueError(f"{where}: {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels detected.")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(f"{where}: detected boxes or scores that are not finite. The weights may have become NaN.")
    if len(labels) and labels.max() >= num_classes:
        raise ValueError(f"{where}: detected label {labels.max()}, but the dataset has {num_classes} classes.")
    masks = None
    if iou_type == "segm":
        if "masks" not in detections:
            raise ValueError(f'{where}: iou_type="segm" needs detections with "masks".')
        masks = encode_masks(detections["masks"])
        if len(masks) != len(boxes):
            raise ValueError(f"{where}: {len(masks)} masks for {len(boxes)} boxes detected.")
        for mask in masks:
            # pycocotools says nothing about another size: it would just never match
            if tuple(mask["size"]) != (record.height, record.width):
                raise ValueError(
                    f"{where}: a detected mask is {tuple(mask['size'])} (height, width), but the image is "
                    f"{(record.height, record.width)}. Give masks in the frame of the whole image."
                )
    keep = np.flatnonzero(labels >= 0)  # -1 is padding
    if len(keep) < len(labels):
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        masks = masks and [masks[i] for i in keep]
    return boxes, scores, labels, masks


def has_segmentation(record: Record, i: int) -> bool:
    """Whether a record's object `i` has a mask."""
    segmentation = None if record.segmentations is None else record.segmentations[i]
    return segmentation is not None and not (isinstance(segmentation, (list, tuple)) and not len(segmentation))


def _segmentation(record: Record, i: int) -> list[list[float]] | dict[str, Any] | RLE:
    """An object's mask as pycocotools takes it: polygons or an RLE."""
    if not has_segmentation(record, i):
        raise ValueError(
            f'Image {record.image_id!r}: object {i} has no segmentation, which iou_type="segm" needs. '
            'Use iou_type="bbox" for data with boxes only.'
        )
    segmentation = record.segmentations[i]
    if isinstance(segmentation, dict):
        return dict(segmentation)  # pycocotools writes into what it is given
    if isinstance(segmentation, (list, tuple)):
        refuse_far(segmentation, max(record.height, record.width))
        return [list(polygon) for polygon in segmentation]
    return encode_masks(full_mask(segmentation, record.height, record.width)[None])[0]  # a PNG or an array


def object_mask(record: Record, i: int) -> RLE:
    """The mask of a record's object `i` as one RLE, as pycocotools makes it."""
    from pycocotools import mask as rle

    segmentation: Any = _segmentation(record, i)
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, record.height, record.width))
    return encode_masks([segmentation])[0]


def _mask_areas(masks: Any) -> np.ndarray:
    from pycocotools import mask as rle

    # one call for more than 255 masks fails in pycocotools 2.0.11: it puts their number into a uint8
    parts = [rle.area(masks[i : i + 255]) for i in range(0, len(masks), 255)]
    return np.concatenate(parts) if parts else np.zeros(0)


def xywh(boxes: ArrayLike) -> np.ndarray:
    """Boxes xyxy as float64 xywh."""
    boxes = np.array(boxes, "float64").reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def mean_of(table: np.ndarray) -> float:
    """The mean of a table of pycocotools' without -1, which stands for what does not occur; NaN if that is all."""
    valid = table[table > -1]
    return float(valid.mean()) if valid.size else float("nan")
