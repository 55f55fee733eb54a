"""A data set of any format that is known, found out from its files."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from keras_rcnn.data.formats.detected import chosen_split, detected
from keras_rcnn.data.formats.registry import FORMATS, OPTIONS
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.records import Dataset
from keras_rcnn.interfaces import FilePath, OnBad

logger = logging.getLogger(__name__)


def load(
    path: FilePath,
    split: str | None = None,
    *,
    format: str | None = None,
    images: FilePath | None = None,
    on_bad: OnBad = "error",
    class_names: Sequence[str] | None = None,
    relative: bool = False,
    **options: Any,
) -> Dataset:
    """Reads a data set as a tool exported it: COCO, Pascal VOC, YOLO, VIA, LabelMe, CVAT, Label Studio and others.

    The format is found out from the files, and the log says at level INFO what it was taken for. Photos are looked
    for beside the annotations, in `images`, and in folders named as the annotations or the split; under the names of
    other systems too, see `load_coco`. Rectangles are boxes without a mask; polygons, circles and ellipses are masks,
    too. Shapes without an area are left out with a warning.

    Args:
        path: The file of annotations, or the folder that the tool left.
        split: Which part: a folder (`"train"`, `"valid"`), a name of YOLO's data.yaml or of Pascal VOC's ImageSets, or
            a word in the name of a file (`instances_val2017.json`). None: all of them, with a warning.
        format: `"coco"`, `"voc"`, `"yolo"`, `"csv"`, `"via"`, `"labelme"`, `"cvat"`, `"label_studio"`, `"createml"`,
            `"supervisely"` or `"tfrecord"`. None: as the files are.
        images: Folder of the photos. None: where they are found.
        on_bad: `"error"` refuses the data if anything is wrong with it; `"skip"` leaves bad objects (and photos that
            cannot be read) out and logs one warning.
        class_names: Names in the order of the labels. None: as the data has them.
        relative: Boxes and polygons are shares of the photo's width and height. (YOLO's, Label Studio's and those of
            TFRecords always are.)
        **options: Those of one format: `crowd_as_objects` of `load_coco`; `one_based` and `difficult_as_objects` of
            `load_voc`; `box_format`, `delimiter`, `columns` and `encoding` of `load_csv`; `class_attribute`, the name
            of VIA's region attribute that has the class.

    Returns:
        `Dataset`.

    Raises:
        DataError: What is wrong, with the file and the value; or the folder has annotations of several formats.

    Example:

    >>> train = keras_rcnn.data.load("roboflow", "train")
    >>> val = keras_rcnn.data.load("roboflow", "valid", class_names=train.class_names)
    >>> photos = keras_rcnn.data.load("via_project.json", images="photos")
    """
    for key in options:
        if key not in OPTIONS:
            raise ValueError(f"load has no option {key!r}; of one format there are {', '.join(OPTIONS)}")
    source = detected(path, format)
    if images is not None and not os.path.isdir(images):
        raise DataError(f"{path}: no image folder {images}")
    for key in options:
        if OPTIONS[key] != source.name:
            raise ValueError(f"{key} is an option of the format {OPTIONS[key]!r}; {path} is {source.name!r}")
    entry = FORMATS[source.name]
    names = source.split_names
    if split is not None:
        split = chosen_split(source, split, path)
    if format is None:
        logger.info("%s: read as %s%s", path, entry.description, f", the split {split}" if split else "")
    common = {"images": images, "on_bad": on_bad, "class_names": class_names, "relative": relative, **options}
    if split is not None or not names or source.name in ("voc", "yolo"):
        files = source.splits.get(split) or next(iter(source.splits.values()))
        if split is None and len(names) > 1 and source.name == "yolo":
            logger.warning("%s: all its splits are read: %s", path, ", ".join(names))
        return entry.load(files, source.root, split=split, **common)
    if len(source.splits) > 1:
        logger.warning("%s: all its splits are read: %s", path, ", ".join(names))
    if not entry.single:
        files = [file for group in source.splits.values() for file in group]
        return entry.load(files, source.root, split=None, **common)
    parts = {name: entry.load(source.splits[name], source.root, split=name, **common) for name in names}
    return _joined(parts, path)


def splits(path: FilePath, format: str | None = None) -> list[str]:
    """The splits that a data set comes in, as `load` takes them.

    Args:
        path: The file of annotations, or the folder that the tool left.
        format: As of `load`.

    Returns:
        List of names, e.g. `["train", "val", "test"]`; empty if the data is in one piece.

    Raises:
        DataError: as of `load`.

    Example:

    >>> keras_rcnn.data.splits("roboflow")
    ['train', 'val', 'test']
    """
    return detected(path, format).split_names


def _joined(parts: dict[str, Dataset], path: FilePath) -> Dataset:
    """One data set of several, with the classes of all; ids that two of them use get the name of their part."""
    names = list(dict.fromkeys(name for dataset in parts.values() for name in dataset.class_names))
    ids, records, taken = {}, [], set()
    for dataset in parts.values():
        for name, number in zip(dataset.class_names, dataset.category_ids):
            ids.setdefault(name, number)
    for part, dataset in parts.items():
        labels = [names.index(name) for name in dataset.class_names]
        for record in dataset:
            record.labels[:] = [labels[label] for label in record.labels]
            if record.image_id in taken:
                record.image_id = f"{part}/{record.image_id}"
            taken.add(record.image_id)
            records.append(record)
    numbers = [ids[name] for name in names]
    numbers = numbers if len(set(map(str, numbers))) == len(numbers) else None
    skeletons = {dataset.skeleton for dataset in parts.values()}
    if len(skeletons) > 1:
        logger.warning("%s: its parts have other keypoints; they are left out", path)
        for record in records:
            record.keypoints = None
    bad = [bad for dataset in parts.values() for bad in dataset.bad]
    return Dataset(records, names, numbers, path, bad, skeletons.pop() if len(skeletons) == 1 else None)
