"""The stages of a photo as pictures: uint8 RGB arrays whose longer side is `SIDE` pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from keras_rcnn.visualize import class_colour, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_rcnn.app.sampling import Sampling
    from keras_rcnn.app.stages import Level, Stages
    from keras_rcnn.data.preprocess import Preprocessor

SIDE = 640
BOXES = 60  # of thousands of proposals, the best are drawn
_CENTRES = 50  # dots along the photo's longer side
_WHITE = (255, 255, 255)


class Canvas:
    """A photo at the size at which it is shown.

    Args:
        photo: uint8 RGB [height, width, 3].
    """

    def __init__(self, photo: np.ndarray) -> None:
        height, width = photo.shape[:2]
        scale = SIDE / max(height, width)
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        self.picture = cv2.resize(photo, size, interpolation=how)
        self.scale = np.array([size[0] / width, size[1] / height], np.float32)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the photo in pixels of the picture."""
        return np.asarray(boxes, np.float32).reshape(-1, 4) * np.tile(self.scale, 2)

    def draw(self, boxes: np.ndarray, colours: list[Any], **more: Any) -> np.ndarray:
        """The picture with boxes of the photo."""
        return draw(self.picture, {"boxes": self.boxes(boxes), **more}, colours=colours)


def anchors_picture(canvas: Canvas, level: Level) -> np.ndarray:
    """The centres of a level's anchors, and all anchors of the cell with the best objectness."""
    row, column, _ = np.unravel_index(level.objectness.argmax(), level.objectness.shape)
    own = level.anchors[row, column]
    picture = canvas.draw(own, [class_colour(i) for i in range(len(own))])
    centres = level.centres * canvas.scale
    step = max(1, -(-max(centres.shape[:2]) // _CENTRES))
    for x, y in np.rint(centres[::step, ::step].reshape(-1, 2)).astype(int).tolist():
        cv2.circle(picture, (x, y), 1, _WHITE, -1)
    return picture


def objectness_picture(canvas: Canvas, level: Level) -> np.ndarray:
    """A heat map: each pixel has the best objectness, 0 black to 1 bright, of the anchors centred nearest to it."""
    from matplotlib import colormaps

    best = level.objectness.max(-1)
    height, width = canvas.picture.shape[:2]
    centres = level.centres * canvas.scale
    rows, columns = _nearest(height, centres[:, 0, 1]), _nearest(width, centres[0, :, 0])
    heat = colormaps["inferno"](best[rows][:, columns])[..., :3] * 255
    return (0.7 * heat + 0.3 * canvas.picture).astype(np.uint8)


def boxes_picture(canvas: Canvas, boxes: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
    """The first boxes, brighter with a better score; without scores, all alike."""
    from matplotlib import colormaps

    boxes = boxes[:BOXES]
    values = np.full(len(boxes), 0.8) if scores is None else _unit(scores[:BOXES])
    colours = [tuple(int(255 * part) for part in colormaps["viridis"](value)[:3]) for value in values]
    return canvas.draw(boxes, colours)


def region_picture(photo: np.ndarray, proposal: np.ndarray, refined: np.ndarray, label: int, name: str) -> np.ndarray:
    """The photo around a proposal, in white, and where the deltas of a class move it."""
    both = np.stack([proposal, refined])
    corners = np.concatenate([both[:, :2].min(0), both[:, 2:].max(0)])
    margin = 0.75 * (corners[2:] - corners[:2]).max()
    left, top = np.maximum(corners[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(corners[2:] + margin).astype(int)
    canvas = Canvas(photo[top:bottom, left:right])
    both = both - np.array([left, top, left, top], np.float32)
    return canvas.draw(both, [_WHITE, class_colour(label)], names=["RoI", name])


def detections_picture(canvas: Canvas, stages: Stages, preprocessor: Preprocessor) -> np.ndarray:
    """The detections, with their masks or keypoints."""
    found = stages.detections
    shown: dict[str, Any] = {**found, "boxes": canvas.boxes(found["boxes"])}
    if "masks" in found:
        crops: Any = found["masks"]
        size = canvas.picture.shape[0], canvas.picture.shape[1]
        shown["masks"] = preprocessor.pasted(crops, shown["boxes"], size, True)
    if "keypoints" in found:
        shown["keypoints"] = found["keypoints"] * np.append(canvas.scale, 1)
    return draw(canvas.picture, shown)


def sampling_picture(taken: Sampling) -> np.ndarray:
    """A region on its map: RoIAlign's points, RoIPool's bins, or the crop that goes through R-CNN's CNN."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if taken.crop is not None:
        return cv2.resize(taken.crop, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_CUBIC)
    figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    features: Any = taken.features
    axes.imshow(features, cmap="gray")
    x1, y1, x2, y2 = taken.corners.tolist()
    if taken.bins is not None:
        _draw_bins(axes, *taken.bins)
    elif taken.points is not None:
        _draw_points(axes, taken)
    label = "RoI, its bins" if taken.points else "RoI"
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color="tab:orange", linewidth=2, label=label)
    margin = 1.5 + 0.2 * max(x2 - x1, y2 - y1)
    axes.set(xlim=(x1 - margin, x2 + margin), ylim=(y2 + margin, y1 - margin))
    axes.set_xlabel(f"cells of {taken.level}, {taken.stride} px each")
    axes.legend(loc="upper right")
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    return np.asarray(drawn.buffer_rgba())[..., :3].copy()


def _draw_points(axes: Axes, taken: Sampling) -> None:
    y, x = taken.points or (np.zeros(0), np.zeros(0))
    x1, y1, x2, y2 = taken.corners.tolist()
    inner = np.arange(1, taken.size) / taken.size
    style: dict[str, Any] = {"colors": "tab:orange", "linewidth": 0.5}
    axes.vlines(x1 + (x2 - x1) * inner, y1, y2, **style)
    axes.hlines(y1 + (y2 - y1) * inner, x1, x2, **style)
    axes.scatter(np.tile(x, len(y)), np.repeat(y, len(x)), s=8, color="tab:cyan", label="sampling points", zorder=3)


def _draw_bins(axes: Axes, rows: np.ndarray, columns: np.ndarray) -> None:
    """The bins' edges, which run between cells; bins that share a cell overlap there."""
    left, top, right, bottom = columns[0, 0] - 0.5, rows[0, 0] - 0.5, columns[-1, 1] - 0.5, rows[-1, 1] - 0.5
    style: dict[str, Any] = {"colors": "tab:cyan", "linewidth": 1}
    axes.vlines(np.unique(columns) - 0.5, top, bottom, label="bins, of whole cells", **style)
    axes.hlines(np.unique(rows) - 0.5, left, right, **style)


def _nearest(length: int, centres: np.ndarray) -> np.ndarray:
    """For each pixel which of the centres along an axis is the nearest."""
    return np.abs(np.arange(length)[:, None] + 0.5 - centres).argmin(1)


def _unit(scores: np.ndarray) -> np.ndarray:
    """Scores as shares of the way from the lowest, 0, to the highest, 1."""
    low, high = scores.min(initial=np.inf), scores.max(initial=-np.inf)
    return np.ones(len(scores)) if not high > low else (scores - low) / (high - low)
