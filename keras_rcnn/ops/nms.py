"""Greedy non-maximum suppression, with static output shapes."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import kernel
from keras_rcnn.ops.boxes import iou


def float32_below(threshold: float) -> float:
    """The largest float32 that is not above `threshold`.

    torchvision compares a float32 IoU with a float64 threshold: an IoU of float32(0.3) is above 0.3 and is suppressed,
    one of exactly 0.5 is kept. Comparing with this number gives the same answers in float32.
    """
    value = np.float32(threshold)
    return float(value if float(value) <= threshold else np.nextafter(value, np.float32(-np.inf)))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int) -> tuple[Tensor, Tensor]:
    """Greedy NMS of one set of boxes: a box goes if its IoU with a better one exceeds `iou_threshold`.

    Args:
        boxes: float32 [N, 4] xyxy.
        scores: float32 [N]; equal scores rank by index.
        iou_threshold: float in [0, 1].
        max_output: int, how many at most are kept.

    Returns:
        `(indices, count)`: int32 [max_output] best first, padded with 0, and the number of valid ones.
    """
    return kernel("nms", portable_nms)(boxes, scores, float32_below(iou_threshold), max_output)


def multiclass_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int, max_total: int
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS within each class, then the best over all classes. RPN proposals use it too, pyramid levels as the classes.

    Args:
        boxes: float32 [B, N, C, 4] xyxy, or [B, N, 1, 4] where all classes share their boxes.
        scores: float32 [B, N, C].
        iou_threshold: float in [0, 1].
        score_threshold: float; scores at or below it take no part (mark padding with such a score).
        max_per_class: int, the most kept in a class.
        max_total: int, the most kept in an image.

    Returns:
        `(boxes, scores, classes)`: [B, max_total, 4], [B, max_total] and int32 [B, max_total], best first; padding has
        class -1, score 0 and a box of zeros. Equal scores rank by class, then by index (TensorFlow's own kernel ranks
        them as its heap has them).
    """
    run = kernel("multiclass_nms", portable_multiclass_nms)
    return run(boxes, scores, float32_below(iou_threshold), score_threshold, min(max_per_class, max_total), max_total)


def multiclass_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    max_total: int,
    method: Literal["linear", "gaussian"] = "gaussian",
    sigma: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Soft-NMS within each class, then the best over all classes (Bodla et al. 2017, section 3).

    A box that overlaps a better one of its class is not dropped: its score is multiplied by 1 - IoU if the IoU exceeds
    `iou_threshold` (`"linear"`), or by exp(-IoU^2 / sigma) at any IoU (`"gaussian"`), for each better one.

    Args:
        boxes, scores, iou_threshold, score_threshold, max_total: as in `multiclass_nms`; the lowered scores, too, must
            be above the `score_threshold`.
        method: `"linear"` or `"gaussian"`.
        sigma: of `"gaussian"`.

    Returns:
        `(boxes, scores, classes)` as `multiclass_nms` has them, with the lowered scores.
    """
    boxes, scores, labels = _as_one(boxes, scores)
    if method == "linear":
        limit = float32_below(iou_threshold)

        def decay(overlap: Tensor) -> Tensor:
            return ops.where(overlap > limit, 1.0 - overlap, 1.0)
    else:

        def decay(overlap: Tensor) -> Tensor:
            return ops.exp(-ops.square(overlap) / sigma)

    best, index = _greedy_soft(boxes, scores, labels, decay, score_threshold, max_total)
    return _chosen(boxes, labels, best, index)


def portable_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int) -> tuple[Tensor, Tensor]:
    """`nms` in keras.ops alone."""
    _, index = _greedy(boxes[None], scores[None], None, iou_threshold, float("-inf"), max_output, max_output)
    valid = index[0] >= 0
    return ops.where(valid, index[0], 0), ops.sum(ops.cast(valid, "int32"))


def portable_multiclass_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int, max_total: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`multiclass_nms` in keras.ops alone: exact, with no cap on the candidates."""
    boxes, scores, labels = _as_one(boxes, scores)
    best, index = _greedy(boxes, scores, labels, iou_threshold, score_threshold, max_per_class, max_total)
    return _chosen(boxes, labels, best, index)


def _as_one(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [B, N, C or 1, 4] and scores [B, N, C] as [B, C * N, 4] and [B, C * N], with the classes [B, C * N]."""
    batch, count, classes = ops.shape(scores)[0], ops.shape(scores)[1], scores.shape[2]
    boxes = ops.transpose(ops.broadcast_to(boxes, (batch, count, classes, 4)), (0, 2, 1, 3))
    boxes = ops.reshape(boxes, (batch, -1, 4))
    labels = ops.broadcast_to(ops.arange(classes, dtype="int32")[:, None], (batch, classes, count))
    labels = ops.reshape(labels, (batch, -1))
    return boxes, ops.reshape(ops.transpose(scores, (0, 2, 1)), (batch, -1)), labels


def _chosen(boxes: Tensor, labels: Tensor, best: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    valid = index >= 0
    index = ops.maximum(index, 0)
    out = ops.take_along_axis(boxes, index[..., None], axis=1)
    return (
        ops.where(valid[..., None], out, 0.0),
        ops.where(valid, best, 0.0),
        ops.where(valid, ops.take_along_axis(labels, index, axis=1), -1),
    )


def _greedy_soft(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    decay: Callable[[Tensor], Tensor],
    score_threshold: float,
    max_total: int,
) -> tuple[Tensor, Tensor]:
    """Takes the best box left `max_total` times and multiplies the scores of the others of its class by `decay(IoU)`.

    Returns as `_greedy` does.
    """
    nothing = float(np.finfo(np.float32).min)  # finite: ONNX multiplies by 0 where it selects
    alive = ops.where(scores > score_threshold, scores, nothing)
    shape = (ops.shape(scores)[0], max_total)
    out_scores, out_index = ops.zeros(shape, "float32"), ops.full(shape, -1, "int32")
    slots = ops.arange(max_total)[None]
    positions = ops.arange(ops.shape(scores)[1], dtype="int32")[None]

    def step(i: Tensor, alive: Tensor, out_scores: Tensor, out_index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        score = ops.max(alive, axis=1, keepdims=True)
        # Keras's argmax has operators that LiteRT lacks
        index = ops.min(ops.where(alive == score, positions, ops.shape(scores)[1]), axis=1, keepdims=True)
        factor = decay(iou(ops.take_along_axis(boxes, index[..., None], axis=1), boxes)[:, 0])
        factor = ops.where(labels == ops.take_along_axis(labels, index, axis=1), factor, 1.0)
        lowered = ops.where(alive > nothing, alive, 0.0) * factor
        left = ops.logical_and(alive > nothing, positions != index)
        alive = ops.where(ops.logical_and(left, lowered > score_threshold), lowered, nothing)
        here = ops.logical_and(slots == i, score > nothing)
        return i + 1, alive, ops.where(here, score, out_scores), ops.where(here, index, out_index)

    state = (ops.convert_to_tensor(0, "int32"), alive, out_scores, out_index)
    state = ops.while_loop(lambda i, alive, *_: i < max_total, step, state, maximum_iterations=max_total)
    return state[2], state[3]


def _greedy(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    max_per_class: int,
    max_total: int,
) -> tuple[Tensor, Tensor]:
    """Takes the best box left `max_total` times and removes what it suppresses: O(max_total * N) and no N x N matrix.

    Returns (scores, indices) [B, max_total], index -1 where nothing was left.
    """
    nothing = float("-inf")
    alive = ops.where(scores > score_threshold, scores, nothing)
    shape = (ops.shape(scores)[0], max_total)
    out_scores, out_index = ops.zeros(shape, "float32"), ops.full(shape, -1, "int32")
    slots = ops.arange(max_total)[None]
    positions = ops.arange(ops.shape(scores)[1], dtype="int32")[None]

    def step(i: Tensor, alive: Tensor, out_scores: Tensor, out_index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        index = ops.cast(ops.argmax(alive, axis=1), "int32")[:, None]
        score = ops.take_along_axis(alive, index, axis=1)
        better = score > nothing
        box = ops.take_along_axis(boxes, index[..., None], axis=1)
        suppressed = iou(box, boxes)[:, 0] > iou_threshold
        if labels is not None:
            label = ops.take_along_axis(labels, index, axis=1)
            suppressed = ops.logical_and(suppressed, labels == label)
            if max_per_class < max_total:
                chosen = ops.take_along_axis(labels, ops.maximum(out_index, 0), axis=1)
                taken = ops.logical_and(chosen == label, out_index >= 0)
                full = ops.sum(ops.cast(taken, "int32"), axis=1, keepdims=True) + 1 >= max_per_class
                suppressed = ops.logical_or(suppressed, ops.logical_and(full, labels == label))
        alive = ops.where(ops.logical_or(suppressed, positions == index), nothing, alive)
        here = ops.logical_and(slots == i, better)
        return i + 1, alive, ops.where(here, score, out_scores), ops.where(here, index, out_index)

    state = (ops.convert_to_tensor(0, "int32"), alive, out_scores, out_index)
    state = ops.while_loop(lambda i, alive, *_: i < max_total, step, state, maximum_iterations=max_total)
    return state[2], state[3]
