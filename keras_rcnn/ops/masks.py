"""Instance masks: training targets and the binary result.

A ground-truth mask is kept as a crop: `masks` [B, N, M, M'] is the part of the image under `frames` [B, N, 4] (xyxy
pixels, usually the object's box), resized to M x M'. A mask of the whole image is the same with the image as its frame.
"""

import numpy as np
from keras import ops

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.roi import roi_align


def crop_masks(masks: Tensor, frames: Tensor, boxes: Tensor, size: int, aligned: bool = True) -> Tensor:
    """Mask targets: the ground truth's mask under each box, by RoIAlign with adaptive sampling.

    Args:
        masks: [B, R, M, M'] uint8, bool or float in [0, 1], the mask matched to each box.
        frames: float32 [B, R, 4], where in the image each mask lies.
        boxes: float32 [B, R, 4], the regions to cut out.
        size: int, side of the targets.
        aligned: True takes a mask's cell to be known at its middle. False repeats torchvision, where a pixel of the
            image is known at its corner: all targets are half a pixel of the image too far up and left.

    Returns:
        float32 [B, R, size, size] in [0, 1]; outside its frame a mask is 0.
    """
    batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
    rows, columns = ops.shape(masks)[2], ops.shape(masks)[3]
    extent = frames[..., 2:] - frames[..., :2]
    extent = ops.where(extent > 0, extent, np.inf)  # the frame of padding: its mask is cut at the corner
    cells = ops.stack([ops.cast(columns, "float32"), ops.cast(rows, "float32")])
    scale = cells / extent
    scale, origin = ops.concatenate([scale, scale], -1), ops.concatenate([frames[..., :2]] * 2, -1)
    local = (boxes - origin + (0.0 if aligned else 0.5)) * scale - 0.5
    maps = ops.reshape(ops.cast(masks, "float32"), (batch * count, rows, columns, 1))
    targets = roi_align(maps, ops.reshape(local, (-1, 1, 4)), 1.0, size, samples=0)
    return ops.reshape(targets, (batch, count, size, size))
