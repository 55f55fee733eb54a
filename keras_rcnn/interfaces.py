"""What can detect, and what detections are, for annotations: nothing has to inherit from these.

A `keras_rcnn.models.Detector`, a `ServedDetector` behind TensorFlow Serving, a `LiteRTDetector` of a `.tflite` file and
an `OpenVINODetector` are all a `PhotoDetector`; the first two, and an `ExportedDetector` of the latter two's files, are
a `BatchDetector` as well.
"""

import os
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, Protocol, TypedDict, TypeVar, overload, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from PIL.Image import Image

FilePath = str | os.PathLike[str]
# arrays are [height, width] or [height, width, 1, 3 or 4]; bytes and open files are those of an image file
Photo = FilePath | bytes | IO[bytes] | Image | np.ndarray
AnyPhoto = TypeVar("AnyPhoto", bound=Photo)
# a tensor of the backend that Keras runs on, or a symbolic one: Keras ships no type for both
Tensor = Any
# of a tensor: ints, and None where a side is not known
Shape = tuple[Any, ...]
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
# what a reader does about bad annotations and images: refuse the data, or leave them out
OnBad = Literal["error", "skip"]
# COCO's word for what overlaps: boxes or masks
IoUType = Literal["bbox", "segm"]
# what `detect` takes as `masks`
MaskForm = bool | Literal["rle", "crops"]


class RLE(TypedDict):
    """A mask in COCO's run-length encoding, as pycocotools has it: `size` is `[height, width]`."""

    size: list[int]
    counts: bytes | str


# an object's mask in a data set: COCO polygons, COCO RLE (compressed or not), path of a binary PNG, or [height, width]
Segmentation = list[Any] | tuple[Any, ...] | dict[str, Any] | RLE | str | Path | np.ndarray


class Detections(TypedDict):
    """The objects in one photo, best first.

    Attributes:
        boxes: float32 `[n, 4]` xyxy, in pixels of the photo.
        scores: float32 `[n]`, 0 to 1.
        labels: int32 `[n]`.
        names: list of n class names.
        masks: of a detector with masks: bool `[n, height, width]`, a list of n RLEs, or float32 `[n, 28, 28]`,
            probabilities in each box.
        keypoints: of a detector with keypoints: float32 `[n, K, 3]`, x, y in pixels of the photo, and a score.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]
    masks: NotRequired[np.ndarray | list[RLE]]
    keypoints: NotRequired[np.ndarray]


@runtime_checkable
class PhotoDetector(Protocol):
    """Finds the objects in a photo, uint8 `[height, width, 3]`, RGB.

    Example:

    >>> def count(detector: keras_rcnn.interfaces.PhotoDetector, photo: np.ndarray) -> int:
    ...     return len(detector.detect(photo, score=0.5)["boxes"])
    """

    def detect(self, photo: np.ndarray, /, score: float = 0.5, *, proposals: ArrayLike | None = None) -> Detections:
        """The objects that score at least `score`; `proposals` `[P, 4]` are for a detector that wants such."""
        ...


@runtime_checkable
class BatchDetector(Protocol):
    """Finds the objects in a photo, or in each of a list of photos: what `keras_rcnn.evaluate` takes."""

    @property
    def has_masks(self) -> bool | None:
        """Whether detections have masks; None where nobody knows before the first."""
        ...

    @property
    def wants_proposals(self) -> bool | None:
        """Whether `proposals` have to be given; None where nobody knows."""
        ...

    @overload
    def detect(
        self,
        images: Photo,
        score: float = 0.5,
        batch_size: int | None = None,
        masks: MaskForm = True,
        *,
        proposals: ArrayLike | None = None,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        images: list[AnyPhoto] | tuple[AnyPhoto, ...],
        score: float = 0.5,
        batch_size: int | None = None,
        masks: MaskForm = True,
        *,
        proposals: list[ArrayLike] | None = None,
    ) -> list[Detections]: ...
