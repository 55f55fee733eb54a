"""Files and folders that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath


@contextlib.contextmanager
def aside(path: FilePath) -> Iterator[Path]:
    """A name beside `path`, in a folder made if need be, for a file that takes its place if the block succeeds.

    After a failure, a full disk for instance, what was at `path` is still there and nothing else is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the ending tells PIL and matplotlib the format; processes and threads do not meet
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def aside_folder(path: FilePath) -> Iterator[Path]:
    """A new folder beside `path` that is renamed to it if the block succeeds, and removed if it fails.

    Args:
        path: of a folder that is not there yet; those that it lies in are made if need be.
    """
    path = Path(path)
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    temporary = _own_name(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
        missing = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in missing:  # those that it would have lain in, made for it
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing_folder(path: FilePath) -> Iterator[Path]:
    """A new folder beside `path` that takes its place if the block succeeds. One process at a time may do so.

    A folder cannot be renamed onto a full one: a process that is killed between two renames leaves the one before under
    another name, and `recover_folder` puts it back.
    """
    path = Path(path)
    new, old = path.with_name(f".{path.name}.new"), _old_name(path)
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    new.mkdir(parents=True)
    yield new
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: FilePath) -> None:
    """Puts a folder back that a crash has left between the two renames of `replacing_folder`."""
    path = Path(path)
    if not path.exists() and _old_name(path).exists():
        _old_name(path).rename(path)


def write_together(folder: FilePath, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, all or none.

    Args:
        folder: path; made if need be.
        files: dict of bytes by name, in the order in which they take their places.
    """
    folder = Path(folder)
    existed = folder.is_dir()
    # in the folder itself if there is one: it may be a disk of its own, and its parent not ours to write to
    temporary = folder / _own_name(folder).name if existed else _own_name(folder)
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            with open(temporary / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if not existed:
            with contextlib.suppress(OSError):  # another process was faster: replace its files
                temporary.rename(folder)
                return
        for name in files:
            os.replace(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _own_name(path: Path) -> Path:
    """A hidden name beside `path` that no other process has."""
    path = path.absolute()  # "." has no name
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _old_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
