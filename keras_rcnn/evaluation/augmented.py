"""Test-time augmentation: a detector that looks at each photo several times, mirrored and at several sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.images import read_image
from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.data.paste import pasted
from keras_rcnn.data.request import check_number, check_request, check_whole
from keras_rcnn.interfaces import Detections, MaskForm
from keras_rcnn.skeletons import Skeleton

_AXES: dict[str | None, int] = {"horizontal": 1, "vertical": 0}


class AugmentedDetector:
    """A detector's detections on a photo, on mirror images of it and at several sizes, merged.

    Boxes and masks of every view are mapped back to the photo; of those of one class that overlap, NMS keeps the best
    with its own mask. It detects as the detector does, so that `keras_rcnn.evaluate` takes it, in as many times the
    time as there are views: `len(sizes) * (1 + len(flips))`.

    Args:
        model: a `Detector`.
        flips: names among `"horizontal"` and `"vertical"`: mirror images that are looked at besides.
        sizes: shorter sides in pixels that photos are resized to, each as in `Detector.detect(size=...)`; None among
            them, or instead of them, is the preprocessor's own.
        iou_threshold: of the NMS over all views, within a class.
        max_detections: int, the most kept for a photo.

    Raises:
        ValueError: for arguments that are not as above.

    Example:

    >>> careful = keras_rcnn.evaluation.AugmentedDetector(model, sizes=(400, 600))
    >>> careful.detect("photo.jpg", score=0.5)["boxes"]
    >>> keras_rcnn.evaluate(careful, dataset)
    """

    def __init__(
        self,
        model: Any,
        flips: Sequence[str] = ("horizontal",),
        sizes: Sequence[int | None] | None = None,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        flips = (flips,) if isinstance(flips, str) else tuple(flips)
        for flip in flips:
            if flip not in _AXES:
                raise ValueError(f"flips are among {', '.join(map(repr, _AXES))}, not {flip!r}.")
        self.sizes = (None,) if sizes is None else tuple(sizes)
        for size in self.sizes:
            if size is not None:
                check_whole("sizes", size, "shorter sides of photos in pixels")
        if not self.sizes:
            raise ValueError("sizes are at least one, or None for the preprocessor's own, not ().")
        check_number("iou_threshold", iou_threshold, 0, 1)
        check_whole("max_detections", max_detections)
        self.model, self.flips = model, tuple(dict.fromkeys(flips))
        self.iou_threshold, self.max_detections = iou_threshold, max_detections

    @property
    def class_names(self) -> list[str]:
        return self.model.class_names

    @property
    def has_masks(self) -> bool | None:
        """Whether detections have masks."""
        return self.model.has_masks

    @property
    def wants_proposals(self) -> bool | None:
        """Whether proposals come from outside."""
        return self.model.wants_proposals

    def detect(
        self,
        images: Any,
        score: float | None = None,
        batch_size: int | None = None,
        masks: MaskForm = True,
        *,
        proposals: Any = None,
    ) -> Any:
        """Finds the objects in a photo, or in each of a list of photos.

        Args:
            images, score, batch_size, masks, proposals: as in `Detector.detect`. Without proposals, a detector that
                wants them searches every view anew.

        Returns:
            As `Detector.detect`.
        """
        many = isinstance(images, (list, tuple))
        finder = None if self.wants_proposals else type(self.model).__name__
        images, proposals = check_request(
            images,
            score=0.5 if score is None else score,
            batch_size=batch_size,
            masks=masks,
            proposals=proposals,
            finder=finder,
        )
        step, answers = int(batch_size or 1), []
        for start in range(0, len(images), step):
            photos = [read_image(image) for image in images[start : start + step]]
            regions = None if proposals is None else proposals[start : start + step]
            views = [
                self._view(photos, regions, flip, size, score, step, masks)
                for size in self.sizes
                for flip in (None, *self.flips)
            ]
            for photo, *found in zip(photos, *views, strict=True):
                answers.append(self._merged(found, photo.shape[:2], masks))
        return answers if many else answers[0]

    def _view(
        self,
        photos: list[np.ndarray],
        regions: Sequence[ArrayLike] | None,
        flip: str | None,
        size: int | None,
        score: float | None,
        batch_size: int,
        masks: MaskForm,
    ) -> list[Any]:
        """The detections on one view of each photo, in the photos' own pixels, masks as crops."""
        options: dict[str, Any] = {} if size is None else {"size": size}
        if self.has_masks is not False:
            options["masks"] = "crops" if masks else False
        axis = _AXES.get(flip)
        seen = photos if axis is None else [np.ascontiguousarray(np.flip(photo, axis)) for photo in photos]
        if regions is not None:
            options["proposals"] = [_mirrored(own, photo, axis) for own, photo in zip(regions, photos, strict=True)]
        views = self.model.detect(seen, score=score, batch_size=batch_size, **options)
        if axis is None:
            return views
        back = []
        for own, photo in zip(views, photos, strict=True):
            own = {**own, "boxes": _mirrored(own["boxes"], photo, axis)}
            if "masks" in own:
                own["masks"] = np.flip(own["masks"], axis + 1)
            if "keypoints" in own:
                points = own["keypoints"][:, list(self._skeleton(own["keypoints"]).mirrored)]
                points[..., 1 - axis] = photo.shape[axis] - points[..., 1 - axis]
                own["keypoints"] = points
            back.append(own)
        return back

    def _skeleton(self, keypoints: np.ndarray) -> Skeleton:
        return getattr(self.model, "skeleton", None) or Skeleton.of(keypoints.shape[1])  # a served one has none

    def _merged(self, views: Sequence[Any], size: tuple[int, int], masks: MaskForm) -> Detections:
        """The detections of all views, best first, without those that overlap a better one of their class."""
        joined = {key: np.concatenate([view[key] for view in views]) for key in views[0] if key != "names"}
        names = [name for view in views for name in view["names"]]
        order, kept = np.argsort(-joined["scores"], kind="stable"), []
        labels, boxes = joined["labels"], joined["boxes"]
        for i in order.tolist():
            if len(kept) == self.max_detections:
                break
            rivals = [j for j in kept if labels[j] == labels[i]]
            if not rivals or pairwise_iou(boxes[i : i + 1], boxes[rivals]).max() <= self.iou_threshold:
                kept.append(i)
        answer: Any = {key: values[kept] for key, values in joined.items()}
        answer["names"] = [names[i] for i in kept]
        if "masks" in answer:
            by = getattr(getattr(self.model, "preprocessor", None), "pasted", pasted)  # a served one has none
            answer["masks"] = by(answer["masks"], answer["boxes"], size, masks)
        return answer


def _mirrored(boxes: ArrayLike, photo: np.ndarray, axis: int | None) -> np.ndarray:
    """Boxes [n, 4] in a mirror image of a photo, and back."""
    boxes = np.asarray(boxes, np.float32)
    if axis is None:
        return boxes
    side, low, high = photo.shape[axis], 1 - axis, 3 - axis
    mirrored = boxes.copy()
    mirrored[:, low], mirrored[:, high] = side - boxes[:, high], side - boxes[:, low]
    return mirrored
