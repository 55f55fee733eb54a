"""Where an export goes: nothing is replaced, and after a failure nothing is left."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from keras_rcnn.files import aside_folder
from keras_rcnn.interfaces import FilePath


class ExportError(ValueError):
    """A model that cannot be exported, or not there; the message says what to do."""


def new_path(path: FilePath) -> Path:
    """Refuses a path that exists or cannot be written, before anybody waits for a conversion.

    Args:
        path: the file or folder to be.

    Returns:
        A `pathlib.Path`.

    Raises:
        ExportError: it exists, or the folder that it would lie in is none or not writable.
    """
    path = Path(path).expanduser()
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} exists: name another path, or remove it first.")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise ExportError(f"{path} cannot be written: {parent} is a file.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ExportError(f"{path} cannot be written: no permission to write in {parent}.")
    return path


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """`aside_folder`, whose errors of the system are `ExportError`s."""
    try:
        with aside_folder(path) as folder:
            yield folder
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}.") from error
