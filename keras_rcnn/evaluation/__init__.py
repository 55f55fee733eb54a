"""COCO and Pascal VOC metrics, and how to get a model's on a dataset."""

from keras_rcnn.evaluation.augmented import AugmentedDetector
from keras_rcnn.evaluation.callback import EvaluateCallback
from keras_rcnn.evaluation.coco import coco_metrics, coco_results
from keras_rcnn.evaluation.comparison import compare
from keras_rcnn.evaluation.scoring import detect_all, evaluate
from keras_rcnn.evaluation.voc import voc_metrics

__all__ = [
    "AugmentedDetector",
    "EvaluateCallback",
    "coco_metrics",
    "coco_results",
    "compare",
    "detect_all",
    "evaluate",
    "voc_metrics",
]
