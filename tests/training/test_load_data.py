"""A recipe's `train` and `val` entries: which keys reach which reader, and that bad images are found here."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import DataError
from keras_rcnn.training import RecipeError
from keras_rcnn.training.build import load_data
from keras_rcnn.training.train import train


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
        box = "<xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax>"
        node = f"<object><name>cat</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"
        (tmp_path / f"{i}.xml").write_text(f"<annotation>{node}</annotation>")
    (tmp_path / "t.csv").write_text("image:label:x1:y1:x2:y2\n" + "".join(f"{i}.png:cat:9:9:40:30\n" for i in range(3)))
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(3)]
    annotations = [{"image_id": i, "category_id": 1, "bbox": [9, 9, 31, 21], "iscrowd": 1} for i in range(3)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    return tmp_path


def test_keys_of_an_entry_reach_the_reader(folder):
    assert load_data({"voc": folder, "one_based": False})[0].boxes.tolist() == [[10, 10, 40, 30]]
    assert load_data({"voc": folder})[0].boxes.tolist() == [[9, 9, 40, 30]]
    assert load_data({"csv": folder / "t.csv", "images": folder, "delimiter": ":"})[0].boxes.tolist() == [
        [9, 9, 40, 30]
    ]
    crowd = {"coco": folder / "c.json", "images": folder}
    assert load_data(crowd)[0].crowd.all() and not load_data(crowd | {"crowd_as_objects": True})[0].crowd.any()
    assert load_data({"voc": folder}, class_names=["dog", "cat"])[0].labels.tolist() == [1]
    assert load_data({"voc": folder, "class_names": ["cat", "dog"]}, class_names=["dog", "cat"])[0].labels.tolist() == [
        0
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"csv": "t.csv", "images": ".", "box_fromat": "xywh"}, "'csv' has no 'box_fromat'; it has images, box_format"),
        ({"coco": "c.json", "images": ".", "format": "coco"}, "'coco' has no 'format'"),
        ({"coco": "c.json"}, "'coco' needs 'images'"),
        ({"coco": "c.json", "voc": ".", "images": "."}, "one of 'data', 'coco', 'voc' and 'csv'"),
        ({"yolo": "x"}, "one of 'data', 'coco', 'voc' and 'csv', not .'yolo'"),
        ({"data": "x", "box_fromat": "xywh"}, "'data' has no 'box_fromat'; it has split, format, images.*box_format"),
        ({}, "one of"),
        ("c.json", "given by a dict such as"),
    ],
    ids=str,
)
def test_entries_that_cannot_be_read(entry, message):
    with pytest.raises(RecipeError, match=message):
        load_data(entry)


def test_bad_images_are_found_before_anything_is_built(folder):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:900])
    for entry in ({"voc": folder}, {"csv": folder / "t.csv", "images": folder, "delimiter": ":"}):
        with pytest.raises(DataError, match="1 bad image.*\n.*1.png"):
            load_data(entry)
        assert len(load_data(entry, "skip")) == len(load_data(entry | {"on_bad": "skip"})) == 2


def test_a_training_on_nothing_is_refused(folder, tmp_path):
    for entry, message in (
        ({"voc": folder}, "3 of 3 objects are difficult.*--set difficult=True"),
        ({"coco": folder / "c.json", "images": folder}, "3 of 3 objects are crowd.*--crowd-as-objects"),
    ):
        with pytest.raises(DataError, match=message):
            train({"train": entry}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
