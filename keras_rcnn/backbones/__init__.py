"""Backbones: images -> a dict of feature maps. There is no detection in them."""

from keras_rcnn.backbones.efficientnet_lite import EfficientNetLite0
from keras_rcnn.backbones.norm import FrozenBatchNormalization

__all__ = ["EfficientNetLite0", "FrozenBatchNormalization"]
