"""Weights of other frameworks: read without them, renamed and laid out as ours. NumPy alone."""

from keras_rcnn.convert.assign import assign
from keras_rcnn.convert.efficientnet_lite import convert_efficientnet_lite0
from keras_rcnn.convert.errors import ConversionError, UnsafeWeightsError, WeightsFileError
from keras_rcnn.convert.torch_file import read_torch_file

__all__ = [
    "ConversionError",
    "UnsafeWeightsError",
    "WeightsFileError",
    "assign",
    "convert_efficientnet_lite0",
    "read_torch_file",
]
