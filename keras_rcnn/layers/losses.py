"""Losses as layers: each returns one loss per image [B], whose mean over the batch is minimised."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.ops import losses


@register
class RPNLoss(Float32Layer):
    """Objectness and box loss of the RPN (Faster R-CNN, eq. 1).

    Args:
        beta: smooth L1's transition, 1/9 (the paper's sigma = 3); 0 is L1.
        normalisation: `"sampled"`: both losses divided by the number of sampled anchors, as torchvision does;
            `"paper"`: L_cls by N_cls (the sampled anchors, 256), L_reg by N_box (the anchor locations, about 2,400);
            `"fixed"`: both by `count` an image, however few were sampled, as Detectron2 does.
        box_weight: lambda. With `"paper"` it is 10, which makes both terms weigh about the same.
        count: int, of `"fixed"`: what `RPNTargets` samples at most.

    Call with lists of logits [B, A_l] and deltas [B, A_l, 4], labels [B, A] and targets [B, A, 4]; returns a dict of
    `loss_objectness` and `loss_rpn_box_reg`, float32 [B].
    """

    def __init__(
        self,
        beta: float = 1.0 / 9,
        normalisation: Literal["sampled", "paper", "fixed"] = "sampled",
        box_weight: float | None = None,
        count: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "rpn_loss", **kwargs})
        if normalisation not in ("sampled", "paper", "fixed"):
            raise ValueError(f"RPNLoss's normalisation is 'sampled', 'paper' or 'fixed', not {normalisation!r}.")
        self.beta, self.normalisation, self.count = beta, normalisation, count
        self.box_weight = (10.0 if normalisation == "paper" else 1.0) if box_weight is None else box_weight

    def call(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], labels: Tensor, targets: Tensor, num_anchors: int
    ) -> dict[str, Tensor]:
        logits, deltas = ops.concatenate(logits, axis=1), ops.concatenate(deltas, axis=1)
        cells = ops.shape(logits)[1] / num_anchors
        cls, box = losses.rpn_losses(
            logits, deltas, labels, targets, self.beta, self.normalisation, self.box_weight, cells, self.count
        )
        return {"loss_objectness": cls, "loss_rpn_box_reg": box}

    def compute_output_spec(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], labels: Tensor, targets: Tensor, num_anchors: int
    ) -> dict[str, Tensor]:
        batch = logits[0].shape[0]
        return {"loss_objectness": spec(batch), "loss_rpn_box_reg": spec(batch)}

    def get_config(self) -> dict[str, Any]:
        config = {"beta": self.beta, "normalisation": self.normalisation, "box_weight": self.box_weight}
        return {**super().get_config(), **config, "count": self.count}


@register
class BoxLoss(Float32Layer):
    """Classification and box loss of the box head (Fast R-CNN, eq. 1).

    Args:
        beta: smooth L1's transition: 1/9 as torchvision, 1 as the paper, 0 (L1) as Detectron2.
        regression: `"smooth_l1"` of the deltas, or `"giou"`: 1 - GIoU of the boxes (Rezatofighi et al. 2019, alg. 2).
        box_weight: what the box loss is multiplied by. GIoU's is small beside the other loss: mmdetection takes 10.
        focal_gamma: 0 for cross-entropy, above it for the focal loss of the softmax (Lin et al. 2017, eq. 4; 2 there).
        class_weights: K + 1 floats, background last, by the true class of a region: see
            `keras_rcnn.ops.losses.class_balanced_weights`. None: all count alike.
        weights: factors of the deltas, as in `BoxTargets`, for `"giou"`.

    Call with logits [B, S, K + 1], deltas [B, S, K or 1, 4], the dict of `BoxTargets`, and `weights` where these deltas
    have other factors; returns a dict of `loss_classifier` and `loss_box_reg`, float32 [B].
    """

    def __init__(
        self,
        beta: float = 1.0 / 9,
        regression: Literal["smooth_l1", "giou"] = "smooth_l1",
        box_weight: float = 1.0,
        focal_gamma: float = 0.0,
        class_weights: Sequence[float] | None = None,
        weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "box_loss", **kwargs})
        if regression not in ("smooth_l1", "giou"):
            raise ValueError(f"BoxLoss's regression is 'smooth_l1' or 'giou', not {regression!r}.")
        self.regression: Literal["smooth_l1", "giou"] = regression
        self.beta, self.box_weight = beta, box_weight
        self.focal_gamma = focal_gamma
        self.class_weights = None if class_weights is None else tuple(class_weights)
        self.weights_of_deltas = tuple(weights)

    def call(
        self,
        logits: Tensor,
        deltas: Tensor,
        targets: Mapping[str, Tensor],
        weights: Sequence[float] | None = None,
    ) -> dict[str, Tensor]:
        cls, box = losses.box_losses(
            logits,
            deltas,
            targets["labels"],
            targets["deltas"],
            self.beta,
            regression=self.regression,
            boxes=targets.get("boxes"),
            weights=weights or self.weights_of_deltas,
            focal_gamma=self.focal_gamma,
            class_weights=self.class_weights,
        )
        return {"loss_classifier": cls, "loss_box_reg": box if self.box_weight == 1 else self.box_weight * box}

    def compute_output_spec(
        self,
        logits: Tensor,
        deltas: Tensor,
        targets: Mapping[str, Tensor],
        weights: Sequence[float] | None = None,
    ) -> dict[str, Tensor]:
        return {"loss_classifier": spec(logits.shape[0]), "loss_box_reg": spec(logits.shape[0])}

    def get_config(self) -> dict[str, Any]:
        config = {
            "beta": self.beta,
            "regression": self.regression,
            "box_weight": self.box_weight,
            "focal_gamma": self.focal_gamma,
            "class_weights": self.class_weights,
            "weights": self.weights_of_deltas,
        }
        return {**super().get_config(), **config}


@register
class MaskLoss(Float32Layer):
    """The mask branch's loss (Mask R-CNN, section 3): BCE on the true class's mask, positive regions only.

    Call with logits [B, P, M, M, K or 1] and the dict of `MaskTargets`; returns a dict of `loss_mask`, float32 [B], 0
    for a batch without positive regions.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"name": "mask_loss", **kwargs})

    def call(self, logits: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"]
        return {"loss_mask": losses.mask_loss(logits, ops.maximum(labels, 0), targets["masks"], labels >= 0)}

    def compute_output_spec(self, logits: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss_mask": spec(logits.shape[0])}
