"""VGG Image Annotator: its projects, its annotations as json, and as csv."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import name, number, shown
from keras_rcnn.data.formats.shapes import ellipse, finite
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_json, read_text

logger = logging.getLogger(__name__)

ATTRIBUTES = (
    "class",
    "label",
    "name",
    "type",
    "category",
    "object",
    "class_name",
    "object_name",
)  # the likeliest first
ONLY = "object"  # the one class of regions that say none
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


def read_via(files: list[Path], root: Path, *, class_attribute: str | None = None, **_: Any) -> Tree:
    """A VIA project or its annotations -> `Tree`.

    Args:
        files: The file, json or csv.
        root: Folder that it belongs to.
        class_attribute: The region attribute that has the class. None: the one there is, or the likeliest by its name.
    """
    (file,) = files
    tree = Tree(file)
    regions = []  # (image, where, shape's attributes, region's attributes)
    text_of_json = file.suffix.lower() != ".csv" and read_text(file).lstrip()[:1] in ("{", "[")
    for image, where, shape, attributes in _in_json(file, tree) if text_of_json else _in_csv(file, tree):
        if isinstance(shape, dict) and isinstance(attributes, dict):
            regions.append((image, where, shape, attributes))
        else:
            tree.fault(where, "its shape or its attributes are not an object of json")
    key = _class_attribute([attributes for *_, attributes in regions], class_attribute, file)
    for image, where, shape, attributes in regions:
        label = ONLY if key is None else _value(attributes.get(key))
        if label is None:
            tree.fault(where, f"its attribute {key!r} is {shown(attributes.get(key))}, which is no class")
        else:
            _add(tree, image, where, label, shape)
    return tree


def _add(tree: Tree, image: str, where: str, label: str, shape: dict[str, Any]) -> None:
    shape_name = shape.get("name")
    if shape_name in ("polyline", "line", "point"):
        tree.ignore(shape_name)
    elif shape_name == "rect":
        x, y, width, height = (number(shape.get(key)) for key in ("x", "y", "width", "height"))
        if x is None or y is None or width is None or height is None:
            tree.fault(where, f"its rect {shown(shape)} has not the numbers x, y, width and height")
        else:
            tree.add(image, where, label, [x, y, x + width, y + height])
    elif shape_name == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            tree.fault(where, "its polygon has not as many all_points_x as all_points_y")
        else:
            tree.add(image, where, label, polygons=[[side for point in zip(xs, ys) for side in point]])
    elif shape_name in ("circle", "ellipse"):
        keys = ("cx", "cy", "r", "r") if shape_name == "circle" else ("cx", "cy", "rx", "ry")
        sides = finite(*(shape.get(key) for key in keys), shape.get("theta") or 0)
        if sides is None or min(sides[2:4]) <= 0:
            tree.fault(where, f"its {shape_name} {shown(shape)} has no centre and radius")
        else:
            box, polygon = ellipse(*sides)
            tree.add(image, where, label, box, [polygon])
    else:
        tree.fault(
            where, f"its shape {shown(shape_name)} is none of rect, polygon, circle, ellipse, polyline, line and point"
        )


def _in_json(file: Path, tree: Tree) -> Iterator[tuple[str, str, Any, Any]]:
    """Each region as `(image, where, shape's attributes, region's attributes)`."""
    content = read_json(file)
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if isinstance(content, list):  # as programs pass the images on
        content = dict(enumerate(content, 1))
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: not VIA's format, its images are {type(content).__name__}, expected an object of json"
        )
    for key, entry in content.items():
        if not isinstance(entry, dict) or "filename" not in entry:
            if not str(key).startswith("_via"):
                tree.fault(f"image {shown(key)}", "has no 'filename'")
            continue
        image = tree.image(entry["filename"], where=f"image {shown(key)}", once=True)
        regions = entry.get("regions") or []
        if isinstance(regions, dict):  # as VIA 1 wrote them
            regions = list(regions.values())
        if image is None:
            continue
        if not isinstance(regions, list):
            tree.fault(f"image {shown(key)}", f"its regions are {type(regions).__name__}, expected a list")
            continue
        for place, region in enumerate(regions, 1):
            region = region if isinstance(region, dict) else {}
            shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
            yield image, f"{place} of {image}", shape, {} if attributes is None else attributes


def _in_csv(file: Path, tree: Tree) -> Iterator[tuple[str, str, Any, Any]]:
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        columns = [str(column).strip().lstrip("#") for column in reader.fieldnames or ()]
        missing = [column for column in _COLUMNS if column not in columns]
        if missing:
            raise DataError(f"{file}: not VIA's csv, it has no column {', '.join(missing)}")
        reader.fieldnames = columns
        for row in reader:
            where = f"row {reader.line_num}"
            image = tree.image(row["filename"], where=where)
            if image is None:
                continue
            try:
                shape, attributes = (json.loads(row[column] or "{}") for column in _COLUMNS[1:])
            except (ValueError, RecursionError) as error:
                tree.fault(where, f"a shape or attributes that are not json ({error})")
                continue
            if shape != {}:  # an image without regions
                yield image, f"{row.get('region_id')} of {image}", shape, attributes
    except csv.Error as error:
        raise DataError(f"{file}: not a readable table ({error}, row {reader.line_num})") from error


def _class_attribute(attributes: list[dict[str, Any]], given: str | None, file: Path) -> str | None:
    """The region attribute that has the class; None if regions have no attributes."""
    counts = Counter(key for item in attributes for key, value in item.items() if value not in (None, "", {}))
    if given is not None:
        if attributes and given not in counts:
            raise DataError(f"{file}: no region has the attribute {given!r}; there are: {', '.join(counts) or 'none'}")
        return given
    likely = [word for word in ATTRIBUTES for key in counts if str(key).strip().lower() == word and counts[key]]
    if likely:
        return next(key for key in counts if str(key).strip().lower() == likely[0])
    if len(counts) > 1:
        known = ", ".join(map(str, counts))[:400]
        raise DataError(
            f"{file}: its regions have the attributes {known}, and none is called class, label or name; say which one "
            "has the class by class_attribute='...'"
        )
    if attributes and not counts:
        logger.warning("%s: its regions have no attribute with a class: all are of one class, %r", file, ONLY)
    return next(iter(counts), None)


def _value(value: Any) -> str | None:
    """What an attribute says: text, or the one box that is ticked of several."""
    if isinstance(value, dict):
        ticked = [key for key, tick in value.items() if tick]
        return name(ticked[0]) if len(ticked) == 1 else None
    return name(value)
