"""Box deltas: the regression targets (t_x, t_y, t_w, t_h) of R-CNN (2014, appendix C) and all that followed."""

import math
from collections.abc import Sequence

from keras import ops

from keras_rcnn.interfaces import Tensor

# exp() of more than this is a box 62.5 times its anchor: clamped, as every implementation since py-faster-rcnn does
SCALE_CLAMP = math.log(1000.0 / 16)


def encode(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas that move `anchors` onto `boxes`.

    Args:
        boxes: [..., 4] xyxy targets.
        anchors: [..., 4] xyxy anchors or proposals.
        weights: factors of (dx, dy, dw, dh): 1, 1, 1, 1 in the RPN, 10, 10, 5, 5 in box heads.

    Returns:
        [..., 4]; 0 for degenerate anchors or boxes (padding), never NaN.
    """
    anchor_size, box_size = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    valid = ops.logical_and(ops.min(anchor_size, -1) > 0, ops.min(box_size, -1) > 0)[..., None]
    anchor_size, box_size = ops.where(valid, anchor_size, 1.0), ops.where(valid, box_size, 1.0)
    shift = ((boxes[..., :2] + 0.5 * box_size) - (anchors[..., :2] + 0.5 * anchor_size)) / anchor_size
    deltas = ops.concatenate([shift, ops.log(box_size / anchor_size)], axis=-1)
    return ops.where(valid, deltas * ops.convert_to_tensor(weights, dtype=deltas.dtype), 0.0)


def decode(
    deltas: Tensor,
    anchors: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    clamp: float = SCALE_CLAMP,
) -> Tensor:
    """Applies deltas [..., 4] to anchors [..., 4] (broadcast); the inverse of `encode`, with dw and dh clamped
    from above at `clamp`, log(1000/16)."""
    deltas = deltas / ops.convert_to_tensor(weights, dtype=deltas.dtype)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = deltas[..., :2] * size + anchors[..., :2] + 0.5 * size
    half = 0.5 * ops.exp(ops.minimum(deltas[..., 2:], clamp)) * size
    return ops.concatenate([centre - half, centre + half], axis=-1)
