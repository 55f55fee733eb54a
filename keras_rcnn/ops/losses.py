"""Losses: elementwise functions, and the reductions of the R-CNN family.

Every reduction gives one loss per image, [B], scaled so that the mean over the (global) batch is the batch's loss:
that keeps torchvision's normalisation, which counts samples over the whole batch, and the same step on any number of
replicas.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend.replicas import global_sum
from keras_rcnn.ops.boxes import paired_iou
from keras_rcnn.ops.deltas import decode


def smooth_l1(error: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 of an error [...]: 0.5 e^2 / beta within `beta`, |e| - beta / 2 outside (Fast R-CNN, eq. 3).

    The RPN's sigma = 3 is beta = 1/9; beta = 0 is L1.
    """
    size = ops.abs(error)
    if beta == 0:  # the quotient's gradient would be NaN, although nothing of it is taken
        return size
    return ops.where(size < beta, 0.5 * ops.square(error) / beta, size - 0.5 * beta)


def binary_crossentropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid cross-entropy [...] of logits and targets in [0, 1], stable for any logit."""
    return ops.maximum(logits, 0.0) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))


def crossentropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy [...] of logits [..., C] and int labels [...]."""
    return -ops.take_along_axis(ops.log_softmax(logits, axis=-1), labels[..., None], axis=-1)[..., 0]


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss [...] (Lin et al. 2017, eq. 5)."""
    probability = ops.sigmoid(logits)
    of_truth = probability * targets + (1 - probability) * (1 - targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * binary_crossentropy(logits, targets) * (1 - of_truth) ** gamma


def softmax_focal(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss [...] of softmax logits [..., C] and int labels [...]: -(1 - p)^gamma log(p) (Lin et al. 2017, eq. 4).

    `gamma=0` is `crossentropy`.
    """
    cost = crossentropy(logits, labels)
    if not gamma:
        return cost
    missing = ops.maximum(1.0 - ops.exp(-cost), 1e-7)  # above 0: the power has no gradient there for gamma < 1
    return missing**gamma * cost


def class_balanced_weights(counts: ArrayLike, beta: float = 0.999) -> tuple[float, ...]:
    """Weights of classes by their effective number of objects (Cui et al. 2019, eq. 2 and section 4.1).

    (1 - beta) / (1 - beta^n) for a class of n objects, times a factor that makes their mean 1.

    Args:
        counts: [K], how many objects of each class there are. A class without any has the weight 1.
        beta: from 0 (all alike) to below 1 (by 1 / n); the paper takes 0.9 to 0.9999.

    Returns:
        K floats.

    Example:

    >>> class_balanced_weights([1000, 10], beta=0.99)
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is a number from 0 to below 1, not {beta!r}.")
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    weights = np.ones_like(counts)
    weights[present] = (1 - beta) / (1 - beta ** counts[present])
    weights[present] /= weights[present].mean() if present.any() else 1.0
    return tuple(weights.tolist())


def normalise(sums: Tensor, counts: Tensor) -> Tensor:
    """Losses per image whose mean over the global batch is `sum(sums) / max(sum(counts), 1)`.

    Args:
        sums: float32 [B], summed losses of each image of this replica.
        counts: float32 [B], what to divide by.

    Returns:
        float32 [B].
    """
    images = ops.cast(ops.shape(sums)[0], "float32")
    both = global_sum(ops.stack([images, ops.sum(ops.cast(counts, "float32"))]))
    return sums * both[0] / ops.maximum(both[1], 1.0)


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    beta: float = 1.0 / 9,
    normalisation: str = "sampled",
    box_weight: float = 1.0,
    cells: int | None = None,
    count: int = 256,
) -> tuple[Tensor, Tensor]:
    """The RPN's two losses (Faster R-CNN, eq. 1).

    Args:
        logits: float32 [B, A] objectness.
        deltas: float32 [B, A, 4].
        labels: int32 [B, A]: 1 positive, 0 negative, -1 not sampled.
        targets: float32 [B, A, 4].
        beta: smooth L1's transition.
        normalisation: `"sampled"`: both are divided by the batch's number of sampled anchors (torchvision);
            `"fixed"`: by `count` an image (Detectron2);
            `"paper"`: L_cls by the samples of an image (N_cls, 256) and L_reg by the number of anchor locations
            (N_box, about 2,400), times lambda = `box_weight`.
        box_weight: lambda; the paper's is 10.
        cells: int, the number of anchor locations, for `"paper"`.
        count: int, for `"fixed"`.

    Returns:
        `(objectness, boxes)`: each [B].
    """
    sampled = ops.cast(labels >= 0, "float32")
    positive = ops.cast(labels == 1, "float32")
    cls = ops.sum(binary_crossentropy(logits, positive) * sampled, axis=1)
    box = ops.sum(ops.sum(smooth_l1(deltas - targets, beta), axis=-1) * positive, axis=1)
    counts = ops.sum(sampled, axis=1)
    if normalisation == "sampled":
        return normalise(cls, counts), box_weight * normalise(box, counts)
    if normalisation == "fixed":
        return cls / count, box_weight * box / count
    return cls / ops.maximum(counts, 1.0), box_weight * box / ops.cast(cells, "float32")


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    beta: float = 1.0 / 9,
    *,
    regression: Literal["smooth_l1", "giou"] = "smooth_l1",
    boxes: Tensor | None = None,
    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    focal_gamma: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """The box head's two losses (Fast R-CNN, eq. 1): L_cls + [u >= 1] L_loc.

    Args:
        logits: float32 [B, R, K + 1], background last.
        deltas: float32 [B, R, K, 4], class-specific, or [B, R, 1, 4].
        labels: int32 [B, R]: the class, K for background, -1 for no RoI.
        targets: float32 [B, R, 4].
        beta: smooth L1's transition; the paper's is 1, torchvision's 1/9.
        regression: `"smooth_l1"` of the deltas, or `"giou"`: 1 - GIoU of the boxes (Rezatofighi et al. 2019, alg. 2).
        boxes: float32 [B, R, 4], the regions, for `"giou"`.
        weights: factors of the deltas, for `"giou"`.
        focal_gamma: of `softmax_focal`; 0 is cross-entropy.
        class_weights: K + 1 floats, background last: what a region's classification counts by its true class.

    Returns:
        `(classification, boxes)`: each [B], divided by the number of sampled regions.
    """
    counts = ops.sum(ops.cast(labels >= 0, "float32"), axis=1)
    cls = classification_loss(logits, labels, focal_gamma, class_weights)
    positive = ops.logical_and(labels >= 0, labels < logits.shape[-1] - 1)
    own = of_class(deltas, labels)
    if regression == "giou":
        each = 1.0 - paired_iou(decode(own, boxes, weights), decode(targets, boxes, weights), "giou")
    else:
        each = ops.sum(smooth_l1(own - targets, beta), axis=-1)
    box = ops.sum(ops.where(positive, each, 0.0), axis=1)
    return cls, normalise(box, counts)


def classification_loss(
    logits: Tensor, labels: Tensor, focal_gamma: float = 0.0, class_weights: Sequence[float] | None = None
) -> Tensor:
    """The loss of the regions' classes: [B], divided by the number of sampled regions.

    Args:
        logits: float32 [B, R, K + 1], background last.
        labels: int32 [B, R]: the class, K for background, -1 for no RoI.
        focal_gamma, class_weights: as in `box_losses`.
    """
    sampled = ops.cast(labels >= 0, "float32")
    safe = ops.where(labels < 0, logits.shape[-1] - 1, labels)
    each = softmax_focal(logits, safe, focal_gamma) * sampled
    if class_weights is not None:
        each = each * ops.take(ops.convert_to_tensor(class_weights, dtype="float32"), safe, axis=0)
    return normalise(ops.sum(each, axis=1), ops.sum(sampled, axis=1))


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """Picks each region's own class: [B, R, K, ...] and labels [B, R] -> [B, R, ...]. K = 1 is class-agnostic."""
    if values.shape[2] == 1:
        return values[:, :, 0]
    index = ops.clip(labels, 0, values.shape[2] - 1)
    index = ops.reshape(index, (*ops.shape(labels), *(1,) * (len(values.shape) - 2)))
    return ops.take_along_axis(values, index, axis=2)[:, :, 0]


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """The mask head's loss (Mask R-CNN, section 3): BCE on the true class's mask, positive RoIs only.

    Args:
        logits: float32 [B, R, M, M, K] or with K = 1.
        labels: int32 [B, R].
        targets: float32 [B, R, M, M] in [0, 1].
        positive: bool [B, R].

    Returns:
        [B]; 0, and no NaN, where nothing is positive.
    """
    chosen = of_class(ops.moveaxis(logits, -1, 2), labels)
    each = ops.mean(binary_crossentropy(chosen, targets), axis=(2, 3))
    positive = ops.cast(positive, "float32")
    return normalise(ops.sum(each * positive, axis=1), ops.sum(positive, axis=1))
