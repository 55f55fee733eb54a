"""Photos among what is named on the command line, and names for the pictures of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_rcnn.cli.output import say

if TYPE_CHECKING:
    from keras_rcnn.data import ImageError
    from keras_rcnn.interfaces import FilePath

PHOTOS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
# photos that Pillow reads with another package's help, or not at all
OTHER_PHOTOS = (
    ".heic", ".heif", ".hif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw", ".jxl", ".jpx",
    ".j2k", ".jpf", ".dib", ".tga", ".pnm", ".pbm", ".apng", ".mpo",
)  # fmt: skip


def photos_in(paths: Iterable[FilePath]) -> Iterator[Path | ImageError]:
    """The photos among files and folders; an `ImageError` stands for a folder without any.

    Photos of other formats are read where Pillow can, else named on stderr.
    """
    from PIL import Image

    from keras_rcnn.data import ImageError

    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        files, left = [], []
        for file in sorted(path.iterdir()):
            ending = file.suffix.lower()
            if file.name.startswith("._"):  # what macOS leaves beside a file on other disks
                continue
            if ending in PHOTOS or (ending in OTHER_PHOTOS and _pillow_reads(Image, ending)):
                files.append(file)
            elif ending in OTHER_PHOTOS:
                left.append(file.name)
        why = ""
        if left:
            some = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            why = f"{len(left)} left out, of formats that Pillow does not read: {some}; save them as JPEG"
        if not files:
            error: Any = ImageError(f"{path}: no image files in this folder{f' ({why})' if why else ''}")
            error.path = path
            yield error
        elif left:
            say(f"keras-rcnn: {path}: {why}", file=sys.stderr)
        yield from files


def _pillow_reads(pillow: ModuleType, ending: str) -> bool:
    return pillow.registered_extensions().get(ending) in pillow.OPEN


def photo_files(folder: FilePath) -> list[Path]:
    """The photos in a folder, of which there must be some."""
    photos: list[Any] = list(photos_in([folder]))
    for photo in photos:
        if isinstance(photo, Exception):
            raise photo
    return photos


def picture_path(photo: Path, out: Path, taken: set[Path]) -> Path:
    """A file name in `out` that no photo and no earlier picture has."""
    suffix = ".jpg" if photo.suffix.lower() in (".jpg", ".jpeg") else ".png"
    stem, number = f"{photo.stem}_detected", 1
    while (path := out / f"{stem}{f'_{number}' if number > 1 else ''}{suffix}").resolve() in taken:
        number += 1
    taken.add(path.resolve())
    return path
