"""A ResNet's last stage run on regions of the map before it: the box head of Faster and Mask R-CNN on C4."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
from keras import ops

from keras_rcnn.backbones.base import Parts
from keras_rcnn.backbones.resnet import BLOCKS, bottlenecks
from keras_rcnn.interfaces import Shape, Tensor


@keras.saving.register_keras_serializable("keras_rcnn")
class ResNetRegions(keras.layers.Layer):
    """Regions of C4, pooled, and the stage C5 for each of them (He et al. 2015, appendix A; Detectron2's Res5ROIHeads).

    It is passed as the detector's `box_pool`, with `RegionMean` as the `box_head`. In Mask R-CNN the same layer is the
    `mask_pool` too: both branches share the stage, and the masks come straight from its 7 x 7 cells.

    Args:
        pool: a layer such as `RoIAlign(14, (16,), samples=0, aligned=True)`.
        depth: int, of the ResNet: 50, 101 or 152.
        norm: `"frozen"`, `"batch"` or `"group"`, as in `ResNet`.
        epsilon, momentum: of the normalisation.
        groups, width_per_group, stride_in_1x1: as in `ResNet`.
        chunk: int, regions at once at inference; memory grows with it and not with their number.

    Call with the list of maps and boxes [B, R, 4]; returns [B, R, S / 2, S / 2, 2048] for `pool`'s S bins a side.

    Example:

    >>> pool = keras_rcnn.layers.RoIAlign(14, (16,), samples=0, aligned=True)
    >>> regions = keras_rcnn.backbones.ResNetRegions(pool)
    """

    def __init__(
        self,
        pool: keras.layers.Layer,
        depth: Literal[50, 101, 152] = 50,
        norm: Literal["frozen", "batch", "group"] = "frozen",
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = False,
        chunk: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "box_pool", **kwargs})
        if depth not in BLOCKS or depth < 50:
            raise ValueError(f"ResNetRegions' depth is 50, 101 or 152, not {depth!r}.")
        self.pool, self.depth, self.norm, self.chunk = pool, depth, norm, chunk
        self.epsilon, self.momentum = epsilon, momentum
        self.groups, self.width_per_group, self.stride_in_1x1 = groups, width_per_group, stride_in_1x1
        parts = Parts(norm, epsilon, momentum, self.dtype_policy)
        inputs = keras.Input((pool.size, pool.size, 1024), name="regions", dtype=self.compute_dtype)
        outputs = bottlenecks(parts, inputs, 4, BLOCKS[depth][3], groups, width_per_group, stride_in_1x1, False)
        self.stage = keras.Model(inputs, outputs, name="stage")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the maps that are pooled from."""
        return self.pool.strides

    def build(self, *shapes: Shape) -> None:
        self.built = True  # the stage is

    def call(self, features: Sequence[Tensor], boxes: Tensor, training: bool = False) -> Tensor:
        if training:
            return self._features(features, boxes, training)
        count = ops.shape(boxes)[1]
        chunks = (count + self.chunk - 1) // self.chunk
        padded = ops.pad(boxes, ((0, 0), (0, chunks * self.chunk - count), (0, 0)))
        parts = ops.reshape(padded, (ops.shape(boxes)[0], chunks, self.chunk, 4))
        done = ops.map(lambda part: self._features(features, part, False), ops.moveaxis(parts, 1, 0))
        done = ops.moveaxis(done, 0, 1)
        return ops.reshape(done, (ops.shape(boxes)[0], chunks * self.chunk, *done.shape[3:]))[:, :count]

    def _features(self, features: Sequence[Tensor], boxes: Tensor, training: bool) -> Tensor:
        pooled = self.pool(features, boxes)
        batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
        cells = self.stage(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=training)
        return ops.reshape(cells, (batch, count, *cells.shape[1:]))

    def compute_output_spec(self, features: Sequence[Tensor], boxes: Tensor, training: bool = False) -> Tensor:
        return keras.KerasTensor((*boxes.shape[:2], *self.stage.output_shape[1:]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        config = {
            "pool": keras.saving.serialize_keras_object(self.pool),
            "depth": self.depth,
            "norm": self.norm,
            "epsilon": self.epsilon,
            "momentum": self.momentum,
            "groups": self.groups,
            "width_per_group": self.width_per_group,
            "stride_in_1x1": self.stride_in_1x1,
            "chunk": self.chunk,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "pool": keras.saving.deserialize_keras_object(config["pool"])})
