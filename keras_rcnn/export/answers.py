"""What a server has answered, checked before anything is made of it: it may be anyone's, and say anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# a box may stick out of its photo by rounding: px, and a share of the photo's side
_OUTSIDE, _SHARE = 1.0, 0.005
_NEEDED = {"boxes": 3, "scores": 2, "labels": 2, "names": 2}


class AnswerError(ValueError):
    """An answer that is not a detector's; the message says in what."""


def photos_of(outputs: Mapping[str, Any], sizes: Sequence[tuple[int, ...]]) -> list[dict[str, Any]]:
    """A detector's answer -> what it has for each photo.

    Args:
        outputs: dict of arrays: `boxes` [B, D, 4], `scores` [B, D], `labels` [B, D], -1 for padding, `names` [B, D],
            and of a detector with masks `masks`, floats [B, D, M, M] or pasted ones, integers [B, N, H, W].
        sizes: for each of the B photos (height, width) in px.

    Returns:
        A list of B dicts of what is no padding: `boxes` float32 [n, 4], `scores` float32 [n], `labels` int32 [n],
        `names`, a list of str, and `masks`, float32 [n, M, M], or pasted bool [n, height, width].

    Raises:
        AnswerError: something is missing, of another shape or type, not finite, or out of its range.
    """
    count = len(sizes)
    missing = [key for key in _NEEDED if key not in outputs]
    if missing:
        raise AnswerError(
            f"it has no {', '.join(missing)}, but {', '.join(sorted(map(str, outputs))[:8]) or 'nothing'}"
        )
    for key, rank in _NEEDED.items():
        outputs = {**outputs, key: _shaped(key, outputs[key], rank, count)}
    length = outputs["scores"].shape[1]
    for key in _NEEDED:
        if outputs[key].shape[1] != length:
            raise AnswerError(f"{length} scores, but {outputs[key].shape[1]} {key}")
    for key, dtypes in (("boxes", "fiu"), ("scores", "fiu"), ("labels", "iu"), ("names", "USO")):
        if length and outputs[key].dtype.kind not in dtypes:
            raise AnswerError(f"{key} are {outputs[key].dtype}")
    photos = [_photo({key: outputs[key][i] for key in _NEEDED}, size) for i, size in enumerate(sizes)]
    if "keypoints" in outputs:
        for photo, points in zip(photos, _keypoints(outputs["keypoints"], count, length), strict=True):
            photo["keypoints"] = points[photo["place"]]
            _finite("keypoints", photo["keypoints"])
    if "masks" in outputs:
        masks = _masks(outputs["masks"], sizes, length)
        for i, (photo, size) in enumerate(zip(photos, sizes, strict=True)):
            photo["masks"] = _masks_of(masks[i], photo["place"], size)
    for photo in photos:
        del photo["place"]
    return photos


def _shaped(key: str, values: ArrayLike, rank: int, count: int) -> np.ndarray:
    """An output with its rank; one without any element may have lost it, in json for instance."""
    values = np.asarray(values)
    if values.shape[:1] == (count,) and values.size == 0 and values.ndim >= 2 and values.shape[1] == 0:
        return np.zeros((count, 0, 4)[:rank])
    if values.ndim != rank or len(values) != count or (rank == 3 and values.shape[2] != 4):
        wanted = f"[{count}, n{', 4' if rank == 3 else ''}]"
        raise AnswerError(f"{key} have the shape {list(values.shape)}, and not {wanted}")
    return values


def _photo(outputs: Mapping[str, np.ndarray], size: tuple[int, ...]) -> dict[str, Any]:
    """One photo's detections without padding, and their places in the answer."""
    place = np.flatnonzero(outputs["labels"] >= 0) if len(outputs["labels"]) else np.zeros(0, int)
    shown = {key: value[place] for key, value in outputs.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        boxes, scores = shown["boxes"].astype(np.float32), shown["scores"].astype(np.float32)
    _finite("boxes", boxes)
    _finite("scores", scores)
    if len(scores) and (scores.min() < 0 or scores.max() > 1 + 1e-5):
        raise AnswerError(f"scores are from {scores.min():g} to {scores.max():g}, and not from 0 to 1")
    high, wide = size
    slack = _OUTSIDE + _SHARE * max(size)
    low, limits = boxes.min(initial=0), boxes.max(axis=0, initial=0) - (wide, high, wide, high)
    if low < -slack or limits.max() > slack:
        far = boxes[np.argmax(np.maximum(-boxes, boxes - (wide, high, wide, high)).max(axis=1))]
        raise AnswerError(f"a box, {far.tolist()}, lies outside of its photo of {wide} x {high} px")
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise AnswerError("boxes have x2 or y2 first")
    if len(place) and shown["labels"].max() > np.iinfo(np.int32).max:
        raise AnswerError(f"a label is {shown['labels'].max()}")
    names = [_text(name) for name in shown["names"].tolist()]
    return {
        "boxes": boxes,
        "scores": scores,
        "labels": shown["labels"].astype(np.int32),
        "names": names,
        "place": place,
    }


def _keypoints(values: ArrayLike, count: int, length: int) -> np.ndarray:
    """Keypoints as float32 [B, D, K, 3]."""
    values = np.asarray(values)
    if values.size == 0 and values.shape[:2] == (count, 0):  # nothing was found
        return np.zeros((count, 0, 0, 3), np.float32)
    if values.ndim != 4 or values.shape[:2] != (count, length) or values.shape[3] != 3:
        raise AnswerError(f"keypoints have the shape {list(values.shape)}, and not [{count}, {length}, K, 3]")
    if values.dtype.kind not in "fiu":
        raise AnswerError(f"keypoints are {values.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _masks(values: ArrayLike, sizes: Sequence[tuple[int, ...]], length: int) -> np.ndarray:
    """Masks as [B, n, h, w]: floats are probabilities in the boxes, bool is pasted."""
    values, count = np.asarray(values), len(sizes)
    largest = tuple(np.max(sizes, axis=0).tolist())
    if values.size == 0 and values.shape[:2] == (count, 0):  # nothing was found
        return np.zeros((count, 0, 1, 1), np.float32)
    if values.ndim != 4 or len(values) != count or 0 in values.shape or values.shape[1] > length:
        raise AnswerError(f"masks have the shape {list(values.shape)}, for {count} photos with {length} boxes each")
    if values.dtype.kind not in "fiub":
        raise AnswerError(f"masks are {values.dtype}")
    if values.dtype.kind != "f" and values.shape[2:] == largest:
        return values.astype(bool)
    if values.shape[2] != values.shape[3] or values.shape[1] != length:
        raise AnswerError(
            f"masks of {values.dtype} have the shape {list(values.shape)}; it is square for those of boxes, and "
            f"{list(largest)} at its end for pasted ones"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _masks_of(masks: np.ndarray, place: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if len(place) and place[-1] >= len(masks):
        raise AnswerError(f"{len(masks)} masks for {len(place)} detections")
    chosen = masks[place]
    if masks.dtype == bool:
        return np.ascontiguousarray(chosen[:, : size[0], : size[1]])
    _finite("masks", chosen)
    if chosen.size and (chosen.min() < -1e-5 or chosen.max() > 1 + 1e-5):
        raise AnswerError(f"masks are from {chosen.min():g} to {chosen.max():g}, and not from 0 to 1")
    return chosen


def _finite(key: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise AnswerError(f"{key} are not finite: {values[~np.isfinite(values)][0]}")


def _text(name: Any) -> str:
    if not isinstance(name, (str, bytes)):
        raise AnswerError(f"a name is no text but {type(name).__name__}")
    return name.decode(errors="replace") if isinstance(name, bytes) else name
