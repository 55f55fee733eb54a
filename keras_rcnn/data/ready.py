"""Checks before the first epoch: that there is something to learn, and that every image and mask can be read."""

import hashlib
import json
import logging
import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.data.images import ImageError, decoded_size
from keras_rcnn.data.masks import segmentation_box, segmentation_problem
from keras_rcnn.data.problems import DataError, Problems
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import FilePath, OnBad

logger = logging.getLogger(__name__)

MANY = 500  # images from which on a bar is shown, and what was checked is kept in a file
_TOLD = weakref.WeakSet()  # datasets of which it was said that most of it teaches nothing
_READ: set[tuple[Any, ...]] = set()  # (path, its time, its bytes, height, width) of what was read in this process


def check_targets(dataset: Dataset, difficult: bool = False) -> None:
    """Refuses a dataset in which nothing can be learned, and warns where most objects or images teach nothing.

    Args:
        dataset: `Dataset`.
        difficult: Whether VOC's `difficult` objects are targets.

    Raises:
        DataError: The reasons with their counts.
    """
    objects = sum(len(record.boxes) for record in dataset)
    crowd = sum(int(record.crowd.sum()) for record in dataset)
    hard = 0 if difficult else sum(int((record.difficult & ~record.crowd).sum()) for record in dataset)
    empty = sum(not len(record.boxes) for record in dataset)
    skipped = len(dataset.bad)
    reasons = []
    if crowd:
        reasons.append(
            f"{crowd} of {objects} objects are crowd, which is no target (load_coco(..., crowd_as_objects=True), "
            "--crowd-as-objects on the command line, takes them as objects)"
        )
    if hard:
        reasons.append(
            f"{hard} of {objects} objects are difficult, which is no target (batches(..., difficult=True), --set "
            "difficult=True on the command line, takes them as objects)"
        )
    if skipped:
        reasons.append(f"{skipped} of {objects + skipped} objects and images were skipped as bad")
    lost = crowd + hard + skipped
    if empty and (not objects or empty > len(dataset) / 2):
        reasons.append(f"{empty} of {len(dataset)} images have no objects")
    if crowd + hard == objects:
        raise DataError(f"{dataset.name}: there is nothing to learn: {'; '.join(reasons)}")
    mostly = lost > (objects + skipped) / 2 or empty > len(dataset) / 2
    if mostly and dataset not in _TOLD:
        _TOLD.add(dataset)
        logger.warning("%s: most of it has no training targets: %s", dataset.name, "; ".join(reasons))


def check_masks(dataset: Dataset, on_bad: OnBad = "error", difficult: bool = False) -> Dataset:
    """The dataset of the objects that masks can be learned of; each target needs a mask that can be read.

    Args:
        dataset: `Dataset`.
        on_bad: `"error"` refuses it if a mask is missing or bad, `"skip"` leaves these objects out.
        difficult: Whether VOC's `difficult` objects are targets.

    Returns:
        `Dataset`; `dataset` itself if nothing is wrong.

    Raises:
        DataError: All that is wrong.
    """
    problems, records = Problems(dataset.name, on_bad, "mask"), []
    with ThreadPoolExecutor(decoding_threads()) as pool:
        for record, reasons in zip(dataset, pool.map(lambda record: _bad_masks(record, difficult), dataset)):
            missing = sum(reason is None for reason in reasons.values())
            if missing:
                problems.add(record.name, f"{missing} objects have no mask, but masks=True needs one for each")
            for i, reason in reasons.items():
                if reason is not None:
                    problems.add(f"{record.name}, object {i}", reason)
            if reasons:
                record = record.chosen([i for i in range(len(record.boxes)) if i not in reasons])
            records.append(record)
    problems.finish()
    return dataset if not problems.found else _rest(dataset, records, problems)


def _bad_masks(record: Record, difficult: bool) -> dict[int, str | None]:
    """`{object's place: what is wrong with its mask, None if it has none}`."""
    reasons = {}
    targets = ~record.crowd if difficult else ~record.crowd & ~record.difficult
    for i in np.flatnonzero(targets):
        mask = None if record.segmentations is None else record.segmentations[i]
        if mask is None or (isinstance(mask, (list, tuple)) and not len(mask)):
            reasons[int(i)] = None
        elif isinstance(mask, (str, Path)):
            key = ("mask", *(_key(mask, record) or (mask,)))
            try:
                if key not in _READ and segmentation_box(mask, record.height, record.width) is None:
                    reasons[int(i)] = f"mask {mask} is empty"
                else:
                    _READ.add(key)
            except ValueError as error:
                reasons[int(i)] = str(error)
        else:
            reason = segmentation_problem(mask, record.height, record.width)
            if reason:
                reasons[int(i)] = reason
    return reasons


def check_images(dataset: Dataset, on_bad: OnBad = "error", progress: bool | None = None) -> Dataset:
    """The dataset of the images that can be read, each of which is decoded once.

    What was found good is remembered by path, time and size: in this process, and of large datasets in `checked/` in
    the folder `KERAS_RCNN_HOME` (`~/.keras_rcnn`).

    Args:
        dataset: `Dataset`.
        on_bad: `"error"` refuses it if an image is missing, damaged, or of another size than its annotation says;
            `"skip"` leaves these images out.
        progress: Whether to show a bar on stderr. None: on a terminal, for 500 images or more.

    Returns:
        `Dataset`; `dataset` itself if nothing is wrong.

    Raises:
        DataError: All that is wrong, each with its file.
    """
    from tqdm import tqdm

    file = _cache_file(dataset) if len(dataset) >= MANY else None
    if file is not None:
        _READ.update(_remembered(file))
    problems, records = Problems(dataset.name, on_bad, "image"), []
    progress = len(dataset) >= MANY and sys.stderr.isatty() if progress is None else progress
    with ThreadPoolExecutor(decoding_threads()) as pool:
        bar = {"desc": "reading the images", "total": len(dataset), "disable": not progress, "leave": False}
        for record, reason in zip(dataset, tqdm(pool.map(_bad_image, dataset), **bar)):
            if reason is None:
                records.append(record)
            else:
                problems.add(record.name, reason.removeprefix(f"{record.name}: "))
    if file is not None:
        _remember(file, [_key(record.image, record) for record in records if isinstance(record.image, (str, Path))])
    problems.finish()
    return dataset if not problems.found else _rest(dataset, records, problems)


def _bad_image(record: Record) -> str | None:
    """What is wrong with a record's image, as text; None if nothing is."""
    try:
        if not isinstance(record.image, (str, Path)):
            record.read()
            return None
        key = _key(record.image, record)
        if key not in _READ:
            record.check_size(*decoded_size(record.image))
            if key is not None:
                _READ.add(key)
    except (DataError, ImageError) as error:
        return str(error)
    return None


def _key(path: FilePath, record: Record) -> tuple[str, int, int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return os.path.abspath(path), status.st_mtime_ns, status.st_size, record.height, record.width


def decoding_threads() -> int:
    """How many threads decode images at a time."""
    return min((os.cpu_count() or 1) + 1, 16)  # decoding leaves Python's lock


def _rest(dataset: Dataset, records: list[Record], problems: Problems) -> Dataset:
    bad = dataset.bad + problems.found
    return Dataset(records, dataset.class_names, dataset.category_ids, dataset.name, bad, dataset.skeleton)


def _cache_file(dataset: Dataset) -> Path:
    home = Path(os.environ.get("KERAS_RCNN_HOME") or "~/.keras_rcnn").expanduser()
    name = hashlib.sha256("\n".join(record.name for record in dataset).encode("utf-8", "replace")).hexdigest()[:24]
    return home / "checked" / f"{name}.json"


def _remembered(file: Path) -> set[tuple[Any, ...]]:
    try:
        return {tuple(key) for key in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return set()


def _remember(file: Path, keys: list[tuple[Any, ...] | None]) -> None:
    from keras_rcnn.files import aside

    try:
        with aside(file) as temporary:
            temporary.write_text(json.dumps(keys), encoding="utf-8")
    except (OSError, ValueError) as error:  # it only saves time
        logger.info("%s: not written (%s)", file, error)
