"""The four detectors, one flat file each."""

from keras_rcnn.models.detector import Detector
from keras_rcnn.models.fast_rcnn import FastRCNN
from keras_rcnn.models.faster_rcnn import FasterRCNN
from keras_rcnn.models.mask_rcnn import MaskRCNN
from keras_rcnn.models.rcnn import RCNN
from keras_rcnn.models.truncated_svd import truncate_box_head

__all__ = ["RCNN", "Detector", "FastRCNN", "FasterRCNN", "MaskRCNN", "truncate_box_head"]
