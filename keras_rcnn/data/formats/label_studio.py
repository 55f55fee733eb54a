"""Label Studio's own json: tasks with the annotations of one or several people."""

import logging
import math
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import name, number, shown
from keras_rcnn.data.formats.shapes import ellipse, finite, points_of, turned_box
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.names import ENDINGS
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_json

logger = logging.getLogger(__name__)

_BRUSH = "is painted by brush, which is not read from Label Studio's json; choose Export > COCO with images there"
_SHAPES = ("rectangle", "polygon", "ellipse", "brush")
_LABELS = (*(f"{shape}labels" for shape in _SHAPES), "labels")
_OF_REGIONS = ("choices", "textarea", "rating", "number", "taxonomy", "datetime", "relation", "pairwise")


def read_label_studio(files: list[Path], root: Path, **_: Any) -> Tree:
    """Export > JSON, or JSON-MIN -> `Tree`. Of a photo's annotations the first that was not cancelled counts."""
    (file,) = files
    content = read_json(file)
    tasks = content if isinstance(content, list) else [content]
    tree = Tree(file, relative=True)
    unlabelled = several = 0
    for place, task in enumerate(tasks, 1):
        where = f"task {shown(task['id'])}" if isinstance(task, dict) and "id" in task else f"task number {place}"
        results, count = _results(task)
        if results is None:
            unlabelled += 1
            continue
        several += count > 1
        image = tree.image(_image(task), where=where, once=True)
        if image is None:
            continue
        named, drawn = _labels(results)
        for number_of, result in enumerate(results, 1):
            if isinstance(result, dict):
                _add(tree, image, f"{number_of} of {image}", result, named, drawn)
            else:
                tree.fault(f"{number_of} of {image}", f"is {type(result).__name__}, expected an object of json")
    if unlabelled:
        logger.warning("%s: left out %d tasks without an annotation", file, unlabelled)
    if several:
        logger.warning("%s: %d photos have several annotations; of each the first is read", file, several)
    if not tree.images and unlabelled:
        raise DataError(f"{file}: none of its {unlabelled} tasks has an annotation")
    return tree


def _results(task: Any) -> tuple[list[Any] | None, int]:
    """`(results, how many annotations there are)` of a task; None in the place of the results if it has none."""
    if not isinstance(task, dict):
        return None, 0
    for key in ("annotations", "completions"):
        if isinstance(task.get(key), list):
            good = [
                item["result"]
                for item in task[key]
                if isinstance(item, dict) and isinstance(item.get("result"), list) and not item.get("was_cancelled")
            ]
            return (good[0] if good else None), len(good)
    if "data" in task:
        return None, 0
    # JSON-MIN: the values of all results, by the name of their tag
    flat = [
        {"value": value, **{key: value.get(key) for key in ("original_width", "original_height")}}
        for values in task.values()
        if isinstance(values, list)
        for value in values
        if isinstance(value, dict)
    ]
    return flat, 1


def _image(task: Any) -> Any:
    """The name of a task's photo: of `data`'s texts the one that looks like it."""
    data = task.get("data", task)
    if not isinstance(data, dict):
        return None
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for key in ("image", "img", "photo", "picture", "url", "file_upload"):
        if key in texts:
            return texts[key]
    ends = [value for value in texts.values() if value.split("?")[0].lower().endswith(ENDINGS)]
    return ends[0] if ends else task.get("file_upload") or next(iter(texts.values()), None)


def _labels(results: list[Any]) -> tuple[dict[str, str], set[str]]:
    """`({id: class}, ids of shapes)`: a class may be given to a shape by another result of the same id."""
    named, drawn = {}, set()
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and isinstance(result.get("id"), str):
            if _label(value) is not None:
                named.setdefault(result["id"], _label(value))
            if str(result.get("type")).removesuffix("labels") in _SHAPES:
                drawn.add(result["id"])
    return named, drawn


def _label(value: dict[str, Any]) -> str | None:
    for key in _LABELS:
        labels = value.get(key)
        if isinstance(labels, list) and labels:
            return name(labels[0])
    return None


def _add(tree: Tree, image: str, where: str, result: dict[str, Any], named: dict[str, str], drawn: set[str]) -> None:
    value, shape_type = result.get("value"), result.get("type")
    if not isinstance(value, dict):
        if shape_type not in _OF_REGIONS:
            tree.fault(where, "has no 'value'")
        return
    mark = result.get("id") if isinstance(result.get("id"), str) else None
    if (
        shape_type in _OF_REGIONS
        or (shape_type == "labels" and mark in drawn)
        or (shape_type is None and _label(value) is None)
    ):
        return  # said of a shape that another result draws
    shape = _shape(value)
    if shape is None or (isinstance(shape_type, str) and shape_type.removesuffix("labels") not in ("", *_SHAPES)):
        tree.ignore(shape_type or "another kind")
        return
    label = _label(value) or (None if mark is None else named.get(mark))
    if shape == "brush":
        tree.fault(where, _BRUSH)
    elif number(result.get("image_rotation") or 0) != 0:
        turned = shown(result["image_rotation"])
        tree.fault(where, f"its photo was turned by {turned} degrees in Label Studio: turn the file, and annotate that")
    elif shape == "polygon":
        points = points_of(value.get("points"))
        if points is None:
            tree.fault(where, f"its points {shown(value.get('points'))} are not pairs of numbers")
        else:
            tree.add(image, where, label, polygons=[[side / 100 for side in points]])
    else:
        _add_box(tree, image, where, label, shape, result, value)


def _shape(value: dict[str, Any]) -> str | None:
    """What is drawn: rectangle, polygon, ellipse or brush; None if it is nothing with an area."""
    if "rle" in value or "brushlabels" in value:
        return "brush"
    if "points" in value:
        return None if "vectorlabels" in value else "polygon"
    if "radiusX" in value:
        return "ellipse"
    return "rectangle" if {"x", "y", "width", "height"} <= set(value) and "keypointlabels" not in value else None


def _add_box(
    tree: Tree, image: str, where: str, label: str | None, shape: str, result: dict[str, Any], value: dict[str, Any]
) -> None:
    """A rectangle or ellipse, turned or not; a turn is one of px, not of shares."""
    keys = ("x", "y", "radiusX", "radiusY") if shape == "ellipse" else ("x", "y", "width", "height")
    sides = finite(*(value.get(key) for key in keys), value.get("rotation") or 0)
    if sides is None:
        tree.fault(where, f"its {shape} {shown(value)} has not the numbers {', '.join(keys)}")
        return
    *sides, turned = sides
    size = finite(result.get("original_width"), result.get("original_height"))
    if turned and (size is None or min(size) <= 0):
        tree.fault(where, "is turned, and has no original_width and original_height")
        return
    width, height = size if turned and size is not None else (1.0, 1.0)
    x, y, across, down = (side / 100 * scale for side, scale in zip(sides, (width, height, width, height)))
    polygon = None
    if shape == "ellipse":
        box, polygon = ellipse(x, y, across, down, math.radians(turned))
        polygon = [side / (width, height)[i % 2] for i, side in enumerate(polygon)]
    else:
        box = [x, y, x + across, y + down]
        if turned:
            box, _ = turned_box(box, turned, about=(x, y))
    box = [side / (width, height)[i % 2] for i, side in enumerate(box)]
    tree.add(image, where, label, box, None if polygon is None else [polygon])
