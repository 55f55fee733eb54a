"""What is in a data set, and whether a detector can learn it: `keras-rcnn check`."""

from keras_rcnn.survey.anchors import View, best_anchor_iou, kmeans_shapes
from keras_rcnn.survey.copies import duplicates
from keras_rcnn.survey.findings import Finding, survey
from keras_rcnn.survey.page import write_page
from keras_rcnn.survey.suggested import BUILT, suggestions
from keras_rcnn.survey.text import short_text, survey_text

__all__ = [
    "BUILT",
    "Finding",
    "View",
    "best_anchor_iou",
    "duplicates",
    "kmeans_shapes",
    "short_text",
    "suggestions",
    "survey",
    "survey_text",
    "write_page",
]
