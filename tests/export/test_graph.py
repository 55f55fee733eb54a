"""The graph's photos against `read_image`, `Preprocessor` and `paste_masks`."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_rcnn.data import Preprocessor, read_image
from keras_rcnn.data.paste import paste_masks
from keras_rcnn.data.preprocess import scale_boxes
from keras_rcnn.export import graph
from keras_rcnn.presets import zoo_folder

DEMO = zoo_folder() / "demo" / "immunohistochemistry.png"

decode = tf.function(graph.decode, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(image, format="JPEG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format, **options)
    return file.getvalue()


# === Preprocessing ===


@pytest.mark.parametrize("fixed_size", [None, (96, 160)])
def test_preprocessing_is_the_preprocessors(fixed_size):
    preprocessor = Preprocessor(100, 150, size_divisor=32, fixed_size=fixed_size)
    spec = tf.TensorSpec((None, None, None, 3), tf.uint8)
    function = tf.function(lambda x: graph.preprocess(preprocessor, x), input_signature=[spec], autograph=False)
    # up and down, either axis first, capped by the longer side, unchanged, a line
    for height, width in [(40, 60), (480, 640), (640, 480), (37, 911), (100, 150), (333, 97), (1, 700), (799, 801)]:
        images = [photo(height, width, seed) for seed in range(2)]
        expected = preprocessor.batch(images)
        found, size = function(np.stack(images))
        assert size.numpy().tolist() == expected["image_sizes"][0].tolist()
        assert found.shape == expected["images"].shape
        assert np.abs(found.numpy() - expected["images"]).max() < 2e-6, (height, width)


def test_every_size_is_resized_as_the_preprocessor_does():
    sizes = np.random.default_rng(0).integers(1, 5000, (500, 2))
    for preprocessor in (Preprocessor(), Preprocessor(320, 640), Preprocessor(800, 1333, fixed_size=(800, 1344))):
        function = tf.function(lambda size, one=preprocessor: graph.resized_size(one, size), autograph=False)
        for size in sizes.astype(np.int32):
            assert tuple(function(tf.constant(size)).numpy()) == preprocessor.size(*size.tolist()), size


def test_boxes_are_scaled_as_elsewhere():
    boxes = np.float32([[3, 5, 60, 99], [0, 0, 0, 0]])
    found = graph.scale_boxes(tf.constant(boxes), tf.constant([128, 97]), tf.constant([640, 481]))
    assert np.array_equal(found, scale_boxes(boxes, (128, 97), (640, 481)))


def test_a_photo_without_pixels_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="without pixels"):
        graph.preprocess(Preprocessor(), tf.zeros((1, 0, 5, 3), tf.uint8))


# === Decoding ===


def smooth():
    return Image.open(DEMO).convert("RGB").crop((0, 0, 301, 203))


@pytest.mark.parametrize("quality", [60, 90, 97])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}], ids=str)
def test_jpegs_have_pillows_pixels(quality, options):
    contents = encoded(smooth(), quality=quality, **options)
    assert np.array_equal(decode(contents), read_image(contents))


def test_a_grey_jpeg_has_pillows_pixels():
    contents = encoded(smooth().convert("L"))
    assert np.array_equal(decode(contents), read_image(contents))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_pngs_have_pillows_pixels(mode):
    image = smooth()
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(photo(203, 301)[..., 0]))
    contents = encoded(image.convert(mode), "PNG")
    assert np.array_equal(decode(contents), read_image(contents))


def test_a_png_of_16_bit_grey_is_rounded():
    values = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    contents = encoded(Image.fromarray(values), "PNG")
    assert np.array_equal(decode(contents), read_image(contents))


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_heeded(orientation):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "maker", orientation, "2026:11:23 10:00:00"
    contents = encoded(smooth(), exif=exif)
    assert np.array_equal(decode(contents), read_image(contents))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["H", "L"])
def test_exif_is_found_in_either_byte_order_behind_other_segments(order, kind):
    entry = struct.pack(f"{order}HHL{kind}", 0x0112, 3 if kind == "H" else 4, 1, 6).ljust(12, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tiff = mark + struct.pack(f"{order}LH", 8, 1) + entry + bytes(4)
    exif = b"Exif\0\0" + tiff
    other = b"\xff\xe2" + struct.pack(">H", 5000) + bytes(4998)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    plain = encoded(smooth())
    contents = plain[:2] + other + segment + plain[2:]
    assert graph.exif_orientation(contents).numpy() == 6
    assert np.array_equal(decode(contents), read_image(contents))
    for length in range(len(other), len(other) + len(segment) + 2):  # damage is no orientation, and no crash
        assert graph.exif_orientation(contents[:length]).numpy() in (1, 6)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"no image",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"GIF89a" + bytes(100),
        encoded(photo(20, 20))[:200],
        encoded(photo(20, 20), "PNG")[:200],
        encoded(photo(20, 20), "PNG").replace(struct.pack(">LL", 20, 20), struct.pack(">LL", 2**30, 2**30), 1),
    ],
    ids=["none", "text", "jpeg", "png", "zeros", "gif", "half jpeg", "half png", "bomb"],
)
def test_bytes_that_are_no_picture_are_an_error(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(contents)


# === Masks ===


def test_masks_are_pasted_as_paste_masks_does():
    rng = np.random.default_rng(0)
    sizes = np.int32([[70, 90], [50, 120]])
    corner = rng.uniform(0, 60, (2, 5, 2))
    boxes = np.float32(np.concatenate([corner, corner + rng.uniform(1, 50, (2, 5, 2))], axis=-1))
    boxes[0, 1], boxes[1, 0] = [0, 0, 90, 70], [80, 10, 120, 50]
    labels = np.int32([[0, 1, 0, 1, -1], [1, 0, 1, -1, -1]])
    masks = np.float32(rng.uniform(0, 1, (2, 5, 28, 28)))
    found = graph.paste(tf.constant(masks), tf.constant(boxes), tf.constant(labels), tf.constant(sizes)).numpy()
    assert found.shape == (2, 4, 70, 120) and found.dtype == np.uint8
    for i, (height, width) in enumerate(sizes):
        keep = labels[i] >= 0
        expected = paste_masks(masks[i][keep], boxes[i][keep], height, width)
        count = keep.sum()
        assert np.array_equal(found[i, :count, :height, :width].astype(bool), expected)
        assert not found[i, count:].any() and not found[i, :, height:].any() and not found[i, :, :, width:].any()


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_nothing_found_is_pasted_too(batch):
    paste = tf.function(graph.paste)
    labels, sizes = tf.fill((batch, 3), -1), tf.tile([[20, 30]], [batch, 1])
    found = paste(tf.zeros((batch, 3, 28, 28)), tf.zeros((batch, 3, 4)), labels, sizes)
    assert found.shape == (batch, 0, 20 if batch else 0, 30 if batch else 0) and found.dtype == tf.uint8


def test_too_many_pasted_masks_are_an_error():
    sizes = tf.constant([[30000, 30000]])
    boxes = tf.constant([[[0.0, 0.0, 9.0, 9.0]] * 3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        graph.paste(tf.zeros((1, 3, 28, 28)), boxes, tf.zeros((1, 3), tf.int32), sizes)


# === Proposals ===


def test_of_proposals_in_the_same_cells_the_first_is_kept():
    from keras_rcnn.layers import RoIPool

    rng = np.random.default_rng(0)
    boxes = np.float32(rng.integers(0, 12, (2, 300, 4)) + rng.uniform(-0.6, 0.6, (2, 300, 4))) * 4
    boxes[:, -5:] = 0
    found = graph.without_doubles(tf.constant(boxes), 16).numpy()
    for given, kept in zip(boxes, found):
        first = np.sort(np.unique(RoIPool(5, (16,)).cells(given), axis=0, return_index=True)[1])
        assert 20 < len(first) < 295
        expected = np.zeros_like(given)
        expected[first] = given[first]
        assert np.array_equal(kept, expected)
