"""Anything that shows a picture -> uint8 RGB `[height, width, 3]`."""

import io
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_ORIENTATION = 0x0112  # the EXIF tag; 5..8 swap width and height
_ARRAY_RULE = "uint8, uint16 (0..65535), bool, or float in 0..1 or 0..255"


class ImageError(ValueError):
    """An image that cannot be read; the message names the file and what is wrong with it."""


def read_image(source):
    """Reads an image as uint8 RGB.

    EXIF orientation is applied, grey and palette images become RGB, alpha is dropped, and 16-bit values are scaled from
    0..65535 to 0..255. Float arrays are taken as 0..1 if no value exceeds 1, else as 0..255.

    Args:
        source: Path of a file, its encoded `bytes`, or an array `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`.

    Returns:
        uint8 array `[height, width, 3]`.

    Raises:
        ImageError: The file is missing, empty, truncated or no image, or the array's shape or values are no image's.
    """
    if not isinstance(source, (str, os.PathLike, bytes)):
        return _from_array(source)
    with _opened(source) as image:
        try:
            if _orientation(image) != 1:
                image = ImageOps.exif_transpose(image)
            return _from_pil(image, _name(source))
        except (OSError, SyntaxError, EOFError, ValueError, LookupError, struct.error) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{_name(source)}: truncated or damaged image ({error})") from error


def image_size(source):
    """`(height, width)` of an image as `read_image` returns it; of a file only the header is read."""
    if not isinstance(source, (str, os.PathLike, bytes)):
        return tuple(np.shape(source)[:2])
    with _opened(source) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def _name(source):
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)


def _opened(source):
    name = _name(source)
    if isinstance(source, bytes):
        empty, source = not source, io.BytesIO(source)
    else:
        path = Path(source)
        if not path.exists():
            raise ImageError(f"{name}: no such image file")
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, not an image file")
        empty = path.stat().st_size == 0
    if empty:
        raise ImageError(f"{name}: empty file (0 bytes)")
    try:
        return Image.open(source)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image, or a format that Pillow does not read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to decode safely ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: cannot be opened ({error})") from error


def _orientation(image):
    try:
        return image.getexif().get(_ORIENTATION, 1) or 1
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):  # says nothing about the pixels
        return 1


def _from_pil(image, name):
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode != "F":
            if values.size and (values.min() < 0 or values.max() > 65535):
                raise ImageError(f"{name}: integer pixels {values.min()}..{values.max()} are outside 0..65535")
            values = values.astype(np.uint16)
        return _from_array(values, name)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB Pillow warns
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def _from_array(array, name="image array"):
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; it looks channels-first: transpose it with `array.transpose(1, 2, 0)`"
        elif array.ndim == 4:
            hint = "; it looks like a batch: pass a list of images"
        raise ImageError(f"{name}: shape {array.shape}, expected [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]{hint}")
    if array.size == 0:
        raise ImageError(f"{name}: shape {array.shape} has no pixels")
    array = _to_uint8(array[..., :3], name)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_uint8(array, name):
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (np.issubdtype(array.dtype, np.integer) or array.dtype.kind == "f" or array.dtype.name == "bfloat16"):
        raise ImageError(f"{name}: dtype {array.dtype}, expected {_ARRAY_RULE}")
    floating = not np.issubdtype(array.dtype, np.integer)
    array = array.astype(np.float32) if floating else array
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also catches NaN
        raise ImageError(f"{name}: values {low}..{high}, expected {_ARRAY_RULE}; was it normalised already?")
    if floating:
        array = np.rint(array * 255 if high <= 1 else array)
    return array.astype(np.uint8)
