"""A data set on its way from a tool's format to records: a tree of COCO's shape, put together object by object."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.coco import dataset_of
from keras_rcnn.data.fields import name, shown
from keras_rcnn.data.problems import DataError, Problems
from keras_rcnn.data.reading import read_json
from keras_rcnn.data.records import Dataset
from keras_rcnn.interfaces import FilePath, OnBad

logger = logging.getLogger(__name__)

_OBJECT = re.compile(r"(in line )?\d+ (of|in) ")  # where an object is, and no file or image


class Tree:
    """Images and objects as a reader finds them.

    Args:
        source: Path of the file or folder that is read, for messages.
        folder: Folder that the images' names are relative to; None if it is still to be looked for.
        relative: Whether coordinates are shares of the image's width and height.
        class_names: Names of the classes, in order, where the source lists them.
    """

    def __init__(
        self, source: Path, folder: Path | None = None, relative: bool = False, class_names: Iterable[str] = ()
    ) -> None:
        self.source, self.folder, self.relative = source, folder, relative
        self.class_names = list(class_names)
        self.images, self.annotations, self.faults = {}, [], []
        self.ignored, self.groups = Counter(), {}

    def contents(self, files: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
        """`(file, what json makes of it)` for each of the files; one that cannot be read is a fault."""
        for file in files:
            try:
                yield file, read_json(file)
            except DataError as error:
                self.fault(file, str(error).removeprefix(f"{file}: "))

    def objects(self, items: Iterable[Any], file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """`(where, object)` for each of a file's objects; one that is no object of json is a fault."""
        for place, item in enumerate(items, 1):
            where = f"{place} of {file.name}"
            if isinstance(item, dict):
                yield where, item
            else:
                self.fault(where, f"is {type(item).__name__}, expected an object of json")

    def image(
        self, file_name: Any, width: Any = None, height: Any = None, where: object = None, once: bool = False
    ) -> str | None:
        """Takes an image, or finds it again; its name as `add` wants it, or None (and a fault noted) if it has none.

        Args:
            file_name: Its file's name, as the source has it.
            width: Its width in px, as the source has it; None to be read from the file.
            height: Likewise.
            where: What it is called in messages.
            once: Whether it is a fault if the image was taken before.
        """
        key = name(file_name)
        if key is None:
            problem = f"the name of its image is {shown(file_name)}; it should be text in UTF-8, so rename the file"
            self.fault(self.source if where is None else where, problem)
            return None
        if once and key in self.images:
            self.fault(self.source if where is None else where, f"the image {shown(key)} has annotations already")
            return None
        self.images.setdefault(key, {"id": key, "file_name": key, "width": width, "height": height})
        return key

    def add(
        self,
        image: str | None,
        where: str,
        label: Any,
        box: Sequence[Any] | None = None,
        polygons: list[list[Any]] | None = None,
        mask: dict[str, Any] | None = None,
        group: Any = None,
    ) -> None:
        """Takes an object.

        Args:
            image: Its image's name; None if `image` refused it, and then its objects are left out.
            where: What it is called in messages, e.g. `"2 of a.json"`.
            label: The name of its class.
            box: `[x1, y1, x2, y2]`; None for that of the polygons or the mask.
            polygons: List of `[x, y, x, y, ...]`; None if it has no mask.
            mask: COCO's run lengths, in place of polygons.
            group: Objects of one image and class with the same group are parts of one; None for an object of its own.
        """
        if image is None:  # its fault is noted
            return
        label = name(label)
        if label is None:
            self.fault(where, "has no class")
            return
        if box is not None:
            problem = box_problem(box)
            if problem:
                self.fault(where, problem)
                return
            x1, y1, x2, y2 = box
            box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]  # drawn from whatever corner
        item = {"id": where, "image_id": image, "category_id": label, "box": box, "polygons": polygons, "mask": mask}
        if group is not None and mask is None:
            parts = self.groups.setdefault((image, label, str(group)), [])
            parts.append(item)
            if len(parts) > 1:
                return
        self.annotations.append(item)

    def fault(self, where: object, problem: str) -> None:
        """Notes that nothing can be made of an object, or of a whole file."""
        self.faults.append((f"object {where}" if _OBJECT.match(str(where)) else where, problem))

    def ignore(self, shape: object) -> None:
        """Counts a shape that marks no object, such as a line."""
        self.ignored[str(shape)[:40]] += 1

    def dataset(
        self,
        images: FilePath,
        *,
        on_bad: OnBad = "error",
        class_names: Sequence[str] | None = None,
        relative: bool = False,
    ) -> Dataset:
        """The `Dataset`; `images` is the folder of the images."""
        for parts in self.groups.values():
            _join(parts)
        if self.ignored:
            shapes = ", ".join(f"{count} of {shape}" for shape, count in self.ignored.most_common(10))
            logger.warning("%s: left out shapes that mark no box and no area: %s", self.source, shapes)
        if not self.images:
            if self.faults:
                where, problem = self.faults[0]
                raise DataError(f"{self.source}: no images in it; {where}: {problem}")
            raise DataError(f"{self.source}: no images in it")
        names = self.class_names
        names = names + sorted({item["category_id"] for item in self.annotations} - set(names))
        if not names and class_names is None:
            problems = Problems(self.source, on_bad)
            for where, problem in self.faults:
                problems.add(where, problem)
            problems.finish()
            raise DataError(f"{self.source}: {len(self.images)} images and no object, so there are no classes either")
        label_of = {title: i for i, title in reversed(list(enumerate(names, 1)))}
        content = {
            "images": list(self.images.values()),
            "annotations": [_annotation(item, label_of, self.relative) for item in self.annotations],
            "categories": [{"id": i, "name": title} for i, title in enumerate(names, 1)],
        }
        return dataset_of(
            content,
            self.source,
            images,
            on_bad=on_bad,
            relative=relative or self.relative,
            class_names=class_names,
            faults=self.faults,
            item="object",
        )


def box_problem(box: Sequence[Any]) -> str | None:
    """What is wrong with four sides that should be numbers, as text; None if nothing is."""
    if len(box) != 4 or any(side is None for side in box):
        return f"box {shown(list(box))} is not four numbers"
    return None


def corners(box: Sequence[float]) -> list[float]:
    """A box as a polygon."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _join(parts: list[dict[str, Any]]) -> None:
    """Makes the parts of an object, each drawn on its own, one: the first."""
    first = parts[0]
    if len(parts) == 1:
        return
    boxes: list[Any] = [item["box"] or _bounds(item["polygons"]) for item in parts]
    if any(item["polygons"] is not None for item in parts):
        polygons = [[corners(item["box"])] if item["polygons"] is None else item["polygons"] for item in parts]
        first["polygons"] = [polygon for part in polygons for polygon in part]
    # where polygons are wrong the box is that of the good ones
    first["box"] = None if None in boxes else [*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist()]


def _bounds(polygons: Iterable[ArrayLike]) -> list[float] | None:
    try:
        points = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons])
    except (ValueError, TypeError):
        return None
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def _annotation(item: dict[str, Any], label_of: dict[str, int], relative: bool) -> dict[str, Any]:
    annotation = {"id": item["id"], "image_id": item["image_id"], "category_id": label_of[item["category_id"]]}
    if item["box"] is not None:
        x1, y1, x2, y2 = item["box"]
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    if item["polygons"] is not None or item["mask"] is not None:
        annotation["segmentation"] = item["polygons"] if item["mask"] is None else item["mask"]
        if item["polygons"] is not None and not relative:
            annotation["area"] = _area(item["polygons"])
    return annotation


def _area(polygons: Iterable[ArrayLike]) -> float | None:
    """In px^2, as the COCO metric sorts objects by their size; None if the polygons are none."""
    try:
        points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    except (ValueError, TypeError):
        return None
    with np.errstate(all="ignore"):
        return float(sum(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 for x, y in (part.T for part in points)))
