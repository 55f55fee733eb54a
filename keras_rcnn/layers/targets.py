"""What the RPN and the box head should have said: ground truth assigned to anchors and proposals.

Shapes: B images, A anchors, P proposals, G ground-truth boxes (label -1 = padding), S sampled regions, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops.masks import crop_masks
from keras_rcnn.ops.matching import BACKGROUND, match
from keras_rcnn.ops.sampling import sample, select


class _Sampler(Float32Layer):
    """Targets that are sampled at random, or in index order with `shuffle=False`."""

    def __init__(self, shuffle: bool = True, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shuffle, self.seed = shuffle, seed
        self.seed_generator = keras.random.SeedGenerator(seed) if shuffle else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shuffle": self.shuffle, "seed": self.seed}


def _iou_with_padding(boxes: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """IoU [B, G, N]; -1 in the rows of padding."""
    return ops.where(labels[..., None] >= 0, box_ops.iou(boxes, others), -1.0)


@register
class RPNTargets(_Sampler):
    """Labels and deltas for anchors (Faster R-CNN, section 3.1.2), 256 of them sampled an image.

    Args:
        foreground: IoU from which an anchor is positive.
        background: IoU below which it is negative.
        count: anchors sampled an image.
        positive_fraction: the most of them that are positive.
        border: anchors that reach farther than this many pixels outside the image are ignored (the paper: 0); None
            uses all anchors, as FPN and torchvision do.
        guard: see `keras_rcnn.ops.matching.match`.
        shuffle: False samples the first in index order.
        seed: int, for a reproducible choice.

    Call with the list of anchors [A_l, 4], boxes [B, G, 4], labels [B, G] and image sizes [B, 2]; returns
    `(labels, deltas)`: int32 [B, A] (1, 0, and -1 for what is not sampled) and float32 [B, A, 4].
    """

    def __init__(
        self,
        foreground: float = 0.7,
        background: float = 0.3,
        count: int = 256,
        positive_fraction: float = 0.5,
        border: float | None = None,
        guard: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "rpn_targets", **kwargs})
        self.foreground, self.background, self.count = foreground, background, count
        self.positive_fraction, self.border, self.guard = positive_fraction, border, guard

    def call(self, anchors: Any, boxes: Tensor, labels: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        anchors = ops.concatenate(anchors, axis=0)
        boxes, labels = box_ops.without_padding(boxes, labels)
        iou = _iou_with_padding(boxes, labels, anchors[None])
        inside = None
        if self.border is not None:
            low = ops.all(anchors[:, :2] >= -self.border, axis=-1)
            limit = ops.flip(image_sizes, axis=1)[:, None] + self.border
            inside = ops.logical_and(low[None], ops.all(anchors[None, :, 2:] <= limit, axis=-1))
            iou = ops.where(inside[:, None], iou, -1.0)
        matched = match(iou, self.foreground, self.background, low_quality=True, guard=self.guard)
        negative = matched == BACKGROUND
        if inside is not None:
            negative = ops.logical_and(negative, inside)
        positive, negative = sample(matched >= 0, negative, self.count, self.positive_fraction, self.seed_generator)
        own = ops.take_along_axis(boxes, ops.maximum(matched, 0)[..., None], axis=1)
        targets = ops.where(positive[..., None], delta_ops.encode(own, anchors[None]), 0.0)
        return ops.where(positive, 1, ops.where(negative, 0, -1)), targets

    def compute_output_spec(
        self, anchors: Sequence[Tensor], boxes: Tensor, labels: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        return spec(boxes.shape[0], None, dtype="int32"), spec(boxes.shape[0], None, 4)

    def get_config(self) -> dict[str, Any]:
        config = {
            "foreground": self.foreground,
            "background": self.background,
            "count": self.count,
            "positive_fraction": self.positive_fraction,
            "border": self.border,
            "guard": self.guard,
        }
        return {**super().get_config(), **config}


@register
class BoxTargets(_Sampler):
    """Samples regions for the box head and says what they are (Fast R-CNN, section 2.3).

    Args:
        num_classes: int K.
        count: regions sampled an image, S.
        positive_fraction: the most of them that are positive.
        foreground: IoU from which a region is positive.
        background: `(low, high)`: a region with low <= IoU < high is background; the paper's is (0.1, 0.5).
        add_truth: whether ground-truth boxes are candidates too; without them a young RPN leaves nothing positive.
        weights: factors of the deltas.
        shuffle: False samples the first in index order.
        seed: int, for a reproducible choice.

    Call with proposals [B, P, 4] (zeros are padding), boxes [B, G, 4] and labels [B, G]; returns a dict:
    `boxes` [B, S, 4], `labels` int32 [B, S] (0..K-1, K background, -1 nothing there), `deltas` [B, S, 4], and `truth`
    int32 [B, S], the index of the ground-truth box. Positives come first.
    """

    def __init__(
        self,
        num_classes: int,
        count: int = 512,
        positive_fraction: float = 0.25,
        foreground: float = 0.5,
        background: tuple[float, float] = (0.0, 0.5),
        add_truth: bool = True,
        weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "box_targets", **kwargs})
        if foreground < background[1]:
            raise ValueError(f"BoxTargets' foreground={foreground} is below background's upper end, {background[1]}.")
        self.num_classes, self.count, self.positive_fraction = num_classes, count, positive_fraction
        self.foreground, self.background = foreground, tuple(background)
        self.add_truth, self.weights_of_deltas = add_truth, tuple(weights)

    @property
    def most_positive(self) -> int:
        """The largest number of positive regions an image."""
        return int(self.count * self.positive_fraction)

    def call(self, proposals: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        proposals, boxes = ops.stop_gradient(proposals), ops.cast(boxes, "float32")
        if self.add_truth:
            proposals = ops.concatenate([proposals, boxes], axis=1)
        iou = _iou_with_padding(boxes, labels, proposals)
        best = ops.max(iou, axis=1)
        truth = ops.cast(ops.argmax(iou, axis=1), "int32")
        exists = box_ops.area(proposals) > 0
        positive = ops.logical_and(exists, best >= self.foreground)
        # best is -1 without any ground truth: then everything is background, if that begins at 0
        negative = ops.logical_and(ops.maximum(best, 0.0) >= self.background[0], best < self.background[1])
        negative = ops.logical_and(exists, negative)
        positive, negative = sample(positive, negative, self.count, self.positive_fraction, self.seed_generator)
        return self.collected(proposals, boxes, labels, truth, positive, negative)

    def collected(
        self, proposals: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, positive: Tensor, negative: Tensor
    ) -> dict[str, Tensor]:
        """What the layer returns of the proposals chosen as positive and negative, bool [B, P]; `truth` [B, P]."""
        index, valid = select(positive, negative, self.count)

        def take(values: Tensor) -> Tensor:
            return ops.take_along_axis(values, index[..., None] if len(values.shape) == 3 else index, axis=1)

        rois, truth = ops.where(valid[..., None], take(proposals), 0.0), take(truth)
        is_positive = ops.logical_and(valid, take(positive))
        of_truth = ops.take_along_axis(ops.cast(labels, "int32"), truth, axis=1)
        roi_labels = ops.where(is_positive, of_truth, ops.where(valid, self.num_classes, -1))
        own = ops.take_along_axis(boxes, truth[..., None], axis=1)
        deltas = delta_ops.encode(own, rois, self.weights_of_deltas)
        deltas = ops.where(is_positive[..., None], deltas, 0.0)
        return {"boxes": rois, "labels": roi_labels, "deltas": deltas, "truth": truth}

    def compute_output_spec(self, proposals: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        batch = proposals.shape[0]
        return {
            "boxes": spec(batch, self.count, 4),
            "labels": spec(batch, self.count, dtype="int32"),
            "deltas": spec(batch, self.count, 4),
            "truth": spec(batch, self.count, dtype="int32"),
        }

    def get_config(self) -> dict[str, Any]:
        config = {
            "num_classes": self.num_classes,
            "count": self.count,
            "positive_fraction": self.positive_fraction,
            "foreground": self.foreground,
            "background": self.background,
            "add_truth": self.add_truth,
            "weights": self.weights_of_deltas,
        }
        return {**super().get_config(), **config}


@register
class MaskTargets(Float32Layer):
    """The mask of its object for each positive region (Mask R-CNN, section 3): the ground truth cut out by the region.

    Args:
        count: int P, the most positive regions an image: `BoxTargets.most_positive`.
        size: int M, side of the targets: twice the bins of the mask branch's RoIAlign.
        aligned: see `keras_rcnn.ops.masks.crop_masks`; False repeats torchvision.
        binary: whether targets are 0 and 1 as in Detectron2, 1 from a half of the cell on, and not anything between.

    Call with the dict of `BoxTargets` (positives first), masks [B, G, H, W] (uint8 or float) and their frames
    [B, G, 4]; returns a dict: `boxes` [B, P, 4], `labels` int32 [B, P] (0..K-1, -1 where the region is not positive),
    `masks` [B, P, M, M] in [0, 1].
    """

    def __init__(
        self, num_classes: int, count: int, size: int = 28, aligned: bool = True, binary: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"name": "mask_targets", **kwargs})
        self.binary = binary
        self.num_classes, self.count, self.size, self.aligned = num_classes, count, size, aligned
        self.autocast = False  # masks come as uint8

    def call(self, sampled: Mapping[str, Tensor], masks: Tensor, frames: Tensor) -> dict[str, Tensor]:
        boxes, labels, truth = (sampled[k][:, : self.count] for k in ("boxes", "labels", "truth"))
        labels = ops.where(labels < self.num_classes, labels, -1)
        masks = ops.take_along_axis(masks, truth[:, :, None, None], axis=1)
        frames = ops.take_along_axis(ops.cast(frames, "float32"), truth[..., None], axis=1)
        # a region without an object is cut like a whole mask: over another's small frame it would take many samples
        positive, whole = (labels >= 0)[..., None], ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        frames, cut = ops.where(positive, frames, whole), ops.where(positive, boxes, whole)
        targets = ops.stop_gradient(self.cropped(masks, frames, cut))
        return {"boxes": boxes, "labels": labels, "masks": targets}

    def cropped(self, masks: Tensor, frames: Tensor, boxes: Tensor) -> Tensor:
        """Masks [B, P, H, W] that lie in frames [B, P, 4], as boxes [B, P, 4] see them: [B, P, size, size]."""
        targets = crop_masks(masks, frames, boxes, self.size, self.aligned)
        return ops.cast(targets >= 0.5, "float32") if self.binary else targets

    def compute_output_spec(self, sampled: Mapping[str, Tensor], masks: Tensor, frames: Tensor) -> dict[str, Tensor]:
        batch, count = sampled["boxes"].shape[0], self.count
        return {
            "boxes": spec(batch, count, 4),
            "labels": spec(batch, count, dtype="int32"),
            "masks": spec(batch, count, self.size, self.size),
        }

    def get_config(self) -> dict[str, Any]:
        config = {"num_classes": self.num_classes, "count": self.count, "size": self.size, "aligned": self.aligned}
        return {**super().get_config(), **config, "binary": self.binary}
