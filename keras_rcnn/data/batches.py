"""Records -> the padded `(x, y)` batches that `fit` takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_rcnn.data.ahead import read_ahead
from keras_rcnn.data.augment import PROPOSAL, standard
from keras_rcnn.data.keypoints import check_skeleton, points_of, posed
from keras_rcnn.data.masks import InstanceMask, instance_mask, sample_mask
from keras_rcnn.data.orientation import by_orientation
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.proposals import check_proposals
from keras_rcnn.data.ready import check_images, check_masks, check_targets
from keras_rcnn.data.repeats import epoch_length, occurrences, repeat_factors, repeated
from keras_rcnn.data.request import check_whole
from keras_rcnn.skeletons import Skeleton

if TYPE_CHECKING:
    from keras_rcnn.data.augment.objects import Masks, Sample
    from keras_rcnn.data.preprocess import Preprocessor
    from keras_rcnn.data.proposals import ProposalSet
    from keras_rcnn.data.records import Dataset, Record

_CACHE_BYTES = 2 * 1024**3


class Batches(keras.utils.PyDataset):
    """Batches of a dataset, read, augmented, resized and padded by worker threads.

    `batches[i]` is `(x, y)`:

    - `x = {"images": float32 [B, H, W, 3], "image_sizes": float32 [B, 2]}`, see `Preprocessor.batch`;
    - `y = {"boxes": float32 [B, N, 4], "labels": int32 [B, N]}` in px of the resized image, padded with 0 and -1;
    - with `masks=True` also `y["masks"]`, uint8 `[B, N, M, M]`, each mask cropped to its frame and resized to `M x M`,
      and `y["mask_frames"]`, float32 `[B, N, 4]`, the frames: the objects' boxes;
    - with `keypoints=True` also `y["keypoints"]`, float32 `[B, N, K, 3]`, x, y in px of the resized image and
      visibility, 0 for what is not annotated, or out of the image;
    - with `proposals` also `x["proposals"]`, float32 `[B, P, 4]` in px of the resized image, best first, padded with 0.

    Order and augmentation follow from `(seed, epoch, index)` alone, whatever the threads do. `epoch` counts up with
    every epoch of `fit`; set it to resume. Pass `shuffle=False` to `fit`: the batches are shuffled here, and Keras
    would shuffle them once more with Python's global generator.

    Crowd objects are no targets.

    Args:
        dataset: A `Dataset`.
        preprocessor: A `Preprocessor`.
        batch_size: Images a batch.
        shuffle: A new order every epoch, in batches of upright photos and of others, see `by_orientation`.
        augment: None or False for none, True for `augment.standard()`, or a transform such as `augment.Compose([...])`.
            `CopyPaste` and `Mosaic` draw their other photos from the dataset.
        seed: int.
        workers: Threads. None: one a core, up to 4.
        masks: Whether to yield masks; each object must have one.
        mask_size: M, in px.
        max_objects: N; of images with more a random choice is taken. None: the most that an image of the dataset has,
            times the photos that `augment` puts into one.
        fixed_size: `(height, width)` of all batches instead of the preprocessor's.
        drop_remainder: Leaves the last batch out if it is not full.
        difficult: Whether VOC's `difficult` objects are targets.
        cache: Keeps decoded images in memory, in as many bytes at most (True: 2 GiB).
        proposals: A `ProposalSet` with boxes for every image; the augmentation moves them as it does the objects.
        max_proposals: P at most; the best are taken. It is less if no image has so many.
        min_sizes: Sizes in px, one of which is drawn for every batch as the preprocessor's `min_size`; its `max_size`
            stays (multi-scale training, as Detectron2's `MIN_SIZE_TRAIN`). What XLA compiles is padded to the shapes of
            the largest, so that there are no more of them. None: the preprocessor's alone.
        keypoints: Whether to yield keypoints; the dataset must have some, but not each object.
        repeat_threshold: Photos with classes that are in less than this share of the photos come up more often, see
            `repeat_factors`; each time they are augmented anew. None: every photo comes up once an epoch.

    Raises:
        DataError: if masks are missing or bad.
        ValueError: for arguments that are not as above, or masks that `augment` needs and `masks` does not ask for.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessor: Preprocessor,
        batch_size: int = 2,
        shuffle: bool = False,
        augment: bool | Callable[..., Any] | None = None,
        seed: int = 0,
        workers: int | None = None,
        masks: bool = False,
        mask_size: int = 112,
        max_objects: int | None = None,
        fixed_size: Any = None,
        drop_remainder: bool = False,
        difficult: bool = False,
        cache: bool | int = False,
        proposals: ProposalSet | None = None,
        max_proposals: int = 2000,
        min_sizes: Sequence[int] | None = None,
        repeat_threshold: float | None = None,
        keypoints: bool = False,
    ) -> None:
        check_whole("batch_size", batch_size, "images a batch")
        check_whole("seed", seed, least=0)
        check_whole("mask_size", mask_size, "px")
        check_whole("max_proposals", max_proposals, "proposals an image")
        if workers is not None:
            check_whole("workers", workers, "threads, or None", least=0)
        if max_objects is not None:
            check_whole("max_objects", max_objects, "objects an image, or None")
        if cache not in (True, False, None):
            check_whole("cache", cache, "bytes, or True or False", least=0)
        workers = min(os.cpu_count() or 1, 4) if workers is None else int(workers)
        super().__init__(workers=workers, max_queue_size=max(2 * workers, 2))
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, int(batch_size), shuffle, int(seed)
        self.preprocessor = preprocessor if fixed_size is None else preprocessor.replace(fixed_size=fixed_size)
        self.augment = standard() if augment is True else augment or None
        self.masks, self.mask_size, self.keypoints = masks, int(mask_size), keypoints
        self.drop_remainder, self.difficult = drop_remainder, difficult
        targets = [self._targets(record) for record in dataset]
        most = max(max(int(kept.sum()) for kept in targets), 1) * getattr(self.augment, "photos", 1)
        self.max_objects = most if max_objects is None else int(max_objects)
        if getattr(self.augment, "needs_masks", False) and not masks:
            raise ValueError("augment cuts objects out by their masks (CopyPaste): it needs batches with masks=True.")
        self.repeat_factors = None if repeat_threshold is None else repeat_factors(dataset, repeat_threshold, targets)
        self.min_sizes = (self.preprocessor.min_size,) if min_sizes is None else tuple(min_sizes)
        if not self.min_sizes:
            raise ValueError("min_sizes are sizes in px, at least one, or None for the preprocessor's, not ().")
        if drop_remainder and self._count() < batch_size:
            raise DataError(f"{dataset.name}: {self._count()} images do not fill one batch of {batch_size}")
        self._preprocessors = [self.preprocessor.replace(min_size=size) for size in self.min_sizes]
        self._largest = self.preprocessor.replace(min_size=max(self.min_sizes))
        if masks:
            check_masks(dataset, difficult=difficult)
        self._skeleton = check_skeleton(dataset) if keypoints else Skeleton(("none",))
        self.proposals, self.max_proposals = proposals, 0
        if proposals is not None:
            check_proposals(proposals, dataset)
            most = max(len(proposals[record]) for record in dataset)
            self.max_proposals = max(min(int(max_proposals), most), 1)
        self.epoch, self._in_epoch = 0, False
        # whether XLA compiles what takes the batches: a detector's `fit` sets it, see `Preprocessor(few_shapes=...)`
        self.compiled = keras.backend.backend() == "jax"
        self._varies = self._varying_sides()
        self._upright = np.array([record.height > record.width for record in dataset], bool)
        self._cache, self._cache_lock = {}, threading.Lock()
        self._cache_left = _CACHE_BYTES if cache is True else int(cache or 0)

    def __len__(self) -> int:
        whole, rest = divmod(self._count(), self.batch_size)
        return whole + (rest > 0 and not self.drop_remainder)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.shard(index % len(self) if -len(self) <= index < len(self) else index)

    def shard(
        self, index: int, rank: int = 0, count: int = 1, pad: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What one of `count` devices gets of a batch; only its images are read.

        Args:
            index: int, from 0.
            rank: int, the device.
            count: int. The images, in their order, are divided as evenly as they can be, more for the first devices.
            pad: False for images that are padded as this device's images need it, not as the batch is in `fit`: then
                `padded_size` tells how large the batch is.

        Returns:
            `(x, y)`.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        epoch = self.epoch
        order, here = self.order(epoch), slice(index * self.batch_size, (index + 1) * self.batch_size)
        copies = np.zeros_like(order) if self.repeat_factors is None else occurrences(order)
        chosen = zip(*(np.array_split(values[here], count)[rank].tolist() for values in (order, copies)))
        samples = [self.sample(i, epoch, copy) for i, copy in chosen]
        images = [image for image, *_ in samples]
        preprocessor = self._preprocessor(index, epoch)
        sizes = [preprocessor.size(*image.shape[:2]) for image in images]
        padded = preprocessor.padded_size(sizes)
        x = preprocessor.batch(images, padded_size=self.padded_size(padded, index) if pad else padded)
        if self.proposals is not None:
            x["proposals"] = np.zeros((len(samples), self.max_proposals, 4), np.float32)
            for row, (image, *_, proposals), size in zip(x["proposals"], samples, sizes):
                row[: len(proposals)] = preprocessor.place(proposals, image.shape[:2], size)
        return x, self._pad([targets for _, *targets, _ in samples], images, sizes)

    def chosen(self, index: int, epoch: int | None = None) -> np.ndarray:
        """The dataset's indices of the images of a batch; `epoch` None is the one at hand."""
        order = self.order(self.epoch if epoch is None else epoch)
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def on_epoch_begin(self) -> None:
        self._in_epoch = True

    def on_epoch_end(self) -> None:
        if self._in_epoch:  # Keras also calls this where no epoch has begun, before the first one
            self.epoch += 1
        self._in_epoch = False

    def order(self, epoch: int) -> np.ndarray:
        """The dataset's indices in the order of an epoch."""
        rng, factors = np.random.default_rng([self.seed, epoch, 0]), self.repeat_factors
        indices = np.arange(len(self.dataset)) if factors is None else repeated(factors, rng)
        return by_orientation(rng.permutation(indices), self._upright, self.batch_size) if self.shuffle else indices

    def _count(self) -> int:
        """The photos of an epoch, with their repetitions."""
        return len(self.dataset) if self.repeat_factors is None else epoch_length(self.repeat_factors)

    def _preprocessor(self, index: int, epoch: int) -> Preprocessor:
        if len(self._preprocessors) == 1:
            return self._preprocessors[0]
        rng = np.random.default_rng([self.seed, epoch, 0, 1 + index])
        return self._preprocessors[rng.integers(len(self._preprocessors))]

    def sample(
        self, index: int, epoch: int, copy: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Masks, np.ndarray]:
        """One record as it is in an epoch, before the resize: `(image, boxes, labels, masks or None, proposals)`.

        Args:
            index: int, of the dataset.
            epoch: int.
            copy: int, how often the record has come up before in the epoch.
        """
        rng = np.random.default_rng([self.seed, epoch, 1 + index, *([copy] if copy else [])])
        image, boxes, labels, masks = self._unchanged(index)
        if self.augment is not None:
            # photos that are mixed in are drawn by the same generator: seed, epoch and index say which
            others = {"others": lambda: self._unchanged(int(rng.integers(len(self.dataset))))}
            mixes = getattr(self.augment, "photos", 1) > 1
            image, boxes, labels, masks = self.augment(image, boxes, labels, masks, rng, **(others if mixes else {}))
        proposals = np.zeros((0, 4), np.float32)
        if self.proposals is not None:
            boxes, labels, masks, proposals = _part(boxes, labels, masks)
        if len(boxes) > self.max_objects:
            chosen = np.sort(rng.choice(len(boxes), self.max_objects, replace=False))
            boxes, labels = boxes[chosen], labels[chosen]
            masks = None if masks is None else [masks[i] for i in chosen]
        return image, boxes, labels, masks, proposals[: self.max_proposals]

    def _unchanged(self, index: int) -> Sample:
        """One record as it is: `(image, boxes, labels, masks or None)`, its proposals among the boxes."""
        record = self.dataset[index]
        kept = np.flatnonzero(self._targets(record))
        boxes, labels, masks = record.boxes[kept], record.labels[kept], None
        if self.masks:
            size = (record.height, record.width)
            masks = [instance_mask(record.segmentations[i], *size, record.boxes[i]) for i in kept]
        if self.keypoints:
            masks = posed(masks, boxes, None if record.keypoints is None else record.keypoints[kept], self._skeleton)
        if self.proposals is not None:
            boxes, labels, masks = _join(boxes, labels, masks, self.proposals[record])
        return self._read(index), boxes, labels, masks

    def _pad(
        self, targets: Sequence[Sequence[Any]], images: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, np.ndarray]:
        b, n, m = len(targets), self.max_objects, self.mask_size
        y = {"boxes": np.zeros((b, n, 4), np.float32), "labels": np.full((b, n), -1, np.int32)}
        if self.masks:
            y["masks"] = np.zeros((b, n, m, m), np.uint8)
        if self.keypoints:
            y["keypoints"] = np.zeros((b, n, len(self._skeleton), 3), np.float32)
        for i, (boxes, labels, masks) in enumerate(targets):
            y["boxes"][i, : len(boxes)] = self.preprocessor.place(boxes, images[i].shape[:2], sizes[i])
            y["labels"][i, : len(labels)] = labels
            if self.masks:
                for j, (mask, box) in enumerate(zip(masks, boxes)):
                    y["masks"][i, j] = sample_mask(mask, box, m)
            if self.keypoints and len(boxes):
                size = images[i].shape[:2]
                points = self.preprocessor.place_points(points_of(masks, size), size, sizes[i])
                y["keypoints"][i, : len(boxes)] = np.where(points[..., 2:] > 0, points, 0.0)
        if self.masks:
            y["mask_frames"] = y["boxes"].copy()
        return y

    def _targets(self, record: Record) -> np.ndarray:
        return ~record.crowd if self.difficult else ~record.crowd & ~record.difficult

    def check(self, training: bool = True) -> None:
        """What `fit` looks at before its first epoch: is there anything to learn, and can every image be read?

        Args:
            training: False for batches to validate on, which need no objects.

        Raises:
            DataError: no objects, or all of them are crowd or difficult; or the images that cannot be read, all named.
        """
        if training:
            check_targets(self.dataset, self.difficult)
        try:
            check_images(self.dataset)
        except DataError as error:
            way = "keras_rcnn.data.check_images(dataset, on_bad='skip') is the dataset without them"
            raise DataError(f"{error}\n  {way}") from None

    def _read(self, index: int) -> np.ndarray:
        image = self._cache.get(index)
        if image is None:
            image = self.dataset[index].read()
            with self._cache_lock:
                if index not in self._cache and image.nbytes <= self._cache_left:
                    image.setflags(write=False)
                    self._cache[index] = image
                    self._cache_left -= image.nbytes
        return image

    def _varying_sides(self) -> tuple[bool, ...]:
        """Which of (height, width) differ from batch to batch."""
        if self.preprocessor.fixed_size is not None:
            return (False, False)
        if self.augment is not None and not getattr(self.augment, "keeps_size", False):
            return (True, True)
        if len(set(self.min_sizes)) > 1:
            return (True, True)
        sizes = {self._largest.size(record.height, record.width) for record in self.dataset}
        padded = [self.preprocessor.padded_size([size]) for size in sizes]
        return tuple(len(set(sides)) > 1 for sides in zip(*padded))

    @property
    def one_size(self) -> bool:
        """Whether all batches have images of the same padded size."""
        return not any(self._varies)

    def padded_size(self, padded: Any, index: int) -> Any:
        """`(height, width)` of a batch of `fit` whose images need `padded`, `(height, width)`.

        Keras takes the shapes of all batches from the first two: a side in which these happen to agree it believes to
        be constant, and `fit` stops at the first batch that differs. So the first batch is padded to an odd multiple
        of the divisor, the second to an even one, wherever the batches vary. (On JAX it does not.)
        """
        divisor = self.preprocessor.size_divisor
        padded = self._largest.padded_size([padded], self.compiled)
        if index > 1 or self.one_size or keras.backend.backend() == "jax":
            return padded
        changing = not getattr(self.augment, "keeps_size", self.augment is None)
        changing = changing or len(set(self.min_sizes)) > 1
        if len(self) == 1 and (changing or self._count() > self.batch_size):  # one batch, another one every epoch
            return self.preprocessor.padded_size([(self.preprocessor.max_size,) * 2])
        return tuple(
            side + divisor if varies and (side // divisor) % 2 == index else side
            for side, varies in zip(padded, self._varies)
        )


def _join(
    boxes: np.ndarray, labels: np.ndarray, masks: Masks, proposals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Masks]:
    """Proposals appended to the objects as boxes of the label `PROPOSAL`, so that transforms move them too."""
    labels = np.concatenate([labels, np.full(len(proposals), PROPOSAL, labels.dtype)])
    if masks is not None:
        masks = masks + [InstanceMask(np.zeros((1, 1), np.uint8), box) for box in proposals]
    return np.concatenate([boxes, proposals]), labels, masks


def _part(boxes: np.ndarray, labels: np.ndarray, masks: Masks) -> tuple[np.ndarray, np.ndarray, Masks, np.ndarray]:
    """The reverse of `_join`: `(boxes, labels, masks, proposals)`."""
    marked = labels == PROPOSAL
    if masks is not None:
        masks = [masks[i] for i in np.flatnonzero(~marked)]
    return boxes[~marked], labels[~marked], masks, boxes[marked]


def as_tf_dataset(batches: Batches) -> Any:
    """`Batches` as a `tf.data.Dataset` of one epoch; each pass over it is the next epoch.

    Args:
        batches: `Batches`.

    Returns:
        `tf.data.Dataset` of `(x, y)`; images of varying size have `None` for height and width.
    """
    import tensorflow as tf

    fixed = batches.preprocessor.fixed_size or (None, None)
    n, m = batches.max_objects, batches.mask_size
    b = batches.batch_size if batches.drop_remainder else None
    x = {"images": tf.TensorSpec((b, *fixed, 3), tf.float32), "image_sizes": tf.TensorSpec((b, 2), tf.float32)}
    if batches.proposals is not None:
        x["proposals"] = tf.TensorSpec((b, batches.max_proposals, 4), tf.float32)
    y = {"boxes": tf.TensorSpec((b, n, 4), tf.float32), "labels": tf.TensorSpec((b, n), tf.int32)}
    if batches.masks:
        y["masks"] = tf.TensorSpec((b, n, m, m), tf.uint8)
        y["mask_frames"] = tf.TensorSpec((b, n, 4), tf.float32)
    if batches.keypoints:
        y["keypoints"] = tf.TensorSpec((b, n, len(batches.dataset.skeleton or ()), 3), tf.float32)

    def epoch() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        yield from read_ahead(batches.__getitem__, range(len(batches)), batches.workers)
        batches.epoch += 1

    dataset = tf.data.Dataset.from_generator(epoch, output_signature=(x, y))
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
