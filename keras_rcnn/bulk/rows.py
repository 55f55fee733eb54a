"""Photos -> rows of plain values: what every table and every engine has of a photo is made here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Required, TypedDict

import numpy as np

from keras_rcnn.data.ahead import read_ahead
from keras_rcnn.data.images import ImageError, read_image
from keras_rcnn.data.masks import text_rle
from keras_rcnn.evaluation.coco import encode_masks
from keras_rcnn.interfaces import RLE, BatchDetector, Detections


class PhotoRow(TypedDict, total=False):
    """A photo and what is in it, in values that JSON and Parquet have.

    Attributes:
        image: the photo's path, as it was given.
        height: of the photo in px, EXIF rotation applied; this and what follows is missing where there is an `error`.
        width: the same.
        error: why the photo could not be read; missing where it could.
        boxes: `[n, 4]` xyxy, in px of the photo, best first.
        scores: `[n]`, 0 to 1.
        labels: `[n]`.
        names: `[n]` class names.
        masks: of a detector with masks: n COCO RLEs, `{"size": [height, width], "counts": text}`.
        keypoints: of a detector with keypoints: `[n, K, 3]`, x, y in px of the photo, and a score.
    """

    image: Required[str]
    height: int
    width: int
    error: str
    boxes: list[list[float]]
    scores: list[float]
    labels: list[int]
    names: list[str]
    masks: list[RLE]
    keypoints: list[list[list[float]]]


def rows_of(
    model: BatchDetector,
    paths: Iterable[str],
    *,
    batch_size: int = 1,
    threads: int = 4,
    options: Mapping[str, Any] | None = None,
) -> Generator[list[PhotoRow], None, None]:
    """The rows of photos; while the model works, threads read the next ones.

    Args:
        model: a `Detector`, an `AugmentedDetector` or a `ServedDetector`.
        paths: of photos, taken as they are needed.
        batch_size: int, photos that the model sees at once.
        threads: int, how many photos are read ahead.
        options: dict, of `model.detect`: `score`, `size`.

    Yields:
        A list of `batch_size` rows, the last one of those that are left; no more than `threads` photos and two batches
        of them are in memory.

    Raises:
        ValueError: the model answers with what is not finite.

    Example:

    >>> [[row]] = keras_rcnn.bulk.rows_of(model, ["photo.jpg"], options={"score": 0.5})
    >>> row["image"], row["height"], row["width"]
    ('photo.jpg', 256, 256)
    """
    # None: a server that does not tell beforehand
    more = {} if getattr(model, "has_masks", False) is False else {"masks": "rle"}
    with contextlib.closing(read_ahead(_read, paths, threads)) as photos:
        batch: list[tuple[str, np.ndarray | ImageError]] = []
        for photo in photos:
            batch.append(photo)
            if len(batch) == batch_size:
                yield _rows(model, batch, {**more, **(options or {})})
                batch = []
        if batch:
            yield _rows(model, batch, {**more, **(options or {})})


def _read(path: str) -> tuple[str, np.ndarray | ImageError]:
    try:
        return path, read_image(path)
    except ImageError as error:
        return path, error.with_traceback(None)


def _rows(
    model: BatchDetector, batch: Sequence[tuple[str, np.ndarray | ImageError]], options: Mapping[str, Any]
) -> list[PhotoRow]:
    images = [image for _, image in batch if isinstance(image, np.ndarray)]
    found = iter(model.detect(images, batch_size=len(images), **options) if images else [])
    return [
        {"image": _text(path), "error": _text(str(image))}
        if isinstance(image, ImageError)
        else _row(path, image, next(found))
        for path, image in batch
    ]


def _row(path: str, image: np.ndarray, own: Detections) -> PhotoRow:
    for key in ("boxes", "scores"):
        if not np.isfinite(own[key]).all():
            raise ValueError(f"{path}: detected {key} that are not finite. The weights may have become NaN.")
    row: PhotoRow = {
        "image": _text(path),
        "height": image.shape[0],
        "width": image.shape[1],
        "boxes": _decimals(own["boxes"]),
        "scores": _decimals(own["scores"]),
        "labels": np.asarray(own["labels"], int).tolist(),
        "names": [_text(name) for name in own["names"]],
    }
    if "masks" in own:
        row["masks"] = [text_rle(mask) for mask in encode_masks(own["masks"])]
    if "keypoints" in own:
        row["keypoints"] = _decimals(own["keypoints"])
    return row


def _decimals(values: np.ndarray) -> Any:
    """Lists of the shortest decimals that are these float32: 0.1, where `tolist` has 0.10000000149011612."""
    return np.asarray(values, np.float32).astype("U").astype(np.float64).tolist()


def _text(value: str) -> str:
    """UTF-8 has no byte of a file name that is not: such are written as \\x.. ."""
    return os.fsencode(value).decode("utf-8", "backslashreplace")
