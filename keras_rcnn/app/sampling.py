"""How one region's features are taken: RoIAlign's points, RoIPool's bins, or the crop that R-CNN's CNN sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.app.stages import array
from keras_rcnn.layers import RegionWarp, RoIAlign, RoIPool
from keras_rcnn.ops.roi import cells, sample_points

if TYPE_CHECKING:
    from keras_rcnn.app.stages import Run
    from keras_rcnn.data.preprocess import Preprocessor


@dataclass(frozen=True)
class Sampling:
    """A region on its map. Coordinates are in cells: cell (0, 0) has its value at (0, 0).

    Attributes:
        how: `"RoIAlign"`, `"RoIPool"` or `"RegionWarp"`, or the name of another layer, of which the box alone is known.
        level: the map's name; `""` for R-CNN.
        stride: int, pixels a cell.
        features: float32 [h, w], the map, as the mean of its channels; None for R-CNN.
        corners: float32 [4], the region, x1, y1, x2, y2.
        size: int S, bins a side.
        points: `(y, x)` of RoIAlign: float32 [S * m] and [S * n], the rows and columns of the grid of points.
        bins: `(rows, columns)` of RoIPool: int [S, 2], the first cell of each bin and the one behind its last.
        crop: uint8 [S, S, 3] of R-CNN.
    """

    how: str
    level: str
    stride: int
    features: np.ndarray | None
    corners: np.ndarray
    size: int
    points: tuple[np.ndarray, np.ndarray] | None = None
    bins: tuple[np.ndarray, np.ndarray] | None = None
    crop: np.ndarray | None = None


def sampling(run: Run, region: np.ndarray, pool: Any = None, place: int = 0) -> Sampling:
    """How the features of a region are taken.

    Args:
        run: a detector on a photo.
        region: float32 [4] in pixels of the image as the detector sees it, one of `Stages.regions`.
        pool: the layer that takes them; None for the detector's `box_pool`.
        place: int, of which of the maps, for a layer that does not choose itself.
    """
    pool = pool or run.model.parts["box_pool"]
    pool = getattr(pool, "pool", pool)  # a C4 detector's, which has a stage of the backbone behind it
    if isinstance(pool, RegionWarp):
        crop = array(pool(run.inputs["images"], region[None, None], run.inputs["image_sizes"]))[0, 0]
        return Sampling("RegionWarp", "", 1, None, region, pool.size, crop=pixels(crop, run.model.preprocessor))
    place = int(array(pool.levels(region[None]))[0]) if isinstance(pool, RoIAlign) else place
    stride = run.strides[place]
    corners = region / np.float32(stride)
    points = bins = None
    if isinstance(pool, RoIAlign):
        points = align_points(corners, pool)
        corners = corners - np.float32(0.5 if pool.aligned else 0)
    elif isinstance(pool, RoIPool):
        bins = pool_bins(region, pool)
    features = run.features[place][0].astype(np.float32).mean(-1)
    name = run.level_names[place]
    return Sampling(type(pool).__name__, name, stride, features, corners, pool.size, points, bins)


def align_points(corners: np.ndarray, pool: RoIAlign) -> tuple[np.ndarray, np.ndarray]:
    """The rows [S * m] and columns [S * n] of RoIAlign's points, for a region [4] in cells of its map."""
    width, height = np.maximum(corners[2:] - corners[:2], 0 if pool.aligned else 1)
    if pool.samples > 0:
        numbers = (pool.samples, pool.samples)
    else:
        numbers = tuple(max(int(np.ceil(side / pool.size)), 1) for side in (height, width))
    grids = [sample_points(corners, pool.size, number, pool.aligned) for number in numbers]
    return array(grids[0][0]), array(grids[1][1])


def pool_bins(region: np.ndarray, pool: RoIPool) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of RoIPool's bins, int [S, 2] each: corners rounded to cells, bins that share cells."""
    x1, y1, x2, y2 = array(cells(region, 1 / pool.strides[0])).tolist()
    steps = np.arange(pool.size)

    def along(low: int, high: int) -> np.ndarray:
        extent = max(high - low + 1, 1)
        return np.stack([low + steps * extent // pool.size, low - (-(steps + 1) * extent // pool.size)], axis=1)

    return along(y1, y2), along(x1, x2)


def pixels(image: np.ndarray, preprocessor: Preprocessor) -> np.ndarray:
    """A normalised image [h, w, 3] as uint8 RGB."""
    image = image if preprocessor.channels == "rgb" else image[..., ::-1]
    values = image * np.asarray(preprocessor.std) + np.asarray(preprocessor.mean)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
