"""The four detectors, one flat file each."""

from keras_rcnn.models.detector import Detector
from keras_rcnn.models.faster_rcnn import FasterRCNN
from keras_rcnn.models.mask_rcnn import MaskRCNN

__all__ = ["Detector", "FasterRCNN", "MaskRCNN"]
