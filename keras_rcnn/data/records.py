"""What a data set is once it has been read: a list of records and the names of their classes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.keypoints import checked_keypoints
from keras_rcnn.data.masks import segmentation_box, segmentation_problem
from keras_rcnn.data.problems import DataError, Problems, clean_boxes
from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.interfaces import Segmentation
from keras_rcnn.skeletons import Skeleton

if TYPE_CHECKING:
    from keras_rcnn.data.batches import Batches
    from keras_rcnn.data.preprocess import Preprocessor

UNUSED = "N/A"  # torchvision's word for COCO's ten ids that mean nothing
__all__ = ["DataError", "Dataset", "Record", "check"]


@dataclasses.dataclass
class Record:
    """One image and its objects.

    Args:
        image: Path of the image, or the image itself as an array.
        image_id: Its name in the annotations; unique in a dataset.
        height: Its height in px.
        width: Its width in px.
        boxes: float32 `[n, 4]`, `[x1, y1, x2, y2]` in px. None: those of the segmentations.
        labels: int32 `[n]`, 0-based.
        crowd: bool `[n]`, a box around many objects: for the COCO metric, never a training target. None: all False.
        difficult: bool `[n]`, VOC's flag. None: all False.
        areas: float32 `[n]` in px^2, as annotated. None: of the boxes.
        segmentations: `n` masks, each COCO polygons, COCO RLE (compressed or not), the path of a binary PNG, an
            `[height, width]` array, or None; or all of them as one array `[height, width, n]`. None: the data set has
            no masks.
        keypoints: float32 `[n, K, 3]`, x, y in px and COCO's visibility, 0 for points that are not annotated. None: the
            data set has none.

    Raises:
        DataError: Fields of different lengths, or of another type or shape.
    """

    image: object
    image_id: object
    height: int
    width: int
    boxes: Any = ()
    labels: Any = ()
    crowd: Any = None
    difficult: Any = None
    areas: Any = None
    segmentations: list[Any] | np.ndarray | None = None
    keypoints: Any = None

    def __post_init__(self) -> None:
        try:
            self._convert()
        except DataError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.name}: boxes, labels or flags of a wrong kind ({error})") from error

    def _convert(self) -> None:
        masks, size = self.segmentations, (self.height, self.width)
        if isinstance(masks, np.ndarray) and masks.ndim == 3 and masks.shape[1:] != size and masks.shape[:2] == size:
            self.segmentations = masks = list(np.moveaxis(masks, 2, 0))
        if self.boxes is None or (len(self.boxes) == 0 and masks is not None and len(masks)):
            self.boxes = [self._box_of(i, mask) for i, mask in enumerate(() if masks is None else masks)]
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
        if self.keypoints is not None:
            self.keypoints = checked_keypoints(self.keypoints, n, f"image {self.image_id!r}") if n else None

    def _box_of(self, i: int, mask: Segmentation | None) -> list[float]:
        reason = "there is none" if mask is None else segmentation_problem(mask, self.height, self.width)
        if mask is None or reason:
            raise DataError(f"{self.name}: object {i} has no box, and its mask cannot give it: {reason}")
        box = segmentation_box(mask, self.height, self.width)
        if box is None:
            raise DataError(f"{self.name}: object {i} has no box, and its mask is empty")
        return box

    def chosen(self, kept: Any) -> Record:
        """The record with some of its objects.

        Args:
            kept: Indices, or bool `[n]`.
        """
        kept = np.arange(len(self.boxes))[kept]
        fields = {key: getattr(self, key)[kept] for key in ("boxes", "labels", "crowd", "difficult", "areas")}
        if self.segmentations is not None:
            fields["segmentations"] = [self.segmentations[i] for i in kept]
        if self.keypoints is not None:
            fields["keypoints"] = self.keypoints[kept]
        return dataclasses.replace(self, **fields)

    @property
    def name(self) -> str:
        """The image's path, or its id where the image is an array: for messages."""
        return str(self.image) if isinstance(self.image, (str, Path)) else f"image {self.image_id!r}"

    def read(self) -> np.ndarray:
        """The image as uint8 RGB `[height, width, 3]`; a `DataError` if it has not the size that was annotated."""
        image = read_image(self.image)
        self.check_size(*image.shape[:2])
        return image

    def check_size(self, height: int, width: int) -> None:
        """Raises a `DataError` if the image, of this size in px, has not the size that was annotated."""
        if (height, width) != (self.height, self.width):
            turned = " (its EXIF orientation applied: annotate the image as it is shown)"
            raise DataError(
                f"{self.name}: the image is {width} x {height} px, its annotation says {self.width} x {self.height} px"
                f"{turned if (width, height) == (self.height, self.width) else ''}; correct the annotation or the file"
            )


class Dataset:
    """Records and the names of their classes.

    Args:
        records: List of `Record`.
        class_names: List of str; a label is an index into it.
        category_ids: List of int, the id of each label in the source's numbering. None: 1, 2, ...
        name: Where it came from, for messages.
        bad: What was left out as bad when it was read: list of str, a line for each object or image.
        skeleton: `keras_rcnn.skeletons.Skeleton`, the names of the records' keypoints. None: there are none.

    Raises:
        DataError: No records, image ids given twice, labels or boxes out of range.
    """

    def __init__(
        self,
        records: Iterable[Record],
        class_names: Iterable[str],
        category_ids: Iterable[Any] | None = None,
        name: object = "dataset",
        bad: Iterable[str] = (),
        skeleton: Skeleton | None = None,
    ) -> None:
        self.records = list(records)
        self.class_names = [str(name) for name in class_names]
        self.category_ids = list(range(1, len(self.class_names) + 1)) if category_ids is None else list(category_ids)
        self.name, self.bad, self.skeleton = str(name), list(bad), skeleton
        check(self)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Dataset: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Record | Dataset:
        return self._with(self.records[index]) if isinstance(index, slice) else self.records[index]

    def __repr__(self) -> str:
        return f"<Dataset {self.name!r}: {len(self)} images, {len(self.class_names)} classes>"

    def filter(self, keep: Callable[[Record], bool]) -> Dataset:
        """The dataset of the records for which `keep(record)` is true."""
        return self._with([record for record in self.records if keep(record)])

    def split(self, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Keeps a random part of the images apart, to validate on: `train, val = dataset.split(0.2)`.

        Args:
            share: float, of the images, that the second dataset gets.
            seed: int; the same one makes the same choice.

        Returns:
            Two datasets: the rest, and the part. What was left out as bad is in the first one's `bad`.

        Raises:
            DataError: if one of them would be empty.
        """
        check_number("share", share, 0, 1, "of the images")
        check_whole("seed", seed, least=0)
        count = round(len(self) * share)
        if not 0 < count < len(self):
            raise DataError(
                f"{self.name}: {share} of {len(self)} images leaves {len(self) - count} to train on and {count} to "
                "validate on"
            )
        chosen = set(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        rest, part = ([record for i, record in enumerate(self) if (i in chosen) == held] for held in (False, True))
        return self._with(rest), Dataset(part, self.class_names, self.category_ids, self.name, skeleton=self.skeleton)

    def batches(self, preprocessor: Preprocessor, batch_size: int = 2, **kwargs: Any) -> Batches:
        """The padded batches that `fit` takes: `keras_rcnn.data.Batches(self, preprocessor, ...)`."""
        from keras_rcnn.data.batches import Batches

        return Batches(self, preprocessor, batch_size=batch_size, **kwargs)

    def summary(self) -> str:
        """What is in it, as text: images, objects and how many of each class."""
        counts = Counter(int(label) for record in self.records for label in record.labels)
        empty = sum(len(record.boxes) == 0 for record in self.records)
        masks = sum(record.segmentations is not None for record in self.records)
        flags = {
            flag: sum(int(getattr(record, flag).sum()) for record in self.records) for flag in ("crowd", "difficult")
        }
        extra = [f"{count} {flag}" for flag, count in flags.items() if count]
        extra += [f"{empty} images without objects"] if empty else []
        extra += [f"masks in {masks} images"] if masks else []
        if self.skeleton is not None:
            posed = sum(int((r.keypoints[..., 2] > 0).any(-1).sum()) for r in self if r.keypoints is not None)
            extra.append(f"{len(self.skeleton)} keypoints of {posed} objects")
        lines = [f"{self.name}: {len(self)} images, {sum(counts.values())} objects"]
        lines[0] += f" ({', '.join(extra)})" if extra else ""
        width = max(map(len, self.class_names))
        lines += [f"  {name:<{width}}  {counts[label]:>7}" for label, name in enumerate(self.class_names)]
        return "\n".join(lines)

    def _with(self, records: Iterable[Record]) -> Dataset:
        return Dataset(records, self.class_names, self.category_ids, self.name, self.bad, self.skeleton)


def check(dataset: Dataset) -> None:
    """Refuses a dataset that cannot be trained on, with every problem named.

    Args:
        dataset: A `Dataset`.

    Raises:
        DataError: No records, no or double class names, double image ids, labels out of range, or boxes that are NaN,
            empty or outside their image. Classes without objects may all be called `"N/A"`.
    """
    if not dataset.records:
        skipped = f": {len(dataset.bad)} images and objects were skipped as bad" if dataset.bad else ""
        raise DataError(f"{dataset.name}: no images in the dataset{skipped}")
    names = dataset.class_names
    if not names:
        raise DataError(f"{dataset.name}: no classes in the dataset")
    problems = Problems(dataset.name)
    for record in dataset.records:
        if record.keypoints is not None and record.keypoints.shape[1] != len(dataset.skeleton or ()):
            wanted = "no skeleton" if dataset.skeleton is None else f"one of {len(dataset.skeleton)}"
            problems.add(record.name, f"{record.keypoints.shape[1]} keypoints an object, but the data set has {wanted}")
    labels = np.concatenate([record.labels for record in dataset.records])
    used = [label for label in np.unique(labels) if 0 <= label < len(names)]
    for name, count in Counter(names).items():
        if count > 1 and (name != UNUSED or any(names[label] == name for label in used)):
            problems.add("classes", f"name {name!r} is given to {count} classes")
    if len(dataset.category_ids) != len(names):
        problems.add("classes", f"{len(names)} names but {len(dataset.category_ids)} category_ids")
    for image_id, count in Counter(record.image_id for record in dataset.records).items():
        if count > 1:
            problems.add(f"image id {image_id!r}", f"given to {count} images")
    owners = [record for record in dataset.records for _ in record.labels]
    boxes = np.concatenate([record.boxes for record in dataset.records])
    for i in np.flatnonzero((labels < 0) | (labels >= len(names))):
        problems.add(owners[i].name, f"label {labels[i]} is not one of the {len(names)} classes")
    sizes = np.array([(record.height, record.width) for record in owners], np.float64).reshape(-1, 2)
    for i, reason in clean_boxes(boxes, sizes[:, 0], sizes[:, 1])[2].items():
        problems.add(owners[i].name, reason)
    problems.finish()
