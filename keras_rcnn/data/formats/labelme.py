"""LabelMe: a json file for each photo."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import name, number, shown
from keras_rcnn.data.formats.photos import beside
from keras_rcnn.data.formats.shapes import ellipse, finite, png_mask, points_of, run_lengths
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.names import is_there
from keras_rcnn.interfaces import FilePath


def read_labelme(files: list[Path], root: Path, *, images: FilePath | None = None, **_: Any) -> Tree:
    """LabelMe's files -> `Tree`. A photo's picture in its json (`imageData`) is not looked at.

    Args:
        files: The json files.
        root: Folder that they are in.
        images: Folder of the photos. None: each is where its `imagePath` says, or has its json's name.
    """
    tree = Tree(files[0] if len(files) == 1 else root)
    for file, content in tree.contents(files):
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            tree.fault(file, "not LabelMe's format, it has no list 'shapes'")
            continue
        size = content.get("imageWidth"), content.get("imageHeight")
        image = tree.image(_image(file, content.get("imagePath"), root, images), *size, where=file, once=True)
        if image is None:
            continue
        for where, shape in tree.objects(shapes, file):
            _add(tree, image, where, shape, size)
    return tree


def _image(file: Path, path: Any, root: Path, images: FilePath | None) -> str:
    """The name of a file's photo: relative to `root` where it is there."""
    text = name(path)
    if images is None:
        there = [Path(os.path.normpath(file.parent / text))] if text and is_there(file.parent / text) else beside(file)
        if len(there) == 1:
            try:
                return there[0].relative_to(root).as_posix()
            except ValueError:
                return str(there[0].absolute())
    return text or file.stem


def _add(tree: Tree, image: str, where: str, shape: dict[str, Any], size: tuple[Any, Any]) -> None:
    shape_type, label, group = shape.get("shape_type") or "polygon", shape.get("label"), shape.get("group_id")
    points = points_of(shape.get("points"))
    if shape_type in ("point", "points", "line", "linestrip") or label in ("__ignore__", "_background_"):
        tree.ignore(label if label in ("__ignore__", "_background_") else shape_type)
    elif points is None:
        tree.fault(where, f"its points {shown(shape.get('points'))} are not pairs of numbers")
    elif shape_type in ("circle", "mask") and not finite(*points):
        tree.fault(where, f"its {shape_type} has the points {shown(shape.get('points'))}, which are not finite")
    elif shape_type == "rectangle" and len(points) >= 4:
        tree.add(image, where, label, _around(points), group=group)
    elif shape_type == "circle" and len(points) == 4:
        radius = math.dist(points[:2], points[2:])
        box, polygon = ellipse(points[0], points[1], radius, radius)
        tree.add(image, where, label, box, [polygon], group=group)
    elif shape_type == "polygon":
        tree.add(image, where, label, polygons=[points], group=group)
    elif shape_type == "mask" and len(points) == 4:
        _add_mask(tree, image, where, shape, _around(points), size)
    else:
        expected = "is none of polygon, rectangle, circle, mask, line, linestrip, point"
        tree.fault(where, f"its {shown(shape_type)} of {len(points) // 2} points {expected}, with its points")


def _around(points: Sequence[float]) -> list[float]:
    xs, ys = points[::2], points[1::2]
    return [min(xs), min(ys), max(xs), max(ys)]


def _add_mask(
    tree: Tree, image: str, where: str, shape: dict[str, Any], box: Sequence[float], size: tuple[Any, Any]
) -> None:
    """A bitmap between two of its px, both of which it has."""
    x1, y1, x2, y2 = box
    try:
        crop = png_mask(shape.get("mask"))
        width, height = (number(side) for side in size)
        if width is None or height is None:
            raise ValueError("its mask needs imageWidth and imageHeight")
        mask = run_lengths(crop, int(x1), int(y1), int(height), int(width))
    except (ValueError, OverflowError) as error:
        tree.fault(where, str(error))
        return
    tree.add(image, where, shape.get("label"), [x1, y1, x2 + 1, y2 + 1], mask=mask)
