"""Supervisely: a json file for each photo in `ann`, the photos in `img`."""

import math
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import number, shown
from keras_rcnn.data.formats.shapes import finite, png_mask, points_of, run_lengths
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.names import is_there
from keras_rcnn.interfaces import FilePath

_NO_AREA = ("point", "line", "polyline", "graph", "keypoints", "cuboid", "cuboid_2d")


def read_supervisely(files: list[Path], root: Path, *, images: FilePath | None = None, **_: Any) -> Tree:
    """Supervisely's files -> `Tree`.

    Args:
        files: The json files.
        root: Folder that they are in.
        images: Folder of the photos. None: `img` beside each file's `ann`.
    """
    tree = Tree(files[0] if len(files) == 1 else root)
    for file, content in tree.contents(files):
        content = content.get("annotation", content) if isinstance(content, dict) else {}
        objects, size = content.get("objects"), content.get("size")
        if not isinstance(objects, list):
            tree.fault(file, "not Supervisely's format, it has no list 'objects'")
            continue
        size = size if isinstance(size, dict) else {}
        size = size.get("width"), size.get("height")
        image = tree.image(_image(file, root, images), *size, where=file)
        for where, item in tree.objects(objects, file):
            _add(tree, image, where, item, size)
    return tree


def _image(file: Path, root: Path, images: FilePath | None) -> str:
    """The name of a file's photo, `a.jpg` of `a.jpg.json`, relative to `root` where it is there."""
    for folder in (file.parent.parent / "img", file.parent):
        if images is None and is_there(folder / file.stem) and root in folder.parents:
            return (folder / file.stem).relative_to(root).as_posix()
    return file.stem


def _add(tree: Tree, image: str | None, where: str, item: dict[str, Any], size: tuple[Any, Any]) -> None:
    geometry, label = item.get("geometryType") or item.get("shape"), item.get("classTitle")
    points = item.get("points") if isinstance(item.get("points"), dict) else {}
    exterior = points_of(points.get("exterior"))
    if geometry in _NO_AREA:
        tree.ignore(geometry)
    elif geometry == "bitmap":
        _add_bitmap(tree, image, where, label, item.get("bitmap"), size)
    elif exterior is None or not exterior:
        tree.fault(where, f"its points {shown(points.get('exterior'))} are not pairs of numbers")
    elif geometry == "rectangle":
        tree.add(
            image, where, label, [min(exterior[::2]), min(exterior[1::2]), max(exterior[::2]), max(exterior[1::2])]
        )
    elif geometry == "polygon":
        if points.get("interior"):
            tree.ignore("hole in a polygon, which is filled")
        tree.add(image, where, label, polygons=[exterior])
    else:
        tree.fault(where, f"its geometryType {shown(geometry)} is none of rectangle, polygon and bitmap")


def _add_bitmap(tree: Tree, image: str | None, where: str, label: Any, bitmap: Any, size: tuple[Any, Any]) -> None:
    try:
        if not isinstance(bitmap, dict) or not isinstance(bitmap.get("origin"), list):
            raise ValueError("its bitmap has no 'origin'")
        crop = png_mask(bitmap.get("data"), packed=True)
        origin = finite(*bitmap["origin"])
        width, height = (number(side) for side in size)
        if origin is None or len(origin) != 2 or width is None or height is None or not math.isfinite(width + height):
            raise ValueError("its bitmap has no origin of two numbers, or its image no size")
        mask = run_lengths(crop, int(origin[0]), int(origin[1]), int(height), int(width))
    except (ValueError, OverflowError) as error:
        tree.fault(where, str(error))
        return
    tree.add(image, where, label, mask=mask)
