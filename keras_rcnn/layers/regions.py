"""Features of regions as layers: RoIAlign over pyramid levels, RoIPool, and R-CNN's warp and CNN for each region."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_rcnn.interfaces import Shape, Tensor
from keras_rcnn.layers.base import Float32Layer, register
from keras_rcnn.ops import roi
from keras_rcnn.ops.warp import MODES, warp_regions


class _Regions(Float32Layer):
    def compute_output_spec(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        shape = (*boxes.shape[:2], self.size, self.size, features[0].shape[-1])
        return keras.KerasTensor(shape, dtype=features[0].dtype)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False  # features keep the dtype that the policy gave them; boxes are float32 already


@register
class RoIAlign(_Regions):
    """RoIAlign (Mask R-CNN, section 3), each region on the pyramid level that fits its size (FPN, eq. 1).

    Args:
        size: int, bins a side: 7 for boxes, 14 for masks.
        strides: stride in pixels of each level that is used, finest first; further maps are left alone.
        samples: samples a bin and axis; 0 takes ceil(side / size) of them, in cells of the map, each region its own
            number, as the paper's code and Detectron2 do.
        aligned: whether coordinates are shifted by half a cell (Detectron2's ROIAlignV2); torchvision's are not.
        canonical_size: the side in pixels that goes to `canonical_level`.
        canonical_level: int, log2 of that level's stride.
        level_rule: on which level sides of exactly a power of two end up, `"torchvision"`'s or `"detectron2"`'s: see
            `keras_rcnn.ops.roi.level_index`.

    Call with the list of maps [B, H_l, W_l, C] and boxes [B, R, 4]; returns [B, R, size, size, C].
    """

    def __init__(
        self,
        size: int = 7,
        strides: Sequence[int] = (4, 8, 16, 32),
        samples: int = 2,
        aligned: bool = False,
        canonical_size: float = 224,
        canonical_level: int = 4,
        level_rule: Literal["torchvision", "detectron2"] = "torchvision",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "roi_align", **kwargs})
        if level_rule not in ("torchvision", "detectron2"):
            raise ValueError(f"RoIAlign's level_rule is 'torchvision' or 'detectron2', not {level_rule!r}.")
        self.level_rule: Literal["torchvision", "detectron2"] = level_rule
        self.size, self.strides, self.samples, self.aligned = size, tuple(strides), samples, aligned
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def call(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        features, levels = features[: len(self.strides)], self.levels(boxes)
        scales = [1.0 / s for s in self.strides]
        return roi.multilevel_roi_align(features, boxes, levels, scales, self.size, self.samples, self.aligned)

    def levels(self, boxes: Tensor) -> Tensor:
        """Which of the maps each of the boxes [..., 4] is pooled from, int32 [...], 0 for the finest."""
        lowest, highest = int(math.log2(self.strides[0])), int(math.log2(self.strides[-1]))
        inside = self.level_rule == "detectron2"
        return roi.level_index(boxes, lowest, highest, self.canonical_size, self.canonical_level, inside)

    def get_config(self) -> dict[str, Any]:
        config = {
            "size": self.size,
            "strides": self.strides,
            "samples": self.samples,
            "aligned": self.aligned,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
            "level_rule": self.level_rule,
        }
        return {**super().get_config(), **config}


@register
class RoIPool(_Regions):
    """RoIPool (Fast R-CNN, section 2.1) on the first map: the maximum of each bin, with the paper's rounding.

    Args:
        size: int, bins a side.
        strides: `(stride,)` of the map.

    Call with the list of maps and boxes [B, R, 4]; returns [B, R, size, size, C].
    """

    def __init__(self, size: int = 7, strides: Sequence[int] = (16,), **kwargs: Any) -> None:
        super().__init__(**{"name": "roi_pool", **kwargs})
        self.size, self.strides = size, tuple(strides)

    def call(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        return roi.roi_pool(features[0], boxes, 1.0 / self.strides[0], self.size)

    def cells(self, boxes: ArrayLike) -> np.ndarray:
        """The corners of boxes in cells, numpy int [n, 4]: regions of the same cells have the same features."""
        return ops.convert_to_numpy(roi.cells(np.asarray(boxes, np.float32), 1.0 / self.strides[0]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "strides": self.strides}


@register
class RegionWarp(Float32Layer):
    """Each region of the image, stretched to one size (R-CNN, section 2.1); see `keras_rcnn.ops.warp.warp_regions`.

    Args:
        size: int, side of the crops: 227 for AlexNet, 224 for VGG16.
        context: int, pixels of a crop, on each side, that show what is around the region.
        mode: `"warp"`, `"square"` or `"square_without_context"`.

    Call with images [B, H, W, C], boxes [B, R, 4] and image sizes [B, 2]; returns [B, R, size, size, C].
    """

    def __init__(
        self,
        size: int = 224,
        context: int = 16,
        mode: Literal["warp", "square", "square_without_context"] = "warp",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "region_warp", **kwargs})
        if not 0 <= 2 * context < size:
            raise ValueError(f"context={context} pixels on each side leave nothing of a crop of {size}.")
        if mode not in MODES:
            raise ValueError(f"The warp's mode is one of {', '.join(MODES)}, not {mode!r}.")
        self.size, self.context, self.mode = size, context, mode

    def call(self, images: Tensor, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        return warp_regions(images, boxes, image_sizes, self.size, self.context, self.mode)

    def compute_output_spec(self, images: Tensor, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        shape = (*boxes.shape[:2], self.size, self.size, images.shape[-1])
        return keras.KerasTensor(shape, dtype=images.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "context": self.context, "mode": self.mode}


@register
class RegionCNN(keras.layers.Layer):
    """The whole CNN for each region on its own (R-CNN, section 2.1): what Fast R-CNN's shared map made needless.

    Args:
        backbone: a model from `keras_rcnn.backbones`.
        neck: `SingleLevel`, the map that is taken.
        warp: `RegionWarp`.
        chunk: int, regions at once at inference; memory grows with it and not with their number.

    Call with images [B, H, W, 3], boxes [B, R, 4] and image sizes [B, 2]; returns [B, R, h, w, C].
    """

    def __init__(
        self, backbone: keras.Model, neck: keras.layers.Layer, warp: keras.layers.Layer, chunk: int = 32, **kwargs: Any
    ) -> None:
        super().__init__(**{"name": "region_cnn", **kwargs})
        self.backbone, self.neck, self.warp, self.chunk = backbone, neck, warp, chunk

    def build(self, *shapes: Shape) -> None:
        self.built = True  # the backbone is

    def call(self, images: Tensor, boxes: Tensor, image_sizes: Tensor, training: bool = False) -> Tensor:
        if training:
            return self._features(images, boxes, image_sizes, training)
        count = ops.shape(boxes)[1]
        chunks = (count + self.chunk - 1) // self.chunk
        padded = ops.pad(boxes, ((0, 0), (0, chunks * self.chunk - count), (0, 0)))
        parts = ops.reshape(padded, (ops.shape(boxes)[0], chunks, self.chunk, 4))
        pooled = ops.map(lambda part: self._features(images, part, image_sizes, False), ops.moveaxis(parts, 1, 0))
        pooled = ops.moveaxis(pooled, 0, 1)
        return ops.reshape(pooled, (ops.shape(boxes)[0], chunks * self.chunk, *pooled.shape[3:]))[:, :count]

    def _features(self, images: Tensor, boxes: Tensor, image_sizes: Tensor, training: bool) -> Tensor:
        crops = self.warp(images, boxes, image_sizes)
        batch, count, size = ops.shape(crops)[0], ops.shape(crops)[1], self.warp.size
        maps = self.backbone(ops.reshape(crops, (-1, size, size, 3)), training=training)
        (features,) = self.neck(maps)
        return ops.reshape(features, (batch, count, *features.shape[1:]))

    def compute_output_spec(self, images: Tensor, boxes: Tensor, image_sizes: Tensor, training: bool = False) -> Tensor:
        crop = keras.KerasTensor((None, self.warp.size, self.warp.size, 3), dtype="float32")
        (features,) = self.neck.compute_output_spec(self.backbone.compute_output_spec(crop))
        return keras.KerasTensor((*boxes.shape[:2], *features.shape[1:]), dtype=features.dtype)

    def get_config(self) -> dict[str, Any]:
        config = {"backbone": self.backbone, "neck": self.neck, "warp": self.warp}
        config = {key: keras.saving.serialize_keras_object(value) for key, value in config.items()}
        return {**super().get_config(), **config, "chunk": self.chunk}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        parts = {k: keras.saving.deserialize_keras_object(config[k]) for k in ("backbone", "neck", "warp")}
        return cls(**{**config, **parts})
