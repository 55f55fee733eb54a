"""Anything that shows a picture -> uint8 RGB `[height, width, 3]`."""

import contextlib
import inspect
import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from keras_rcnn.interfaces import FilePath

# 3 bytes a px as read, and some 20 while it is resized: 1.8 GB. It is the number at which Pillow warns of an attack.
MAX_PIXELS = 89_478_485
_VARIABLE = "KERAS_RCNN_MAX_PIXELS"
_PILLOW = threading.Lock()  # while Pillow's own limit, a global, is set aside
_ORIENTATION = 0x0112  # the EXIF tag; 5..8 swap width and height
_ARRAY_RULE = "uint8, uint16 (0..65535), bool, or float in 0..1 or 0..255"
_SOURCES = "a path, the bytes of an image file, an open file, a PIL image or an array"
_OVERSHOOT = 0.1  # what resizing adds beyond 0 and 1 to floats: a bicubic filter 7 % at an edge
_Answer = TypeVar("_Answer")


class ImageError(ValueError):
    """An image that cannot be read; the message names the file and what is wrong with it."""


def read_image(source: Any, max_pixels: int | None = None) -> np.ndarray:
    """Reads an image as uint8 RGB.

    EXIF orientation is applied, grey, palette and CMYK images and those of any other mode become RGB, alpha is dropped,
    and 16-bit values are scaled from 0..65535 to 0..255. Float arrays are taken as 0..1 if no value exceeds 1 (or, of
    values that are not whole, 2: what a filter adds is cut off), else as 0..255.

    Args:
        source: Path of a file, its encoded `bytes`, an open binary file or upload, a `PIL.Image`, or an array `[h, w]`,
            `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`.
        max_pixels: Width times height at most of what is decoded; None takes `pixel_limit()`.

    Returns:
        uint8 array `[height, width, 3]`.

    Raises:
        ImageError: The file is missing, empty, truncated, too large or no image, or the array's shape or values are no
            image's.

    Example:

    ```python
    image = read_image("street.jpg")
    huge = read_image("map.png", max_pixels=20_000 * 20_000)
    ```
    """
    if not _is_encoded(source) and not isinstance(source, Image.Image):
        return _from_array(source)
    return _decoded(source, max_pixels, _from_pil)


def decoded_size(path: FilePath) -> tuple[int, int]:
    """`(height, width)` of an image file as `read_image` returns it, all of whose data is read: a JPEG at an eighth.

    Raises:
        ImageError: as `read_image`.
    """

    def decode(image: Image.Image, name: str) -> None:
        if image.format == "JPEG":
            image.load()
        else:
            _from_pil(image, name)

    _decoded(path, None, decode, draft=True)
    return image_size(path)


def _decoded(
    source: Any, max_pixels: int | None, convert: Callable[[Image.Image, str], _Answer], draft: bool = False
) -> _Answer:
    name = _name(source)
    image = source if isinstance(source, Image.Image) else _opened(source, name, max_pixels)
    try:
        _check_pixels(image.width, image.height, name, max_pixels)
        if draft:
            image.draft(None, (image.width // 8, image.height // 8))
        elif _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        return convert(image, name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever they like, libavif a RuntimeError
        raise ImageError(f"{name}: truncated or damaged image ({_reason(error)})") from error
    finally:
        if not isinstance(source, Image.Image):
            image.close()


def image_size(source: Any) -> tuple[int, int]:
    """`(height, width)` of an image as `read_image` returns it; of a file only the header is read."""
    if isinstance(source, Image.Image):
        width, height = source.size
        return (width, height) if _orientation(source) >= 5 else (height, width)
    if not _is_encoded(source):
        return tuple(np.shape(source)[:2])
    with _opened(source, _name(source), None) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_mask_file(path: FilePath) -> np.ndarray:
    """A mask image's own values, `[height, width]` or `[height, width, channels]`: a palette's indices, a grey's px.

    Raises:
        ImageError: as `read_image`.
    """
    name = str(path)
    if not os.path.isfile(path):
        raise ImageError(f"{name}: no such mask file")
    with _opened(str(path), name, None) as image:
        _check_pixels(image.width, image.height, name, None)
        try:
            return np.array(image)
        except Exception as error:
            raise ImageError(f"{name}: not a readable mask image ({_reason(error)})") from error


def pixel_limit() -> int:
    """Width times height, in px, of the largest image that is decoded: 89,478,485, or `KERAS_RCNN_MAX_PIXELS` of the
    environment (0 for no limit). A file of 20 kB can hold a picture that takes gigabytes of memory.

    Raises:
        ImageError: the environment's value is no whole number.
    """
    text = os.environ.get(_VARIABLE, "").strip().replace("_", "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal():
        raise ImageError(f"{_VARIABLE}={text!r} is not a whole number of px (0 for no limit)")
    return int(text)


def _check_pixels(width: int, height: int, name: str, limit: int | None) -> None:
    limit = pixel_limit() if limit is None else limit
    if limit and width * height > limit:
        raise ImageError(
            f"{name}: {width} x {height} px are more than the limit of {limit:,} px. If you trust the file and have "
            f"the memory, set the environment variable {_VARIABLE} to {width * height} (0 for no limit), or call "
            f"read_image(..., max_pixels={width * height})"
        )


def _is_encoded(source: Any) -> bool:
    """Whether it is a file, or bytes of one: a path, bytes, or something with `read`."""
    if isinstance(source, memoryview):
        return source.ndim == 1
    return isinstance(source, (str, os.PathLike, bytes, bytearray)) or _stream(source) is not None


def _stream(source: Any) -> Any:
    """The part of an open file or an upload that has `read`; None if there is none."""
    if hasattr(source, "__array__"):
        return None
    for stream in (source, getattr(source, "file", None), getattr(source, "stream", None)):
        if callable(getattr(stream, "read", None)):
            return stream
    return None


def _name(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    names = (getattr(source, key, None) for key in ("filename", "name"))
    named = f"<{type(source).__name__}>"
    return next((str(name) for name in names if isinstance(name, (str, os.PathLike)) and str(name)), named)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _file_bytes(source: Any, name: str) -> bytes:
    """The bytes of an open file or an upload, from its beginning where it can go there."""
    stream = getattr(source, "file", None)
    stream = stream if callable(getattr(stream, "read", None)) else _stream(source)
    try:
        if callable(getattr(stream, "seek", None)) and not inspect.iscoroutinefunction(stream.seek):
            with contextlib.suppress(OSError):  # a pipe, or the body of an answer: from where it is
                stream.seek(0)
        content = stream.read()
    except Exception as error:
        raise ImageError(f"{name}: {type(source).__name__} cannot be read ({_reason(error)})") from error
    if inspect.isawaitable(content):
        if inspect.iscoroutine(content):
            content.close()
        raise ImageError(f"{name}: {type(source).__name__}.read is asynchronous: pass `await upload.read()`")
    if isinstance(content, str):
        raise ImageError(f"{name}: {type(source).__name__} gives text: open the image with mode 'rb'")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError(f"{name}: {type(source).__name__}.read gives {type(content).__name__}, expected bytes")
    return bytes(content)


def _check_file(path: Path, name: str) -> None:
    """Says what stands there in place of a file with something in it."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageError(f"{name}: a broken link, there is no {os.readlink(path)}") from error
        raise ImageError(f"{name}: no such image file") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: no such image file ({_reason(error)})") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name}: is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        names = {stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket"}
        raise ImageError(f"{name}: is {names.get(stat.S_IFMT(status.st_mode), 'a device')}, not an image file")
    if status.st_size == 0:
        raise ImageError(f"{name}: empty file (0 bytes)")


def _opened(source: Any, name: str, limit: int | None) -> Image.Image:
    if isinstance(source, (str, os.PathLike)):
        source = Path(os.fsdecode(source))
        _check_file(source, name)
    else:
        content = source if isinstance(source, (bytes, bytearray, memoryview)) else _file_bytes(source, name)
        if not len(content):
            raise ImageError(f"{name}: empty file (0 bytes)")
        source = io.BytesIO(content)
    limit = pixel_limit() if limit is None else limit
    try:
        if 0 < limit <= MAX_PIXELS:
            return Image.open(source)
        with _PILLOW:  # it refuses twice its own limit, whatever ours
            kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(source)
            finally:
                Image.MAX_IMAGE_PIXELS = kept
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image, or a format that Pillow does not read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: more than the limit of {limit:,} px ({error}). If you trust the file and have the memory, set "
            f"the environment variable {_VARIABLE} to the px that it has (0 for no limit)"
        ) from error
    except Exception as error:
        raise ImageError(f"{name}: cannot be opened ({_reason(error)})") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1) or 1)
    except Exception:  # noqa: BLE001 (a damaged EXIF block says nothing about the pixels)
        return 1


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(image)
        if mode != "F":
            if values.size and (values.min() < 0 or values.max() > 65535):
                raise ImageError(f"{name}: integer pixels {values.min()}..{values.max()} are outside 0..65535")
            values = values.astype(np.uint16)
        return _from_array(values, name)
    if mode == "LAB":
        image = _from_lab(image)
    elif mode in ("RGBa", "La"):  # alpha multiplied in
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[mode])
    elif mode == "PA" or (mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")  # straight to RGB Pillow warns
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    if pixels.size == 0:
        raise ImageError(f"{name}: {image.width} x {image.height} px, there are no pixels")
    return pixels


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast(Image.Image, ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, "LAB", "RGB")))


def _from_array(array: Any, name: str = "image array") -> np.ndarray:
    type_name = type(array).__name__
    try:
        array = np.asarray(array)
    except Exception as error:
        raise ImageError(f"{type_name} is no image ({_reason(error)}): give {_SOURCES}") from error
    if array.dtype == object or (array.dtype.kind in "SUmMV" and array.dtype.name != "bfloat16"):
        raise ImageError(f"{type_name} of dtype {array.dtype} is no image: give {_SOURCES} ({_ARRAY_RULE})")
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


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
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
    # 0, 1 and 2 alone are a picture of 0..255 that is nearly black
    unit = floating and (high <= 1 or (high <= 2 and bool((array != np.rint(array)).any())))
    lowest, highest = (-_OVERSHOOT, 2) if unit else (-0.5, 255.5) if floating else (0, 255)
    if not (low >= lowest and high <= highest):  # also catches NaN
        raise ImageError(f"{name}: values {low}..{high}, expected {_ARRAY_RULE}; was it normalised already?")
    if floating:
        array = np.rint(np.clip(array * 255 if unit else array, 0, 255))
    return array.astype(np.uint8)
