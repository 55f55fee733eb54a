"""Mask R-CNN (He et al. 2017): Faster R-CNN with a branch, beside the box head, that predicts a mask per class."""

from collections.abc import Sequence

import keras

from keras_rcnn import layers
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, mask_inputs, target_inputs


@register
class MaskRCNN(Detector):
    """Mask R-CNN: `FasterRCNN` with a mask for every detection.

    `model(x)` adds `masks` [B, D, 28, 28], probabilities inside each box; `model.detect` pastes them into the photo.

    At inference the masks come from the *refined, final* boxes, after NMS, not from the proposals: the mask branch runs
    on at most `max_detections` boxes, which is faster and more accurate (section 3.1 of the paper). In training it runs
    on the positive proposals, beside the box head.

    Args:
        backbone: a model from `keras_rcnn.backbones`.
        num_classes: int K, background not counted.
        mask_targets: `MaskTargets`.
        mask_pool: `RoIAlign`.
        mask_head: `MaskHead`.
        mask_loss: `MaskLoss`.
        mask_decoder: `MaskDecoder`.
        keypoint_branch: `KeypointBranch`, or None for a detector without keypoints; see `keras_rcnn.models.keypoints`.
        preprocessor: `Preprocessor`: how photos are resized and normalised; None: as the backbone's weights expect.
        class_names: list of K names.
        neck: `FPN` or `SingleLevel`; it and all further parts are as in `FasterRCNN`.

    Example:

    >>> model = MaskRCNN(keras_rcnn.backbones.ResNet(50), num_classes=3)
    >>> model.compile(keras.optimizers.SGD(0.005, momentum=0.9))
    >>> model.fit(dataset.batches(model.preprocessor, batch_size=2, shuffle=True, masks=True), epochs=10)
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
        mask_targets: keras.layers.Layer | None = None,
        mask_pool: keras.layers.Layer | None = None,
        mask_head: keras.layers.Layer | None = None,
        mask_loss: keras.layers.Layer | None = None,
        mask_decoder: keras.layers.Layer | None = None,
        keypoint_branch: keras.layers.Layer | None = None,
        preprocessor: Preprocessor | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "mask_rcnn",
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
        mask_targets = mask_targets or layers.MaskTargets(num_classes, box_targets.most_positive)
        mask_pool = mask_pool or layers.RoIAlign(14, strides[: neck.roi_levels()], name="mask_pool")
        mask_head = mask_head or layers.MaskHead(num_classes)
        mask_loss = mask_loss or layers.MaskLoss()
        mask_decoder = mask_decoder or layers.MaskDecoder()
        preprocessor = preprocessor or Preprocessor.for_backbone(backbone)
        config = self.arguments(locals())

        # === Shared ===
        inputs, targets = image_inputs(), {**target_inputs(), **mask_inputs()}
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
        mask_logits = mask_head(mask_pool(features, detections["boxes"]))
        detections = mask_decoder(detections, mask_logits)

        # === Training graph ===
        rpn_labels, rpn_deltas = rpn_targets(grid, targets["boxes"], targets["labels"], image_sizes)
        losses = rpn_loss(logits, deltas, rpn_labels, rpn_deltas, num_anchors=anchors.num_anchors)
        regions, _ = proposals(grid, logits, deltas, image_sizes, training=True)
        sampled = box_targets(regions, targets["boxes"], targets["labels"])
        box_logits, box_deltas = box_predictor(box_head(box_pool(features, sampled["boxes"])))
        losses = {**losses, **box_loss(box_logits, box_deltas, sampled)}
        positives = mask_targets(sampled, targets["masks"], targets["mask_frames"])
        mask_logits = mask_head(mask_pool(features, positives["boxes"]))
        losses = {**losses, **mask_loss(mask_logits, positives)}

        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)
