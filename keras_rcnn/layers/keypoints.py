"""The keypoint branch (Mask R-CNN, section 5): a heatmap a keypoint in each region, its loss, and what is read off it.

Shapes: B images, R regions, S bins a side, K keypoints, D detections, G ground-truth boxes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import register, spec
from keras_rcnn.layers.heads import _ConvStack
from keras_rcnn.layers.norms import Norm
from keras_rcnn.layers.regions import RoIAlign
from keras_rcnn.ops.keypoints import decode_heatmaps, keypoint_cells, keypoint_loss
from keras_rcnn.skeletons import Skeleton


@register
class KeypointHead(_ConvStack):
    """Region features -> a heatmap a keypoint: convolutions, a 2x transposed one, and a bilinear 2x on top.

    Args:
        num_keypoints: int K.
        convs: channels of the 3x3 convolutions.
        norm: None, `"batch"` or `"group"`.
        names: list of K words; None: COCO's where K is 17, else numbers.
        bones: pairs of places in `names` that are joined in a picture; None: COCO's with COCO's names, else none.

    Attributes:
        skeleton: `keras_rcnn.skeletons.Skeleton` of the names and bones.

    Call with [B, R, S, S, C]; returns float32 logits [B, R, 4S, 4S, K].
    """

    def __init__(
        self,
        num_keypoints: int = 17,
        convs: Sequence[int] = (512,) * 8,
        norm: Norm | None = None,
        names: Sequence[str] | None = None,
        bones: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "keypoint_head", **kwargs})
        self.num_keypoints, self.conv_channels = num_keypoints, tuple(convs)
        self.names, self.bones = names, bones
        self.skeleton = Skeleton.of(num_keypoints if names is None else names, bones)
        if len(self.skeleton) != num_keypoints:
            raise ValueError(f"KeypointHead has num_keypoints={num_keypoints}, and {len(self.skeleton)} names.")
        self._make_convs(self.conv_channels, norm)
        self.logits = keras.layers.Conv2DTranspose(
            num_keypoints, 4, strides=2, padding="same", kernel_initializer="he_normal", dtype="float32", name="logits"
        )

    def build(self, input_shape: Shape) -> None:
        self.logits.build(self._build_convs((None, *input_shape[2:])))
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        batch, count, side = ops.shape(x)[0], ops.shape(x)[1], 4 * x.shape[2]
        x = self._run_convs(ops.reshape(x, (-1, *x.shape[2:])), training)
        x = ops.image.resize(self.logits(x), (side, side), interpolation="bilinear", data_format="channels_last")
        return ops.reshape(x, (batch, count, side, side, self.num_keypoints))

    def compute_output_spec(self, x: Tensor, training: bool | None = None) -> Tensor:
        return spec(*x.shape[:2], 4 * x.shape[2], 4 * x.shape[3], self.num_keypoints)

    def get_config(self) -> dict[str, Any]:
        config = {"num_keypoints": self.num_keypoints, "convs": self.conv_channels, "norm": self.norm}
        return {**super().get_config(), **config, "names": self.names, "bones": self.bones}


@register
class KeypointBranch(keras.layers.Layer):
    """Keypoints for a detector: `FasterRCNN(..., keypoint_branch=KeypointBranch())`, and `MaskRCNN` likewise.

    As masks, keypoints come from the final boxes, after NMS; in training the branch runs on the positive regions. It is
    the same for all classes.

    Args:
        head: `KeypointHead`; None: COCO's 17 keypoints.
        pool: `RoIAlign`; None: 14 bins a side, from the levels of strides 4 to 32.

    Call with the list of maps and the dict of `DetectionDecoder`; returns the dict with `keypoints` float32
    [B, D, K, 3]: x, y in px of the preprocessed image, and a score, 0 for padding; see
    `keras_rcnn.ops.keypoints.decode_heatmaps`.

    For the loss call with the list of maps, the dict of `BoxTargets` (positives first), the keypoints [B, G, K, 3] of
    the objects, the number of classes and the most positive regions an image; returns a dict of `loss_keypoint`,
    float32 [B], 0 for a batch in which no keypoint is visible.
    """

    def __init__(self, head: KeypointHead | None = None, pool: keras.layers.Layer | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "keypoint_branch", **kwargs})
        self.head = head or KeypointHead()
        self.pool: Any = pool or RoIAlign(14, name="keypoint_pool")
        self.autocast = False  # boxes and keypoints stay float32, and maps as they are

    @property
    def skeleton(self) -> Skeleton:
        """The head's."""
        return self.head.skeleton

    def build(self, features_shape: Sequence[Shape], regions_shape: Any = None) -> None:
        size = self.pool.size
        if not self.head.built:
            self.head.build((None, None, size, size, features_shape[0][-1]))
        self.built = True

    def call(
        self,
        features: Sequence[Tensor],
        regions: Mapping[str, Tensor],
        keypoints: Tensor | None = None,
        num_classes: int = 1,
        most: int | None = None,
        training: bool | None = None,
    ) -> dict[str, Tensor]:
        if keypoints is None:
            return self.detected(features, regions)
        boxes, labels, truth = (regions[key][:, :most] for key in ("boxes", "labels", "truth"))
        logits = self.head(self.pool(features, boxes), training=training)
        own = ops.take_along_axis(keypoints, truth[..., None, None], axis=1)
        cells, used = keypoint_cells(own, boxes, logits.shape[2])
        positive = ops.logical_and(labels >= 0, labels < num_classes)
        return {"loss_keypoint": keypoint_loss(logits, cells, ops.logical_and(used, positive[..., None]))}

    def detected(self, features: Sequence[Tensor], detections: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The detections with their keypoints."""
        logits = self.head(self.pool(features, detections["boxes"]), training=False)
        height, width = ops.shape(features[0])[1:3]
        known = isinstance(height, int) and isinstance(width, int)
        longest = max(height, width) if known else ops.maximum(height, width)
        points = decode_heatmaps(logits, detections["boxes"], longest * self.pool.strides[0])
        exists = (detections["labels"] >= 0)[..., None, None]
        return {**detections, "keypoints": ops.where(exists, points, 0.0)}

    def compute_output_spec(
        self,
        features: Sequence[Tensor],
        regions: Mapping[str, Tensor],
        keypoints: Tensor | None = None,
        num_classes: int = 1,
        most: int | None = None,
        training: bool | None = None,
    ) -> dict[str, Tensor]:
        if keypoints is not None:
            return {"loss_keypoint": spec(keypoints.shape[0])}
        same = {key: spec(*value.shape, dtype=value.dtype) for key, value in regions.items()}
        return {**same, "keypoints": spec(*regions["boxes"].shape[:2], self.head.num_keypoints, 3)}

    def get_config(self) -> dict[str, Any]:
        parts = {"head": self.head, "pool": self.pool}
        config: dict[str, Any] = {key: keras.saving.serialize_keras_object(part) for key, part in parts.items()}
        config["head"].pop("build_config", None)  # it is built in here, or its weights would have other paths
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        parts = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("head", "pool")}
        return cls(**{**config, **parts})
