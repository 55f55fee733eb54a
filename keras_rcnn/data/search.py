"""Selective search (Uijlings et al. 2013) of one picture, and the process that does it for `compute_proposals`.

This file runs as a program of its own: it imports OpenCV and numpy, and nothing of the package, whose `__init__` would
load TensorFlow into every process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import IO, Any

import cv2
import numpy as np

_RAND = threading.Lock()  # the C library's rand() is one for all threads


def search(
    image: np.ndarray,
    mode: str = "fast",
    max_boxes: int = 2000,
    min_size: int = 20,
    width: int | None = 500,
    seed: int = 0,
) -> np.ndarray:
    """`keras_rcnn.data.selective_search` of a uint8 RGB array `[h, w, 3]`."""
    check_settings(mode, max_boxes, min_size, width, seed)
    height, wide = image.shape[:2]
    size = working_size(height, wide, width)
    if size != (height, wide):
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    segmentation = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    segmentation.setBaseImage(np.ascontiguousarray(image[..., ::-1]))  # its colour spaces start from BGR
    if mode == "fast":
        segmentation.switchToSelectiveSearchFast()
    else:
        segmentation.switchToSelectiveSearchQuality()
    with _RAND:
        _srand(seed)  # the order is drawn with rand(); cv2.setRNGSeed is of another generator
        rectangles = segmentation.process()
    rectangles = np.asarray(rectangles, np.int64).reshape(-1, 4)
    rectangles = rectangles[(rectangles[:, 2:] >= max(min_size, 1)).all(axis=1)]
    rectangles = rectangles[np.sort(np.unique(rectangles, axis=0, return_index=True)[1])][:max_boxes]
    boxes = np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1)
    boxes = boxes * np.tile([wide / size[1], height / size[0]], 2)
    return np.clip(boxes, 0, [wide, height, wide, height]).astype(np.float32)


def check_settings(mode: str, max_boxes: int, min_size: int, width: int | None, seed: int) -> None:
    """A `ValueError` for settings that make no sense."""
    if mode not in ("fast", "quality"):
        raise ValueError(f"mode must be 'fast' or 'quality', got {mode!r}")
    whole = "a whole number of at least"
    if not _is_whole(max_boxes, 1) or not _is_whole(min_size, 0):
        raise ValueError(f"max_boxes is {whole} 1 and min_size 0, px; got {max_boxes!r} and {min_size!r}")
    if width is not None and not _is_whole(width, 16):
        raise ValueError(f"width is in px, {whole} 16 (500 in R-CNN's code), or None; got {width!r}")
    if not _is_whole(seed, 0):
        raise ValueError(f"seed is {whole} 0, got {seed!r}")


def _is_whole(value: object, least: int) -> bool | np.bool_:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def working_size(height: int, wide: int, width: int | None) -> tuple[int, int]:
    """`(height, width)` in px at which an image is segmented: within `width` x `2 * width`, and never enlarged."""
    scale = 1.0 if width is None else min(1.0, width / wide, 2 * width / height)
    return max(round(height * scale), 1), max(round(wide * scale), 1)


def _srand(seed: int) -> None:
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).srand(ctypes.c_uint(seed))


def serve() -> None:
    """Answers requests on stdin until it is closed; `send` and `receive` are their form."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes stdin
    cv2.setNumThreads(1)  # there is a process for each core
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library may print is no answer
    try:
        while True:
            settings, image = receive(sys.stdin.buffer)
            try:
                boxes, problem = search(image, **settings), None
            except (cv2.error, ValueError, MemoryError) as error:
                boxes, problem = np.zeros((0, 4), np.float32), f"{type(error).__name__}: {error}"
            send(answers, problem, boxes)
    except (EOFError, BrokenPipeError):  # the parent is done, or was killed
        os._exit(0)


def send(pipe: IO[bytes], message: Any, array: np.ndarray) -> None:
    """Writes what `receive` reads: anything that json holds, and an array."""
    header = [message, str(array.dtype), array.shape]
    pipe.write(json.dumps(header).encode() + b"\n")
    pipe.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[Any, np.ndarray]:
    """Reads `(message, array)`; an `EOFError` where the other side has ended."""
    header = pipe.readline()
    if not header.endswith(b"\n"):
        raise EOFError("the other process has ended")
    message, dtype, shape = json.loads(header)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the other process has ended")
    return message, np.frombuffer(data, dtype).reshape(shape)


if __name__ == "__main__":
    serve()
