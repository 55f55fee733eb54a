"""Pasting masks against torchvision's own, and RLE against pycocotools."""

import numpy as np
from pycocotools import mask as coco

from keras_rcnn.data.paste import _expanded, paste_masks, paste_rle
from tests.shared import golden, needs_golden


@needs_golden
def test_paste_equals_torchvision():
    unit = golden("unit.npz")
    masks, boxes = unit["paste_masks"][:, 0], unit["paste_boxes"]
    np.testing.assert_array_equal(_expanded(boxes, 28), unit["paste_expanded_int_boxes"])
    np.testing.assert_array_equal(paste_masks(masks, boxes, 60, 90), unit["paste_out_60x90"][:, 0] >= 0.5)


def test_rle_is_the_pasted_mask():
    rng = np.random.default_rng(0)
    masks = rng.random((40, 28, 28), np.float32)
    low = rng.uniform(-20, 90, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 90, (40, 2))], axis=1).astype(np.float32)
    boxes[0] = [0, 0, 100, 80]  # runs that go on from one column to the next
    masks[0] = 1
    boxes[1] = [-60, -60, -20, -20]  # outside
    pasted = paste_masks(masks, boxes, 80, 100)
    for one, rle in zip(pasted, paste_rle(masks, boxes, 80, 100), strict=True):
        assert rle == coco.encode(np.asfortranarray(one.astype(np.uint8)))
    assert pasted[1].sum() == 0
    assert paste_masks(masks[:0], boxes[:0], 80, 100).shape == (0, 80, 100)
    assert paste_rle(masks[:0], boxes[:0], 80, 100) == []
