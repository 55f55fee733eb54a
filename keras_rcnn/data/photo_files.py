"""Which files are photos, by their endings; the folders below a folder as well."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from keras_rcnn.data.names import ENDINGS
from keras_rcnn.interfaces import FilePath

# photos that Pillow reads with another package's help, or not at all
OTHER_ENDINGS = (
    ".heic", ".heif", ".hif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw", ".jxl", ".jpx",
    ".j2k", ".jpf", ".dib", ".tga", ".pnm", ".pbm", ".apng", ".mpo",
)  # fmt: skip


def is_photo(name: str) -> bool | None:
    """Whether a file is a photo by its ending; None for one of a format that Pillow does not read here."""
    ending = os.path.splitext(name)[1].lower()
    if name.startswith("._"):  # what macOS leaves beside a file on other disks
        return False
    if ending in ENDINGS:
        return True
    if ending in OTHER_ENDINGS:
        return _pillow_reads(ending) or None
    return False


@functools.cache
def _pillow_reads(ending: str) -> bool:
    from PIL import Image

    return Image.registered_extensions().get(ending) in Image.OPEN


def files_below(folder: FilePath) -> Iterator[str]:
    """The paths of all files in a folder and those below it, by name, each folder's own before its folders'.

    Links to folders are followed, but not back up.

    Raises:
        OSError: a folder cannot be read.
    """
    yield from _below(os.fspath(folder), ())


def _below(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        files, folders = [], []
        for entry in entries:
            (folders if entry.is_dir() else files).append(entry.name)
    for name in sorted(files):
        yield os.path.join(folder, name)
    for name in sorted(folders):
        yield from _below(os.path.join(folder, name), (*above, here))
