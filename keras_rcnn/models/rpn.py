"""A Region Proposal Network on its own (Faster R-CNN, section 3.1), for the steps of the alternating training."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, target_inputs


@register
class RPN(Detector):
    """A Region Proposal Network on its own. Its detections are the proposals, all of the class "object".

    Args:
        backbone, neck, anchors, rpn_head, proposals, rpn_targets, rpn_loss, preprocessor: as in `FasterRCNN`.
        num_classes: 1.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int = 1,
        *,
        neck: keras.layers.Layer,
        anchors: keras.layers.Layer,
        rpn_head: keras.layers.Layer,
        proposals: keras.layers.Layer,
        rpn_targets: keras.layers.Layer,
        rpn_loss: keras.layers.Layer,
        preprocessor: Preprocessor | None = None,
        class_names: Sequence[str] = ("object",),
        name: str = "rpn",
    ) -> None:
        preprocessor, class_names = preprocessor or Preprocessor.for_backbone(backbone), list(class_names)
        config = self.arguments(locals())
        inputs, targets = image_inputs(), target_inputs()
        images, image_sizes = inputs["images"], inputs["image_sizes"]
        features = neck(backbone(images))
        grid = anchors(features, images)
        logits, deltas = rpn_head(features)
        boxes, scores = proposals(grid, logits, deltas, image_sizes, training=False)
        detections = {"boxes": boxes, "scores": scores, "labels": ops.where(scores > 0, 0, -1)}
        rpn_labels, rpn_deltas = rpn_targets(grid, targets["boxes"], targets["labels"], image_sizes)
        losses = rpn_loss(logits, deltas, rpn_labels, rpn_deltas, num_anchors=anchors.num_anchors)
        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)

    def _check_classes(self, batches: Any) -> None:
        """To an RPN every class is an object."""
