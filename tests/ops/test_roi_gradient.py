"""RoIAlign's gradient where hundreds of regions lie on few cells: TensorFlow's own loses sums there, on a CPU."""

import numpy as np
import pytest
from keras import ops

from keras_rcnn.ops import roi
from tests.ops.test_unit_golden import gradient

SIDES = (40, 20, 10, 5)


def regions(count, side=160.0):
    rng = np.random.default_rng(0)
    # some reach out of the image, some have no area
    centres, sides = rng.uniform(-10, side + 10, (2, count, 2)), rng.uniform(0, side, (2, count, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).astype(np.float32)
    levels = np.clip(np.log2(np.maximum(np.sqrt(sides.prod(-1)), 1) / 20).astype(np.int32) + 1, 0, 3)
    return boxes, levels


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("count", [1, 400])
def test_sums_of_many_regions_are_whole(count, samples):
    boxes, levels = regions(count)
    rng = np.random.default_rng(1)
    maps = [rng.standard_normal((2, side, side, 16)).astype(np.float32) for side in SIDES]
    weights = rng.standard_normal((2, count, 7, 7, 16)).astype(np.float32)

    def found(function, level):
        def objective(one):
            given = [*maps[:level], one, *maps[level + 1 :]]
            pooled = function(given, boxes, levels, [side / 160 for side in SIDES], 7, samples, aligned=True)
            return ops.sum(pooled * weights)

        return ops.convert_to_numpy(gradient(objective, maps[level]))

    for level in range(4):
        expected = found(roi.portable_multilevel_roi_align, level)
        ours = found(roi.multilevel_roi_align, level)
        np.testing.assert_allclose(ours, expected, atol=2e-4)
        for _ in range(5):  # to the last bit
            np.testing.assert_array_equal(found(roi.multilevel_roi_align, level), ours)
