"""Proposals that come from outside, as Fast R-CNN takes them."""

from typing import Any

from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.layers.base import Float32Layer, register, spec
from keras_rcnn.ops import boxes as box_ops


@register
class GivenProposals(Float32Layer):
    """Given proposals as the regions to look at.

    Args:
        clip: whether they are clipped to the image, and those without an area left out, as in Detectron2. False takes
            them as they are, what reaches over the border included.
        most: `(training, inference)`: how many of them are taken, the first; None takes all.

    Call with boxes [B, P, 4] (zeros are padding) and image sizes [B, 2]; returns boxes [B, P', 4], of which those left
    out are zeros.
    """

    def __init__(self, clip: bool = False, most: tuple[int, int] | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "given_proposals", **kwargs})
        self.clip, self.most = clip, None if most is None else tuple(most)

    def call(self, proposals: Tensor, image_sizes: Tensor, training: bool = False) -> Tensor:
        if self.clip:
            proposals = box_ops.clip(proposals, image_sizes)
            sides = proposals[..., 2:] - proposals[..., :2]
            proposals = ops.where(ops.min(sides, axis=-1, keepdims=True) > 0, proposals, 0.0)
        return proposals if self.most is None else proposals[:, : self.most[0 if training else 1]]

    def compute_output_spec(self, proposals: Tensor, image_sizes: Tensor, training: bool = False) -> Tensor:
        return spec(proposals.shape[0], None, 4)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip": self.clip, "most": self.most}
