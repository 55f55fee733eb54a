"""How well anchors fit the objects of a data set, at the size at which a detector sees them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_rcnn.data import Dataset
from keras_rcnn.ops.anchors import cell_anchors


class View(NamedTuple):
    """How a detector looks at a photo.

    Attributes:
        min_size: int, px of the shorter side.
        max_size: int, px of the longer side at most.
        sizes: for each level of the pyramid the sides of its anchors in px; None for a detector without anchors.
        aspect_ratios: of the anchors, height / width.
        strides: for each level its px a cell.
        max_detections: int, a photo.
    """

    min_size: int
    max_size: int
    sizes: Sequence[Sequence[float]] | None
    aspect_ratios: Sequence[float]
    strides: Sequence[int]
    max_detections: int

    @classmethod
    def of(cls, model: Any) -> "View":
        """That of a detector."""
        parts, preprocessor = model.parts, model.preprocessor
        anchors = parts.get("anchors")
        return cls(
            preprocessor.min_size,
            preprocessor.max_size,
            None if anchors is None else anchors.sizes,
            () if anchors is None else anchors.aspect_ratios,
            () if anchors is None else parts["neck"].strides(parts["backbone"].strides),
            parts["decoder"].max_detections,
        )


def seen_boxes(dataset: Dataset, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The objects that are trained on, as large as the detector sees them.

    Args:
        dataset: `Dataset`.
        view: `View`.

    Returns:
        Boxes float64 `[n, 4]` in px of the resized photos, the (height, width) of each box's resized photo `[n, 2]`,
        and labels int `[n]`. Crowd and difficult objects are not in them.
    """
    boxes, sizes, labels = [np.zeros((0, 4))], [np.zeros((0, 2))], [np.zeros(0, int)]
    for record in dataset:
        kept = ~record.crowd & ~record.difficult
        scale = photo_scale(record.height, record.width, view)
        boxes.append(record.boxes[kept].astype(np.float64) * scale)
        sizes.append(np.tile(np.array([[record.height, record.width]]) * scale, (int(kept.sum()), 1)))
        labels.append(record.labels[kept])
    return np.concatenate(boxes), np.concatenate(sizes), np.concatenate(labels)


def photo_scale(height: float, width: float, view: View) -> float:
    """The factor by which a photo's sides are resized."""
    return min(view.min_size / min(height, width), view.max_size / max(height, width))


def best_anchor_iou(boxes: np.ndarray, sizes: np.ndarray, view: View) -> np.ndarray:
    """The IoU of each box with the anchor that fits it best, of all positions, levels and shapes.

    With an anchor of one shape the IoU falls with either distance of the centres: only the nearest can be the best.

    Args:
        boxes: `[n, 4]` in px of the resized photos.
        sizes: `[n, 2]`, (height, width) of the resized photos.
        view: `View` with anchors.

    Returns:
        float64 `[n]`.
    """
    best = np.zeros(len(boxes))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    for level_sizes, stride in zip(view.sizes or (), view.strides, strict=True):
        last = np.maximum(np.ceil(sizes[:, ::-1] / stride) - 1, 0)  # cell (i, j) has its anchors' centre at stride i
        for corners in cell_anchors(level_sizes, view.aspect_ratios).astype(np.float64):
            middle, shape = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
            nearest = np.clip(np.round((centres - middle) / stride), 0, last) * stride + middle
            overlap = np.minimum(centres + sides / 2, nearest + shape / 2) - np.maximum(
                centres - sides / 2, nearest - shape / 2
            )
            shared = np.clip(overlap, 0, None).prod(axis=1)
            best = np.maximum(best, shared / (sides.prod(axis=1) + shape.prod() - shared))
    return best


def kmeans_shapes(sides: np.ndarray, count: int, seed: int = 0, rounds: int = 100) -> np.ndarray:
    """Shapes that stand for many, by k-means with 1 - IoU of concentric boxes as the distance (Redmon and Farhadi 2017,
    section 2).

    Args:
        sides: `[n, 2]`, width and height.
        count: int, of shapes.
        seed: int, of the first shapes.
        rounds: int, at most.

    Returns:
        `[k, 2]`, the smallest first; k is less than `count` if there are fewer different boxes.
    """
    different = np.unique(sides, axis=0)
    if len(different) <= count:
        return different[np.argsort(different.prod(axis=1))]
    rng = np.random.default_rng(seed)
    if len(sides) > 20_000:
        sides = sides[rng.choice(len(sides), 20_000, replace=False)]
    shapes = sides[rng.choice(len(sides), 1)]
    while len(shapes) < count:  # k-means++: far from those chosen
        distance = (1 - concentric_iou(sides, shapes).max(axis=1)) ** 2
        if not distance.sum():
            break
        shapes = np.concatenate([shapes, sides[rng.choice(len(sides), 1, p=distance / distance.sum())]])
    nearest = None
    for _ in range(rounds):
        before, nearest = nearest, concentric_iou(sides, shapes).argmax(axis=1)
        if before is not None and (before == nearest).all():
            break
        shapes = np.array(
            [
                np.median(sides[nearest == i], axis=0) if (nearest == i).any() else shape
                for i, shape in enumerate(shapes)
            ]
        )
    return shapes[np.argsort(shapes.prod(axis=1))]


def concentric_iou(sides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU of boxes `[n, 2]` with shapes `[k, 2]` around the same centre: `[n, k]`."""
    shared = np.minimum(sides[:, None], shapes[None]).prod(axis=2)
    return shared / (sides.prod(axis=1)[:, None] + shapes.prod(axis=1)[None] - shared)
