"""How much a weights file may hold, checked against what it declares before memory or time is spent on it."""

import os
from pathlib import Path

from keras_rcnn.convert.errors import WeightsFileError

MAX_BYTES = 2**30
# an honest file becomes at most 8 times as large, bytes that are read as int64; a small one may do more
GROWTH, FREE = 8, 2**28
MAX_PARTS = 1_000_000
BYTES_VARIABLE, PARTS_VARIABLE = "KERAS_RCNN_MAX_WEIGHTS_BYTES", "KERAS_RCNN_MAX_WEIGHTS_PARTS"


class Limits:
    """What one file may still cost.

    Args:
        path: of the file, a `pathlib.Path`.
        max_bytes: int, bytes of all its arrays together. None: the environment's `KERAS_RCNN_MAX_WEIGHTS_BYTES`, or
            else 1 GiB, and no more than 8 times the file's own size and 256 MiB.
        max_parts: int, steps of a pickle, fields of a message, tensors: what takes time whatever its size. None: the
            environment's `KERAS_RCNN_MAX_WEIGHTS_PARTS`, or else a million.

    Raises:
        WeightsFileError: if a limit is no whole number from 1.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, max_parts: int | None = None) -> None:
        self.path, self.size = path, path.stat().st_size
        usual = min(MAX_BYTES, GROWTH * self.size + FREE)
        self.max_bytes = _limit("max_bytes", max_bytes, BYTES_VARIABLE, usual)
        self.max_parts = _limit("max_parts", max_parts, PARTS_VARIABLE, MAX_PARTS)
        self.bytes = self.parts = 0

    def take_bytes(self, count: int, content: str) -> None:
        """Counts the bytes of an array that is about to be made.

        Raises:
            WeightsFileError: if there would be too many.
        """
        self.bytes += count
        if self.bytes > self.max_bytes:
            raise WeightsFileError(
                f"{self.path} has {self.size} bytes and declares arrays of {self.bytes} and more ({content}); at most "
                f"{self.max_bytes} are read from it. It looks made to fill memory. If you trust it, allow more by "
                f"max_bytes= or the environment's {BYTES_VARIABLE}."
            )

    def take_parts(self, count: int = 1) -> None:
        """Counts what takes time.

        Raises:
            WeightsFileError: if there would be too much.
        """
        self.parts += count
        if self.parts > self.max_parts:
            raise WeightsFileError(
                f"{self.path} has more than {self.max_parts} parts (steps, fields or tensors), where honest weights "
                "have a few thousand. It looks made to take for ever. If you trust it, allow more by max_parts= or the "
                f"environment's {PARTS_VARIABLE}."
            )


def _limit(name: str, given: int | None, variable: str, usual: int) -> int:
    value = given
    if value is None and os.environ.get(variable):
        name, value = variable, os.environ[variable]
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else value
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WeightsFileError(f"{name} is a whole number from 1, not {value!r}.")
    return value
