import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data.images import ImageError, image_size, read_image

RAMP = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def saved(path, array=RAMP, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_png_is_read_as_it_is(tmp_path):
    path = saved(tmp_path / "a.png")
    for source in (path, str(path), path.read_bytes(), RAMP):
        image = read_image(source)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, RAMP)
    assert image_size(path) == (6, 8)


def test_grey_alpha_palette_and_bilevel(tmp_path):
    grey = read_image(saved(tmp_path / "grey.png", RAMP[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(RAMP[..., :1], 3, axis=-1))
    alpha = np.concatenate([RAMP, np.full((6, 8, 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "rgba.png", alpha)), RAMP)
    two = np.zeros((4, 4, 3), np.uint8)
    two[:2] = (255, 0, 0)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "p.png", two, mode="P")), two)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "t.png", two, mode="P", transparency=0)), two)
    bits = read_image(saved(tmp_path / "1.png", np.array([[0, 255], [255, 0]], np.uint8), mode="1"))
    np.testing.assert_array_equal(bits[..., 0], [[0, 255], [255, 0]])
    assert read_image(saved(tmp_path / "cmyk.jpg", RAMP, mode="CMYK")).shape == (6, 8, 3)
    assert read_image(saved(tmp_path / "la.png", RAMP[..., 0], mode="LA")).shape == (6, 8, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_by_its_range(tmp_path, suffix):
    deep = np.array([[0, 257, 65535], [128, 129, 32768]], np.uint16)
    image = read_image(saved(tmp_path / f"deep.{suffix}", deep))
    np.testing.assert_array_equal(image[..., 1], [[0, 1, 255], [0, 1, 128]])
    np.testing.assert_array_equal(read_image(deep), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.png", exif=exif)
    # What the EXIF standard says row 0 and column 0 show.
    expected = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.transpose(1, 0, 2),
        6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RAMP, 1),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_arrays():
    np.testing.assert_array_equal(read_image(RAMP / np.float32(255)), RAMP)
    np.testing.assert_array_equal(read_image(RAMP.astype(np.float64)), RAMP)
    np.testing.assert_array_equal(read_image(RAMP.astype(np.int64)), RAMP)
    np.testing.assert_array_equal(read_image(RAMP[..., 0]), read_image(RAMP[..., :1]))
    assert read_image(np.ones((2, 2), bool)).max() == 255
    assert read_image(RAMP[:, ::-1]).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 20, 20), np.uint8), "channels-first"),
        (np.zeros((1, 20, 20, 3), np.uint8), "list of images"),
        (np.zeros((0, 20, 3), np.uint8), "no pixels"),
        (np.full((4, 4, 3), -1.0), "normalised already"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 3), 300), "300"),
        (np.full((4, 4), "a"), "dtype"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        whole = saved(tmp_path / f"whole.{suffix}", noise).read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("empty.jpg", "0 bytes"),
        ("text.jpg", "not an image"),
        ("cut.jpg", "truncated"),
        ("cut.png", "truncated"),
        ("missing.jpg", "no such"),
        ("", "folder"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
