"""How far boxes overlap, in NumPy and float64, for proposals and metrics; `ops.boxes.iou` is the one of tensors."""

import numpy as np


def pairwise_iou(a: np.ndarray, b: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """IoU of every box in `a` `[n, 4]` with every box in `b` `[m, 4]`, xyxy: float64 `[n, m]`.

    Args:
        a, b: arrays, or lists of boxes.
        inclusive: whether a box's last pixel belongs to it, as in Pascal VOC's own code.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    pixel = 1.0 if inclusive else 0.0
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]) + pixel
    shared = np.clip(size, 0, None).prod(axis=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2] + pixel).prod(axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
