"""The parts of the detectors as Keras layers; a detector's constructor takes them."""

from keras_rcnn.layers.detections import DetectionDecoder, MaskDecoder
from keras_rcnn.layers.fpn import FPN, SingleLevel
from keras_rcnn.layers.given import GivenProposals
from keras_rcnn.layers.heads import BoxHead, BoxPredictor, MaskHead, RegionMean
from keras_rcnn.layers.losses import BoxLoss, MaskLoss, RPNLoss
from keras_rcnn.layers.regions import RegionCNN, RegionWarp, RoIAlign, RoIPool
from keras_rcnn.layers.rpn import AnchorGenerator, Proposals, RPNHead
from keras_rcnn.layers.stages import BoxRegressors, ClassLoss, ClassPredictor, RegionSVMs, ScoreDecoder
from keras_rcnn.layers.targets import BoxTargets, MaskTargets, RPNTargets

__all__ = [
    "FPN",
    "AnchorGenerator",
    "BoxHead",
    "BoxLoss",
    "BoxPredictor",
    "BoxRegressors",
    "BoxTargets",
    "ClassLoss",
    "ClassPredictor",
    "DetectionDecoder",
    "GivenProposals",
    "MaskDecoder",
    "MaskHead",
    "MaskLoss",
    "MaskTargets",
    "Proposals",
    "RPNHead",
    "RPNLoss",
    "RPNTargets",
    "RegionCNN",
    "RegionMean",
    "RegionSVMs",
    "RegionWarp",
    "RoIAlign",
    "RoIPool",
    "ScoreDecoder",
    "SingleLevel",
]
