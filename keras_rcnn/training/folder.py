"""The folder of a training: there, writable, and one training's alone."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from keras_rcnn.interfaces import FilePath

LOCK, HOLDER = ".training.lock", ".training.json"


class FolderError(OSError):
    """A folder that a training cannot be written to, or that another one is writing to."""


def check_free(out: FilePath) -> None:
    """Looks whether a folder, which need not be there, is another training's.

    Args:
        out: path.

    Raises:
        FolderError: another process trains into it; the message names that one.
    """
    from filelock import FileLock, Timeout

    out = Path(out)
    if not (out / LOCK).is_file():
        return
    try:
        with FileLock(out / LOCK, timeout=0):
            pass
    except Timeout:
        raise _taken(out) from None
    except OSError:  # `occupied` says what is wrong with the folder
        pass


@contextlib.contextmanager
def occupied(out: FilePath) -> Iterator[None]:
    """In the block the folder is this process's; the system lets go of it when the process ends, in whatever way.

    Args:
        out: path; made if need be.

    Raises:
        FolderError: it cannot be made or written to, or another process trains into it; the message names that one.
    """
    from filelock import FileLock, Timeout

    out = Path(out)
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(out) from None
    except OSError as error:
        raise FolderError(f"{out} cannot be written to: {error.strerror or error}. Name another --out.") from error
    try:
        me = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (out / HOLDER).write_text(json.dumps(me) + "\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / HOLDER).unlink(missing_ok=True)
            (out / LOCK).unlink(missing_ok=True)
            if new:
                out.rmdir()  # if nothing came of it
        lock.release()


def _taken(out: Path) -> FolderError:
    return FolderError(
        f"{out}: {_holder(out)} is training into this folder. Wait for it, end it, or name another --out."
    )


def _holder(out: Path) -> str:
    try:
        holder = json.loads((out / HOLDER).read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['machine']} (since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
