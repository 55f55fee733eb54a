import io
import types
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import Preprocessor
from keras_rcnn.data.images import ImageError, image_size, pixel_limit, read_image
from tests.data.user_files import CASES, needs_cases

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


# Objects of Python: the answer of the file that they would be saved as, or an error that names their type

SAVED_AS = {"LAB": "tiff", "CMYK": "tiff", "YCbCr": "tiff", "F": "tiff", "I": "tiff", "PA": None, "HSV": None}
SAVED_AS |= {"RGBa": None, "La": None, "RGBX": "tiff", "I;16B": "tiff"}


def of_mode(mode):
    smooth = np.indices((24, 32)).transpose(1, 2, 0) * [9, 7]
    rgb = np.dstack([smooth, 255 - smooth[..., :1]]).astype(np.uint8)
    if mode in ("I;16", "I;16B", "I", "F"):
        deep = rgb[..., 0].astype(np.uint16) * 257
        image = Image.fromarray(deep)
        return image if mode == "I;16" else image.convert("I") if mode == "I" else image.convert("I").convert(mode)
    image = Image.fromarray(rgb)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    if mode in ("P", "PA"):
        return image.convert("P", palette=Image.Palette.ADAPTIVE).convert(mode)
    return image.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, mode)).convert(mode)


@pytest.mark.parametrize("mode", "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV LAB I;16 I;16B I F".split())
def test_pil_images_of_every_mode_are_what_their_file_is(mode):
    try:
        image = of_mode(mode)
    except ValueError as error:
        pytest.skip(f"Pillow makes no {mode} image: {error}")
    if mode == "F":  # 0..1 or 0..255, as of arrays
        image = Image.fromarray(np.asarray(image) / np.float32(65535))
    found = read_image(image)
    assert found.dtype == np.uint8 and found.shape == (24, 32, 3) and image_size(image) == (24, 32)
    suffix = SAVED_AS.get(mode, "png")
    if suffix:
        stream = io.BytesIO()
        image.save(stream, suffix)
        np.testing.assert_array_equal(found, read_image(stream.getvalue()))
        np.testing.assert_array_equal(found, read_image(Image.open(stream)))
    if mode not in ("1", "L", "LA", "La", "I;16", "I;16B", "I", "F"):
        truth = np.asarray(of_mode("RGB")).astype(int)
        assert np.abs(found - truth).mean() < (12 if mode in ("P", "PA") else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_objects(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(RAMP).save(stream, "PNG", exif=exif)
    expected = read_image(stream.getvalue())
    for source in (Image.open(stream), stream, bytearray(stream.getvalue()), memoryview(stream.getvalue())):
        np.testing.assert_array_equal(read_image(source), expected)
        assert image_size(source) == expected.shape[:2]
    assert Image.open(stream).size == (8, 6)  # the caller's image is left as it is


class Upload:
    """As web frameworks hand over: `read` at the end of the stream, or under `file`, or asynchronous."""

    def __init__(self, content, filename="cat.png"):
        self._stream, self.filename = io.BytesIO(content), filename
        self._stream.seek(0, 2)

    def read(self, size=-1):
        return self._stream.read(size)

    def seek(self, place):
        self._stream.seek(place)


def test_open_files_and_uploads(tmp_path):
    path = saved(tmp_path / "a.png")
    content = path.read_bytes()
    with path.open("rb") as stream:
        stream.read(7)
        for source in (stream, Upload(content), types.SimpleNamespace(file=io.BytesIO(content))):
            np.testing.assert_array_equal(read_image(source), RAMP)
    body = types.SimpleNamespace(read=lambda: content)  # cannot seek
    np.testing.assert_array_equal(read_image(body), RAMP)

    class Async(Upload):
        async def read(self, size=-1):
            return self._stream.read(size)

    closed = io.BytesIO(content)
    closed.close()
    text = io.TextIOWrapper(io.BytesIO(content), "latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source, message in (
            (Async(content), r"cat.png: Async.read is asynchronous: pass `await upload.read\(\)`"),
            (text, "<TextIOWrapper>: TextIOWrapper gives text: open the image with mode 'rb'"),
            (types.SimpleNamespace(read=lambda: 7), "gives int, expected bytes"),
            (closed, "BytesIO cannot be read"),
            (Upload(content[:45], "x.png"), "x.png: "),
            (io.BytesIO(), "empty"),
            (None, "NoneType .* is no image: give a path"),
            ({"image": 1}, "dict .* is no image"),
            ([[1, 2], [3]], "list is no image"),
            (7, "shape"),
            (object(), "object of dtype object is no image"),
        ):
            with pytest.raises(ImageError, match=message):
                read_image(source)


def test_floats_just_beyond_their_range():
    unit = (RAMP / np.float32(255)).astype(np.float64)
    unit[0, 0], unit[0, 1] = 1.004, -0.03
    found = read_image(unit)
    np.testing.assert_array_equal(found[1:], RAMP[1:])
    assert (found[0, 0] == 255).all() and (found[0, 1] == 0).all()
    dark = np.zeros((4, 4, 3))
    dark[0] = [1, 2, 2]  # a picture of 0..255
    assert read_image(dark).max() == 2
    bright = np.full((4, 4, 3), 255.2)
    bright[0] = -0.1
    assert read_image(bright).min() == 0 and read_image(bright).max() == 255
    for wrong in (unit * 1e4, unit - 1, np.full((4, 4), np.inf), RAMP.astype(complex)):
        with pytest.raises(ImageError, match="image array"):
            read_image(wrong)


# Sizes


def test_a_small_file_of_a_large_picture(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (13000, 13000)).save(path)
    assert path.stat().st_size < 40_000 and image_size(path) == (13000, 13000)
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="13000 x 13000 px are more than the limit of 89,478,485 px.*MAX_PIXELS"):
            read_image(source)
    small = saved(tmp_path / "a.png")
    with pytest.raises(ImageError, match="8 x 6 px are more than the limit of 47 px"):
        read_image(small, max_pixels=47)
    assert read_image(small, max_pixels=48).shape == (6, 8, 3)
    monkeypatch.setenv("KERAS_RCNN_MAX_PIXELS", "40")
    assert pixel_limit() == 40
    with pytest.raises(ImageError, match="a.png: 8 x 6 px"):
        read_image(small)
    with pytest.raises(ImageError, match="8 x 6 px"):
        read_image(Image.open(small))
    assert read_image(small, max_pixels=0).shape == (6, 8, 3)
    monkeypatch.setenv("KERAS_RCNN_MAX_PIXELS", "many")
    with pytest.raises(ImageError, match="KERAS_RCNN_MAX_PIXELS='many'"):
        read_image(small)


def test_the_limit_can_be_lifted_beyond_pillows(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many
    with pytest.raises(ImageError, match="more than the limit"):
        read_image(path)
    assert read_image(path, max_pixels=10**10).shape == (6, 8, 3)
    monkeypatch.setenv("KERAS_RCNN_MAX_PIXELS", "0")
    assert read_image(path).shape == (6, 8, 3) and Image.MAX_IMAGE_PIXELS == 10


def test_resizing_has_the_same_limit():
    with pytest.raises(ValueError, match="a batch of 100000 x 100000 px an image is over the limit"):
        Preprocessor(100_000, 100_000).batch([np.zeros((8, 8, 3), np.uint8)])


def test_whatever_a_decoder_raises_is_that_images_error(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png")
    for error in (RuntimeError("libavif"), MemoryError(), ZeroDivisionError("x"), RecursionError("y"), KeyError("z")):

        def fail(*args, error=error, **kwargs):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("PIL.ImageFile.ImageFile.load", fail)
            with pytest.raises(ImageError, match="a.png: truncated or damaged image"):
                read_image(path)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", fail)
            with pytest.raises(ImageError, match="a.png: cannot be opened"):
                read_image(path)


@needs_cases
def test_case_of_a_damaged_avif():
    with pytest.raises(ImageError, match="b.avif"):
        read_image(CASES / "hostile" / "avif" / "b.avif")
    for name in ("a.png", "c.png"):
        assert read_image(CASES / "hostile" / "avif" / name).ndim == 3
