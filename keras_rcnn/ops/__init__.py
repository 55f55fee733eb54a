"""Pure functions on tensors, on any Keras backend."""

from keras_rcnn.ops import anchors, boxes, deltas, losses, masks, matching, nms, roi, sampling

__all__ = ["anchors", "boxes", "deltas", "losses", "masks", "matching", "nms", "roi", "sampling"]
