"""CVAT for images: all photos of a task in one xml file."""

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from keras_rcnn.data.fields import number, shown
from keras_rcnn.data.formats.shapes import MAX_PIXELS, ellipse, finite, run_lengths, turned_box
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_xml

_NO_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


def read_cvat(files: list[Path], root: Path, **_: Any) -> Tree:
    """`annotations.xml` of the export "CVAT for images" -> `Tree`."""
    (file,) = files
    content = read_xml(file)
    if content.tag != "annotations":
        raise DataError(f"{file}: not CVAT's format, its root is <{content.tag[:80]}>, expected <annotations>")
    images = list(content.iter("image"))
    if not images and content.find("track") is not None:
        raise DataError(
            f"{file}: CVAT's tracks through a video, without its frames; export the task as 'CVAT for images 1.1' with "
            "its images"
        )
    labels = [node.findtext("name") for node in content.findall("meta//labels/label") if node.find("parent") is None]
    labels = dict.fromkeys(label.strip() for label in labels if label and label.strip())
    tree = Tree(file, class_names=labels)
    for place, node in enumerate(images, 1):
        image = tree.image(
            node.get("name"), node.get("width"), node.get("height"), where=f"image number {place}", once=True
        )
        if image is None:
            continue
        for count, shape in enumerate(node, 1):
            _add(tree, image, f"{count} of {image}", shape, node)
    # a label of points or tags alone is no class of objects
    drawn = {item["category_id"] for item in tree.annotations}
    types = {node.findtext("name"): node.findtext("type") for node in content.findall("meta//labels/label")}
    areas = (None, "any", "bbox", "rectangle", "polygon", "ellipse", "mask")
    tree.class_names = [label for label in labels if label in drawn or types.get(label) in areas]
    return tree


def _add(tree: Tree, image: str, where: str, shape: Element, node: Element) -> None:
    shape_type, label, group = shape.tag, shape.get("label"), shape.get("group_id")
    group = None if number(group) in (None, 0) else group
    turned = number(shape.get("rotation")) or 0
    if shape_type in _NO_AREA:
        tree.ignore(shape_type)
    elif shape_type == "box":
        box: list[Any] = [number(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")]
        if turned and None not in box and math.isfinite(turned):
            box, _ = turned_box(box, turned)
        tree.add(image, where, label, box, group=group)
    elif shape_type == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";") if pair.strip()]
        points = [number(side) for pair in pairs for side in pair]
        if None in points or any(len(pair) != 2 for pair in pairs):
            tree.fault(where, f"its points {shown(shape.get('points'))} are not x,y;x,y;...")
        else:
            tree.add(image, where, label, polygons=[points], group=group)
    elif shape_type == "ellipse":
        sides = finite(*(shape.get(key) for key in ("cx", "cy", "rx", "ry")), turned)
        if sides is None:
            tree.fault(where, "its ellipse has no centre and radii")
        else:
            cx, cy, rx, ry, degrees = sides
            box, polygon = ellipse(cx, cy, rx, ry, math.radians(degrees))
            tree.add(image, where, label, box, [polygon], group=group)
    elif shape_type == "mask":
        _add_mask(tree, image, where, label, shape, node)
    else:
        tree.fault(where, f"its shape <{shape_type[:40]}> is none of box, polygon, ellipse and mask")


def _add_mask(tree: Tree, image: str, where: str, label: str | None, shape: Element, node: Element) -> None:
    """Run lengths row by row, of the rectangle that begins at left, top."""
    sides = finite(*(shape.get(key) for key in ("left", "top", "width", "height")))
    size = finite(node.get("height"), node.get("width"))
    runs = [number(run) for run in (shape.get("rle") or "").split(",")]
    try:
        if sides is None or size is None or None in runs:
            raise ValueError("its mask has not the numbers rle, left, top, width and height")
        left, top, width, height = map(int, sides)
        runs = np.array(runs)
        if width <= 0 or height <= 0 or width * height > MAX_PIXELS or (runs < 0).any() or runs.sum() != width * height:
            raise ValueError(f"its rle covers {runs.sum():g} px, its mask is {width} x {height} px")
        crop = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs.astype(int)).reshape(height, width)
        mask = run_lengths(crop, left, top, *map(int, size))
    except (ValueError, OverflowError) as error:
        tree.fault(where, str(error))
        return
    tree.add(image, where, label, mask=mask)
