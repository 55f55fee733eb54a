"""How far boxes overlap, in NumPy and double precision, for measures; on tensors see `keras_rcnn.ops.boxes.iou`."""

import numpy as np


def pairwise_iou(boxes1, boxes2, inclusive=False):
    """Pairwise intersection over union.

    Args:
        boxes1: [N, 4] xyxy.
        boxes2: [M, 4] xyxy.
        inclusive: bool. True for whole pixels, the last one counted, as Pascal VOC's devkit has it.

    Returns:
        float64 [N, M]; 0 for two boxes without area.
    """
    boxes1, boxes2 = np.asarray(boxes1, np.float64), np.asarray(boxes2, np.float64)
    more = 1.0 if inclusive else 0.0
    sides = np.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:]) - np.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    shared = np.clip(sides + more, 0, None).prod(axis=2)
    area1, area2 = ((boxes[:, 2:] - boxes[:, :2] + more).prod(axis=1) for boxes in (boxes1, boxes2))
    union = area1[:, None] + area2[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
