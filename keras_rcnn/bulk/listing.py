"""The photos of a run, one path a line: below folders, in lists, in an order that stays the same."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from keras_rcnn.data.photo_files import files_below, is_photo
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)


def _open(path: FilePath, mode: str = "r") -> IO[str]:
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="\n")  # file names need not be UTF-8


@dataclass(frozen=True)
class Listing:
    """A file of paths, how many these are, and their SHA-256."""

    path: Path
    count: int
    digest: str

    def read(self, start: int, stop: int) -> Iterator[str]:
        """The paths from number `start` to before number `stop`."""
        with _open(self.path) as file:
            for line in itertools.islice(file, start, stop):
                yield line[:-1]


def list_photos(sources: FilePath | Iterable[FilePath]) -> Iterator[str]:
    """The paths of the photos of folders and lists, each once, one at a time.

    Args:
        sources: a folder, in which and below which photos are looked for by their ending; a `.txt` file with one path
            a line, relative to the current folder, as `find` writes it; a photo; or an iterable of such.

    Yields:
        str, a folder's in the order of names.

    Raises:
        FileNotFoundError: the folder or list is not there. A photo that is not is found out when it is read.
        ValueError: a list is no UTF-8 text, or a path has a line break in it.

    Example:

    >>> sorted(keras_rcnn.bulk.list_photos("photos"))[:2]
    ['photos/0.png', 'photos/1.png']
    """
    seen: set[bytes] | None = set()  # of 16 bytes a photo
    if isinstance(sources, (str, os.PathLike)):
        if not os.path.exists(sources):
            raise FileNotFoundError(f"{os.fspath(sources)}: no such folder, list or photo")
        seen, sources = None, [sources]
    for source in sources:
        path = os.fspath(source)
        if os.path.isdir(path):
            found = _in_folder(path)
        elif path.lower().endswith(".txt"):
            seen = set() if seen is None else seen
            found = _in_list(path)
        else:
            found = iter([path])
        for photo in found:
            if "\n" in photo:
                raise ValueError(f"{photo!r}: a line break in the name of a photo; rename it")
            if seen is not None:
                key = hashlib.blake2b(os.fsencode(photo), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield photo


def _in_folder(folder: str) -> Iterator[str]:
    left, endings = 0, set()
    for path in files_below(folder):
        name = os.path.basename(path)
        photo = is_photo(name)
        if photo:
            yield path
        elif photo is None:
            left += 1
            endings.add(os.path.splitext(name)[1].lower())
    if left:
        logger.warning(
            "%s: %d left out, of formats that Pillow does not read: %s; save them as JPEG",
            folder, left, ", ".join(sorted(endings)),
        )  # fmt: skip


def _in_list(path: str) -> Iterator[str]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such list of photos")
    with open(path, "rb") as file:
        start = file.read(3)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: this list is in UTF-16; save it as UTF-8, with one path a line")
    with _open(path) as file:
        for number, line in enumerate(file):
            line = (line.removeprefix("\ufeff") if number == 0 else line).rstrip("\r\n")
            if "\0" in line:
                raise ValueError(f"{path}, line {number + 1}: no path; a list is text, with one path a line")
            if line.strip():
                yield line


def write_listing(photos: Iterable[str], path: Path) -> Listing:
    """Writes paths to a file, a line each."""
    count, digest = 0, hashlib.sha256()
    with _open(path, "w") as file:
        for photo in photos:
            file.write(f"{photo}\n")
            digest.update(os.fsencode(photo) + b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return Listing(path, count, digest.hexdigest())
