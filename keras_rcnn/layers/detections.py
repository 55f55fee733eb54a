"""From class logits and deltas to the final detections."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops.losses import of_class
from keras_rcnn.ops.nms import multiclass_nms, multiclass_soft_nms


@register
class DetectionDecoder(Float32Layer):
    """Softmax, class-specific boxes, score threshold, NMS per class, the best of all (Fast R-CNN, section 2.3).

    Args:
        score_threshold: detections at or below it are dropped.
        iou_threshold: of the NMS within a class.
        max_detections: int D, the most kept in an image.
        min_size: boxes with a shorter side, in pixels, are dropped.
        weights: factors of the deltas, as in `BoxTargets`.
        soft_nms: None for greedy NMS; `"linear"` or `"gaussian"` for soft-NMS (Bodla et al. 2017, section 3), which
            lowers the scores of boxes that overlap better ones. Its `score_threshold` should be low: the paper's
            detectors keep what is above 0.001.
        sigma: of `"gaussian"`; the paper's is 0.5.

    Call with logits [B, R, K + 1] (background last), deltas [B, R, K or 1, 4], proposals [B, R, 4] (zeros are padding)
    and image sizes [B, 2]; returns a dict `boxes` [B, D, 4] in the preprocessed image's pixels, `scores` [B, D],
    `labels` int32 [B, D], best first, padded with label -1.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
        min_size: float = 1e-2,
        weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        soft_nms: Literal["linear", "gaussian"] | None = None,
        sigma: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "detections", **kwargs})
        if soft_nms not in (None, "linear", "gaussian"):
            raise ValueError(f"{type(self).__name__}'s soft_nms is None, 'linear' or 'gaussian', not {soft_nms!r}.")
        self.soft_nms: Literal["linear", "gaussian"] | None = soft_nms
        self.sigma = sigma
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections, self.min_size, self.weights_of_deltas = max_detections, min_size, tuple(weights)

    def call(self, logits: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.candidates(logits, deltas, proposals, image_sizes)
        most = self.max_detections
        limits = self.iou_threshold, self.score_threshold, most
        if self.soft_nms is None:
            boxes, scores, labels = multiclass_nms(boxes, scores, *limits, most)
        else:
            boxes, scores, labels = multiclass_soft_nms(boxes, scores, *limits, self.soft_nms, self.sigma)
        return {"boxes": boxes, "scores": scores, "labels": labels}

    def candidates(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The detections before the score threshold and NMS, called as the layer is.

        Returns:
            `(boxes, scores)`, [B, R, K or 1, 4] and [B, R, K], a row for each proposal; what takes no part scores -1.
        """
        boxes = delta_ops.decode(deltas, proposals[:, :, None], self.weights_of_deltas)
        boxes = box_ops.clip(boxes, image_sizes[:, None])
        valid = ops.logical_and(box_ops.at_least(boxes, self.min_size), box_ops.area(proposals)[..., None] > 0)
        return boxes, ops.where(valid, self.scores(logits), -1.0)

    def scores(self, logits: Tensor) -> Tensor:
        """Logits [B, R, K + 1] -> the classes' scores [B, R, K]."""
        return ops.softmax(logits, axis=-1)[..., :-1]

    def compute_output_spec(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: Tensor
    ) -> dict[str, Tensor]:
        batch, count = logits.shape[0], self.max_detections
        return {
            "boxes": spec(batch, count, 4),
            "scores": spec(batch, count),
            "labels": spec(batch, count, dtype="int32"),
        }

    def get_config(self) -> dict[str, Any]:
        config = {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "min_size": self.min_size,
            "weights": self.weights_of_deltas,
            "soft_nms": self.soft_nms,
            "sigma": self.sigma,
        }
        return {**super().get_config(), **config}


@register
class MaskDecoder(Float32Layer):
    """Adds to the detections the mask of each one's own class.

    Call with the dict of `DetectionDecoder` and mask logits [B, D, M, M, K or 1] of its boxes; returns the dict with
    `masks` float32 [B, D, M, M], probabilities in the box.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"name": "masks", **kwargs})

    def call(self, detections: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        chosen = of_class(ops.moveaxis(logits, -1, 2), detections["labels"])
        return {**detections, "masks": ops.sigmoid(chosen)}

    def compute_output_spec(self, detections: Mapping[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        same = {k: spec(*v.shape, dtype=v.dtype) for k, v in detections.items()}
        return {**same, "masks": spec(*logits.shape[:4])}
