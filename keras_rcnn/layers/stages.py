"""R-CNN's later stages as layers: a softmax to fine-tune by, linear SVMs and box regressors (R-CNN 2014, section 2.3).

The SVMs and regressors are not trained by `fit`; `fit_svms` and `fit_box_regressors` of `keras_rcnn.training` put them
in as weights.

Shapes: B images, R regions, F features, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.layers.detections import DetectionDecoder
from keras_rcnn.ops import losses


@register
class ClassPredictor(keras.layers.Layer):
    """Class logits, without boxes: what R-CNN's CNN is fine-tuned by.

    Args:
        num_classes: int K, without background.

    Call with [B, R, F]; returns float32 [B, R, K + 1], background last.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{"name": "class_predictor", **kwargs})
        self.num_classes = num_classes
        self.logits = keras.layers.Dense(
            num_classes + 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype="float32",
            name="logits",
        )

    def build(self, input_shape: Shape) -> None:
        self.logits.build(input_shape)
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def compute_output_spec(self, x: Tensor) -> Tensor:
        return spec(*x.shape[:2], self.num_classes + 1)

    @property
    def class_columns(self) -> list[tuple[Any, int]]:
        """`(weight, n)`: so many columns belong to each class, see `keras_rcnn.classes`."""
        return [(weight, 1) for weight in self.logits.weights]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@register
class ClassLoss(Float32Layer):
    """Softmax cross-entropy of the sampled regions.

    Args:
        focal_gamma, class_weights: as in `BoxLoss`.

    Call with logits [B, S, K + 1] and the dict of `BoxTargets`; returns a dict of `loss_classifier`, float32 [B].
    """

    def __init__(self, focal_gamma: float = 0.0, class_weights: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "class_loss", **kwargs})
        self.focal_gamma = focal_gamma
        self.class_weights = None if class_weights is None else tuple(class_weights)

    def call(self, logits: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cls = losses.classification_loss(logits, targets["labels"], self.focal_gamma, self.class_weights)
        return {"loss_classifier": cls}

    def compute_output_spec(self, logits: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss_classifier": spec(logits.shape[0])}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "focal_gamma": self.focal_gamma, "class_weights": self.class_weights}


@register
class RegionSVMs(keras.layers.Layer):
    """One linear SVM a class; until they are fitted, the softmax of the fine-tuned CNN.

    Args:
        num_classes: int K.

    Call with features [B, R, F] and logits [B, R, K + 1]; returns scores float32 [B, R, K] in 0..1: of SVMs the
    logistic function of the margin, so that 0.5 is the boundary.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{"name": "svms", **kwargs})
        self.num_classes = num_classes

    def build(self, features_shape: Shape, logits_shape: Shape | None = None) -> None:
        shape = (features_shape[-1], self.num_classes)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="kernel")
        self.bias = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False, name="bias")
        self.fitted = self.add_weight(shape=(), initializer="zeros", trainable=False, name="fitted")
        self.built = True

    def call(self, features: Tensor, logits: Tensor) -> Tensor:
        margins = ops.cast(features, "float32") @ ops.cast(self.kernel, "float32") + ops.cast(self.bias, "float32")
        return ops.where(self.fitted > 0, ops.sigmoid(margins), ops.softmax(logits, axis=-1)[..., :-1])

    def compute_output_spec(self, features: Tensor, logits: Tensor) -> Tensor:
        return spec(*features.shape[:2], self.num_classes)

    @property
    def class_columns(self) -> list[tuple[Any, int]]:
        """`(weight, n)`: so many columns belong to each class, see `keras_rcnn.classes`."""
        return [(self.kernel, 1), (self.bias, 1), (self.fitted, 0)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@register
class BoxRegressors(keras.layers.Layer):
    """One linear regression of the deltas a class (R-CNN, appendix C); until they are fitted, boxes stay as they are.

    Args:
        num_classes: int K.

    Call with the maps of the regions [B, R, h, w, C]; returns deltas float32 [B, R, K, 4], of weights 1.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{"name": "box_regressors", **kwargs})
        self.num_classes = num_classes

    def build(self, input_shape: Shape) -> None:
        _, _, height, width, channels = input_shape
        shape = (height * width * channels, self.num_classes * 4)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="kernel")
        self.bias = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False, name="bias")
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        x = ops.cast(ops.reshape(x, (batch, count, self.kernel.shape[0])), "float32")
        deltas = x @ ops.cast(self.kernel, "float32") + ops.cast(self.bias, "float32")
        return ops.reshape(deltas, (batch, count, self.num_classes, 4))

    def compute_output_spec(self, x: Tensor) -> Tensor:
        return spec(*x.shape[:2], self.num_classes, 4)

    @property
    def class_columns(self) -> list[tuple[Any, int]]:
        """`(weight, n)`: so many columns belong to each class, see `keras_rcnn.classes`."""
        return [(self.kernel, 4), (self.bias, 4)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@register
class ScoreDecoder(DetectionDecoder):
    """`DetectionDecoder` for scores that are no softmax: call it with scores [B, R, K] in the place of logits."""

    def __init__(
        self, iou_threshold: float = 0.3, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), **kwargs: Any
    ) -> None:
        super().__init__(iou_threshold=iou_threshold, weights=weights, **kwargs)

    def scores(self, logits: Tensor) -> Tensor:
        return logits
