"""COCO's json annotations -> records."""

import logging
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from keras_rcnn.data.files import read_json
from keras_rcnn.data.masks import segmentation_problem
from keras_rcnn.data.records import DataError, Dataset, Problems, Record, checked_size, clean_boxes, refuse_swapped

logger = logging.getLogger(__name__)


def load_coco(annotations, images, *, on_bad="error"):
    """Reads a data set in COCO's format.

    Boxes and polygons that stick out of their image are clipped: a box of its own by up to 2 px, further out it is
    refused as bad; with polygons by any amount as long as something stays inside. Crowd objects are kept and marked.

    Args:
        annotations: Path of the json file, with `images`, `annotations` and `categories`.
        images: Folder that the images' `file_name`s are relative to (and masks', where `segmentation` is a file).
        on_bad: `"error"` refuses the file if anything is wrong with it; `"skip"` leaves bad objects (and unreadable
            images) out and logs one warning.

    Returns:
        `Dataset`; labels are 0-based in the order of the category ids, which are kept in `category_ids`.

    Raises:
        DataError: What is wrong, with the file, the image and the value.

    Example:

    ```python
    dataset = load_coco("annotations/instances_val2017.json", "val2017")
    ```
    """
    annotations, folder = Path(annotations), Path(images)
    problems = Problems(annotations, on_bad)
    content = _read_json(annotations)
    if not folder.is_dir():
        raise DataError(f"{annotations}: no image folder {folder}")
    if not content["images"]:
        raise DataError(f"{annotations}: no images in the file")
    categories = sorted(_categories(content["categories"], annotations), key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    _refuse_double(content["images"], annotations)

    objects, seen = defaultdict(list), set()
    known = {image["id"] for image in content["images"]}
    for number, item in enumerate(content["annotations"]):
        where = f"annotation {item.get('id', f'number {number}')}" if isinstance(item, dict) else f"number {number}"
        problem = _annotation_problem(item, known, label_of, seen)
        if problem:
            problems.add(where, problem)
            continue
        seen.add(item.get("id", ("number", number)))
        objects[item["image_id"]].append(item)

    sizes = {}
    for image in content["images"]:
        declared = (image["height"], image["width"]) if image.get("height") and image.get("width") else None
        size = checked_size(folder / image["file_name"], declared, problems)
        if size is not None:
            sizes[image["id"]] = size
    usable = [item for image_id in sizes for item in objects[image_id]]
    refuse_swapped(
        [item["bbox"] for item in usable],
        [sizes[item["image_id"]] for item in usable],
        annotations,
        "COCO's bbox is [x, y, width, height]; store [x1, y1, x2 - x1, y2 - y1]",
        given="xywh",
        on_bad=on_bad,
    )

    records, clipped = [], 0
    for image in content["images"]:
        if image["id"] in sizes:
            path = folder / image["file_name"]
            key = image["id"]
            record, moved = _record(path, key, sizes[key], objects[key], label_of, folder, problems)
            records.append(record)
            clipped += moved
    problems.finish()
    if clipped:
        logger.warning("%s: clipped %d objects whose polygons stick out of their image", annotations, clipped)
    names = [category["name"] for category in categories]
    return Dataset(records, names, [category["id"] for category in categories], name=annotations)


def _record(path, image_id, size, items, label_of, folder, problems):
    height, width = size
    raw = np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4)
    boxes = np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
    segmentations = [_segmentation(item, folder) for item in items]
    # What sticks out of a polygon is cut off, and so is its box.
    inside = np.clip(boxes, 0, [width, height, width, height])
    clip = np.array([isinstance(one, list) for one in segmentations], bool) & (inside[:, 2:] > inside[:, :2]).all(
        axis=1
    )
    moved = int((np.abs(inside - boxes) > 0.5)[clip].any(axis=1).sum())
    boxes[clip] = inside[clip]
    boxes, good, reasons = clean_boxes(boxes, height, width, raw)
    for i, item in enumerate(items):
        reason = reasons.get(i)
        if reason is None and segmentations[i] is not None:
            reason = segmentation_problem(segmentations[i], height, width)
        if reason is not None:
            good[i] = False
            problems.add(f"{path.name}, annotation {item.get('id', '?')}", reason)
    kept = np.flatnonzero(good)
    items, segmentations = [items[i] for i in kept], [segmentations[i] for i in kept]
    sides = boxes[kept, 2:] - boxes[kept, :2]
    areas = [float(item.get("area", side.prod())) for item, side in zip(items, sides)]
    return Record(
        image=str(path),
        image_id=image_id,
        height=height,
        width=width,
        boxes=boxes[kept],
        labels=[label_of[item["category_id"]] for item in items],
        crowd=[bool(item.get("iscrowd", 0)) for item in items],
        areas=areas,
        segmentations=segmentations if any(one is not None for one in segmentations) else None,
    ), moved


def _segmentation(item, folder):
    segmentation = item.get("segmentation")
    if isinstance(segmentation, str):
        return str(folder / segmentation)
    return segmentation or None  # some tools write [] where there is no mask


def _annotation_problem(item, known, label_of, seen):
    if not isinstance(item, dict):
        return f"is {type(item).__name__}, expected an object with image_id, category_id and bbox"
    for key in ("image_id", "category_id", "bbox"):
        if key not in item:
            return f"has no {key!r}"
    if "id" in item and item["id"] in seen:
        return "its id is given to an earlier annotation as well"
    if item["image_id"] not in known:
        return f"image_id {item['image_id']!r} is not in the file's images"
    if item["category_id"] not in label_of:
        return f"unknown category_id {item['category_id']!r}; the file's categories are {sorted(label_of)}"
    box = item["bbox"]
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        return f"bbox {box!r} is not four numbers [x, y, width, height]"
    return None


def _read_json(path):
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path}: not COCO's format, it has no {', '.join(map(repr, missing))}")
    for key in keys:
        if not isinstance(content[key], list):
            raise DataError(f"{path}: {key!r} is {type(content[key]).__name__}, expected a list")
    return content


def _categories(categories, source):
    for category in categories:
        if not isinstance(category, dict) or "id" not in category or "name" not in category:
            raise DataError(f"{source}: category {category!r} has no 'id' or no 'name'")
    for category_id, count in Counter(category["id"] for category in categories).items():
        if count > 1:
            raise DataError(f"{source}: category id {category_id!r} is given to {count} categories")
    return categories


def _refuse_double(images, source):
    for image in images:
        if not isinstance(image, dict) or "id" not in image or "file_name" not in image:
            raise DataError(f"{source}: image {image!r} has no 'id' or no 'file_name'")
    names = defaultdict(list)
    for image in images:
        names[image["id"]].append(image["file_name"])
    double = [f"{image_id!r} ({', '.join(files)})" for image_id, files in names.items() if len(files) > 1]
    if double:
        raise DataError(f"{source}: image ids given to more than one image: {'; '.join(double[:20])}")
