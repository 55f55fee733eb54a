"""Which ground-truth box belongs to which anchor or proposal."""

from keras import ops

from keras_rcnn.interfaces import Tensor

BACKGROUND, IGNORED = -1, -2


def match(
    iou: Tensor, foreground: float = 0.5, background: float = 0.5, low_quality: bool = False, guard: bool = True
) -> Tensor:
    """Matches every anchor (or proposal) to at most one ground-truth box (Faster R-CNN, section 3.1.2).

    Args:
        iou: float [..., G, A], rows of padded ground truth all <= 0.
        foreground: an anchor is positive from this IoU with its best box.
        background: an anchor is negative below this IoU; in between it is ignored.
        low_quality: whether the anchors with the highest IoU of each ground-truth box are positive too, ties included;
            such an anchor is given its *own* best box.
        guard: a ground-truth box that overlaps nothing has a highest IoU of 0, which every anchor that misses it
            reaches. True leaves such boxes unmatched; False repeats torchvision, where all of them become positive
            (a row counts as ground truth there if it is >= 0, so padding must be negative).

    Returns:
        int32 [..., A]: index of the ground-truth box, `BACKGROUND` (-1) or `IGNORED` (-2).
    """
    best = ops.max(iou, axis=-2)
    index = ops.cast(ops.argmax(iou, axis=-2), "int32")
    matched = ops.where(best < background, BACKGROUND, ops.where(best < foreground, IGNORED, index))
    if low_quality:
        highest = ops.max(iou, axis=-1, keepdims=True)
        reached = ops.logical_and(iou == highest, highest > 0 if guard else highest >= 0)
        matched = ops.where(ops.any(reached, axis=-2), index, matched)
    return ops.cast(matched, "int32")
