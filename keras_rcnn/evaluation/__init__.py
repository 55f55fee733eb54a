"""COCO and Pascal VOC metrics, errors by kind, and how to get a model's on a dataset."""

from keras_rcnn.evaluation.augmented import AugmentedDetector
from keras_rcnn.evaluation.callback import EvaluateCallback
from keras_rcnn.evaluation.coco import coco_metrics, coco_results
from keras_rcnn.evaluation.comparison import compare
from keras_rcnn.evaluation.confusion import confusion_matrix
from keras_rcnn.evaluation.curves import Curve, best_thresholds, precision_recall
from keras_rcnn.evaluation.errors import error_kinds
from keras_rcnn.evaluation.keypoints import keypoint_metrics, keypoint_results
from keras_rcnn.evaluation.matches import Matches, PhotoMatches, match_detections
from keras_rcnn.evaluation.page import write_report
from keras_rcnn.evaluation.scoring import detect_all, evaluate
from keras_rcnn.evaluation.voc import voc_metrics

__all__ = [
    "AugmentedDetector",
    "Curve",
    "EvaluateCallback",
    "Matches",
    "PhotoMatches",
    "best_thresholds",
    "coco_metrics",
    "coco_results",
    "compare",
    "confusion_matrix",
    "detect_all",
    "error_kinds",
    "evaluate",
    "keypoint_metrics",
    "keypoint_results",
    "match_detections",
    "precision_recall",
    "voc_metrics",
    "write_report",
]
