"""Detectron2's way of resizing photos: its rule for the sides, and Pillow's bilinear filter on 8 bits."""

from collections.abc import Sequence

import numpy as np


def pillow_size(
    height: int, width: int, min_size: int, max_size: int, limits: Sequence[int] | None = None
) -> tuple[int, int]:
    """`(height, width)` in px that Detectron2's `ResizeShortestEdge` gives, rounded half up and not truncated.

    Args:
        height, width: of the photo, px.
        min_size: of the shorter side, px.
        max_size: the most for the longer side, px.
        limits: `(height, width)` that the photo has to fit into besides, px, or None.

    Returns:
        Two ints, at least 1.
    """
    scale = min_size / min(height, width)
    sides = (float(min_size), scale * width) if height < width else (scale * height, float(min_size))
    # one after the other, as Detectron2 has it: a product of both factors may be rounded otherwise
    if max(sides) > max_size:
        scale = max_size / max(sides)
        sides = (sides[0] * scale, sides[1] * scale)
    if limits is not None:
        scale = min(1.0, limits[0] / sides[0], limits[1] / sides[1])
        sides = (sides[0] * scale, sides[1] * scale)
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def resize_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bilinear resize, which antialiases where it shrinks, and rounds to 8 bits.

    Args:
        image: uint8 `[h, w, 3]`, or floats in 0..1, which are rounded first.
        height, width: px.

    Returns:
        uint8 `[height, width, 3]`.
    """
    from PIL import Image

    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
