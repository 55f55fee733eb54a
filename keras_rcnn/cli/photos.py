"""Photos among what is named on the command line, and names for the pictures of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.cli.output import say

if TYPE_CHECKING:
    from keras_rcnn.data import ImageError
    from keras_rcnn.interfaces import FilePath


def photos_in(paths: Iterable[FilePath]) -> Iterator[Path | ImageError]:
    """The photos among files and folders; an `ImageError` stands for a folder without any.

    Photos of other formats are read where Pillow can, else named on stderr.
    """
    from keras_rcnn.data import ImageError
    from keras_rcnn.data.photo_files import is_photo

    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        files, left = [], []
        for file in sorted(path.iterdir()):
            photo = is_photo(file.name)
            if photo:
                files.append(file)
            elif photo is None:
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
