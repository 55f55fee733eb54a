"""Pascal VOC's xml and lists as labelling tools write them, with and without VOC's folders."""

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import DataError, load_voc
from tests.data.user_files import BOXES, same_boxes, voc

# Pascal VOC


@pytest.mark.parametrize(
    "text",
    [
        b"left door\ndoor (2)\n",
        b"\xef\xbb\xbfleft door\r\ndoor (2)\r\n",
        "left door\ndoor (2)\n".encode("utf-16"),
        b"left door.jpg\ndoor (2).JPG\n",
        b"left door  1\ndoor (2) -1\n",
        b"left door.png  1\ndoor (2).png  0\nleft door.png -1\n",
        b"JPEGImages\\left door.jpg\n/data/VOC/JPEGImages/door (2).jpg\n",
        b"LEFT door\nDOOR (2)",
    ],
    ids=range(8),
)
def test_voc_lists(folder, text):
    same_boxes(voc(folder, names={"000": "left door", "001": "door (2)"}, lists={"all": text}, split="all"))


def test_voc_lists_name_what_is_wrong_with_them(folder):
    voc(folder, lists={"bad": b"\xff\xfea", "none": b"000\n999\n"})
    with pytest.raises(DataError, match="bad.txt: not UTF-16 text"):
        load_voc(folder, "bad")
    with pytest.raises(DataError, match="999.xml: no such annotation file"):
        load_voc(folder, "none")
    assert len(load_voc(folder, "none", on_bad="skip")) == 1


def test_voc_names_with_folders_and_any_ending(folder):
    names = {"000": "cam0/frame.0001", "001": "cam1/frame.0001"}
    dataset = voc(folder, names=names, lists={"all": b"cam0/frame.0001\ncam1/frame.0001\n"})
    same_boxes(dataset)
    for path in (folder / "JPEGImages").rglob("*.jpg"):
        Image.open(path).save(path.with_suffix(".WebP"), lossless=True)
        path.unlink()
    same_boxes(load_voc(folder, "all"))
    assert [record.image_id for record in dataset] == list(names.values())


@pytest.mark.parametrize(
    ("xml", "images"),
    [
        ("", ""),
        ("train", "train"),
        ("labels", "images"),
        ("annotations", "JPEGImages"),
        ("Annotations", "pictures/all"),
    ],
)
def test_voc_without_vocs_folders(folder, xml, images):
    dataset = voc(folder, xml, images)
    same_boxes(dataset)
    train, val = dataset.split(0.5)
    assert len(train) == len(val) == 1
    with pytest.raises(DataError, match="no such split; there are: none; without a split all 2 annotations are read"):
        load_voc(folder, "val")


def test_voc_folders_as_splits_with_the_same_names_inside(folder):
    names = {"000": "train/a", "001": "test/a"}
    test, train = voc(folder, "labels", "images", names)
    np.testing.assert_array_equal(train.boxes, BOXES["000"])
    np.testing.assert_array_equal(test.boxes, BOXES["001"])
    assert train.image.endswith("images/train/a.jpg") and test.image.endswith("images/test/a.jpg")


def test_voc_split_of_a_folder(folder):
    voc(folder, "", "", {"000": "train/a", "001": "valid/a"})
    train = load_voc(folder, "train")
    np.testing.assert_array_equal(train[0].boxes, BOXES["000"])
    assert len(train) == 1 and load_voc(folder / "valid")[0].image.endswith("valid/a.jpg")


def test_voc_all_of_it_where_there_are_lists(folder, caplog):
    same_boxes(voc(folder, lists={"train": b"000\n", "val": b"001\n"}))
    assert "it has the splits train, val" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html/>", "root is <html>"),
        ("<annotations/>", "CVAT"),
        ("<annotation>", "not valid xml"),
        ("<annotation/>", "<annotation> is empty"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "not valid xml"),
        ("\x00", "not valid xml"),
    ],
)
def test_voc_files_that_are_none(folder, text, message):
    voc(folder, lists={"all": b"000\n001\n"})
    (folder / "Annotations" / "000.xml").write_text(text)
    with pytest.raises(DataError, match=f"000.xml: .*{message}"):
        load_voc(folder, "all")
    assert [record.image_id for record in load_voc(folder, "all", on_bad="skip")] == ["001"]
