"""Cascade R-CNN (Cai & Vasconcelos 2018): further box heads, each on the boxes of the one before, with a stricter IoU.

Shapes: B images, R regions, S sampled regions, K classes, F maps.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.layers.targets import BoxTargets
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops


class RefinedBoxes(Float32Layer):
    """A stage's boxes, which the next one looks at; they are constants to it.

    Args:
        weights: factors of the stage's deltas.

    Call with regions [B, R, 4], deltas [B, R, 1, 4] and image sizes [B, 2]; returns [B, R, 4], clipped. Padding
    stays 0.
    """

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights_of_deltas = tuple(weights)

    def call(self, regions: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        boxes = delta_ops.decode(deltas[:, :, 0], regions, self.weights_of_deltas)
        return ops.stop_gradient(box_ops.clip(boxes, image_sizes))

    def compute_output_spec(self, regions: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        return spec(*regions.shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": self.weights_of_deltas}


class MeanScores(Float32Layer):
    """The mean of the stages' class probabilities, as logits, for the decoder.

    Call with a list of logits [B, R, K + 1]; returns [B, R, K + 1], whose softmax is the mean of theirs.
    """

    def call(self, logits: Sequence[Tensor]) -> Tensor:
        each = [ops.log_softmax(one, axis=-1) for one in logits]
        return ops.logsumexp(ops.stack(each, axis=-1), axis=-1) - math.log(len(each))

    def compute_output_spec(self, logits: Sequence[Tensor]) -> Tensor:
        return spec(*logits[0].shape)


class ScaledGradient(keras.layers.Layer):
    """Its input; in training, with the gradient multiplied by a factor.

    Args:
        factor: float.

    Call with a tensor; returns it.
    """

    def __init__(self, factor: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor, self.autocast = factor, False

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return x
        scaled = x * self.factor
        return scaled + ops.stop_gradient(x - scaled)

    def compute_output_spec(self, x: Tensor, training: bool | None = None) -> Tensor:
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@register
class Cascade(keras.layers.Layer):
    """The further stages of a detector's box branch; `FasterRCNN`, `MaskRCNN` and `FastRCNN` take it as `cascade`.

    The detector's `box_head` and `box_predictor` are the first stage. Each further stage has a head and a predictor of
    its own, alike, that look at the boxes of the stage before. At inference the scores are the mean of all stages', and
    the boxes are the last one's. In training a stage's regions are the boxes of the stage before, all of them, labelled
    by an IoU of its own, and the gradient of what is pooled is divided by the number of stages. Its losses are
    `loss_classifier_stage1`, `loss_box_reg_stage1` and so on; the first stage's have no number. A mask branch learns on
    the first stage's regions and is run on the final boxes.

    Args:
        ious: for each further stage the IoU from which a region is positive; the first stage's is `BoxTargets`' own.
        stage_weights: for each further stage the factors of its deltas.

    A detector's constructor calls `extended`; the layer itself is not called.

    Example:

    >>> backbone = keras_rcnn.backbones.ResNet(50)
    >>> model = keras_rcnn.FasterRCNN(backbone, num_classes=3, cascade=keras_rcnn.layers.Cascade())
    """

    def __init__(
        self,
        ious: Sequence[float] = (0.6, 0.7),
        stage_weights: Sequence[Sequence[float]] = ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "cascade", **kwargs})
        if not ious or len(ious) != len(stage_weights):
            raise ValueError(f"Cascade has {len(ious)} ious and {len(stage_weights)} stage_weights: one each a stage.")
        self.ious, self.weights_of_deltas = tuple(ious), tuple(map(tuple, stage_weights))
        self.heads: list[keras.layers.Layer] = []
        self.predictors: list[keras.layers.Layer] = []

    def extended(
        self, parts: Mapping[str, Any], features: Sequence[Tensor], image_sizes: Tensor, targets: Mapping[str, Tensor]
    ) -> tuple[Callable[..., Tensor], Callable[..., dict[str, Tensor]], Callable[..., dict[str, Tensor]]]:
        """A detector's `box_pool`, `box_loss` and `decoder`, going through all stages.

        Args:
            parts: dict, the detector's arguments by name.
            features: list of maps [B, H_l, W_l, F].
            image_sizes: [B, 2].
            targets: dict of `boxes` [B, G, 4] and `labels` [B, G].

        Returns:
            `(box_pool, box_loss, decoder)`: functions, called as these are.

        Raises:
            ValueError: the detector's parts are not those of a cascade.
        """
        box_targets, box_predictor = parts["box_targets"], parts["box_predictor"]
        if not getattr(box_predictor, "class_agnostic", False):
            raise ValueError("A cascade's boxes serve all classes: give BoxPredictor(..., class_agnostic=True).")
        if "weights" not in inspect.signature(parts["box_loss"].call).parameters:
            raise ValueError(f"A cascade's box_loss is a BoxLoss, not a {type(parts['box_loss']).__name__}.")
        if not self.heads:  # else another detector has them, and this one shares them
            stages = range(1, len(self.ious) + 1)
            self.heads = [_like(parts["box_head"], i) for i in stages]
            self.predictors = [_like(box_predictor, i) for i in stages]
        if any(getattr(one, "num_classes", None) != box_predictor.num_classes for one in self.predictors):
            raise ValueError("The cascade belongs to a detector of another number of classes: make a new Cascade.")
        pooled = parts["box_pool"]
        scaled = ScaledGradient(1 / (len(self.ious) + 1), name="scaled_gradient")
        weights = (box_targets.weights_of_deltas, *self.weights_of_deltas)
        refined = [RefinedBoxes(factors, name=f"refined_boxes_{i}") for i, factors in enumerate(weights)]
        labelled = [
            BoxTargets(
                box_targets.num_classes,
                box_targets.count,
                positive_fraction=1.0,  # all are taken
                foreground=iou,
                background=(0.0, iou),
                add_truth=False,
                weights=factors,
                shuffle=False,
                name=f"{box_targets.name}_{i}",
            )
            for i, (iou, factors) in enumerate(zip(self.ious, self.weights_of_deltas, strict=True), start=1)
        ]
        mean_scores = MeanScores(name="mean_scores")

        def box_pool(features: Sequence[Tensor], boxes: Tensor) -> Tensor:
            return scaled(pooled(features, boxes))

        def decoder(logits: Tensor, deltas: Tensor, regions: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
            every, regions = [logits], refined[0](regions, deltas, image_sizes)
            for head, predictor, refine in zip(self.heads, self.predictors, refined[1:], strict=True):
                logits, deltas = predictor(head(box_pool(features, regions)))
                every.append(logits)
                regions = refine(regions, deltas, image_sizes)
            # nothing is left to be moved, whatever the decoder's factors are
            return parts["decoder"](mean_scores(every), ops.zeros_like(deltas), regions, image_sizes)

        def box_loss(logits: Tensor, deltas: Tensor, sampled: Mapping[str, Tensor]) -> dict[str, Tensor]:
            losses, last = dict(parts["box_loss"](logits, deltas, sampled)), sampled
            stages = zip(self.heads, self.predictors, refined, labelled, self.weights_of_deltas, strict=False)
            for i, (head, predictor, refine, label, factors) in enumerate(stages, start=1):
                boxes = refine(last["boxes"], deltas, image_sizes)
                last = label(boxes, targets["boxes"], targets["labels"])
                logits, deltas = predictor(head(box_pool(features, last["boxes"])))
                own = parts["box_loss"](logits, deltas, last, weights=factors)
                losses.update({f"{key}_stage{i}": value for key, value in own.items()})
            return losses

        return box_pool, box_loss, decoder

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ious": self.ious, "stage_weights": self.weights_of_deltas}


def _like(layer: keras.layers.Layer, stage: int) -> keras.layers.Layer:
    """A layer of the same config with the stage in its name, and weights of its own."""
    return type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_{stage}"})
