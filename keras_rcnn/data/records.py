"""What a data set is once it has been read: a list of records and the names of their classes."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path

import numpy as np

from keras_rcnn.data.images import ImageError, image_size, read_image

logger = logging.getLogger(__name__)

TOLERANCE = 2.0  # px that a box may stick out of its image and is clipped without a word: annotation tools round


class DataError(ValueError):
    """Annotations that cannot be used; the message names the file, the value and the way out."""


@dataclasses.dataclass
class Record:
    """One image and its objects.

    Args:
        image: Path of the image, or the image itself as an array.
        image_id: Its name in the annotations; unique in a dataset.
        height: Its height in px.
        width: Its width in px.
        boxes: float32 `[n, 4]`, `[x1, y1, x2, y2]` in px.
        labels: int32 `[n]`, 0-based.
        crowd: bool `[n]`, a box around many objects: for the COCO metric, never a training target. None: all False.
        difficult: bool `[n]`, VOC's flag. None: all False.
        areas: float32 `[n]` in px^2, as annotated. None: of the boxes.
        segmentations: `n` masks, each COCO polygons, COCO RLE (compressed or not), the path of a binary PNG, an
            `[height, width]` array, or None. None: the data set has no masks.
    """

    image: object
    image_id: object
    height: int
    width: int
    boxes: np.ndarray = ()
    labels: np.ndarray = ()
    crowd: np.ndarray | None = None
    difficult: np.ndarray | None = None
    areas: np.ndarray | None = None
    segmentations: list | None = None

    def __post_init__(self):
        self.boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        n = len(self.boxes)
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        self.labels = np.asarray(self.labels, np.int32)
        self.crowd = np.zeros(n, bool) if self.crowd is None else np.asarray(self.crowd, bool)
        self.difficult = np.zeros(n, bool) if self.difficult is None else np.asarray(self.difficult, bool)
        self.areas = np.asarray(sides.prod(axis=1) if self.areas is None else self.areas, np.float32)
        for name in ("labels", "crowd", "difficult", "areas", "segmentations"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise DataError(f"image {self.image_id!r}: {n} boxes but {len(values)} {name}")

    @property
    def name(self):
        """The image's path, or its id where the image is an array: for messages."""
        return str(self.image) if isinstance(self.image, (str, Path)) else f"image {self.image_id!r}"

    def read(self):
        """The image as uint8 RGB `[height, width, 3]`; a `DataError` if it has not the size that was annotated."""
        image = read_image(self.image)
        if image.shape[:2] != (self.height, self.width):
            height, width = image.shape[:2]
            turned = " (its EXIF orientation applied: annotate the image as it is shown)"
            raise DataError(
                f"{self.name}: the image is {width} x {height} px, its annotation says {self.width} x {self.height} px"
                f"{turned if (width, height) == (self.height, self.width) else ''}; correct the annotation or the file"
            )
        return image


class Dataset:
    """Records and the names of their classes.

    Args:
        records: List of `Record`.
        class_names: List of str; a label is an index into it.
        category_ids: List of int, the id of each label in the source's numbering. None: 1, 2, ...
        name: Where it came from, for messages.

    Raises:
        DataError: No records, image ids given twice, labels or boxes out of range.
    """

    def __init__(self, records, class_names, category_ids=None, name="dataset"):
        self.records = list(records)
        self.class_names = [str(name) for name in class_names]
        self.category_ids = list(range(1, len(self.class_names) + 1)) if category_ids is None else list(category_ids)
        self.name = str(name)
        check(self)

    def __len__(self):
        return len(self.records)

    def __iter__(self):
        return iter(self.records)

    def __getitem__(self, index):
        return self._with(self.records[index]) if isinstance(index, slice) else self.records[index]

    def __repr__(self):
        return f"<Dataset {self.name!r}: {len(self)} images, {len(self.class_names)} classes>"

    def filter(self, keep):
        """The dataset of the records for which `keep(record)` is true."""
        return self._with([record for record in self.records if keep(record)])

    def split(self, share, seed=0):
        """Keeps a random part of the images apart, to validate on: `train, val = dataset.split(0.2)`.

        Args:
            share: float, of the images, that the second dataset gets.
            seed: int; the same one makes the same choice.

        Returns:
            Two datasets: the rest, and the part.

        Raises:
            DataError: if one of them would be empty.
        """
        count = round(len(self) * share)
        if not 0 < count < len(self):
            raise DataError(
                f"{self.name}: {share} of {len(self)} images leaves {len(self) - count} to train on and {count} to "
                "validate on"
            )
        chosen = set(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        rest, part = ([one for i, one in enumerate(self) if (i in chosen) == held] for held in (False, True))
        return self._with(rest), self._with(part)

    def batches(self, preprocessor, batch_size=2, **kwargs):
        """The padded batches that `fit` takes: `keras_rcnn.data.Batches(self, preprocessor, ...)`."""
        from keras_rcnn.data.batches import Batches

        return Batches(self, preprocessor, batch_size=batch_size, **kwargs)

    def summary(self):
        """What is in it, as text: images, objects and how many of each class."""
        counts = Counter(int(label) for record in self.records for label in record.labels)
        empty = sum(len(record.boxes) == 0 for record in self.records)
        masks = sum(record.segmentations is not None for record in self.records)
        flags = {flag: sum(int(getattr(one, flag).sum()) for one in self.records) for flag in ("crowd", "difficult")}
        extra = [f"{count} {flag}" for flag, count in flags.items() if count]
        extra += [f"{empty} images without objects"] if empty else []
        extra += [f"masks in {masks} images"] if masks else []
        lines = [f"{self.name}: {len(self)} images, {sum(counts.values())} objects"]
        lines[0] += f" ({', '.join(extra)})" if extra else ""
        width = max(map(len, self.class_names))
        lines += [f"  {name:<{width}}  {counts[label]:>7}" for label, name in enumerate(self.class_names)]
        return "\n".join(lines)

    def _with(self, records):
        return Dataset(records, self.class_names, self.category_ids, self.name)


def check(dataset):
    """Refuses a dataset that cannot be trained on, with every problem named.

    Args:
        dataset: A `Dataset`.

    Raises:
        DataError: No records, no or double class names, double image ids, labels out of range, or boxes that are NaN,
            empty or outside their image.
    """
    if not dataset.records:
        raise DataError(f"{dataset.name}: no images in the dataset")
    names = dataset.class_names
    if not names:
        raise DataError(f"{dataset.name}: no classes in the dataset")
    problems = Problems(dataset.name)
    for name, count in Counter(names).items():
        if count > 1:
            problems.add("classes", f"name {name!r} is given to {count} classes")
    if len(dataset.category_ids) != len(names):
        problems.add("classes", f"{len(names)} names but {len(dataset.category_ids)} category_ids")
    for image_id, count in Counter(record.image_id for record in dataset.records).items():
        if count > 1:
            problems.add(f"image id {image_id!r}", f"given to {count} images")
    owners = [record for record in dataset.records for _ in record.labels]
    labels = np.concatenate([record.labels for record in dataset.records])
    boxes = np.concatenate([record.boxes for record in dataset.records])
    for i in np.flatnonzero((labels < 0) | (labels >= len(names))):
        problems.add(owners[i].name, f"label {labels[i]} is not one of the {len(names)} classes")
    sizes = np.array([(record.height, record.width) for record in owners], np.float64).reshape(-1, 2)
    for i, reason in clean_boxes(boxes, sizes[:, 0], sizes[:, 1])[2].items():
        problems.add(owners[i].name, reason)
    problems.finish()


def clean_boxes(boxes, height, width, raw=None):
    """Clips boxes to their image and says what is wrong with the rest.

    Args:
        boxes: `[n, 4]`, `[x1, y1, x2, y2]` in px.
        height: The image's height in px, or of each box's image `[n]`.
        width: The image's width in px, or `[n]`.
        raw: The boxes as the file has them, for the messages. None: `boxes`.

    Returns:
        The clipped boxes float32 `[n, 4]`, which of them are good bool `[n]`, and a dict from the index of each bad box
        to the reason.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    raw = boxes if raw is None else raw
    width, height = (np.broadcast_to(side, len(boxes)) for side in (width, height))
    limit = np.stack([width, height, width, height], axis=1).astype(np.float64)
    clipped = np.clip(boxes, 0, limit)
    finite = np.isfinite(boxes).all(axis=1)
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    outside = (np.abs(clipped - boxes) > TOLERANCE).any(axis=1) | ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    good = finite & ~empty & ~outside
    reasons = {}
    for i in np.flatnonzero(~good):
        shown = [round(float(value), 2) for value in raw[i]]
        if not finite[i]:
            reasons[int(i)] = f"box {shown} is not finite"
        elif empty[i]:
            reasons[int(i)] = f"box {shown} has no width or no height (x2 <= x1 or y2 <= y1)"
        else:
            reasons[int(i)] = f"box {shown} is outside its image of {width[i]:g} x {height[i]:g} px (width x height)"
    return clipped.astype(np.float32), good, reasons


class Problems:
    """Collects what is wrong in a source, to say all of it at once.

    Args:
        source: Its name.
        on_bad: `"error"` raises on `finish`; `"skip"` logs one warning that counts what was left out.
    """

    def __init__(self, source, on_bad="error"):
        if on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad must be 'error' or 'skip', got {on_bad!r}")
        self.source, self.on_bad, self.found = str(source), on_bad, []

    def add(self, where, what):
        """Notes one problem."""
        self.found.append(f"{where}: {what}")

    def finish(self, shown=20):
        """Raises a `DataError` with the problems, or logs them."""
        if not self.found:
            return
        lines = self.found[:shown] + ([f"... and {len(self.found) - shown} more"] if len(self.found) > shown else [])
        if self.on_bad == "skip":
            logger.warning("%s: skipped %d bad annotations: %s", self.source, len(self.found), "; ".join(lines))
            return
        raise DataError(f"{self.source}: {len(self.found)} bad annotation(s)\n  " + "\n  ".join(lines))


def checked_size(path, declared, problems):
    """`(height, width)` of an image: as declared, else from its header; None, and a problem noted, if it has none."""
    if not Path(path).is_file():
        problems.add(path, "no such image file")
        return None
    try:
        height, width = declared if declared is not None else image_size(path)
    except ImageError as error:
        problems.add(path, str(error).removeprefix(f"{path}: "))
        return None
    if not (height > 0 and width > 0):
        problems.add(path, f"declared size {width} x {height} px")
        return None
    return int(height), int(width)


def refuse_swapped(boxes, sizes, source, hint, *, given, on_bad):
    """Raises if the boxes make sense only in the other of the two formats.

    Args:
        boxes: `[n, 4]` as the file has them.
        sizes: `[n, 2]`, (height, width) of each box's image.
        source: The file, for the message.
        hint: What to do about it, for the message.
        given: `"xyxy"` or `"xywh"`, what the boxes were taken for.
        on_bad: With `"skip"` one or two odd boxes are left to be skipped, however small the file.
    """
    boxes, sizes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    if not len(boxes):
        return
    other = "[x, y, width, height]" if given == "xyxy" else "[x1, y1, x2, y2]"
    limit = sizes[:, ::-1] + TOLERANCE
    inside, ordered = (boxes[:, :2] + boxes[:, 2:] <= limit).all(axis=1), (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if given == "xyxy":
        wrong = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        plausible = inside & (boxes[:, 2:] > 0).all(axis=1)
    else:
        wrong = ~inside
        plausible = ordered & (boxes[:, 2:] <= limit).all(axis=1)
    # A tenth is more than slips of annotators make, and the other reading has to fit nearly all of the boxes.
    if wrong.mean() >= 0.1 and plausible.mean() >= 0.9 and wrong.sum() >= (3 if on_bad == "skip" else 1):
        shown = boxes[np.flatnonzero(wrong)[0]].round(2).tolist()
        raise DataError(
            f"{source}: {wrong.sum()} of {len(boxes)} boxes make no sense as {given}, e.g. {shown}; "
            f"these look like {other}: {hint}"
        )
