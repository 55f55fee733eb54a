"""Shapes that annotation tools draw, as boxes, polygons and run lengths."""

import base64
import binascii
import io
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_rcnn.data.fields import number, numbers
from keras_rcnn.data.images import MAX_PIXELS, ImageError, read_image

STEP = 5  # degrees between the corners of a circle, as VIA writes it to COCO


def points_of(values: Any) -> list[float] | None:
    """`[[x, y], ...]` or `[x, y, ...]` as a flat list of numbers; None if it holds anything else."""
    if not isinstance(values, (list, tuple)):
        return None
    if all(isinstance(point, (list, tuple)) and len(point) == 2 for point in values):
        values = [side for point in values for side in point]
    return numbers(values)


def ellipse(cx: float, cy: float, rx: float, ry: float, turned: float = 0.0) -> tuple[list[float], list[float]]:
    """An ellipse as `(box, polygon)`.

    Args:
        cx: The centre's x.
        cy: Its y.
        rx: Half the axis along x, before it is turned.
        ry: Half the other axis.
        turned: Angle in radians, clockwise in an image.
    """
    angles = np.radians(np.arange(0, 360, STEP))
    cos, sin = math.cos(turned), math.sin(turned)
    x = cx + rx * np.cos(angles) * cos - ry * np.sin(angles) * sin
    y = cy + rx * np.cos(angles) * sin + ry * np.sin(angles) * cos
    half = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    box = [cx - half[0], cy - half[1], cx + half[0], cy + half[1]]
    return box, np.stack([x, y], axis=1).ravel().tolist()


def turned_box(
    box: Sequence[float], degrees: float, about: tuple[float, float] | None = None
) -> tuple[list[float], list[float]]:
    """A box that is turned clockwise, as `(enclosing box, polygon)`.

    Args:
        box: `[x1, y1, x2, y2]`.
        degrees: The angle.
        about: The point that stays; None for the centre.
    """
    x1, y1, x2, y2 = box
    cx, cy = ((x1 + x2) / 2, (y1 + y2) / 2) if about is None else about
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = [
        (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    ]
    xs, ys = zip(*points)
    return [min(xs), min(ys), max(xs), max(ys)], [side for point in points for side in point]


def finite(*values: Any) -> list[float] | None:
    """The values as numbers; None if one of them is none, or is not finite."""
    good = [side for side in map(number, values) if side is not None and math.isfinite(side)]
    return good if len(good) == len(values) else None


def run_lengths(crop: np.ndarray, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """A mask that lies somewhere in an image as COCO's run lengths.

    Args:
        crop: Array `[h, w]`, not 0 inside.
        left: Where it begins, in px; what lies outside the image is cut off.
        top: Likewise.
        height: The image's height in px.
        width: The image's width in px.

    Raises:
        ValueError: the image is too large to be believed.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"a mask in an image of {width} x {height} px")
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + crop.shape[1], width), min(top + crop.shape[0], height)
    full = np.zeros((width, height), np.uint8)  # column by column, as COCO counts
    if x2 > x1 and y2 > y1:
        full[x1:x2, y1:y2] = crop[y1 - top : y2 - top, x1 - left : x2 - left].T != 0
    flat = full.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


def png_mask(text: Any, packed: bool = False) -> np.ndarray:
    """A mask as tools put it into json: a PNG in base64, perhaps packed by zlib -> array `[h, w]`.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str):
        raise ValueError("its bitmap is not text")
    try:
        data = base64.b64decode(text, validate=False)
        if packed:
            data = zlib.decompressobj().decompress(data, 64 << 20)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"its bitmap cannot be unpacked ({error})") from error
    try:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} px")
            if image.mode == "RGBA":
                return np.asarray(image)[..., 3]
            if image.mode in ("1", "L", "P"):
                return np.asarray(image).astype(np.uint8)
        return np.any(read_image(data), axis=-1)
    except Exception as error:  # decoders raise whatever they like
        raise ValueError(f"its bitmap is no image ({error})") from error
