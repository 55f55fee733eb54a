"""The bytes of strangers -> pixels, or a refusal that says what they are instead."""

import numpy as np

from keras_rcnn.data.images import ImageError, image_size, read_image
from keras_rcnn.serve.refusal import Refusal, shown

# how the files begin that are read; Pillow reads others, by way of programs that nobody wants to meet here
_STARTS = {
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "gif": (b"GIF87a", b"GIF89a"),
    "bmp": (b"BM",),
    "tiff": (b"II*\x00", b"MM\x00*"),
}
# as Content-Type says it
_TYPES = {
    "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/pjpeg": "jpeg", "image/png": "png", "image/gif": "gif",
    "image/bmp": "bmp", "image/x-ms-bmp": "bmp", "image/tiff": "tiff", "image/webp": "webp",
}  # fmt: skip
# of a progressive JPEG, which has some ten; each takes a pass over all pixels
_MAX_SCANS = 64


def kind_of(content: bytes) -> str | None:
    """`"jpeg"`, `"png"`, ... by how a file begins; None for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for kind, starts in _STARTS.items() if content.startswith(starts)), None)


def check_content_type(content: bytes, content_type: str) -> None:
    """Refuses a body whose Content-Type names another kind of image than it is."""
    said = content_type.partition(";")[0].strip().lower()
    kind, stated = kind_of(content), _TYPES.get(said)
    if kind and stated and kind != stated:
        raise Refusal(
            415,
            f"The body is a {kind.upper()} file, but Content-Type says {said}: send image/{kind}, or "
            "application/octet-stream.",
            "mislabelled",
        )


def read_photo(content: bytes, max_pixels: int) -> np.ndarray:
    """Reads a photo as uint8 RGB [height, width, 3], turned by its EXIF orientation.

    Args:
        content: the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_pixels: int, width times height.

    Raises:
        Refusal: bytes that are none of these, are damaged, or have more pixels.
    """
    kind = kind_of(content)
    if kind is None:
        raise Refusal(
            400,
            f"No photo: {len(content)} bytes that begin with {shown(content[:12])}. Send the bytes of a JPEG, PNG, "
            "WebP, GIF, BMP or TIFF file; in JSON as base64, {\"b64\": \"...\"}.",
            "no_photo",
        )  # fmt: skip
    if kind == "jpeg" and content.count(b"\xff\xda") > _MAX_SCANS:
        raise Refusal(400, f"A JPEG of more than {_MAX_SCANS} scans: save it anew as a baseline JPEG.", "no_photo")
    try:
        height, width = image_size(content)
        if width * height > max_pixels:
            raise Refusal(
                413,
                f"The photo has {width} x {height} px, more than the limit of {max_pixels:,}: send it smaller.",
                "too_many_pixels",
            )
        return read_image(content, max_pixels=max_pixels)
    except ImageError as error:
        # what follows would be advice to whoever runs the service
        said = shown(str(error).partition(". If you trust")[0])
        raise Refusal(400, f"The photo cannot be read: {said}", "no_photo") from error
    except MemoryError as error:
        raise Refusal(413, "The photo needs more memory than there is: send it smaller.", "too_many_pixels") from error
