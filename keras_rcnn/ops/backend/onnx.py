"""Kernels for a graph that becomes ONNX: those of `exported`, and what its operators want otherwise."""

from collections.abc import Callable

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend.exported import multiclass_nms, multilevel_roi_align, nms, roi_pool
from keras_rcnn.ops.roi import portable_adaptive_roi_align as adaptive_roi_align

__all__ = ["adaptive_roi_align", "either", "gelu", "multiclass_nms", "multilevel_roi_align", "nms", "roi_pool"]


def gelu(x: Tensor) -> Tensor:
    """`backbones.convnext.portable_gelu` by Erf: TensorFlow's own becomes Erfc, which ONNX has not."""
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def either(condition: Tensor, this: Callable[[], Tensor], that: Callable[[], Tensor]) -> Tensor:
    """`keras.ops.cond`, with both computed: of a loop with a condition in it tf2onnx does not know the shapes."""
    return ops.where(condition, this(), that())
