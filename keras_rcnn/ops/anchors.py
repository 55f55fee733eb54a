"""Anchors (Faster R-CNN, section 3.1.1): reference boxes of several sizes and shapes at every feature cell."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_rcnn.interfaces import Tensor


def cell_anchors(
    sizes: ArrayLike,
    aspect_ratios: ArrayLike,
    rounded: bool = True,
    order: Literal["ratios", "sizes"] = "ratios",
) -> np.ndarray:
    """The anchors of one cell, centred at the origin.

    Args:
        sizes: side lengths in pixels of the square anchor.
        aspect_ratios: height / width.
        rounded: whether corners are rounded half to even, as torchvision's weights expect.
        order: what is outermost, `"ratios"` or `"sizes"`.

    Returns:
        numpy float32 [len(aspect_ratios) * len(sizes), 4].
    """
    sizes = np.asarray(sizes, np.float32)
    heights = np.sqrt(np.asarray(aspect_ratios, np.float32))
    w, h = (1 / heights)[:, None] * sizes[None], heights[:, None] * sizes[None]
    if order == "sizes":
        w, h = w.T, h.T
    w, h = w.reshape(-1), h.reshape(-1)
    corners = np.stack([-w, -h, w, h], axis=1) / 2
    return (np.round(corners) if rounded else corners).astype(np.float32)


def grid_anchors(
    cell: Tensor,
    map_size: Sequence[int | Tensor],
    image_size: Sequence[int | Tensor],
    stride: int | None = None,
) -> Tensor:
    """The anchors of a whole feature map, cells row by row, a cell's anchors innermost.

    Centres lie at i * stride with no half offset.

    Args:
        cell: [A, 4] from `cell_anchors`.
        map_size: (height, width) of the feature map: ints or scalar tensors.
        image_size: (height, width) of the padded image.
        stride: int, pixels a cell. None: the padded image's side floor-divided by the map's, per axis, which is
            torchvision's rule: a pooled level can have stride 58 where 64 is expected.

    Returns:
        float32 [height * width * A, 4] xyxy in pixels.
    """
    cell = ops.convert_to_tensor(cell, dtype="float32")
    steps = [image_size[i] // map_size[i] if stride is None else stride for i in (0, 1)]
    ys, xs = (ops.cast(ops.arange(map_size[i]) * steps[i], "float32") for i in (0, 1))
    y, x = ops.meshgrid(ys, xs, indexing="ij")
    shifts = ops.reshape(ops.stack([x, y, x, y], axis=-1), (-1, 1, 4))
    return ops.reshape(shifts + cell[None], (-1, 4))
