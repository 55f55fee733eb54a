"""Files that are whole or not there, and json that says what is wrong with it."""

import contextlib
import json
import os
import threading
from pathlib import Path

from keras_rcnn.data.records import DataError


@contextlib.contextmanager
def aside(path):
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


def spread(items, count):
    """At most `count` of a list's items, from all over it."""
    return items[:: max(len(items) // count, 1)][:count]


def read_json(path):
    """What a json file says.

    Raises:
        DataError: it cannot be read, or is no json.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid json ({error})") from error
