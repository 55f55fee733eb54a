"""Features of regions as layers: RoIAlign over pyramid levels, and RoIPool."""

import math

import keras

from keras_rcnn.layers.base import Geometry, register
from keras_rcnn.ops import roi


class _Regions(Geometry):
    def compute_output_spec(self, features, boxes):
        shape = (*boxes.shape[:2], self.size, self.size, features[0].shape[-1])
        return keras.KerasTensor(shape, dtype=features[0].dtype)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # features keep the dtype that the policy gave them; boxes are float32 already


@register
class RoIAlign(_Regions):
    """RoIAlign (Mask R-CNN, section 3), each region on the pyramid level that fits its size (FPN, eq. 1).

    Args:
        size: int, bins a side: 7 for boxes, 14 for masks.
        strides: stride in pixels of each level that is used, finest first; further maps are left alone.
        samples: samples a bin and axis.
        aligned: whether coordinates are shifted by half a cell (Detectron2's ROIAlignV2); torchvision's are not.
        canonical_size: the side in pixels that goes to `canonical_level`.
        canonical_level: int, log2 of that level's stride.

    Call with the list of maps [B, H_l, W_l, C] and boxes [B, R, 4]; returns [B, R, size, size, C].
    """

    def __init__(
        self, size=7, strides=(4, 8, 16, 32), samples=2, aligned=False, canonical_size=224, canonical_level=4, **kwargs
    ):
        super().__init__(**{"name": "roi_align", **kwargs})
        self.size, self.strides, self.samples, self.aligned = size, tuple(strides), samples, aligned
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def call(self, features, boxes):
        features = features[: len(self.strides)]
        lowest, highest = int(math.log2(self.strides[0])), int(math.log2(self.strides[-1]))
        levels = roi.level_index(boxes, lowest, highest, self.canonical_size, self.canonical_level)
        scales = [1.0 / s for s in self.strides]
        return roi.multilevel_roi_align(features, boxes, levels, scales, self.size, self.samples, self.aligned)

    def get_config(self):
        config = {
            "size": self.size,
            "strides": self.strides,
            "samples": self.samples,
            "aligned": self.aligned,
            "canonical_size": self.canonical_size,
            "canonical_level": self.canonical_level,
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

    def __init__(self, size=7, strides=(16,), **kwargs):
        super().__init__(**{"name": "roi_pool", **kwargs})
        self.size, self.strides = size, tuple(strides)

    def call(self, features, boxes):
        return roi.roi_pool(features[0], boxes, 1.0 / self.strides[0], self.size)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "strides": self.strides}
