"""Faster R-CNN (Ren et al. 2015): a Region Proposal Network shares its feature maps with the Fast R-CNN box head."""

from collections.abc import Sequence

import keras

from keras_rcnn import layers
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, target_inputs


@register
class FasterRCNN(Detector):
    """Faster R-CNN, with a feature pyramid (the default) or on a single map (`neck=SingleLevel("C4")`).

    `model(x)` maps `{"images", "image_sizes"}` to `{"boxes", "scores", "labels"}`; `model.fit` trains RPN and box head
    together (the paper's approximate joint training); `model.detect` takes photos.

    Args:
        backbone: a model from `keras_rcnn.backbones`: images [B, H, W, 3] -> {"C2": ..., "C5": ...}, with `strides`.
        num_classes: int K, background not counted.
        neck: `FPN` or `SingleLevel`.
        anchors: `AnchorGenerator`; by default one size a level, 8 strides, in 3 shapes, or on a single level the
            paper's 9 anchors (128, 256 and 512 pixels).
        rpn_head: `RPNHead`.
        proposals: `Proposals`.
        rpn_targets: `RPNTargets`.
        rpn_loss: `RPNLoss`.
        box_targets: `BoxTargets`.
        box_pool: `RoIAlign` or `RoIPool`.
        box_head: `BoxHead`.
        box_predictor: `BoxPredictor`.
        box_loss: `BoxLoss`.
        cascade: `Cascade`, for Cascade R-CNN: further box heads, each on the former's boxes; None: one.
        decoder: `DetectionDecoder`.
        keypoint_branch: `KeypointBranch`, or None for a detector without keypoints; see `keras_rcnn.models.keypoints`.
        preprocessor: `Preprocessor`: how photos are resized and normalised; None: as the backbone's weights expect.
        class_names: list of K names.

    Example:

    >>> model = FasterRCNN(keras_rcnn.backbones.ResNet(50), num_classes=3)
    >>> model.compile(keras.optimizers.SGD(0.005, momentum=0.9))
    >>> model.fit(dataset.batches(model.preprocessor, batch_size=2, shuffle=True), epochs=10)
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        neck: keras.layers.Layer | None = None,
        anchors: keras.layers.Layer | None = None,
        rpn_head: keras.layers.Layer | None = None,
        proposals: keras.layers.Layer | None = None,
        rpn_targets: keras.layers.Layer | None = None,
        rpn_loss: keras.layers.Layer | None = None,
        box_targets: keras.layers.Layer | None = None,
        box_pool: keras.layers.Layer | None = None,
        box_head: keras.layers.Layer | None = None,
        box_predictor: keras.layers.Layer | None = None,
        box_loss: keras.layers.Layer | None = None,
        cascade: layers.Cascade | None = None,
        decoder: keras.layers.Layer | None = None,
        keypoint_branch: keras.layers.Layer | None = None,
        preprocessor: Preprocessor | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "faster_rcnn",
    ) -> None:
        # === Layers ===
        neck = neck or layers.FPN()
        strides = neck.strides(backbone.strides)
        sizes = [[8 * s] for s in strides] if len(strides) > 1 else [[128, 256, 512]]
        anchors = anchors or layers.AnchorGenerator(sizes, strides=strides)
        rpn_head = rpn_head or layers.RPNHead(anchors.num_anchors)
        proposals = proposals or layers.Proposals()
        rpn_targets = rpn_targets or layers.RPNTargets()
        rpn_loss = rpn_loss or layers.RPNLoss()
        box_targets = box_targets or layers.BoxTargets(num_classes)
        box_pool = box_pool or layers.RoIAlign(7, strides[: neck.roi_levels()], name="box_pool")
        box_head = box_head or layers.BoxHead()
        box_predictor = box_predictor or layers.BoxPredictor(num_classes, class_agnostic=cascade is not None)
        box_loss = box_loss or layers.BoxLoss()
        decoder = decoder or layers.DetectionDecoder()
        preprocessor = preprocessor or Preprocessor.for_backbone(backbone)
        config = self.arguments(locals())

        # === Shared ===
        inputs, targets = image_inputs(), target_inputs()
        images, image_sizes = inputs["images"], inputs["image_sizes"]
        features = neck(backbone(images))
        if cascade is not None:
            box_pool, box_loss, decoder = cascade.extended(config, features, image_sizes, targets)
        grid = anchors(features, images)
        logits, deltas = rpn_head(features)

        # === Inference graph ===
        regions, _ = proposals(grid, logits, deltas, image_sizes, training=False)
        box_logits, box_deltas = box_predictor(box_head(box_pool(features, regions)))
        detections = decoder(box_logits, box_deltas, regions, image_sizes)

        # === Training graph ===
        rpn_labels, rpn_deltas = rpn_targets(grid, targets["boxes"], targets["labels"], image_sizes)
        losses = rpn_loss(logits, deltas, rpn_labels, rpn_deltas, num_anchors=anchors.num_anchors)
        regions, _ = proposals(grid, logits, deltas, image_sizes, training=True)
        sampled = box_targets(regions, targets["boxes"], targets["labels"])
        box_logits, box_deltas = box_predictor(box_head(box_pool(features, sampled["boxes"])))
        losses = {**losses, **box_loss(box_logits, box_deltas, sampled)}

        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)
