"""The parts of Matterport's Mask_RCNN that find and pool regions and decide; see `keras_rcnn.ops.matterport`.

`keras_rcnn.matterport_detectors` puts them together. What is not here is as in the other detectors: `FPN`,
`BoxPredictor`, `MaskDecoder`. Shapes: B images, L pyramid levels, A anchors, R regions, K classes, D detections.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.layers.fixed_norm import FixedBatchNormalization
from keras_rcnn.layers.heads import MaskHead
from keras_rcnn.layers.norms import Norm
from keras_rcnn.layers.rpn import AnchorGenerator
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops import matterport
from keras_rcnn.ops.losses import of_class
from keras_rcnn.ops.nms import multiclass_nms

# Matterport's standard deviations 0.1, 0.1, 0.2, 0.2, in the RPN as in the heads
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@register
class MatterportAnchors(AnchorGenerator):
    """Anchors around every cell's corner, not rounded, one size a level.

    Args:
        scales: for each level the side in pixels of the square anchor.
        ratios: width / height (`AnchorGenerator`'s are height / width).
        strides: for each level the pixels a cell.
        anchor_stride: int; of 2, every second cell has anchors. The same as `MatterportRPNHead`'s.

    Call with the list of L maps and the images [B, H, W, 3]; returns L tensors [A_l, 4], in the order of their levels,
    rows, columns and ratios.
    """

    def __init__(
        self,
        scales: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (0.5, 1, 2),
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_stride: int = 1,
        **kwargs: Any,
    ) -> None:
        self.scales, self.ratios, self.anchor_stride = tuple(scales), tuple(ratios), anchor_stride
        self.cell_strides = tuple(strides)
        super().__init__(
            [[scale] for scale in scales],
            [1 / ratio for ratio in ratios],
            rounded=False,
            strides=[anchor_stride * stride for stride in strides],
            **kwargs,
        )

    def call(self, features: Sequence[Tensor], images: Tensor) -> list[Tensor]:
        step = self.anchor_stride
        return super().call([f[:, ::step, ::step, :1] for f in features], images)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("sizes", "aspect_ratios", "rounded"):
            del config[key]
        own = {"scales": self.scales, "ratios": self.ratios, "strides": self.cell_strides}
        return {**config, **own, "anchor_stride": self.anchor_stride}


@register
class MatterportRPNHead(keras.layers.Layer):
    """A 3x3 convolution, then background and object of each anchor, as two logits of a softmax, and deltas.

    Args:
        num_anchors: anchors a cell.
        channels: of the 3x3 convolution.
        anchor_stride: int, its stride.

    Call with the list of L maps; returns `(logits, deltas)`, lists of float32 [B, A_l] and [B, A_l, 4]. A logit is that
    of the object minus that of the background: its sigmoid is the softmax's probability of the object.
    """

    def __init__(self, num_anchors: int, channels: int = 512, anchor_stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**{"name": "rpn_head", **kwargs})
        self.num_anchors, self.channels, self.anchor_stride = num_anchors, channels, anchor_stride
        self.conv = keras.layers.Conv2D(
            channels, 3, anchor_stride, "same", activation="relu", dtype=self.dtype_policy, name="conv"
        )
        # as the last layers of all heads
        self.objectness = keras.layers.Conv2D(2 * num_anchors, 1, dtype="float32", name="objectness")
        self.deltas = keras.layers.Conv2D(4 * num_anchors, 1, dtype="float32", name="deltas")

    def build(self, input_shape: Sequence[Any]) -> None:
        self.conv.build((None, None, None, input_shape[0][-1]))
        for layer in (self.objectness, self.deltas):
            layer.build((None, None, None, self.channels))
        self.built = True

    def call(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for x in features:
            x = self.conv(x)
            batch = ops.shape(x)[0]
            both = ops.reshape(self.objectness(x), (batch, -1, 2))
            logits.append(both[..., 1] - both[..., 0])
            deltas.append(ops.reshape(self.deltas(x), (batch, -1, 4)))
        return logits, deltas

    def compute_output_spec(self, features: Sequence[Tensor]) -> tuple[list[Any], list[Any]]:
        batch = features[0].shape[0]
        return [spec(batch, None) for _ in features], [spec(batch, None, 4) for _ in features]

    def get_config(self) -> dict[str, Any]:
        config = {"num_anchors": self.num_anchors, "channels": self.channels, "anchor_stride": self.anchor_stride}
        return {**super().get_config(), **config}


@register
class MatterportProposals(Float32Layer):
    """The best anchors of all levels together, moved by their deltas and clipped to the canvas, then one NMS.

    Args:
        canvas: what the images are padded to: see `keras_rcnn.data.MatterportPreprocessor`.
        pre_nms: `(training, inference)`: candidates an image (PRE_NMS_LIMIT for both).
        post_nms: `(training, inference)`: proposals an image (POST_NMS_ROIS_TRAINING and _INFERENCE).
        iou_threshold: of the NMS (RPN_NMS_THRESHOLD).

    Call with lists of anchors [A_l, 4], logits [B, A_l], deltas [B, A_l, 4], and image sizes [B, 2]; returns
    `(boxes, scores)`, float32 [B, R, 4] and [B, R], best first, padded with zeros. No gradient flows through.
    """

    def __init__(
        self,
        canvas: matterport.Canvas = 1024,
        pre_nms: tuple[int, int] = (6000, 6000),
        post_nms: tuple[int, int] = (2000, 1000),
        iou_threshold: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "proposals", **kwargs})
        self.canvas: matterport.Canvas = matterport.check_canvas(canvas)
        self.pre_nms = tuple(pre_nms)
        self.post_nms, self.iou_threshold = tuple(post_nms), iou_threshold

    def call(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        most, count = (self.pre_nms[0], self.post_nms[0]) if training else (self.pre_nms[1], self.post_nms[1])
        scores = ops.sigmoid(ops.stop_gradient(ops.concatenate(logits, axis=1)))
        # top_k needs as many: there is room for what a small image lacks
        scores = ops.pad(scores, ((0, 0), (0, most)), constant_values=-1.0)
        scores, index = ops.top_k(scores, most)
        index = ops.where(scores >= 0, index, 0)
        moves = ops.take_along_axis(ops.stop_gradient(ops.concatenate(deltas, axis=1)), index[..., None], axis=1)
        centres = matterport.to_centres(ops.take(ops.concatenate(anchors, axis=0), index, axis=0))
        boxes = delta_ops.decode(moves, centres, WEIGHTS, matterport.NO_CLAMP)
        height, width = ops.split(matterport.canvas_sizes(image_sizes, self.canvas) - 1, 2, axis=-1)
        nothing = ops.zeros_like(height)
        boxes = matterport.clip_to(boxes, ops.concatenate([nothing, nothing, width, height], axis=-1))
        boxes, scores, classes = multiclass_nms(
            boxes[:, :, None], scores[..., None], self.iou_threshold, -0.5, count, count
        )
        return matterport.to_pixels(boxes, classes >= 0), scores

    def compute_output_spec(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Any, Any]:
        count = self.post_nms[0] if training else self.post_nms[1]
        return spec(logits[0].shape[0], count, 4), spec(logits[0].shape[0], count)

    def get_config(self) -> dict[str, Any]:
        config = {"canvas": self.canvas, "pre_nms": self.pre_nms, "post_nms": self.post_nms}
        return {**super().get_config(), **config, "iou_threshold": self.iou_threshold}


@register
class MatterportRoIAlign(Float32Layer):
    """One bilinear sample a bin, the outermost on the region's edges, on the level that fits the region's size.

    Args:
        size: int, bins a side: 7 for boxes, 14 for masks.
        strides: stride in pixels of each level that is used, finest first; further maps are left alone.

    Call with the list of maps [B, H_l, W_l, C] and boxes [B, R, 4]; returns [B, R, size, size, C]. The padded image is
    the first map times its stride: strides divide what `MatterportPreprocessor` pads to.
    """

    def __init__(self, size: int = 7, strides: Sequence[int] = (4, 8, 16, 32), **kwargs: Any) -> None:
        super().__init__(**{"name": "roi_align", **kwargs})
        self.size, self.strides = size, tuple(strides)
        self.autocast = False  # features keep the dtype that the policy gave them; boxes are float32 already

    def call(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        features = features[: len(self.strides)]
        side = [ops.shape(features[0])[axis] * self.strides[0] for axis in (1, 2)]
        boxes = matterport.to_centres(boxes)
        levels = matterport.level_index(boxes, side, len(features))
        return matterport.multilevel_crop_and_resize(features, boxes, levels, side, self.size)

    def compute_output_spec(self, features: Sequence[Tensor], boxes: Tensor) -> Any:
        shape = (*boxes.shape[:2], self.size, self.size, features[0].shape[-1])
        return keras.KerasTensor(shape, dtype=features[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "strides": self.strides}


@register
class MatterportBoxHead(keras.layers.Layer):
    """Fully connected layers, each with BatchNormalization before its ReLU.

    Args:
        units: their widths (FPN_CLASSIF_FC_LAYERS_SIZE).

    Call with [B, R, S, S, C]; returns [B, R, units[-1]].
    """

    def __init__(self, units: Sequence[int] = (1024, 1024), **kwargs: Any) -> None:
        super().__init__(**{"name": "box_head", **kwargs})
        self.units = tuple(units)
        self.fcs = [keras.layers.Dense(n, dtype=self.dtype_policy, name=f"fc_{i}") for i, n in enumerate(self.units)]
        self.norms = [
            FixedBatchNormalization(dtype=self.dtype_policy, name=f"fc_{i}_bn") for i in range(len(self.units))
        ]

    def build(self, input_shape: Sequence[Any]) -> None:
        _, _, height, width, channels = input_shape
        features = height * width * channels
        for fc, norm in zip(self.fcs, self.norms, strict=True):
            fc.build((None, features))
            norm.build((None, fc.units))
            features = fc.units
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        x = ops.reshape(x, (-1, x.shape[2] * x.shape[3] * x.shape[4]))
        for fc, norm in zip(self.fcs, self.norms, strict=True):
            x = ops.relu(norm(fc(x)))
        return ops.reshape(x, (batch, count, self.units[-1]))

    def compute_output_spec(self, x: Tensor) -> Any:
        return spec(*x.shape[:2], self.units[-1], dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@register
class MatterportMaskHead(MaskHead):
    """`MaskHead` whose 3x3 convolutions have a bias and BatchNormalization.

    Args:
        num_classes: int K.
        convs: channels of the 3x3 convolutions.
        channels: channels of the transposed convolution.

    Call with [B, R, S, S, C]; returns float32 logits [B, R, 2S, 2S, K].
    """

    def __init__(
        self,
        num_classes: int,
        convs: Sequence[int] = (256, 256, 256, 256),
        channels: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, convs, channels, **kwargs)

    def _make_convs(self, channels: Sequence[int], norm: Norm | None) -> None:
        super()._make_convs(channels, norm)
        for conv in self.convs:
            conv.activation = keras.activations.linear  # it comes after the normalisation
        self.norms = [
            FixedBatchNormalization(dtype=self.dtype_policy, name=f"conv_{i}_bn") for i in range(len(channels))
        ]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["norm"], config["class_agnostic"]
        return config


@register
class MatterportDecoder(Float32Layer):
    """One class a region: its most probable one, with that class's deltas, clipped to the image, then NMS per class.

    Args:
        canvas: what the images are padded to: see `keras_rcnn.data.MatterportPreprocessor`.
        score_threshold: the least score (DETECTION_MIN_CONFIDENCE).
        iou_threshold: of the NMS within a class (DETECTION_NMS_THRESHOLD).
        max_detections: int D, the most kept in a class, and in an image (DETECTION_MAX_INSTANCES).

    Call with logits [B, R, K + 1] (background last), deltas [B, R, K or 1, 4], proposals [B, R, 4] and image sizes
    [B, 2]; returns a dict `boxes` [B, D, 4] in the preprocessed image's pixels, `scores` [B, D], `labels` int32 [B, D],
    best first, padded with label -1. Proposals of zeros take part as all others do: Matterport's do, and where its RPN
    gives fewer than it may, they can become objects of one pixel in the image's corner.
    """

    def __init__(
        self,
        canvas: matterport.Canvas = 1024,
        score_threshold: float = 0.7,
        iou_threshold: float = 0.3,
        max_detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "detections", **kwargs})
        self.canvas: matterport.Canvas = matterport.check_canvas(canvas)
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.max_detections = max_detections

    def call(self, logits: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        scores = ops.softmax(logits, axis=-1)
        best = ops.max(scores, axis=-1, keepdims=True)
        labels = ops.argmax(scores, axis=-1)
        moves = of_class(deltas, labels)
        boxes = delta_ops.decode(moves, matterport.to_centres(proposals), WEIGHTS, matterport.NO_CLAMP)
        window = matterport.windows(image_sizes, self.canvas) - ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        boxes = matterport.clip_to(boxes, window)
        chosen = ops.arange(logits.shape[-1] - 1, dtype=labels.dtype) == labels[..., None]
        scores = ops.where(ops.logical_and(chosen, best >= self.score_threshold), best, -1.0)
        most = self.max_detections
        boxes, scores, labels = multiclass_nms(boxes[:, :, None], scores, self.iou_threshold, -0.5, most, most)
        return {"boxes": matterport.to_pixels(boxes, labels >= 0), "scores": scores, "labels": labels}

    def compute_output_spec(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: Tensor
    ) -> dict[str, Any]:
        batch, count = logits.shape[0], self.max_detections
        return {
            "boxes": spec(batch, count, 4),
            "scores": spec(batch, count),
            "labels": spec(batch, count, dtype="int32"),
        }

    def get_config(self) -> dict[str, Any]:
        config = {"canvas": self.canvas, "score_threshold": self.score_threshold}
        config |= {"iou_threshold": self.iou_threshold, "max_detections": self.max_detections}
        return {**super().get_config(), **config}
