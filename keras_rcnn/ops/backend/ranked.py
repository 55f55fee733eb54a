"""TensorFlow's kernels, but of equal scores the first in the list is the better one.

TensorFlow's own NMS of all classes takes them as its heap has them. RoIPool, which rounds, gives many RoIs one score.
"""

from keras_rcnn.ops.backend.exported import multiclass_nms

__all__ = ["multiclass_nms"]
