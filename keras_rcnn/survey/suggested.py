"""Settings that suit a data set better than those it has."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_rcnn.data import Dataset
from keras_rcnn.survey.anchors import View, best_anchor_iou, kmeans_shapes, seen_boxes

SIDES = (320, 384, 448, 512, 608, 704, 800)  # px that are tried for `min_size`
SCALES = (2.0, 3.0, 4.0, 6.0, 8.0)  # anchors' sides in strides that are tried
SMALLEST = 12.0  # px: what nine of ten objects should at least have a side, or they are hardly seen
ENLARGED = 1.5  # more than this a photo is not enlarged: there is nothing more to see in it
LARGE = 24.0  # px: where 19 of 20 objects have such a side, the map of stride 4 costs much and finds little
GAIN = 0.02  # of the mean IoU with the best anchor; for less the defaults stay
SHAPES = 3
BUILT = ("anchor_scale", "aspect_ratios", "fpn_from", "max_detections")  # what a detector that exists has already


def suggestions(dataset: Dataset, view: View, fixed: Collection[str] = ()) -> dict[str, Any]:
    """Settings for a data set, by the sizes and shapes of its objects.

    Args:
        dataset: `Dataset` to train on.
        view: `View` of the settings as they are.
        fixed: names of settings that stay as they are; `BUILT` for a detector that exists.

    Returns:
        dict, setting -> value, of `min_size`, `max_size`, `fpn_from`, `anchor_scale`, `aspect_ratios`,
        `max_detections` and `eval_max_detections`. Empty if all is well.
    """
    if not any((~record.crowd & ~record.difficult).any() for record in dataset):
        return {}
    chosen: dict[str, Any] = {} if {"min_size", "max_size"} & set(fixed) else _size(dataset, view)
    if view.sizes is not None and len(view.sizes) > 1:
        view = view._replace(**chosen)
        if "fpn_from" not in fixed and view.strides[0] == 4 and _small(dataset, view, 0.05) >= LARGE:
            chosen["fpn_from"] = "C3"
            view = view._replace(sizes=view.sizes[1:], strides=view.strides[1:])
        chosen |= _anchors(dataset, view, fixed)
    most = max(len(record.boxes) for record in dataset)
    if most > view.max_detections:
        chosen |= dict.fromkeys(("max_detections", "eval_max_detections"), math.ceil(1.2 * most / 50) * 50)
    return {key: value for key, value in chosen.items() if key not in fixed}


def _size(dataset: Dataset, view: View) -> dict[str, int]:
    """`min_size` and `max_size`, where small objects want a larger photo, or photos have another shape."""
    shorter = np.median([min(record.height, record.width) for record in dataset])
    sides = [side for side in SIDES if side <= ENLARGED * shorter] or [SIDES[0]]
    long = np.quantile([max(r.height, r.width) / min(r.height, r.width) for r in dataset], 0.9)
    ratio, size = max(view.max_size / view.min_size, min(long, 2.0)), {}
    for side in sides:
        size = {"min_size": side, "max_size": int(np.ceil(side * ratio / 32) * 32)}
        if _small(dataset, view._replace(**size), 0.1) >= SMALLEST and side >= view.min_size:
            break
    return {key: value for key, value in size.items() if size["min_size"] > view.min_size}


def _small(dataset: Dataset, view: View, share: float) -> float:
    """The side in px, as the detector sees it, that this share of the objects does not reach."""
    boxes, _, _ = seen_boxes(dataset, view)
    return float(np.quantile(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), share))


def _anchors(dataset: Dataset, view: View, fixed: Collection[str]) -> dict[str, Any]:
    """`anchor_scale` and `aspect_ratios`, if they fit clearly better."""
    boxes, sizes, _ = seen_boxes(dataset, view)
    if len(boxes) > 5000:
        chosen = np.random.default_rng(0).choice(len(boxes), 5000, replace=False)
        boxes, sizes = boxes[chosen], sizes[chosen]
    sides = boxes[:, 2:] - boxes[:, :2]
    unit = sides / np.sqrt(sides.prod(axis=1, keepdims=True))
    fitted = tuple(sorted({round(float(h / w), 2) for w, h in kmeans_shapes(unit, SHAPES)}))
    now = {"anchor_scale": view.sizes[0][0] / view.strides[0], "aspect_ratios": tuple(view.aspect_ratios)}
    scales = [now["anchor_scale"]] if "anchor_scale" in fixed else SCALES
    shapes = [now["aspect_ratios"]] if "aspect_ratios" in fixed else dict.fromkeys((now["aspect_ratios"], fitted))
    best, fitting = best_anchor_iou(boxes, sizes, view).mean() + GAIN, now
    for ratios in shapes:
        for scale in scales:
            tried = view._replace(aspect_ratios=ratios, sizes=[[scale * stride] for stride in view.strides])
            iou = best_anchor_iou(boxes, sizes, tried).mean()
            if iou > best:
                best, fitting = iou, {"anchor_scale": scale, "aspect_ratios": ratios}
        if fitting is not now:
            best += GAIN  # other ratios have to be worth it as well
    return {key: value for key, value in fitting.items() if value != now[key]}
