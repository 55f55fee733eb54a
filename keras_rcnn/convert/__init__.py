"""Weights of other frameworks: read without them, renamed and laid out as ours, by NumPy and safetensors alone."""

from keras_rcnn.convert.assignment import assign, compare
from keras_rcnn.convert.caffe import CAFFE_MEAN, CAFFE_MODELS, convert_caffe, read_caffe_weights
from keras_rcnn.convert.caffe_file import read_caffemodel
from keras_rcnn.convert.coco_names import COCO_NAMES
from keras_rcnn.convert.detectron2 import (
    convert_detectron2,
    convert_detectron2_backbone,
    detectron2_looks_like,
)
from keras_rcnn.convert.detectron2_settings import detectron2_config
from keras_rcnn.convert.efficientnet_lite import convert_efficientnet_lite0
from keras_rcnn.convert.errors import ConversionError, UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.keras_applications import convert_keras_applications
from keras_rcnn.convert.keras_file import read_keras_h5
from keras_rcnn.convert.matterport import convert_matterport, matterport_facts
from keras_rcnn.convert.numpy_pickles import read_detectron2_file
from keras_rcnn.convert.torch_file import read_torch_file
from keras_rcnn.convert.torchvision import (
    convert_convnext,
    convert_mobilenet_v3_large,
    convert_resnet,
    convert_torchvision,
    looks_like,
)

__all__ = [
    "CAFFE_MEAN",
    "CAFFE_MODELS",
    "COCO_NAMES",
    "ConversionError",
    "UnsafeWeightsError",
    "WeightsFileError",
    "assign",
    "compare",
    "convert_caffe",
    "convert_convnext",
    "convert_detectron2",
    "convert_detectron2_backbone",
    "convert_efficientnet_lite0",
    "convert_keras_applications",
    "convert_matterport",
    "convert_mobilenet_v3_large",
    "convert_resnet",
    "convert_torchvision",
    "detectron2_config",
    "detectron2_looks_like",
    "looks_like",
    "matterport_facts",
    "read_caffe_weights",
    "read_caffemodel",
    "read_detectron2_file",
    "read_keras_h5",
    "read_torch_file",
]
