"""Kernels for a graph that becomes a LiteRT (TFLite) model: those of `exported`, with LiteRT's rule of NMS."""

import numpy as np

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend import exported
from keras_rcnn.ops.backend.exported import multilevel_roi_align, roi_pool
from keras_rcnn.ops.roi import portable_adaptive_roi_align as adaptive_roi_align

__all__ = ["adaptive_roi_align", "multiclass_nms", "multilevel_roi_align", "nms", "roi_pool"]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_output: int) -> tuple[Tensor, Tensor]:
    """`ops.nms.nms`; see there."""
    return exported.nms(boxes, scores, _next(iou_threshold), max_output)


def multiclass_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_per_class: int, max_total: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`ops.nms.multiclass_nms`; see there."""
    return exported.multiclass_nms(boxes, scores, _next(iou_threshold), score_threshold, max_per_class, max_total)


def _next(threshold: float) -> float:
    """LiteRT suppresses from the threshold on, TensorFlow above it."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))
