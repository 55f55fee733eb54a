"""Kernels for a graph that becomes ONNX: those of `exported`."""

from keras_rcnn.ops.backend.exported import multiclass_nms, multilevel_roi_align, nms, roi_pool

__all__ = ["multiclass_nms", "multilevel_roi_align", "nms", "roi_pool"]
