"""Two answers on a photo: which detections belong together, and how far they are apart.

An answer is a dict of `boxes` [D, 4], `scores` [D], `labels` [D], and perhaps `masks`: float32 [D, M, M] in the boxes,
or pasted, bool or uint8 [D, h, w] or a list of D COCO RLEs; and perhaps `keypoints`, [D, K, 3].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_rcnn.interfaces import RLE

KEYS = ("box", "score", "mask")


def partners(expected: Mapping[str, Any], detections: Mapping[str, Any], iou: float) -> list[tuple[np.intp, np.intp]]:
    """Pairs (i, j) of detections of one class, each at most once, those with the greatest overlap first.

    Args:
        expected, detections: the answers.
        iou: float, the least of a pair.
    """
    from keras_rcnn.ops.boxes import iou as of_boxes

    if not len(expected["scores"]) or not len(detections["scores"]):
        return []
    overlap = np.array(of_boxes(np.float32(expected["boxes"]), np.float32(detections["boxes"])))
    overlap[expected["labels"][:, None] != detections["labels"][None]] = 0
    count = np.sum((overlap >= iou) & (overlap > 0))
    pairs = []
    for place in np.argsort(-overlap, axis=None, kind="stable")[:count]:
        i, j = np.unravel_index(place, overlap.shape)
        if overlap[i, j] > 0:
            pairs.append((i, j))
            overlap[i], overlap[:, j] = 0, 0
    return pairs


def differences(
    expected: Mapping[str, Any],
    i: int | np.integer,
    detections: Mapping[str, Any],
    j: int | np.integer,
    size: tuple[int, ...],
) -> dict[str, float]:
    """How far detection i of an answer is from j of another.

    Args:
        expected, detections: the answers.
        i, j: int.
        size: (height, width) of the photo in px.

    Returns:
        A dict: `box`, the largest difference of a coordinate in longer sides of the photo, `score`, and where both have
        masks `mask`: the largest difference of a probability, of pasted masks 1 - IoU. NaN where one is NaN. Where both
        have keypoints, their scores count among `score`; of their places it is the median that counts among `box`,
        since of two peaks as high as each other rounding makes one or the other the keypoint.
    """
    errors = {
        "box": _far(expected["boxes"][i], detections["boxes"][j]) / max(size),
        "score": _far(expected["scores"][i], detections["scores"][j]),
    }
    if "keypoints" in expected and "keypoints" in detections:
        points, others = (np.asarray(own["keypoints"][k], np.float64) for own, k in ((expected, i), (detections, j)))
        away = np.median(np.abs(points[:, :2] - others[:, :2]).max(-1)) / max(size)
        errors["box"] = float(np.maximum(errors["box"], away))
        errors["score"] = float(np.maximum(errors["score"], _far(points[:, 2], others[:, 2])))
    if "masks" in expected and "masks" in detections:
        apart = _disagreement if pasted(expected) else _far
        errors["mask"] = apart(expected["masks"][i], detections["masks"][j])
    return errors


def within(pair: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Whether what `differences` returns is within a dict of limits; NaN is out of all."""
    return all(value <= limits[key] for key, value in pair.items())


def pasted(answer: Mapping[str, Any]) -> bool:
    """Whether the masks of an answer are of the photo's size."""
    return "masks" in answer and (isinstance(answer["masks"], list) or answer["masks"].dtype in (bool, np.uint8))


def _far(values: Any, other_values: Any) -> float:
    return float(np.max(np.abs(np.float64(values) - np.float64(other_values)), initial=0.0))


def _disagreement(mask: np.ndarray | RLE, other_mask: np.ndarray | RLE) -> float:
    """1 - IoU of two pasted masks."""
    mask, other_mask = _pixels(mask), _pixels(other_mask)
    either = int(np.sum(mask | other_mask))
    return 1.0 - int(np.sum(mask & other_mask)) / either if either else 0.0


def _pixels(mask: np.ndarray | RLE) -> np.ndarray:
    if isinstance(mask, dict):
        from pycocotools import mask as coco

        mask = coco.decode(mask)
    return mask.astype(bool)
