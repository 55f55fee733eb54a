import keras
import numpy as np
import pytest

from keras_rcnn.data import Preprocessor, read_image
from keras_rcnn.data.masks import resize_nearest
from keras_rcnn.data.preprocess import resize_bilinear, scale_boxes
from tests.shared import SHARED, golden, needs_golden

MODELS = ("fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn")
CASES = ("china", "china_wide", "astronaut_tall", "coffee_small")


@needs_golden
def test_unit_golden():
    unit = golden("unit.npz")
    for height, width, low, high, *expected in unit["resize_sizes_h_w_min_max_outh_outw"].tolist():
        assert Preprocessor(low, high).size(height, width) == tuple(expected)
    resized = Preprocessor(48, 80)(unit["transform_in"].transpose(1, 2, 0))
    assert resized.shape == (48, 68, 3) and resized.dtype == np.float32
    np.testing.assert_allclose(resized, unit["transform_out_48_80"][0].transpose(1, 2, 0)[:48, :68], atol=1e-6)
    boxes = Preprocessor(48, 80).restore(unit["resize_boxes_in"], (48, 68), (37, 53))
    np.testing.assert_array_equal(boxes, unit["resize_boxes_37x53_to_48x68"])
    for mask, expected in zip(unit["resize_masks_in"], unit["resize_masks_out_48_80"]):
        np.testing.assert_array_equal(resize_nearest(mask, 48, 68), expected)


@needs_golden
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", MODELS)
def test_photos_golden(model, case):
    about = golden(f"{model}.json")["cases"][case]
    expected = golden(f"{model}__{case}.npz")
    image = read_image(SHARED / "golden" / "images" / f"{case}.png")
    x = Preprocessor(about["min_size"], about["max_size"]).batch([image])
    height, width = expected["image_size_resized"]
    np.testing.assert_array_equal(x["image_sizes"], [[height, width]])
    values = x["images"][0].transpose(2, 0, 1)
    assert (1, *values.shape) == tuple(expected["batch_shape"])
    np.testing.assert_allclose(values[:, ::8, ::8], expected["transform_every8"], atol=1e-6)
    np.testing.assert_allclose(values[:, :48, :48], expected["transform_topleft48"], atol=1e-6)
    corner = values[:, height - 48 :, width - 48 :]
    np.testing.assert_allclose(corner, expected["transform_bottomright48"], atol=1e-6)


def slow_resize(image, height, width):
    """One px after the other, in float64."""
    old_height, old_width = image.shape[:2]
    answer = np.zeros((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            sy = max((y + 0.5) * old_height / height - 0.5, 0)
            sx = max((x + 0.5) * old_width / width - 0.5, 0)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, old_height - 1), min(x0 + 1, old_width - 1)
            fy, fx = sy - y0, sx - x0
            top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
            bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
            answer[y, x] = top * (1 - fy) + bottom * fy
    return answer


@pytest.mark.parametrize("size", [(5, 7), (13, 11), (26, 22), (40, 9), (1, 30), (13, 60)])
def test_resize_is_the_slow_one(size):
    image = np.random.default_rng(1).normal(size=(13, 11, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_bilinear(image, *size), slow_resize(image, *size), atol=2e-5)


def test_batch_by_hand():
    preprocessor = Preprocessor(10, 20, mean=(0, 0, 0), std=(0.5, 1, 1), size_divisor=8)
    x = preprocessor.batch([np.full((10, 15, 3), 255, np.uint8), np.full((40, 20, 3), 51, np.uint8)])
    assert x["images"].shape == (2, 24, 16, 3) and x["images"].dtype == np.float32
    np.testing.assert_array_equal(x["image_sizes"], [[10, 15], [20, 10]])
    np.testing.assert_allclose(x["images"][0, 9, 14], [2, 1, 1])
    np.testing.assert_allclose(x["images"][1, 19, 9], [0.4, 0.2, 0.2], rtol=1e-6)
    assert not x["images"][0, 10:].any() and not x["images"][0, :, 15:].any() and not x["images"][1, 20:].any()


def test_fixed_size_holds_every_image():
    preprocessor = Preprocessor(64, 128, fixed_size=(64, 96))
    for height, width in ((10, 10), (1, 500), (500, 1), (601, 899), (37, 53), (300, 100)):
        resized = preprocessor.size(height, width)
        assert 1 <= resized[0] <= 64 and 1 <= resized[1] <= 96
        assert preprocessor.batch([np.zeros((height, width, 3), np.uint8)])["images"].shape == (1, 64, 96, 3)
    with pytest.raises(ValueError, match=r"\(96, 96\)"):
        Preprocessor(fixed_size=(70, 96))


@pytest.mark.parametrize(("short", "long"), [(800, 1333), (320, 640), (448, 640), (600, 1000), (640, 640), (600, 800)])
def test_few_shapes_hold_every_photo_and_cost_a_fifth_at_most(short, long):
    preprocessor = Preprocessor(short, long)
    rng = np.random.default_rng(0)
    sizes = [preprocessor.size(*rng.integers(100, 3000, 2)) for _ in range(2000)]
    exact = [preprocessor.padded_size([size]) for size in sizes]
    padded = [preprocessor.padded_size([size], compiled=True) for size in sizes]
    assert len(set(padded)) <= 8 and set(padded) <= set(preprocessor.shapes)
    assert all(h >= size[0] and w >= size[1] for size, (h, w) in zip(sizes, padded))
    assert sum(map(np.prod, padded)) < 1.2 * sum(map(np.prod, exact))
    mixed = preprocessor.padded_size([(long, 10), (10, long)], compiled=True)
    assert mixed in preprocessor.shapes and min(mixed) >= long


def test_who_decides_about_few_shapes():
    size = [(320, 401)]
    never, where_compiled, always = (Preprocessor(320, 640, few_shapes=value) for value in (False, None, True))
    assert never.padded_size(size, True) == where_compiled.padded_size(size, False) == (320, 416)
    assert where_compiled.padded_size(size, True) == always.padded_size(size, False) == (320, 448)
    assert Preprocessor(320, 640, fixed_size=(320, 640), few_shapes=True).padded_size(size) == (320, 640)
    assert always.batch([np.zeros((32, 40, 3), np.uint8)])["images"].shape == (1, 320, 448, 3)
    for preprocessor in (never, where_compiled, always):
        assert preprocessor.replace().few_shapes is preprocessor.few_shapes
    with pytest.raises(ValueError, match="few_shapes"):
        Preprocessor(few_shapes=8)


def test_restore_is_the_inverse_of_the_resize():
    boxes = np.array([[0, 0, 640, 427], [10, 20, 30, 40]], np.float32)
    there = scale_boxes(boxes, (427, 640), (799, 1199))
    np.testing.assert_array_equal(there[0], [0, 0, 1199, 799])
    np.testing.assert_allclose(Preprocessor().restore(there, (427, 640), (799, 1199)), boxes, rtol=1e-6)
    assert scale_boxes(np.zeros((0, 4)), (4, 4), (8, 8)).shape == (0, 4)


def test_config_round_trip():
    preprocessor = Preprocessor(320, 640, mean=(0.5, 0.5, 0.5), fixed_size=(320, 640))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(preprocessor))
    assert isinstance(again, Preprocessor) and again.get_config() == preprocessor.get_config()
    assert preprocessor.replace(min_size=100).size(200, 300) == (100, 150)


@pytest.mark.parametrize("setting", [{"min_size": 0}, {"std": (1, 0, 1)}, {"mean": (0, 0)}, {"size_divisor": 0}])
def test_settings_that_make_no_sense(setting):
    with pytest.raises(ValueError):
        Preprocessor(**setting)


def test_at_size_scales_everything_in_proportion():
    plain = Preprocessor(400, 640, few_shapes=True)
    assert plain.at_size(800).get_config() == plain.replace(min_size=800, max_size=1280).get_config()
    assert plain.at_size(400).get_config() == plain.get_config()
    assert plain.at_size(1).max_size == 2
    # a frame that holds what min_size and max_size ask for
    framed = Preprocessor(384, 640, fixed_size=(384, 640))
    large = framed.at_size(768)
    assert (large.min_size, large.max_size, large.fixed_size) == (768, 1280, (768, 1280))
    assert (framed.size(300, 400), large.size(300, 400)) == ((384, 512), (768, 1024))
    assert framed.at_size(100).fixed_size == (128, 192) and framed.at_size(100).size(300, 400) == (100, 133)
    # one that is smaller than they: what photos come to is its own side
    small = Preprocessor(800, 1333, fixed_size=(320, 320))
    assert small.at_size(320).size(300, 300) == small.size(300, 300) == (320, 320)
    assert small.at_size(640).fixed_size == (640, 640) and small.at_size(640).size(300, 400) == (480, 640)


def test_a_batch_of_no_images_has_no_size():
    with pytest.raises(ValueError, match="no image in the batch"):
        Preprocessor(min_size=32, max_size=64).padded_size([])
