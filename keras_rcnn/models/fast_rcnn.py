"""Fast R-CNN (Girshick 2015): the backbone runs once a photo, and every proposal pools its features from the map."""

from collections.abc import Sequence

import keras

from keras_rcnn import layers
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, proposal_inputs, target_inputs


@register
class FastRCNN(Detector):
    """Fast R-CNN, on a single map (the paper's form, and the default) or with a feature pyramid (`neck=FPN()`).

    Where to look comes from outside: `model(x)` maps `{"images", "image_sizes", "proposals"}` to `{"boxes", "scores",
    "labels"}`; `model.fit` trains the backbone, the classifier and the box regression together (section 2.3);
    `model.detect` takes photos and, unless told the proposals, runs selective search on them.

    Args:
        backbone: a model from `keras_rcnn.backbones`: images [B, H, W, 3] -> {"C2": ..., "C5": ...}, with `strides`.
        num_classes: int K, background not counted.
        neck: `SingleLevel` or `FPN`.
        proposals: `GivenProposals`: whether they are clipped, and how many are taken.
        box_targets: `BoxTargets`; by default the paper's: 64 regions an image, background of IoU 0.1 to 0.5.
        box_pool: `RoIPool` (the paper's rounding; single map only) or `RoIAlign`.
        box_head: `BoxHead`.
        box_predictor: `BoxPredictor`.
        box_loss: `BoxLoss`.
        cascade: `Cascade`, for Cascade R-CNN: further box heads, each on the former's boxes; None: one.
        decoder: `DetectionDecoder`; the paper's NMS is at IoU 0.3.
        preprocessor: `Preprocessor`: how photos are resized and normalised; None: as the backbone's weights expect.
        class_names: list of K names.

    Example:

    >>> proposals = keras_rcnn.data.compute_proposals(dataset, cache="proposals")
    >>> model = FastRCNN(keras_rcnn.backbones.ResNet(50), num_classes=3)
    >>> model.compile(keras.optimizers.SGD(0.001, momentum=0.9))
    >>> model.fit(dataset.batches(model.preprocessor, batch_size=2, shuffle=True, proposals=proposals), epochs=10)
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        neck: keras.layers.Layer | None = None,
        proposals: keras.layers.Layer | None = None,
        box_targets: keras.layers.Layer | None = None,
        box_pool: keras.layers.Layer | None = None,
        box_head: keras.layers.Layer | None = None,
        box_predictor: keras.layers.Layer | None = None,
        box_loss: keras.layers.Layer | None = None,
        cascade: layers.Cascade | None = None,
        decoder: keras.layers.Layer | None = None,
        preprocessor: Preprocessor | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "fast_rcnn",
    ) -> None:
        # === Layers ===
        neck = neck or layers.SingleLevel()
        strides = neck.strides(backbone.strides)
        proposals = proposals or layers.GivenProposals()
        box_targets = box_targets or layers.BoxTargets(num_classes, count=64, background=(0.1, 0.5))
        box_pool = box_pool or layers.RoIPool(7, strides, name="box_pool")
        box_head = box_head or layers.BoxHead()
        box_predictor = box_predictor or layers.BoxPredictor(num_classes, class_agnostic=cascade is not None)
        box_loss = box_loss or layers.BoxLoss(beta=1.0)
        decoder = decoder or layers.DetectionDecoder(iou_threshold=0.3)
        preprocessor = preprocessor or Preprocessor.for_backbone(backbone)
        config = self.arguments(locals())

        # === Shared ===
        inputs, targets = {**image_inputs(), **proposal_inputs()}, target_inputs()
        images, image_sizes = inputs["images"], inputs["image_sizes"]
        features = neck(backbone(images))
        if cascade is not None:
            box_pool, box_loss, decoder = cascade.extended(config, features, image_sizes, targets)

        # === Inference graph ===
        regions = proposals(inputs["proposals"], image_sizes, training=False)
        box_logits, box_deltas = box_predictor(box_head(box_pool(features, regions)))
        detections = decoder(box_logits, box_deltas, regions, image_sizes)

        # === Training graph ===
        regions = proposals(inputs["proposals"], image_sizes, training=True)
        sampled = box_targets(regions, targets["boxes"], targets["labels"])
        box_logits, box_deltas = box_predictor(box_head(box_pool(features, sampled["boxes"])))
        losses = box_loss(box_logits, box_deltas, sampled)

        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)
