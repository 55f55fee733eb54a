import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from keras_rcnn.data import DataError
from keras_rcnn.data.images import ImageError
from keras_rcnn.data.masks import InstanceMask, full_mask, instance_mask, rle_counts, sample_mask, segmentation_problem

RNG = np.random.default_rng(3)


def blobs(height, width, share=0.5):
    return (RNG.random((height, width)) < share).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 60), (300, 200)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_rle_as_pycocotools_writes_it(shape, share):
    mask = blobs(*shape, share)
    rle = coco_mask.encode(np.asfortranarray(mask))
    text = {"size": list(shape), "counts": rle["counts"].decode()}
    np.testing.assert_array_equal(full_mask(rle, *shape), mask)
    np.testing.assert_array_equal(full_mask(text, *shape), mask)
    np.testing.assert_array_equal(
        full_mask({"size": shape, "counts": rle_counts(rle["counts"]).tolist()}, *shape), mask
    )
    y, x = shape[0] // 3, shape[1] // 4
    crop, frame = instance_mask(text, *shape, np.array([x + 0.3, y + 0.3, shape[1] - 0.5, shape[0]], np.float32))
    np.testing.assert_array_equal(frame, [x, y, shape[1], shape[0]])
    np.testing.assert_array_equal(crop, mask[y:, x:])


def test_polygons_as_pycocotools_draws_them():
    polygons = [[12.5, 3.0, 40.2, 8.0, 30.0, 44.0], [2.0, 2.0, 9.0, 2.0, 9.0, 9.0, 2.0, 9.0]]
    reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 50, 60)))
    np.testing.assert_array_equal(full_mask(polygons, 50, 60), reference)
    crop, _ = instance_mask(polygons, 50, 60, np.array([2, 2, 41, 44], np.float32))
    np.testing.assert_array_equal(crop, reference[2:44, 2:41])


def test_polygon_that_sticks_out_is_cut_off():
    square = [[-30.0, -30.0, 10.0, -30.0, 10.0, 10.0, -30.0, 10.0]]
    crop, frame = instance_mask(square, 20, 20, np.array([0, 0, 10, 10], np.float32))
    assert crop.shape == (10, 10) and crop.all()
    np.testing.assert_array_equal(frame, [0, 0, 10, 10])
    assert full_mask(square, 20, 20).sum() == 100


def test_png_mask(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 10:20] = 255
    for mode in ("L", "1", "RGB", "P"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(mask).convert(mode).save(path)
        crop, _ = instance_mask(str(path), 20, 30, np.array([8, 4, 22, 12], np.float32))
        np.testing.assert_array_equal(crop, mask[4:12, 8:22] > 0)
    with pytest.raises(ImageError, match="30 x 20"):
        instance_mask(str(path), 40, 30, np.array([0, 0, 5, 5]))
    with pytest.raises(ImageError, match="no such mask"):
        instance_mask(str(tmp_path / "no.png"), 40, 30, np.array([0, 0, 5, 5]))


def slow_sample(mask, box, size):
    answer = np.zeros((size, size), np.uint8)
    for row in range(size):
        for column in range(size):
            x = box[0] + (column + 0.5) / size * (box[2] - box[0])
            y = box[1] + (row + 0.5) / size * (box[3] - box[1])
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]:
                answer[row, column] = mask[int(y), int(x)]
    return answer


@pytest.mark.parametrize("box", [(3.2, 4.1, 30.7, 20.9), (0, 0, 40, 30), (10, 10, 12, 11), (-5, -6, 47, 33)])
def test_sample_is_the_slow_one(box):
    mask = blobs(30, 40)
    cropped = instance_mask(mask, 30, 40, np.array(box, np.float32))
    np.testing.assert_array_equal(sample_mask(cropped, np.array(box), 16), slow_sample(mask, box, 16))


def test_sample_where_the_crop_does_not_reach_is_empty():
    mask = InstanceMask(np.ones((4, 4), np.uint8), np.array([10, 10, 14, 14], np.float32))
    assert sample_mask(mask, np.array([20, 20, 30, 30]), 8).sum() == 0
    half = sample_mask(mask, np.array([12, 10, 16, 14]), 8)
    assert half[:, :4].all() and not half[:, 4:].any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "2 points"),
        ([[1, 2, 3, 4, 5]], "odd"),
        ([[1, 2, 3, float("nan"), 5, 6]], "NaN"),
        ([1, 2, 3, 4, 5, 6], "not a list"),
        ([[1, 2, 3, "a", 5, 6]], "no number"),
        ({"size": [5, 4], "counts": [20]}, "size"),
        ({"size": [4, 5], "counts": [7]}, "covers 7"),
        ({"size": [4, 5]}, "NoneType"),
        ({"size": [4, 5], "counts": [[5], [15]]}, "not a flat list"),
        ({"size": [4, 5], "counts": [3.5, 16.5]}, "whole numbers"),
        ({"size": [4, 5], "counts": [1e300]}, "whole numbers"),
        ({"size": [4, 5], "counts": [2**62, 2**62, 2**62, 2**62 + 20]}, "whole numbers"),
        ({"size": [4, 5], "counts": "\x01"}, "cannot be decoded"),
        ({"size": [4, 5], "counts": "ä"}, "cannot be decoded"),
        ({"size": [4, 5], "counts": "P" * 30}, "cannot be decoded"),
        ({"size": 7, "counts": [20]}, "size"),
        ([[0, 0, 1e7, 0, 4, 4]], "px outside"),
        ([[0, 0, 1e300, 0, 4, 4]], "px outside"),
        ([[0, 0, 2, 2, 4, 4]], "without an area"),
        ("missing.png", "no such mask"),
        (np.zeros((3, 3)), "shape"),
    ],
)
def test_bad_segmentations_are_named(segmentation, message):
    assert message in segmentation_problem(segmentation, 4, 5)


def test_good_segmentations_pass():
    assert segmentation_problem({"size": [4, 5], "counts": [3, 17]}, 4, 5) is None
    assert segmentation_problem([[0, 0, 4, 0, 4, 4]], 4, 5) is None


def test_polygons_far_outside_never_reach_pycocotools():
    for far in (1e7, 1e300, float("nan")):
        with pytest.raises(DataError, match="coordinates that are no px"):
            full_mask([[0, 0, far, 0, 4, 4]], 4, 5)


@pytest.mark.parametrize("size", [[5], [5, 6, 7], [5, "6"], "56"])
def test_run_lengths_of_no_size_are_named(size):
    with pytest.raises(DataError, match=r"the size of a run-length mask is .* it should be \[height, width\]"):
        full_mask({"size": size, "counts": [30]}, 5, 6)
