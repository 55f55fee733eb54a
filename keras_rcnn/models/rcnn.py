"""R-CNN (Girshick et al. 2014): every proposal is cut out of the photo and goes through the whole CNN on its own."""

from collections.abc import Sequence

import keras

from keras_rcnn import layers
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, proposal_inputs, target_inputs


@register
class RCNN(Detector):
    """R-CNN: a CNN for each region, then linear SVMs and box regressors on its features.

    Where to look comes from outside: `model(x)` maps `{"images", "image_sizes", "proposals"}` to `{"boxes", "scores",
    "labels"}`. `model.fit` fine-tunes the CNN by a softmax over the classes and background (section 2.3);
    `keras_rcnn.training.fit_svms` and `fit_box_regressors` train the later stages on its features and make them weights
    of the model. Before `fit_svms` the scores are the softmax's, before `fit_box_regressors` the boxes are the
    proposals.

    Args:
        backbone: a model from `keras_rcnn.backbones`: images [B, H, W, 3] -> {"C2": ..., "C5": ...}, with `strides`.
        num_classes: int K, background not counted.
        neck: `SingleLevel`: the map whose features are taken ("pool5" in the paper).
        box_targets: `BoxTargets`; by default the paper's: 64 regions an image, a quarter positive (32 + 96 of two).
        box_pool: `RegionWarp`.
        box_head: `BoxHead`: the map of a region -> the vector ("fc7") that is classified.
        box_predictor: `ClassPredictor`.
        box_loss: `ClassLoss`.
        svms: `RegionSVMs`.
        box_regressors: `BoxRegressors`.
        decoder: `ScoreDecoder`; the paper's NMS is at IoU 0.3.
        preprocessor: `Preprocessor`: how photos are resized and normalised; None: as the backbone's weights expect.
        class_names: list of K names.

    Example:

    >>> proposals = keras_rcnn.data.compute_proposals(dataset, cache="proposals")
    >>> model = RCNN(keras_rcnn.backbones.EfficientNetLite0(weights="imagenet"), num_classes=3)
    >>> model.compile(keras.optimizers.SGD(0.001, momentum=0.9))
    >>> model.fit(dataset.batches(model.preprocessor, batch_size=2, shuffle=True, proposals=proposals), epochs=10)
    >>> keras_rcnn.training.fit_svms(model, dataset, proposals, cache="features")
    >>> keras_rcnn.training.fit_box_regressors(model, dataset, proposals, cache="features")
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        neck: keras.layers.Layer | None = None,
        box_targets: keras.layers.Layer | None = None,
        box_pool: keras.layers.Layer | None = None,
        box_head: keras.layers.Layer | None = None,
        box_predictor: keras.layers.Layer | None = None,
        box_loss: keras.layers.Layer | None = None,
        svms: keras.layers.Layer | None = None,
        box_regressors: keras.layers.Layer | None = None,
        decoder: keras.layers.Layer | None = None,
        preprocessor: Preprocessor | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "rcnn",
    ) -> None:
        # === Layers ===
        neck = neck or layers.SingleLevel("C5")
        box_targets = box_targets or layers.BoxTargets(num_classes, count=64)
        box_pool = box_pool or layers.RegionWarp(224, name="box_pool")
        box_head = box_head or layers.BoxHead()
        box_predictor = box_predictor or layers.ClassPredictor(num_classes)
        box_loss = box_loss or layers.ClassLoss()
        svms = svms or layers.RegionSVMs(num_classes)
        box_regressors = box_regressors or layers.BoxRegressors(num_classes)
        decoder = decoder or layers.ScoreDecoder()
        preprocessor = preprocessor or Preprocessor.for_backbone(backbone)
        config = self.arguments(locals())

        # === Shared ===
        inputs, targets = {**image_inputs(), **proposal_inputs()}, target_inputs()
        images, image_sizes = inputs["images"], inputs["image_sizes"]
        each_region = layers.RegionCNN(backbone, neck, box_pool)
        regions = inputs["proposals"]

        # === Inference graph ===
        maps = each_region(images, regions, image_sizes)
        vectors = box_head(maps)
        box_logits, box_deltas = svms(vectors, box_predictor(vectors)), box_regressors(maps)
        detections = decoder(box_logits, box_deltas, regions, image_sizes)

        # === Training graph ===
        sampled = box_targets(regions, targets["boxes"], targets["labels"])
        box_logits = box_predictor(box_head(each_region(images, sampled["boxes"], image_sizes)))
        losses = box_loss(box_logits, sampled)

        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)
        self.region_features = keras.Model(inputs, {"maps": maps, "vectors": vectors}, name="region_features")
