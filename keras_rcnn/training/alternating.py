"""Faster R-CNN's 4-step alternating training (section 3.2): RPN and Fast R-CNN in turn, until they share layers."""

from keras import ops

from keras_rcnn.data import ProposalSet
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.layers.base import register
from keras_rcnn.models import FastRCNN
from keras_rcnn.models.detector import Detector, image_inputs, target_inputs

_RPN = ("anchors", "rpn_head", "proposals", "rpn_targets", "rpn_loss")
_BOXES = ("box_targets", "box_pool", "box_head", "box_predictor", "box_loss", "decoder")


@register
class RPN(Detector):
    """A Region Proposal Network on its own. Its detections are the proposals, all of the class "object".

    Args:
        backbone, neck, anchors, rpn_head, proposals, rpn_targets, rpn_loss, preprocessor: as in `FasterRCNN`.
        num_classes: 1.
    """

    def __init__(
        self,
        backbone,
        num_classes=1,
        *,
        neck,
        anchors,
        rpn_head,
        proposals,
        rpn_targets,
        rpn_loss,
        preprocessor=None,
        class_names=("object",),
        name="rpn",
    ):
        preprocessor, class_names = preprocessor or Preprocessor(), list(class_names)
        config = self.arguments(locals())
        inputs, targets = image_inputs(), target_inputs()
        images, image_sizes = inputs["images"], inputs["image_sizes"]
        features = neck(backbone(images))
        grid = anchors(features, images)
        logits, deltas = rpn_head(features)
        boxes, scores = proposals(grid, logits, deltas, image_sizes, training=False)
        found = {"boxes": boxes, "scores": scores, "labels": ops.where(scores > 0, 0, -1)}
        rpn_labels, rpn_deltas = rpn_targets(grid, targets["boxes"], targets["labels"], image_sizes)
        losses = rpn_loss(logits, deltas, rpn_labels, rpn_deltas, num_anchors=anchors.num_anchors)
        super().__init__(inputs=inputs, targets=targets, detections=found, losses=losses, config=config, name=name)

    def _check_classes(self, batches):
        """To an RPN every class is an object."""


def propose(model, dataset, progress=True):
    """An RPN's proposals for every image.

    Args:
        model: `RPN`.
        dataset: `Dataset`.
        progress: whether to show a progress bar.

    Returns:
        `ProposalSet`.
    """
    from tqdm import tqdm

    bar = tqdm(dataset, desc="proposals", unit="image", disable=not progress)
    return ProposalSet({record.image_id: model.detect(record.read(), score=0.0)["boxes"] for record in bar})


def alternate(model, dataset, fit, progress=True, done=0, start=None):
    """Trains a Faster R-CNN in the four steps of the paper, in the place of its `fit`.

    1. The RPN, on the backbone as it is now (ImageNet's weights). 2. Fast R-CNN, on a backbone of its own that starts
    from the same weights, with the proposals of step 1. 3. The RPN's head on the backbone of step 2, which from now on
    is fixed. 4. Fast R-CNN's head on the same backbone, with the proposals of step 3.

    Args:
        model: a new `FasterRCNN`; afterwards it has the trained weights. Its neck belongs to the shared layers.
        dataset: `Dataset` to train on.
        fit: function `(step, detector, proposals)`, called four times: compiles and fits `detector`, an `RPN` in steps
            0 and 2 and a `FastRCNN` in steps 1 and 3, for which `proposals` is a `ProposalSet` and otherwise None.
        progress: whether to show a progress bar while proposals are made.
        done: int, steps that were done before, whose result the model's weights are: these are left out.
        start: with `done`, the weights before step 1: a dict of `get_weights()` of the parts "backbone" and "neck".

    Returns:
        A list of the values that `fit` returned, one for each step.

    Example:

    >>> def fit(step, detector, proposals):
    ...     detector.compile(keras.optimizers.SGD(0.001, momentum=0.9))
    ...     batches = dataset.batches(detector.preprocessor, batch_size=2, shuffle=True, proposals=proposals)
    ...     return detector.fit(batches, epochs=8)
    >>> alternate(model, dataset, fit)
    """
    start = start or {part: model.parts[part].get_weights() for part in ("backbone", "neck")}
    answers = []
    if done < 2:
        rpn = _rpn(model)
        if done < 1:
            answers.append(fit(0, rpn, None))
        proposals = propose(rpn, dataset, progress)
        # Fast R-CNN begins again from the weights before step 1: in the paper the two do not share anything yet
        for part, weights in start.items():
            model.parts[part].set_weights(weights)
        answers.append(fit(1, _fast(model), proposals))
    with _frozen(model.parts["backbone"], model.parts["neck"]):
        # a model's trainable weights are asked for when it is compiled: new models for the fixed layers
        rpn = _rpn(model)
        if done < 3:
            answers.append(fit(2, rpn, None))
        answers.append(fit(3, _fast(model), propose(rpn, dataset, progress)))
    return answers


def _rpn(model):
    """The RPN that a Faster R-CNN consists of, sharing its layers."""
    parts = {key: model.parts[key] for key in (*_RPN, "neck", "preprocessor")}
    return RPN(model.parts["backbone"], **parts)


def _fast(model):
    """The Fast R-CNN that a Faster R-CNN consists of, sharing its layers."""
    parts = {key: model.parts[key] for key in (*_BOXES, "neck", "preprocessor")}
    return FastRCNN(model.parts["backbone"], model.num_classes, class_names=list(model.class_names), **parts)


class _frozen:
    """Layers that are not trained within the block."""

    def __init__(self, *found):
        self.found = [layer for one in found for layer in one._flatten_layers()]

    def __enter__(self):
        self.before = [layer.trainable for layer in self.found]
        for layer in self.found:
            layer.trainable = False

    def __exit__(self, *error):
        # the outer ones first: setting a layer's sets those of its sublayers
        for layer, trainable in zip(self.found, self.before, strict=True):
            layer.trainable = trainable
