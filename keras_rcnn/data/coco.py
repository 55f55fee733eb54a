"""COCO's json annotations -> records."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rcnn.data.categories import Id, as_named, read_categories, without_root
from keras_rcnn.data.fields import flag, identity, name, number, numbers, shown
from keras_rcnn.data.formats.recognised import kind_of_json, way_out
from keras_rcnn.data.keypoints import keypoints_of, skeleton_of
from keras_rcnn.data.masks import clean_segmentation, segmentation_box
from keras_rcnn.data.names import Finder
from keras_rcnn.data.problems import (
    DataError,
    Problems,
    checked_size,
    clean_boxes,
    in_px,
    refuse_relative,
    refuse_swapped,
)
from keras_rcnn.data.reading import read_json
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import FilePath, OnBad, Segmentation
from keras_rcnn.skeletons import Skeleton

logger = logging.getLogger(__name__)

_Photo = tuple[dict[str, Any], Path, tuple[int, int], list["_Object"], list[Segmentation | None]]
RELATIVE = "pass relative=True to take them as shares"


class _Object(NamedTuple):
    where: str
    label: int
    box: list[float] | None  # None: to be had from the segmentation
    crowd: bool
    area: float | None  # None: the box's
    segmentation: Any
    keypoints: np.ndarray | None


def load_coco(
    annotations: FilePath,
    images: FilePath,
    *,
    on_bad: OnBad = "error",
    crowd_as_objects: bool = False,
    relative: bool = False,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Reads a data set in COCO's format, as tools write it.

    Numbers may be text, ids of either type, and sizes missing: what `float()` reads is a number, and a size that is
    none (or -1, or 0) is read from the image's header. An object without `bbox` has the box of its segmentation. Files
    are found under the names of other systems, where these can mean one file only, see `Finder`; that is said once.

    Boxes and polygons that stick out of their image are clipped: a box of its own by up to 2 px, further out it is
    refused as bad; with polygons by any amount as long as something stays inside. Crowd objects are kept and marked. A
    segmentation, or a part of one, that is bad is left out with a warning; its object keeps its box.

    Args:
        annotations: Path of the json file, with `images`, `annotations` and `categories`.
        images: Folder that the images' `file_name`s are relative to (and masks', where `segmentation` is a file).
        on_bad: `"error"` refuses the file if anything is wrong with it; `"skip"` leaves bad objects (and unreadable
            images) out and logs one warning.
        crowd_as_objects: Takes objects with `iscrowd` as any other: some tools set it for whatever is drawn by brush.
        relative: Boxes and polygons are shares of the image's width and height, not px.
        class_names: Names in the order of the labels. None: the categories, in the order of their ids.

    Returns:
        `Dataset`; labels are 0-based in the order of the category ids, which are kept in `category_ids`. An empty root
        category, as Roboflow writes it, is no class.

    Raises:
        DataError: What is wrong, with the file, the image and the value.

    Example:

    ```python
    dataset = load_coco("annotations/instances_val2017.json", "val2017")
    ```
    """
    annotations = Path(annotations)
    return dataset_of(
        read_coco(annotations),
        annotations,
        images,
        on_bad=on_bad,
        crowd_as_objects=crowd_as_objects,
        relative=relative,
        class_names=class_names,
    )


def dataset_of(
    content: Mapping[str, Any],
    source: FilePath,
    images: FilePath,
    *,
    on_bad: OnBad = "error",
    crowd_as_objects: bool = False,
    relative: bool = False,
    class_names: Sequence[str] | None = None,
    faults: Iterable[tuple[object, str]] = (),
    item: str = "annotation",
) -> Dataset:
    """The records of a tree of COCO's shape: the one way that all formats go but Pascal VOC's and tables.

    Args:
        content: Dict with the lists `images`, `annotations` and `categories`.
        source: Path of what it was read from, for messages.
        images: Folder that the images' `file_name`s are relative to.
        on_bad, crowd_as_objects, relative: As of `load_coco`.
        class_names: Names in the order of the labels. None: the categories, in the order of their ids.
        faults: `(where, problem)` of each object that its reader could make nothing of.
        item: What an annotation is called in messages, before its id.

    Returns:
        `Dataset`.

    Raises:
        DataError: What is wrong, with the file, the image and the value.
    """
    folder = Path(images)
    problems = Problems(source, on_bad)
    if not os.path.isdir(folder):
        raise DataError(f"{source}: no image folder {folder}")
    if not content["images"]:
        raise DataError(f"{source}: no images in the file")
    every = read_categories(content["categories"], source)
    skeleton, problem = skeleton_of(every.values())
    if problem:
        logger.warning("%s: %s", source, problem)
    categories = without_root(every, content["annotations"], source)
    names, ids = list(categories.values()), list(categories)
    label_of = {key: label for label, key in enumerate(categories)}
    if class_names is not None:
        names, ids, label_of = as_named(categories, [str(given) for given in class_names])
    listed = _images(content["images"], source, problems)
    for where, problem in faults:
        problems.add(where, problem)

    objects, empty = defaultdict(list), 0
    for place, entry in enumerate(content["annotations"]):
        where = _where(entry, place, item)
        key, annotation = _object(entry, where, listed, label_of, categories, crowd_as_objects, skeleton)
        if isinstance(annotation, str):
            problems.add(where, annotation)
        elif annotation is None:
            empty += 1
        else:
            objects[key].append(annotation)
    if empty:
        logger.warning("%s: %d annotations have neither a box nor a mask, and mark no object", source, empty)

    paths, tried = Finder(folder, source).find([entry["file_name"] for entry in listed.values()])
    usable: list[_Photo] = []  # (entry, path, size, objects, their segmentations)
    masks = _Masks(source)
    for key, entry in listed.items():
        path = paths.get(entry["file_name"])
        if path is None:
            problems.add(folder / entry["file_name"], tried[entry["file_name"]])
            continue
        size = checked_size(path, (entry.get("height"), entry.get("width")), problems)
        if size is not None:
            usable.append((entry, path, size, *_with_boxes(objects[key], size, path, folder, masks, problems)))

    boxes: list[Any] = [annotation.box for _, _, _, items, _ in usable for annotation in items]
    sizes = [size for _, _, size, items, _ in usable for _ in items]
    if not relative:
        refuse_relative(boxes, sizes, source, RELATIVE)
        hint = "COCO's bbox is [x, y, width, height]; store [x1, y1, x2 - x1, y2 - y1]"
        refuse_swapped(boxes, sizes, source, hint, given="xywh", on_bad=on_bad)
    records, clipped = [], 0
    for photo in usable:
        record, moved = _record(photo, relative, problems, skeleton is not None)
        records.append(record)
        clipped += moved
    problems.finish()
    masks.finish()
    if clipped:
        logger.warning("%s: clipped %d objects whose polygons stick out of their image", source, clipped)
    return Dataset(records, names, ids, source, problems.found, skeleton)


def _record(photo: _Photo, relative: bool, problems: Problems, keypoints: bool = False) -> tuple[Record, int]:
    entry, path, size, items, segmentations = photo
    height, width = size
    raw = np.array([item.box for item in items], np.float64).reshape(-1, 4)
    px = in_px(raw, size) if relative else raw
    if relative:
        segmentations = [_polygons_in_px(item, size) for item in segmentations]
    boxes = np.concatenate([px[:, :2], px[:, :2] + px[:, 2:]], axis=1)
    # What sticks out of a polygon is cut off, and so is its box.
    inside = np.clip(boxes, 0, [width, height, width, height])
    clip = np.array([isinstance(item, list) for item in segmentations], bool) & (inside[:, 2:] > inside[:, :2]).all(1)
    moved = int((np.abs(inside - boxes) > 0.5)[clip].any(axis=1).sum())
    boxes[clip] = inside[clip]
    boxes, good, reasons = clean_boxes(boxes, height, width, raw)
    for i, reason in reasons.items():
        problems.add(f"{path.name}, {items[i].where}", reason)
    kept = np.flatnonzero(good)
    items, segmentations = [items[i] for i in kept], [segmentations[i] for i in kept]
    sides = boxes[kept, 2:] - boxes[kept, :2]
    areas = [side.prod() if relative or item.area is None else item.area for item, side in zip(items, sides)]
    return Record(
        image=str(path),
        image_id=entry["id"],
        height=height,
        width=width,
        boxes=boxes[kept],
        labels=[item.label for item in items],
        crowd=[item.crowd for item in items],
        areas=areas,
        segmentations=segmentations if any(item is not None for item in segmentations) else None,
        keypoints=_points(items, size, relative) if keypoints else None,
    ), moved


def _points(items: Sequence[_Object], size: tuple[int, int], relative: bool) -> np.ndarray:
    points = np.array([item.keypoints for item in items], np.float32)
    if relative and len(points):
        points[..., :2] *= size[::-1]
    return points


def _polygons_in_px(segmentation: Segmentation | None, size: tuple[int, int]) -> Segmentation | None:
    if not isinstance(segmentation, list):
        return segmentation
    return [(np.array(polygon).reshape(-1, 2) * size[::-1]).ravel().tolist() for polygon in segmentation]


class _Masks:
    """Counts the parts of segmentations that are left out, to say it once."""

    def __init__(self, source: FilePath) -> None:
        self.source, self.parts, self.objects = source, [], 0

    def finish(self) -> None:
        if self.parts:
            lines = self.parts[:5] + (["..."] if len(self.parts) > 5 else [])
            lost = f"; {self.objects} objects are left without a mask, with their box alone" if self.objects else ""
            logger.warning(
                "%s: left out %d bad parts of segmentations%s: %s", self.source, len(self.parts), lost, "; ".join(lines)
            )


def _with_boxes(
    items: Iterable[_Object], size: tuple[int, int], path: Path, folder: Path, masks: _Masks, problems: Problems
) -> tuple[list[_Object], list[Segmentation | None]]:
    """The objects of an image that have a box, or get it from their segmentation, and their segmentations."""
    kept, segmentations = [], []
    for item in items:
        if item.segmentation is None:
            segmentation, reasons = None, []
        else:
            segmentation, reasons = clean_segmentation(item.segmentation, *size, folder)
        if item.box is None:
            box = None
            try:
                box = None if segmentation is None else segmentation_box(segmentation, *size)
            except ValueError as error:
                reasons = [str(error)]
            if box is None:
                why = reasons[0] if reasons else "is empty"
                problems.add(f"{path.name}, {item.where}", f"has no 'bbox', and its segmentation gives none: {why}")
                continue
            item = item._replace(box=[box[0], box[1], box[2] - box[0], box[3] - box[1]])
        masks.parts += [f"{path.name}, {item.where}: {reason}" for reason in reasons]
        masks.objects += bool(reasons) and segmentation is None
        kept.append(item)
        segmentations.append(segmentation)
    return kept, segmentations


def _where(item: Any, place: int, called: str) -> str:
    """What an annotation is called in messages."""
    if not isinstance(item, dict) or item.get("id") is None:
        return f"{called} number {place}"
    return f"{called} {shown(item['id']) if identity(item['id']) is None else item['id']}"


def _object(
    item: Any,
    where: str,
    images: dict[Id, Any],
    label_of: dict[Id, int],
    categories: dict[Id, str],
    crowd_as_objects: bool,
    skeleton: Skeleton | None = None,
) -> tuple[Id | None, _Object | str | None]:
    """`(image's key, _Object)`; in the place of the latter what is wrong as text, or None if it marks no object."""
    if not isinstance(item, dict):
        return None, f"is {type(item).__name__}, expected an object with image_id, category_id and bbox"
    box, segmentation = item.get("bbox"), item.get("segmentation") or None
    if segmentation is not None and not _says_something(segmentation):
        segmentation = None
    for key in ("image_id", "category_id", "bbox"):
        if key not in item and (key != "bbox" or segmentation is None):
            return None, f"has no {key!r}"
    image = identity(item["image_id"])
    if image not in images:
        return None, f"image_id {shown(item['image_id'])} is not in the file's images"
    if box is None or (isinstance(box, (list, tuple, str)) and not box):
        if segmentation is None:
            return image, None
        box = None
    category = identity(item["category_id"])
    if category not in label_of:
        if category in categories:
            known = ", ".join(name for key, name in categories.items() if key in label_of)[:400]
            return None, f"unknown class {shown(categories[category])}; of the file's classes {known} are wanted"
        known = f"the file's categories are {shown(list(label_of), 400)}"
        return None, f"unknown category_id {shown(item['category_id'])}; {known}"
    if box is not None:
        sides = numbers(box)
        if sides is None or len(sides) != 4:
            return None, f"bbox {shown(box)} is not four numbers [x, y, width, height]"
        box = sides if any(sides) or segmentation is None else None  # 0, 0, 0, 0 stands for none
    crowd = flag(item.get("iscrowd"))
    if crowd is None:
        return None, f"iscrowd {shown(item['iscrowd'])} is neither 0 nor 1"
    area = number(item.get("area"))
    area = area if area is not None and 0 <= area < 1e12 else None
    crowd = crowd and not crowd_as_objects
    points = keypoints_of(item.get("keypoints"), skeleton)
    if isinstance(points, str):
        return None, points
    return image, _Object(where, label_of[category], box, crowd, area, segmentation, points)


def _says_something(segmentation: Any) -> bool:
    """False for lists that are empty, or hold nothing but empty lists."""
    return not isinstance(segmentation, list) or any(part not in (None, []) for part in segmentation)


def read_coco(path: Path) -> dict[str, Any]:
    """What a json file of COCO's format says: a dict with the lists `images`, `annotations` and `categories`."""
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(
            f"{path}: not COCO's format, it has no {', '.join(map(repr, missing))}{way_out(kind_of_json(content))}"
        )
    for key in keys:
        if not isinstance(content[key], list):
            raise DataError(f"{path}: {key!r} is {type(content[key]).__name__}, expected a list")
    return content


def _images(images: Iterable[Any], source: FilePath, problems: Problems) -> dict[Id, dict[str, Any]]:
    """`{id: image}`, with the file's name as text."""
    listed = defaultdict(list)
    for image in images:
        if not isinstance(image, dict) or "id" not in image or "file_name" not in image:
            problems.add("images", f"image {shown(image)} has no 'id' or no 'file_name'")
            continue
        key, file_name = identity(image["id"]), image["file_name"]
        if not isinstance(file_name, str):
            image = image | {"file_name": name(file_name)}
        if key is None or name(file_name) is None:
            problems.add("images", f"image {shown(image)}: its 'id' or its 'file_name' is none")
            continue
        listed[key].append(image)
    double = [
        f"{key!r} ({', '.join(entry['file_name'] for entry in all)})" for key, all in listed.items() if len(all) > 1
    ]
    if double:
        raise DataError(f"{source}: image ids given to more than one image: {'; '.join(double[:20])}")
    return {key: image for key, (image,) in listed.items()}
