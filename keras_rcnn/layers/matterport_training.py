"""What Matterport's Mask_RCNN is trained on: its targets and losses; see `keras_rcnn.ops.matterport`.

Shapes: B images, A anchors, R regions, G ground-truth boxes, S sampled regions, P of them positive, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register
from keras_rcnn.layers.losses import BoxLoss, MaskLoss, RPNLoss
from keras_rcnn.layers.matterport import WEIGHTS
from keras_rcnn.layers.targets import BoxTargets, MaskTargets, RPNTargets
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import matterport
from keras_rcnn.ops.losses import binary_crossentropy, crossentropy, normalise, of_class, smooth_l1
from keras_rcnn.ops.sampling import sample

# the logits of the probabilities that Keras 2 keeps to, 1e-7 and 1 - 1e-7, which in float32 is 1 - 1.19e-7
_LOGITS = -16.118, 15.942


@register
class MatterportRPNTargets(RPNTargets):
    """`RPNTargets` with the deltas divided by their standard deviations.

    Args:
        count: anchors sampled an image (RPN_TRAIN_ANCHORS_PER_IMAGE).
        shuffle: False samples the first in index order.
        seed: int, for a reproducible choice.

    Call with the list of anchors [A_l, 4], boxes [B, G, 4], labels [B, G] and image sizes [B, 2]; returns
    `(labels, deltas)`: int32 [B, A] (1, 0, and -1 for what is not sampled) and float32 [B, A, 4].
    """

    def __init__(self, count: int = 256, shuffle: bool = True, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(count=count, shuffle=shuffle, seed=seed, **kwargs)

    def call(self, anchors: Sequence[Tensor], boxes: Tensor, labels: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        chosen, deltas = super().call(anchors, boxes, labels, image_sizes)
        return chosen, deltas * ops.convert_to_tensor(WEIGHTS)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("foreground", "background", "positive_fraction", "border", "guard"):
            del config[key]
        return config


@register
class MatterportRPNLoss(RPNLoss):
    """Cross-entropy over the sampled anchors, and smooth L1 over the numbers of the positive ones' deltas.

    Call as `RPNLoss`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def call(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], labels: Tensor, targets: Tensor, num_anchors: int
    ) -> dict[str, Tensor]:
        positive, sampled = (ops.cast(which, "float32") for which in (labels == 1, labels >= 0))
        cls = binary_crossentropy(ops.concatenate(logits, axis=1), positive) * sampled
        box = ops.sum(smooth_l1(ops.concatenate(deltas, axis=1) - targets), axis=-1) * positive
        return {
            "loss_objectness": normalise(ops.sum(cls, axis=1), ops.sum(sampled, axis=1)),
            "loss_rpn_box_reg": normalise(ops.sum(box, axis=1), 4 * ops.sum(positive, axis=1)),
        }

    def get_config(self) -> dict[str, Any]:
        return Float32Layer.get_config(self)


@register
class MatterportBoxTargets(BoxTargets):
    """`BoxTargets` in Matterport's way: no ground truth among the proposals, and of negatives no more than keep the
    share of the positives: few positives leave room.

    Args:
        num_classes: int K.
        count: regions an image, S (TRAIN_ROIS_PER_IMAGE).
        positive_fraction: the share of positives (ROI_POSITIVE_RATIO).
        shuffle: False samples the first in index order.
        seed: int, for a reproducible choice.

    Call with proposals [B, R, 4] (zeros are padding), boxes [B, G, 4] and labels [B, G]; returns the dict of
    `BoxTargets`.
    """

    def __init__(
        self,
        num_classes: int,
        count: int = 200,
        positive_fraction: float = 0.33,
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, count, positive_fraction, shuffle=shuffle, seed=seed, **kwargs)

    def call(self, proposals: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        exists = ops.any(proposals != 0, axis=-1)
        proposals = matterport.to_centres(ops.stop_gradient(proposals))
        boxes = matterport.to_centres(ops.cast(boxes, "float32"))
        iou = ops.where(labels[..., None] >= 0, box_ops.iou(boxes, proposals), -1.0)
        best, truth = ops.max(iou, axis=1), ops.cast(ops.argmax(iou, axis=1), "int32")
        positive = ops.logical_and(exists, best >= self.foreground)
        negative = ops.logical_and(exists, best < self.foreground)
        positive, negative = sample(
            positive, negative, self.count, self.positive_fraction, self.seed_generator, fill=False
        )
        sampled = self.collected(proposals, boxes, labels, truth, positive, negative)
        return {**sampled, "boxes": matterport.to_pixels(sampled["boxes"], sampled["labels"] >= 0)}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("foreground", "background", "add_truth", "weights"):
            del config[key]
        return config


@register
class MatterportBoxLoss(BoxLoss):
    """Cross-entropy over all S regions, empty ones as background, and smooth L1 over the numbers of the positive ones'
    deltas.

    Args:
        inactive: labels of the classes that the images' data set does not have: regions that are *taken for* one of
            them do not count.

    Call as `BoxLoss`.
    """

    def __init__(self, inactive: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inactive = tuple(inactive)

    def call(self, logits: Tensor, deltas: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        background = logits.shape[-1] - 1
        labels = ops.where(targets["labels"] < 0, background, targets["labels"])
        counted = ops.ones_like(labels, dtype="float32")
        if self.inactive:
            taken_for = ops.argmax(logits, axis=-1)[..., None]
            out = ops.any(taken_for == ops.convert_to_tensor(self.inactive, dtype=taken_for.dtype), axis=-1)
            counted = ops.where(out, 0.0, counted)
        cls = crossentropy(logits, labels) * counted
        positive = ops.cast(labels < background, "float32")
        box = ops.sum(smooth_l1(of_class(deltas, labels) - targets["deltas"]), axis=-1) * positive
        return {
            "loss_classifier": normalise(ops.sum(cls, axis=1), ops.sum(counted, axis=1)),
            "loss_box_reg": normalise(ops.sum(box, axis=1), 4 * ops.sum(positive, axis=1)),
        }

    def get_config(self) -> dict[str, Any]:
        return {**Float32Layer.get_config(self), "inactive": self.inactive}


@register
class MatterportMaskTargets(MaskTargets):
    """`MaskTargets` with one sample a cell, the outermost on the region's edges, rounded to 0 or 1.

    Args:
        num_classes: int K.
        count: int P, the most positive regions an image: `MatterportBoxTargets.most_positive`.
        size: int M, side of the targets (MASK_SHAPE).

    Call as `MaskTargets`. Matterport's own masks are of 56 x 56 px (MINI_MASK_SHAPE): `batches(mask_size=56)`.
    """

    def __init__(self, num_classes: int, count: int, size: int = 28, **kwargs: Any) -> None:
        super().__init__(num_classes, count, size, **kwargs)

    def cropped(self, masks: Tensor, frames: Tensor, boxes: Tensor) -> Tensor:
        batch, count, rows, columns = (ops.shape(masks)[i] for i in range(4))
        boxes, frames = matterport.to_centres(boxes), matterport.to_centres(frames)
        extent = ops.maximum(frames[..., 2:] - frames[..., :2], 1e-6)
        shares = (boxes - ops.concatenate([frames[..., :2]] * 2, -1)) / ops.concatenate([extent, extent], -1)
        maps = ops.reshape(ops.cast(masks, "float32"), (batch * count, rows, columns, 1))
        one = ops.zeros((batch * count, 1), dtype="int32")
        # the frame is the image, of sides 1 from centre to centre
        crops = matterport.multilevel_crop_and_resize([maps], ops.reshape(shares, (-1, 1, 4)), one, (2, 2), self.size)
        return ops.round(ops.reshape(crops, (batch, count, self.size, self.size)))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["aligned"]
        return config


@register
class MatterportMaskLoss(MaskLoss):
    """`MaskLoss` of probabilities that are kept 1e-7 from 0 and 1, as Keras 2 keeps them.

    Call as `MaskLoss`.
    """

    def call(self, logits: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().call(ops.clip(logits, *_LOGITS), targets)
