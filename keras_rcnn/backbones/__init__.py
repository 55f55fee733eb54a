"""Backbones: images -> a dict of feature maps. There is no detection in them."""

from keras_rcnn.backbones.alexnet import CaffeNet
from keras_rcnn.backbones.convnext import ConvNeXt
from keras_rcnn.backbones.efficientnet_lite import EfficientNetLite0
from keras_rcnn.backbones.features import Features, from_features
from keras_rcnn.backbones.imagenet import PUBLISHED, backbone_by_name
from keras_rcnn.backbones.matterport_resnet import MatterportResNet
from keras_rcnn.backbones.mobilenet_v3 import MobileNetV3Large
from keras_rcnn.backbones.norm import FrozenBatchNormalization
from keras_rcnn.backbones.region_stage import ResNetRegions
from keras_rcnn.backbones.resnet import ResNet
from keras_rcnn.backbones.vgg import VGG16
from keras_rcnn.backbones.zf import ZF

__all__ = [
    "PUBLISHED",
    "VGG16",
    "ZF",
    "CaffeNet",
    "ConvNeXt",
    "EfficientNetLite0",
    "Features",
    "FrozenBatchNormalization",
    "MatterportResNet",
    "MobileNetV3Large",
    "ResNet",
    "ResNetRegions",
    "backbone_by_name",
    "from_features",
]
