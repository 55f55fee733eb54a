"""A data set written as COCO json."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.data.masks import full_mask
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath, Segmentation

logger = logging.getLogger(__name__)


def save_coco(dataset: Dataset, path: FilePath, images: FilePath | None = None) -> None:
    """Writes a data set as COCO json, which `load` and `load_coco` read.

    An image's `file_name` is relative to `images` if it is given, else to the folder of the json file, where the image
    is in it; otherwise it is an absolute path. Masks are written as they are, polygons or run lengths. Objects marked
    as difficult become crowd objects, which are left out of training and metrics likewise.

    Args:
        dataset: `Dataset` whose images are files.
        path: Of the json file.
        images: Folder that `file_name` is to be relative to.

    Raises:
        DataError: an image is an array and no file.

    Example:

    >>> keras_rcnn.data.save_coco(keras_rcnn.data.load("roboflow", "train"), "train_as_coco.json")
    """
    path = Path(path)
    folder = os.path.abspath(path.parent if images is None else images)
    entries, annotations, difficult = [], [], 0
    for key, record in enumerate(dataset, 1):
        if not isinstance(record.image, (str, Path)):
            raise DataError(f"{dataset.name}: image {record.image_id!r} is no file; save it first")
        entries.append(
            {"id": key, "file_name": _name(record.image, folder), "width": record.width, "height": record.height}
        )
        difficult += int((record.difficult & ~record.crowd).sum())
        for i, box in enumerate(record.boxes.astype(np.float64)):
            x1, y1, x2, y2 = (round(float(side), 4) for side in box)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": key,
                "category_id": dataset.category_ids[int(record.labels[i])],
                "bbox": [x1, y1, round(x2 - x1, 4), round(y2 - y1, 4)],
                "area": round(float(record.areas[i]), 4),
                "iscrowd": int(record.crowd[i] or record.difficult[i]),
            }
            if record.segmentations is not None and record.segmentations[i] is not None:
                annotation["segmentation"] = _segmentation(record, record.segmentations[i])
            if record.keypoints is not None:
                points = record.keypoints[i].astype(np.float64)
                annotation["keypoints"] = [round(float(value), 4) for value in points.ravel()]
                annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
            annotations.append(annotation)
    if difficult:
        logger.warning("%s: %d difficult objects are written as crowd", dataset.name, difficult)
    names, more = zip(dataset.category_ids, dataset.class_names), {}
    if dataset.skeleton is not None:
        bones = [[start + 1, end + 1] for start, end in dataset.skeleton.bones]
        more = {"keypoints": list(dataset.skeleton.names), "skeleton": bones}
    content = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, **more} for number, name in names],
    }
    with aside(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _name(image: FilePath, folder: str) -> str:
    image = os.path.abspath(image)
    inside = (
        os.path.commonpath([image, folder]) == folder
        if os.path.splitdrive(image)[0] == os.path.splitdrive(folder)[0]
        else False
    )
    return Path(os.path.relpath(image, folder)).as_posix() if inside else image


def _segmentation(record: Record, mask: Segmentation) -> list[list[float]] | dict[str, Any]:
    if isinstance(mask, (list, tuple)):
        return [[round(float(side), 4) for side in polygon] for polygon in mask]
    if isinstance(mask, dict):
        counts = mask["counts"]
        return {
            "size": list(map(int, mask["size"])),
            "counts": counts.decode() if isinstance(counts, bytes) else counts,
        }
    from pycocotools import mask as coco_mask

    full = np.asfortranarray(full_mask(mask, record.height, record.width))
    counts: Any = coco_mask.encode(full)["counts"]
    return {"size": [record.height, record.width], "counts": counts.decode()}
