"""Transforms one after the other."""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from keras_rcnn.data.augment.objects import Masks, Others, Sample
from keras_rcnn.data.augment.turns import HorizontalFlip


def standard() -> "Compose":
    """What training uses unless told otherwise: mirroring every other image."""
    return Compose([HorizontalFlip(0.5)])


class Compose:
    """Transforms one after the other.

    A photo that `CopyPaste` or `Mosaic` takes from the data set has first gone through the transforms that stand before
    them here, as in the paper on copy-paste, where both photos are jittered and mirrored.

    Args:
        transforms: list of transforms.

    Example:

    >>> microscopy = Compose([HorizontalFlip(), VerticalFlip(), Rotate(180), ColorJitter()])
    >>> simple_copy_paste = Compose([HorizontalFlip(), LargeScaleJitter(0.1, 2.0), CopyPaste(0.5)])
    """

    def __init__(self, transforms: Iterable[Callable[..., Sample]]) -> None:
        self.transforms = list(transforms)

    @property
    def keeps_size(self) -> bool:
        return all(getattr(transform, "keeps_size", False) for transform in self.transforms)

    @property
    def needs_masks(self) -> bool:
        return any(getattr(transform, "needs_masks", False) for transform in self.transforms)

    @property
    def photos(self) -> int:
        """How many photos' objects may come together in one."""
        return int(np.prod([getattr(transform, "photos", 1) for transform in self.transforms], initial=1))

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        masks: Masks,
        rng: np.random.Generator,
        others: Others | None = None,
    ) -> Sample:
        return self._first(len(self.transforms), (image, boxes, labels, masks), rng, others)

    def _first(self, count: int, sample: Sample, rng: np.random.Generator, others: Others | None) -> Sample:
        """A sample after the first `count` transforms."""
        for i, transform in enumerate(self.transforms[:count]):
            if getattr(transform, "photos", 1) > 1:
                draw = others and functools.partial(self._drawn, i, rng, others)
                sample = transform(*sample, rng, others=draw)
            else:
                sample = transform(*sample, rng)
        return sample

    def _drawn(self, count: int, rng: np.random.Generator, others: Others) -> Sample:
        return self._first(count, others(), rng, others)
