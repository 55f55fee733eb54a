"""Where an export goes: nothing is replaced, and after a failure nothing is left."""

import contextlib
import os
import shutil
import uuid
from pathlib import Path


class ExportError(ValueError):
    """A model that cannot be exported, or not there; the message says what to do."""


def new_path(path):
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
    parent = next(one for one in path.absolute().parents if one.exists())
    if not parent.is_dir():
        raise ExportError(f"{path} cannot be written: {parent} is a file.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ExportError(f"{path} cannot be written: no permission to write in {parent}.")
    return path


@contextlib.contextmanager
def aside_folder(path):
    """A new folder beside `path` that is renamed to it if the block succeeds, and removed if it fails."""
    path = Path(path)
    missing = [one for one in path.absolute().parents if not one.exists()]
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
        missing = []
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in missing:  # those that it would have lain in, made for it
            with contextlib.suppress(OSError):
                folder.rmdir()
