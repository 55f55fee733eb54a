"""The parts of the detectors as Keras layers; a detector's constructor takes them."""

from keras_rcnn.layers.cascade import Cascade
from keras_rcnn.layers.detections import DetectionDecoder, MaskDecoder
from keras_rcnn.layers.fixed_norm import FixedBatchNormalization
from keras_rcnn.layers.fpn import FPN, SingleLevel
from keras_rcnn.layers.given import GivenProposals
from keras_rcnn.layers.heads import BoxHead, BoxPredictor, MaskHead, RegionMean
from keras_rcnn.layers.keypoints import KeypointBranch, KeypointHead
from keras_rcnn.layers.losses import BoxLoss, MaskLoss, RPNLoss
from keras_rcnn.layers.matterport import (
    MatterportAnchors,
    MatterportBoxHead,
    MatterportDecoder,
    MatterportMaskHead,
    MatterportProposals,
    MatterportRoIAlign,
    MatterportRPNHead,
)
from keras_rcnn.layers.matterport_training import (
    MatterportBoxLoss,
    MatterportBoxTargets,
    MatterportMaskLoss,
    MatterportMaskTargets,
    MatterportRPNLoss,
    MatterportRPNTargets,
)
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
    "Cascade",
    "ClassLoss",
    "ClassPredictor",
    "DetectionDecoder",
    "FixedBatchNormalization",
    "GivenProposals",
    "KeypointBranch",
    "KeypointHead",
    "MaskDecoder",
    "MaskHead",
    "MaskLoss",
    "MaskTargets",
    "MatterportAnchors",
    "MatterportBoxHead",
    "MatterportBoxLoss",
    "MatterportBoxTargets",
    "MatterportDecoder",
    "MatterportMaskHead",
    "MatterportMaskLoss",
    "MatterportMaskTargets",
    "MatterportProposals",
    "MatterportRPNHead",
    "MatterportRPNLoss",
    "MatterportRPNTargets",
    "MatterportRoIAlign",
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
