"""The Region Proposal Network (Faster R-CNN, section 3.1).

Shapes: B images, L pyramid levels, A_l = H_l * W_l * anchors a cell, A = sum of A_l.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.ops import anchors as anchor_ops
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops.nms import multiclass_nms


@register
class AnchorGenerator(Float32Layer):
    """Anchors of every level (Faster R-CNN, section 3.1.1).

    Args:
        sizes: for each level the side lengths in pixels.
        aspect_ratios: height / width, the same for every level.
        rounded: whether corners are rounded to whole pixels, as torchvision does.
        strides: for each level the pixels a cell. None: the image's side floor-divided by the map's, as torchvision
            has it, which is less than a cell's pixels where the map has been rounded up.
        order: of a cell's anchors: `"ratios"`, all sizes of the first ratio first, as torchvision, or `"sizes"`, all
            ratios of the first size first, as Detectron2.

    Call with the list of L feature maps and the images [B, H, W, 3] (for their size); returns L tensors [A_l, 4].
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rounded: bool = True,
        strides: Sequence[int] | None = None,
        order: Literal["ratios", "sizes"] = "ratios",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "anchors", **kwargs})
        if order not in ("ratios", "sizes"):
            raise ValueError(f"AnchorGenerator's order is 'ratios' or 'sizes', not {order!r}.")
        self.order: Literal["ratios", "sizes"] = order
        self.sizes = tuple(tuple(level) for level in sizes)
        self.aspect_ratios, self.rounded = tuple(aspect_ratios), rounded
        self.strides = None if strides is None else tuple(strides)
        if self.strides is not None and len(self.strides) != len(self.sizes):
            raise ValueError(f"{len(self.strides)} strides for {len(self.sizes)} lists of anchor sizes.")

    @property
    def num_anchors(self) -> int:
        """Anchors a cell; the head is shared, so every level has the same number."""
        counts = {len(level) * len(self.aspect_ratios) for level in self.sizes}
        if len(counts) != 1:
            raise ValueError(f"Every level needs the same number of anchor sizes, got {self.sizes}.")
        return counts.pop()

    def call(self, features: Sequence[Tensor], images: Tensor) -> list[Tensor]:
        self._check(features)
        image_size = ops.shape(images)[1:3]
        strides = self.strides or [None] * len(features)
        cells = [anchor_ops.cell_anchors(sizes, self.aspect_ratios, self.rounded, self.order) for sizes in self.sizes]
        return [
            anchor_ops.grid_anchors(cell, ops.shape(f)[1:3], image_size, stride)
            for cell, f, stride in zip(cells, features, strides, strict=True)
        ]

    def compute_output_spec(self, features: Sequence[Tensor], images: Tensor) -> list[Tensor]:
        self._check(features)  # here too, so that a detector is not built on what fails in its first batch
        return [spec(None, 4) for _ in features]

    def _check(self, features: Sequence[Tensor]) -> None:
        if len(features) != len(self.sizes):
            raise ValueError(f"{len(self.sizes)} lists of anchor sizes for {len(features)} feature levels.")

    def get_config(self) -> dict[str, Any]:
        config = {"sizes": self.sizes, "aspect_ratios": self.aspect_ratios, "rounded": self.rounded}
        return {**super().get_config(), **config, "strides": self.strides, "order": self.order}


@register
class RPNHead(keras.layers.Layer):
    """3x3 convolution(s), then 1x1 convolutions to objectness and deltas; the same weights at every level.

    Args:
        num_anchors: anchors a cell.
        convs: number of 3x3 convolutions: 1 in the papers, 2 in torchvision's v2 models.
        channels: their channels; None keeps the input's.

    Call with the list of L maps; returns `(logits, deltas)`, lists of float32 [B, A_l] and [B, A_l, 4].
    """

    def __init__(self, num_anchors: int, convs: int = 1, channels: int | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "rpn_head", **kwargs})
        self.num_anchors, self.num_convs, self.channels = num_anchors, convs, channels

    def build(self, input_shape: Sequence[Shape]) -> None:
        settings = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01), "dtype": self.dtype_policy}
        width = in_channels = input_shape[0][-1]
        self.convs = []
        for i in range(self.num_convs):
            width = self.channels or in_channels
            conv = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv_{i}", **settings)
            conv.build((None, None, None, in_channels))
            self.convs.append(conv)
            in_channels = width
        settings["dtype"] = "float32"  # as the last layers of all heads
        self.objectness = keras.layers.Conv2D(self.num_anchors, 1, name="objectness", **settings)
        self.deltas = keras.layers.Conv2D(self.num_anchors * 4, 1, name="deltas", **settings)
        for layer in (self.objectness, self.deltas):
            layer.build((None, None, None, width))
        self.built = True

    def call(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for x in features:
            for conv in self.convs:
                x = conv(x)
            batch = ops.shape(x)[0]
            logits.append(ops.reshape(self.objectness(x), (batch, -1)))
            deltas.append(ops.reshape(self.deltas(x), (batch, -1, 4)))
        return logits, deltas

    def compute_output_spec(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        def anchors(f: Tensor) -> int | None:
            _, h, w, _ = f.shape
            return None if h is None or w is None else h * w * self.num_anchors

        return [spec(f.shape[0], anchors(f)) for f in features], [spec(f.shape[0], anchors(f), 4) for f in features]

    def get_config(self) -> dict[str, Any]:
        config = {"num_anchors": self.num_anchors, "convs": self.num_convs, "channels": self.channels}
        return {**super().get_config(), **config}


@register
class Proposals(Float32Layer):
    """Objectness and deltas -> proposals: top-k per level, NMS per level, the best of all levels.

    Args:
        pre_nms: `(training, inference)`: candidates per level.
        post_nms: `(training, inference)`: proposals per image.
        iou_threshold: of the NMS.
        score_threshold: proposals with a lower objectness are dropped.
        min_size: proposals with a shorter side, in pixels, are dropped.
        ranked_by: `"scores"`, or `"logits"` as Detectron2, with which there is no `score_threshold`: in float32 a
            sigmoid makes all logits above 17 alike. The scores returned are then these logits, of any sign.

    Call with lists of anchors [A_l, 4], logits [B, A_l], deltas [B, A_l, 4], and image sizes [B, 2]; returns
    `(boxes, scores)`, float32 [B, P, 4] and [B, P], best first, padded with zeros. No gradient flows through.
    """

    def __init__(
        self,
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (2000, 1000),
        iou_threshold: float = 0.7,
        score_threshold: float = 0.0,
        min_size: float = 1e-3,
        ranked_by: Literal["scores", "logits"] = "scores",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "proposals", **kwargs})
        if ranked_by not in ("scores", "logits"):
            raise ValueError(f"Proposals are ranked by 'scores' or 'logits', not {ranked_by!r}.")
        self.ranked_by: Literal["scores", "logits"] = ranked_by
        self.pre_nms, self.post_nms = tuple(pre_nms), tuple(post_nms)
        self.iou_threshold, self.score_threshold, self.min_size = iou_threshold, score_threshold, min_size

    def call(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        post = self.post_nms[0 if training else 1]
        boxes, scores = self.candidates(anchors, logits, deltas, image_sizes, training)
        if self.ranked_by == "logits":
            boxes, scores = self._best_by_rank(boxes, scores, post)
        else:
            boxes, scores, _ = multiclass_nms(boxes, scores, self.iou_threshold, -0.5, post, post)
        return ops.stop_gradient(boxes), ops.stop_gradient(scores)

    def candidates(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The proposals before NMS, called as the layer is: the best of each level, moved by their deltas and clipped.

        Returns:
            `(boxes, scores)`, [B, N, L, 4] and [B, N, L], a level's best first; what takes no part scores less than 0,
            or less than any logit.
        """
        count = self.pre_nms[0 if training else 1]
        levels = [
            self._of_level(a, ops.stop_gradient(z), ops.stop_gradient(d), image_sizes, count)
            for a, z, d in zip(anchors, logits, deltas, strict=True)
        ]
        return ops.stack([b for b, _ in levels], axis=2), ops.stack([s for _, s in levels], axis=2)

    def _best_by_rank(self, boxes: Tensor, logits: Tensor, post: int) -> tuple[Tensor, Tensor]:
        """The NMS of places in the order of all logits, since TensorFlow's kernel is for scores from 0 on."""
        shape, flat = ops.shape(logits), ops.reshape(logits, (ops.shape(logits)[0], -1))
        count = ops.shape(flat)[1]
        order = ops.argsort(-flat, axis=1)
        ranks = ops.cast(count - ops.argsort(order, axis=1), "float32")  # the best has the highest
        ranks = ops.where(flat > 0.5 * self.dropped, ranks, -1.0)
        boxes, ranks, _ = multiclass_nms(boxes, ops.reshape(ranks, shape), self.iou_threshold, 0.5, post, post)
        place = ops.clip(count - ops.cast(ranks, "int32"), 0, count - 1)
        best = ops.take_along_axis(ops.take_along_axis(flat, order, axis=1), place, axis=1)
        return boxes, ops.where(ranks > 0, best, 0.0)

    def _of_level(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, image_sizes: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        nothing = float("-inf")
        if logits.shape[1] is None or logits.shape[1] < count:  # top_k needs that many
            logits = ops.pad(logits, ((0, 0), (0, count)), constant_values=nothing)
        logits, index = ops.top_k(logits, count)
        exists = logits > nothing
        index = ops.where(exists, index, 0)
        chosen = ops.take_along_axis(deltas, index[..., None], axis=1)
        boxes = delta_ops.decode(chosen, ops.take(anchors, index, axis=0))
        boxes = box_ops.clip(boxes, image_sizes)
        valid = ops.logical_and(box_ops.at_least(boxes, self.min_size), exists)
        scores = logits
        if self.ranked_by == "scores":
            scores = ops.sigmoid(logits)
            valid = ops.logical_and(valid, scores >= self.score_threshold)
        return boxes, ops.where(valid, scores, self.dropped)

    @property
    def dropped(self) -> float:
        """The score of what takes no part."""
        return -1.0 if self.ranked_by == "scores" else -1e30

    def compute_output_spec(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        count = self.post_nms[0] if training else self.post_nms[1]
        return spec(logits[0].shape[0], count, 4), spec(logits[0].shape[0], count)

    def get_config(self) -> dict[str, Any]:
        config = {
            "pre_nms": self.pre_nms,
            "post_nms": self.post_nms,
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "min_size": self.min_size,
            "ranked_by": self.ranked_by,
        }
        return {**super().get_config(), **config}
