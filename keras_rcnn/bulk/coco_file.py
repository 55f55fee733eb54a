"""COCO's results format: the ids of images and categories that a COCO file has, and rows as results with them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from keras_rcnn.bulk.rows import PhotoRow
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_json
from keras_rcnn.evaluation.coco import xywh
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)


class CocoFile:
    """The ids that a COCO file gives to images and classes.

    Args:
        path: of COCO annotations, or of an image list such as `image_info_test2017.json`.

    Raises:
        DataError: the file has no images with an id and a file name, or no categories.
    """

    def __init__(self, path: FilePath) -> None:
        self.path = Path(path)
        content = read_json(self.path)
        self.digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        try:
            self.ids = {str(PurePosixPath(one["file_name"])): int(one["id"]) for one in content["images"]}
            self.categories = {str(one["name"]): int(one["id"]) for one in content["categories"]}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path}: no COCO file with images (id, file_name) and categories (id, name): "
                f"{type(error).__name__} {error}"
            ) from error
        if len(self.ids) < len(content["images"]):
            raise DataError(f"{self.path}: two of its images have the same file_name")

    def image_id(self, photo: str) -> int:
        """The id of a photo: of the image whose `file_name` is the longest end of its path.

        Raises:
            DataError: there is none.
        """
        parts = PurePosixPath(photo.replace("\\", "/")).parts
        for start in range(len(parts)):
            found = self.ids.get("/".join(parts[start:]))
            if found is not None:
                return found
        raise DataError(f"{photo}: {self.path} has no image of this file_name; COCO results need its id")

    def check_photos(self, photos: Iterable[str]) -> Iterator[str]:
        """The same photos, each of which is an image of the file, and no two the same."""
        seen = set()
        for photo in photos:
            number = self.image_id(photo)
            if number in seen:
                raise DataError(f"{photo}: the second photo that is image {number} of {self.path}")
            seen.add(number)
            yield photo

    def check_classes(self, names: Iterable[str] | None) -> None:
        """Raises a DataError if none of a model's classes is in the file, and warns of those that are not."""
        names = list(names or [])
        unknown = [name for name in names if name not in self.categories]
        if names and len(unknown) == len(names):
            raise DataError(
                f"{self.path}: none of its categories ({', '.join(list(self.categories)[:8])}) is a class of the model "
                f"({', '.join(names[:8])})"
            )
        if unknown:
            logger.warning("%s has no %s: detections of these classes are left out.", self.path, ", ".join(unknown))

    def results(self, row: PhotoRow) -> Iterator[dict[str, Any]]:
        """A row's detections as COCO has them."""
        if "boxes" not in row or "names" not in row or "scores" not in row:
            return
        image = self.image_id(row["image"])
        boxes = xywh(np.array(row["boxes"], np.float32)).tolist()
        for i, name in enumerate(row["names"]):
            if name in self.categories:
                found = {"image_id": image, "category_id": self.categories[name], "bbox": boxes[i]}
                found["score"] = row["scores"][i]
                if "masks" in row:
                    found["segmentation"] = row["masks"][i]
                if "keypoints" in row:
                    found["keypoints"] = [value for point in row["keypoints"][i] for value in point]
                yield found


def write_results(results: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes a list of COCO results, one a line."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for number, one in enumerate(results):
            file.write(("," if number else "") + "\n" + json.dumps(one, ensure_ascii=False, allow_nan=False))
        file.write("\n]\n")


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """The results in a file that `write_results` wrote, one at a time."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            line = line.strip().removesuffix(",")
            if line not in ("[", "]"):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}: not a list of COCO results with one a line ({error})") from error
