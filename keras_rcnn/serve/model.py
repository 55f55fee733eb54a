"""A detector as the service runs it: photo -> the model's input -> padded outputs -> what a protocol answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_rcnn.data.proposals import pad_proposals, selective_search
from keras_rcnn.data.request import least_score
from keras_rcnn.interfaces import Detections, MaskForm
from keras_rcnn.serve.photos import read_photo
from keras_rcnn.serve.refusal import Refusal, shown

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

VERSION = 1
# what a photo is told to look at, at most; selective search gives as many
MAX_PROPOSALS = 2000


@dataclass(frozen=True)
class Photo:
    """What a request asks about: a file's bytes or pixels uint8 [H, W, 3], and boxes to look at, float32 [P, 4]."""

    content: bytes | np.ndarray
    proposals: np.ndarray | None = None


@dataclass(frozen=True)
class Ready:
    """A photo as the model takes it: a batch of one, and its `(height, width)` in px."""

    inputs: dict[str, np.ndarray]
    size: tuple[int, int]

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """The same for photos that can share a batch without any more padding."""
        return tuple(value.shape for value in self.inputs.values())


@dataclass(frozen=True)
class Found:
    """A photo's padded outputs, in px of the model's input of `resized` (height, width)."""

    outputs: dict[str, np.ndarray]
    size: tuple[int, int]
    resized: np.ndarray


class ServedModel:
    """A detector under a name.

    Args:
        name: str, as in the addresses.
        detector: `Detector`.
        max_pixels: int, of a photo.
        max_batch: int, photos that are run at once. A detector that is told where to look runs one, and so does one
            that XLA compiles, which would be compiled for every number of photos.
    """

    def __init__(self, name: str, detector: Detector, max_pixels: int, max_batch: int) -> None:
        self.name, self.detector, self.max_pixels = name, detector, max_pixels
        alone = detector.wants_proposals or detector.jit_compile is True
        self.max_batch = 1 if alone else max_batch

    @property
    def wants_proposals(self) -> bool:
        """Whether requests bring boxes along."""
        return self.detector.wants_proposals

    def prepare(self, photo: Photo) -> Ready:
        """Reads a photo; without proposals for a detector that wants some, selective search finds them."""
        image = photo.content
        if isinstance(image, bytes):
            image = read_photo(image, self.max_pixels)
        preprocessor = self.detector.preprocessor
        try:
            inputs = preprocessor.batch([image], compiled=self.detector.jit_compile)
        except ValueError as error:  # a canvas of Matterport's that takes certain sizes only
            raise Refusal(400, f"The model cannot take this photo: {shown(error)}", "no_photo") from error
        if self.wants_proposals:
            boxes = selective_search(image) if photo.proposals is None else photo.proposals
            cells = getattr(self.detector.parts["box_pool"], "cells", None)
            inputs["proposals"] = pad_proposals([boxes], [image], inputs["image_sizes"], cells)
        return Ready(inputs, (image.shape[0], image.shape[1]))

    def run(self, group: Sequence[Ready]) -> list[Found]:
        """Runs photos of one `key` at once."""
        x = {key: np.concatenate([one.inputs[key] for one in group]) for key in group[0].inputs}
        outputs = {key: np.asarray(value) for key, value in self.detector.predict_on_batch(x).items()}
        return [
            Found({key: value[i] for key, value in outputs.items()}, one.size, x["image_sizes"][i])
            for i, one in enumerate(group)
        ]

    def detections(self, found: Found, score: float | None = None, masks: MaskForm = "rle") -> Detections:
        """What `Detector.detect` answers."""
        least = least_score(score, self.detector.thresholds, self.detector.class_names)
        return self.detector.restore(found.outputs, found.size, found.resized, least, masks)

    def padded(self, found: Found) -> dict[str, np.ndarray]:
        """What the signature `serving_default` of an exported SavedModel answers for one photo.

        Returns:
            `boxes` float32 [D, 4] in px of the photo, `scores` [D], `labels` int32 [D], -1 for padding, `names` [D],
            and of a detector with such `masks` [D, M, M] and `keypoints` [D, K, 3].
        """
        outputs, move = dict(found.outputs), self.detector.preprocessor
        there = outputs["labels"] >= 0
        boxes = move.restore(outputs["boxes"], found.size, found.resized)
        outputs["boxes"] = np.where(there[:, None], boxes, 0).astype(np.float32)
        outputs["labels"] = outputs["labels"].astype(np.int32)
        if "keypoints" in outputs:
            points = move.restore_points(outputs["keypoints"], found.size, found.resized)
            outputs["keypoints"] = np.where(there[:, None, None], points, 0).astype(np.float32)
        names = np.array([*self.detector.class_names, ""], dtype=object)
        return {**outputs, "names": names[np.where(there, outputs["labels"], len(names) - 1)]}

    def warm_up(self) -> None:
        """Runs a grey photo, and a batch of several, which takes TensorFlow seconds for the first time."""
        sides = self.detector.preprocessor.fixed_size or (64, 64)
        boxes = np.array([[0, 0, 32, 32]], np.float32) if self.wants_proposals else None
        ready = self.prepare(Photo(np.full((*sides, 3), 128, np.uint8), boxes))
        self.run([ready])
        if self.max_batch > 1:
            self.run([ready] * 2)

    def outputs(self) -> dict[str, tuple[str, list[int]]]:
        """The answers' names -> (`"FP32"`, `"INT32"` or `"BYTES"`, shape with -1 for what varies)."""
        found: dict[str, tuple[str, list[int]]] = {}
        for key, tensor in self.detector.output.items():
            shape = [-1 if side is None else int(side) for side in tensor.shape]
            found[key] = ("INT32" if key == "labels" else "FP32", shape)
        return {**found, "names": ("BYTES", found["scores"][1])}

    def inputs(self, signature: str = "serving_default") -> dict[str, tuple[str, list[int]]]:
        """A signature's inputs, likewise."""
        name, tensor = _PHOTOS[signature]
        boxes = {"proposals": ("FP32", [-1, -1, 4])} if self.wants_proposals else {}
        return {name: tensor, **boxes}


_PHOTOS = {"serving_default": ("image_bytes", ("BYTES", [-1])), "images": ("images", ("UINT8", [-1, -1, -1, 3]))}
SIGNATURES = tuple(_PHOTOS)
