"""Apple's Create ML: a list of photos, the boxes by their centres."""

from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import number, shown
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_json


def read_create_ml(files: list[Path], root: Path, **_: Any) -> Tree:
    """A json file of Create ML's object detector -> `Tree`."""
    (file,) = files
    content = read_json(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: not Create ML's format, it is {type(content).__name__}, expected a list of images")
    tree = Tree(file)
    for place, entry in enumerate(content, 1):
        if not isinstance(entry, dict):
            tree.fault(f"image number {place}", f"is {type(entry).__name__}, expected an object of json")
            continue
        names = [entry[key] for key in ("image", "imagefilename", "imageURL", "filename") if key in entry]
        image = tree.image(names[0] if names else None, where=f"image number {place}", once=True)
        annotations = entry.get("annotations", entry.get("annotation")) or []
        if image is None:
            continue
        if not isinstance(annotations, list):
            tree.fault(image, f"its annotations are {type(annotations).__name__}, expected a list")
            continue
        for count, annotation in enumerate(annotations, 1):
            where = f"{count} of {image}"
            annotation = annotation if isinstance(annotation, dict) else {}
            coordinates = annotation.get("coordinates")
            coordinates = coordinates if isinstance(coordinates, dict) else {}
            x, y, width, height = sides = [number(coordinates.get(key)) for key in ("x", "y", "width", "height")]
            if None in sides:
                tree.fault(where, f"its coordinates {shown(annotation)} have not the numbers x, y, width and height")
                continue
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            tree.add(image, where, annotation.get("label"), box)
    return tree
