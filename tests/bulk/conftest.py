"""A folder of photos of all kinds, and detectors that find something in them."""

import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_rcnn.presets import save_preset
from tests.models.tiny import shapes, tiny_detector

BROKEN = {"b/broken.jpg", "b/empty.png", "b/text.png"}


def fill(folder):
    """Eight photos that can be read and three that cannot, in three folders; the paths of all, in their order."""
    images = [Image.fromarray(record.image) for record in shapes(8)]
    for name in ("b/deep", "c"):
        (folder / name).mkdir(parents=True)
    images[0].save(folder / "a.png")
    images[1].resize((96, 64)).save(folder / "small.jpg")
    images[2].convert("CMYK").save(folder / "b/cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: 96 x 64, as small.jpg is
    images[3].resize((64, 96)).save(folder / "b/turned.jpg", exif=exif)
    images[4].convert("L").save(folder / "b/deep/grey.png")
    images[5].save(folder / "c/фото ß 猫.png")
    images[6].save(folder / "c/UPPER.PNG")
    images[7].save(folder / "c/'quote, comma\".png")
    whole = (folder / "small.jpg").read_bytes()
    (folder / "b/broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b/empty.png").touch()
    (folder / "b/text.png").write_text("no image")
    (folder / "b/notes.md").write_text("no photo")
    (folder / "c/._a.png").write_bytes(b"\0\5\x16\7")
    os.symlink(folder, folder / "c" / "up")  # not followed for ever
    names = ["a.png", "small.jpg", "b/broken.jpg", "b/cmyk.jpg", "b/empty.png", "b/text.png", "b/turned.jpg"]
    names += ["b/deep/grey.png", "c/'quote, comma\".png", "c/UPPER.PNG", "c/фото ß 猫.png"]
    return [f"{folder}/{name}" for name in names]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """`(folder, paths of its photos)`."""
    folder = tmp_path_factory.mktemp("bulk") / "photos"
    return folder, fill(folder)


@pytest.fixture(scope="session")
def model():
    keras.utils.set_random_seed(0)
    return tiny_detector(class_names=["square", "bar"])


@pytest.fixture(scope="session")
def preset(model, tmp_path_factory):
    return save_preset(model, tmp_path_factory.mktemp("zoo") / "tiny")


@pytest.fixture
def coco(photos, tmp_path):
    """A COCO file of the photos, with categories in another order and ids of their own."""
    images = [{"id": 100 + i, "file_name": path.partition("/photos/")[2]} for i, path in enumerate(photos[1])]
    categories = [{"id": 7, "name": "bar"}, {"id": 3, "name": "square"}]
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({"images": images, "categories": categories}))
    return path


def same(row, own, rounding=0.0):
    """Whether a row that was read back is what `detect` answers, to so many px and so much of a score."""
    assert set(row) == {"image", "height", "width", *own}
    for key in ("boxes", "scores", "labels", "keypoints"):
        if key in own:
            assert row[key].dtype == own[key].dtype, key
            np.testing.assert_allclose(row[key], own[key], rtol=0, atol=rounding)
    assert row["names"] == own["names"]
    if "masks" in own:
        assert [{**mask, "counts": mask["counts"].decode()} for mask in own["masks"]] == row["masks"]
    return True
