"""Kernels for a graph that becomes ONNX: those of `exported`, and what its operators want otherwise."""

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend.exported import multiclass_nms, multilevel_roi_align, nms, roi_pool

__all__ = ["gelu", "multiclass_nms", "multilevel_roi_align", "nms", "roi_pool"]


def gelu(x: Tensor) -> Tensor:
    """`backbones.convnext.portable_gelu` by Erf: TensorFlow's own becomes Erfc, which ONNX has not."""
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))
