"""Matterport's way with photos, boxes and masks, against its own numbers."""

import numpy as np
import pytest

from keras_rcnn.data import MatterportPreprocessor, Preprocessor
from tests.matterport import numbers, to_pixels
from tests.shared import needs_golden


@pytest.fixture(scope="module")
def unit():
    return numbers("unit")


def preprocessor_of(unit, case):
    least, most, min_scale = unit[f"resize/{case}/min_dim_max_dim_min_scale"]
    mode = str(unit[f"resize/{case}/mode"])
    return MatterportPreprocessor(int(least) or 1, int(most) or 1, mode, min_scale, (0, 0, 0))


# 11 and 12 are crops, the side of 13 no multiple of 64, and the square of 16 neither
@needs_golden
@pytest.mark.parametrize("case", [i for i in range(16) if i not in (11, 12, 13)])
def test_photos_to_the_last_bit(case, unit):
    preprocessor = preprocessor_of(unit, case)
    height, width, canvas_height, canvas_width, *window = unit["resize/rows_h_w_H_W_window_padding_crop"][case][:8]
    size = preprocessor.size(height, width)
    top, left = preprocessor.corner(size)
    assert [top, left, top + size[0], left + size[1]] == [*window]
    assert preprocessor.padded_size([size]) == (canvas_height, canvas_width)
    if f"resize/{case}/in" in unit:
        x = preprocessor.batch([unit[f"resize/{case}/in"]])
        np.testing.assert_array_equal(x["images"][0], unit[f"resize/{case}/out"])
        assert tuple(x["image_sizes"][0]) == size


@needs_golden
@pytest.mark.parametrize("case", range(4))
def test_masks_in_the_photo(case, unit):
    y1, x1, y2, x2 = unit[f"unmold_mask/{case}/box"]
    args = unit["unmold_mask/in"][None], np.float32([[x1, y1, x2, y2]]), (64, 80)
    pasted = MatterportPreprocessor().pasted(*args, True)
    np.testing.assert_array_equal(pasted[0], unit[f"unmold_mask/{case}/out"])
    from pycocotools import mask as coco

    (rle,) = MatterportPreprocessor().pasted(*args, "rle")
    np.testing.assert_array_equal(coco.decode(rle).astype(bool), pasted[0])
    np.testing.assert_array_equal(MatterportPreprocessor().pasted(*args, "crops"), args[0])


@needs_golden
def test_boxes_become_whole_pixels(unit):
    boxes = to_pixels(unit["boxes/normalised"], (427, 640))
    preprocessor = MatterportPreprocessor(1, 64, "pad64")
    top, left = preprocessor.corner((427, 640))
    assert (top, left) == (10, 0)
    restored = preprocessor.restore(boxes + np.float32([left, top, left, top]), (427, 640), (427, 640))
    np.testing.assert_array_equal(restored[:, [1, 0, 3, 2]], unit["boxes/denorm_427_640"])


def test_padding_is_minus_the_mean_and_the_photo_in_the_middle():
    preprocessor = MatterportPreprocessor(64, 128, "square", mean_pixel=(10, 20, 30))
    x = preprocessor.batch([np.full((64, 99, 3), 255, np.uint8)])
    assert x["images"].shape == (1, 128, 128, 3)
    np.testing.assert_array_equal(x["images"][0, 0, 0], [-10, -20, -30])
    inside = np.flatnonzero(x["images"][0, 64, :, 0] > 0)
    assert (inside[0], inside[-1]) == (14, 112)  # of 29 px of padding the odd one is right


def test_canvases_of_different_sizes_in_a_batch():
    preprocessor = MatterportPreprocessor(64, 64, "pad64")
    photos = [np.full((64, 100, 3), 200, np.uint8), np.full((130, 64, 3), 200, np.uint8)]
    both = preprocessor.batch(photos)
    assert both["images"].shape == (2, 192, 128, 3)
    for image, photo in zip(both["images"], photos):
        alone = preprocessor.batch([photo])["images"][0]
        np.testing.assert_array_equal(image[: alone.shape[0], : alone.shape[1]], alone)


@pytest.mark.parametrize("mode", ["square", "pad64"])
def test_place_is_the_way_back(mode):
    preprocessor = MatterportPreprocessor(96, 192, mode)
    boxes = np.float32([[3, 5, 40, 60], [0, 0, 70, 90], [0, 0, 0, 0]])
    resized = preprocessor.size(90, 70)
    placed = preprocessor.place(boxes, (90, 70), resized)
    assert not placed[2].any()
    np.testing.assert_allclose(preprocessor.restore(placed[:2], (90, 70), resized), boxes[:2], atol=1)
    top, left = preprocessor.corner(resized)
    assert placed[1].tolist() == [left, top, left + resized[1], top + resized[0]]


def test_more_padding_leaves_the_canvas_where_it_is():
    photo = np.full((70, 90, 3), 200, np.uint8)
    alone = MatterportPreprocessor(64, 256, "pad64").batch([photo])["images"][0]
    padded = MatterportPreprocessor(64, 256, "pad64", few_shapes=True).batch([photo])["images"][0]
    assert padded.shape[1] > alone.shape[1]
    np.testing.assert_array_equal(padded[: alone.shape[0], : alone.shape[1]], alone)


def test_another_size_keeps_the_canvas():
    larger = MatterportPreprocessor(400, 512).at_size(500)
    assert (larger.min_size, larger.canvas) == (500, 512)
    assert MatterportPreprocessor(mode="pad64").canvas == "pad64"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"mode": "crop"}, "mode is one of"),
        ({"max_size": 1000}, "multiples of 64"),
        ({"mean_pixel": (1, 2)}, "three numbers"),
        ({"min_scale": -1}, "min_scale"),
        ({"min_size": 0}, "min_size"),
    ],
)
def test_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        MatterportPreprocessor(**arguments)


def test_none_takes_photos_that_fit():
    preprocessor = MatterportPreprocessor(mode="none")
    assert preprocessor.batch([np.zeros((64, 128, 3), np.uint8)])["images"].shape == (1, 64, 128, 3)
    with pytest.raises(ValueError, match="77 x 45"):
        preprocessor.size(45, 77)


def test_the_other_preprocessors_have_no_canvas():
    boxes = np.float32([[1, 2, 3, 4]])
    np.testing.assert_array_equal(Preprocessor().place(boxes, (10, 10), (20, 30)), [[3, 4, 9, 8]])
