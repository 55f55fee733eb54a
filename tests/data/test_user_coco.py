"""COCO's json as labelling tools write it: every field of any type, and files under other names."""

import logging
import unicodedata

import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from keras_rcnn.data import DataError, Preprocessor, check_masks
from tests.data.user_files import BOXES, coco, content, rle, same_boxes

SMALL = Preprocessor(min_size=32, max_size=64)


# COCO: fields


def as_text(value):
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return {key: as_text(one) for key, one in value.items()} if isinstance(value, dict) else f"{value}.0000"


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {"bbox": as_text}},
        {"annotations": {"area": str, "iscrowd": str}},
        {"annotations": {"area": None, "iscrowd": None, "id": None}},
        {"annotations": {"area": [], "id": [1]}},
        {"annotations": {"image_id": str, "category_id": float}},
        {"annotations": {"image_id": lambda i: f" {i}.0 ", "category_id": str}},
        {"annotations": {"segmentation": as_text}},
        {"annotations": {"segmentation": lambda one: one[0]}},
        {"annotations": {"segmentation": lambda one: [[one[0][i : i + 2] for i in range(0, 8, 2)]]}},
        {"annotations": {"segmentation": lambda one: [[]]}},
        {"annotations": {"segmentation": None}},
        {"annotations": {"segmentation": {}}},
        {"annotations": {"segmentation": lambda one: [*one, [26.0, 20.0, 27.0, 20.0]]}},
        {"annotations": {"segmentation": lambda one: [[26.0, 20.0, 27.0, 20.0, 28.0, 20.0], *one]}},
        {"annotations": {"segmentation": [[1, 2, 3]]}},
        {"annotations": {"segmentation": "no_such_mask.png"}},
        {"annotations": {"segmentation": 7}},
        {"annotations": {"id": 1}},
        {"annotations": {"bbox": [0, 0, 0, 0]}},
        {"images": {"width": str, "height": str}},
        {"images": {"width": -1, "height": -1}},
        {"images": {"width": 0, "height": 0}},
        {"images": {"width": None, "height": ""}},
        {"images": {"width": 1e300, "height": float("nan")}},
        {"images": {"width": [], "height": {}}},
        {"images": {"id": str}},
        {"categories": {"id": str}},
    ],
)
def test_fields_are_read_whatever_their_type(folder, changes):
    same_boxes(coco(folder, content(**changes)))


def test_no_box_but_a_mask_gives_the_box(folder):
    boxes = [box for boxes in BOXES.values() for box in boxes]
    for segmentations in (
        [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes],
        [rle(box) for box in boxes],
        [rle(box, text=True) for box in boxes],
        [[rle(box)] for box in boxes],
    ):
        data = content()
        for item, segmentation in zip(data["annotations"], segmentations):
            del item["bbox"]
            item["segmentation"] = segmentation
        same_boxes(coco(folder, data))
    for number, (item, box) in enumerate(zip(data["annotations"], boxes)):
        Image.fromarray(coco_mask.decode(rle(box, text=True)) * 255).save(folder / "photos" / f"mask{number}.png")
        item |= {"bbox": None, "segmentation": f"mask{number}.png"}
    same_boxes(coco(folder, data))
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    with pytest.raises(DataError, match="annotation 1: has no 'bbox', and its segmentation gives none: polygon with 2"):
        coco(folder, data)


@pytest.mark.parametrize(
    ("value", "crowd"),
    [("0", 0), ("false", 0), (" False ", 0), ("", 0), ("0.0", 0), (None, 0), (0.0, 0), (False, 0)]
    + [("1", 1), ("true", 1), (1.0, 1), (True, 1), ("1.0", 1)],
)
def test_crowd_is_what_the_text_says(folder, value, crowd):
    dataset = coco(folder, content(annotations={"iscrowd": value}))
    assert all(record.crowd.tolist() == [bool(crowd)] * 2 for record in dataset)
    assert not any(one.crowd.any() for one in coco(folder, content(annotations={"iscrowd": 1}), crowd_as_objects=True))


def test_only_the_bad_part_of_a_mask_is_dropped(folder, caplog):
    data = content(annotations={"segmentation": lambda one: [*one, [1, 1, 2, 2], [float("nan")] * 6]})
    with caplog.at_level(logging.WARNING):
        dataset = coco(folder, data)
    assert [len(one) for record in dataset for one in record.segmentations] == [1, 1, 1, 1]
    assert len(caplog.records) == 1 and "left out 8 bad parts" in caplog.text
    assert dataset.batches(SMALL, masks=True)[0][1]["masks"].any()


def test_an_object_without_its_mask_counts_where_masks_are_trained(folder, caplog):
    data = content()
    data["annotations"][0]["segmentation"] = [[1e7, 6, 25, 6, 25, 27, 5, 27]]  # pycocotools would end the process
    data["annotations"][3]["segmentation"] = {"size": [120, 160], "counts": [[5], [19195]]}
    dataset = coco(folder, data)
    same_boxes(dataset)
    assert "annotation 1: polygon with coordinates" in caplog.text and "annotation 4: RLE" in caplog.text
    with pytest.raises(DataError, match="000.jpg: 1 objects have no mask.*\n.*001.jpg: 1 objects have no mask"):
        dataset.batches(SMALL, masks=True)
    rest = check_masks(dataset, on_bad="skip")
    assert [len(record.boxes) for record in rest] == [1, 1] and len(rest.bad) == 2
    assert rest.batches(SMALL, masks=True)[0][1]["masks"].any()


def test_roboflows_root_is_no_class(folder, caplog):
    root = {"id": 0, "name": "things", "supercategory": "none"}
    below = [{"id": i, "name": n, "supercategory": "things"} for i, n in ((1, "red"), (2, "blue"))]
    same_boxes(coco(folder, content(categories=[root, *below])))
    assert caplog.text.count("it is no class") == 1
    below[0]["name"] = "things"  # the name of the only class, or of one of them
    assert coco(folder, content(categories=[root, *below])).class_names == ["things", "blue"]
    used = content(categories=[root, *below[1:]], annotations={"category_id": lambda i: i % 2 * 2})
    assert coco(folder, used).class_names == ["things", "blue"]
    plain = [{"id": i, "name": n} for i, n in ((0, "nothing"), (1, "red"), (2, "blue"))]
    assert coco(folder, content(categories=plain)).class_names == ["nothing", "red", "blue"]


def test_ids_of_both_types(folder):
    data = content()
    for i, item in enumerate(data["annotations"]):
        item["image_id"] = str(item["image_id"]) if i % 2 else item["image_id"]
        item["category_id"] = item["category_id"] if i % 2 else str(item["category_id"])
    same_boxes(coco(folder, data))
    with pytest.raises(DataError, match="image ids given to more than one image: 1"):
        coco(folder, content(images=[{"id": i, "file_name": "000.jpg"} for i in (1, "1")]))


# Names of files


@pytest.mark.parametrize(
    "name",
    [
        "photos\\{}.jpg",
        ".\\{}.jpg",
        "C:\\Users\\me\\photos\\{}.jpg",
        "D:/data/{}.jpg",
        "/home/someone/photos/{}.jpg",
        "train/images/{}.jpg",
        "../upload/{}.jpg",
        "{}%2Ejpg",
        "a%20folder/{}.jpg",
        "file:///data/photos/{}.jpg",
        "https://host.example/photos/{}.jpg",
        "/data/local-files/?d=photos/{}.jpg",
        "/data/upload/1/1a2b3c4d-{}.jpg",
        "{}.JPG",
        "PHOTOS/{}.Jpg",
        " {}.jpg ",
        "{}",
    ],
)
@pytest.mark.parametrize("images", ["photos", "."])
def test_names_of_other_systems(folder, name, images, caplog):
    data = content(images={"file_name": lambda file: name.format(file.removesuffix(".jpg"))})
    same_boxes(coco(folder, data, images))
    assert caplog.text.count("found 2 files under other names") == 1 and len(caplog.records) == 1


def test_names_in_sub_folders_and_in_another_unicode_form(folder):
    (folder / "photos" / "b").mkdir()
    (folder / "photos" / "000.jpg").rename(folder / "photos" / unicodedata.normalize("NFD", "äpfel.jpg"))
    (folder / "photos" / "001.jpg").rename(folder / "photos" / "b" / "001.jpg")
    data = content()
    data["images"][0]["file_name"] = unicodedata.normalize("NFC", "äpfel.jpg")
    same_boxes(coco(folder, data))


def test_names_that_could_mean_several_files_are_not_guessed(folder):
    for place in ("a", "b"):
        (folder / "photos" / place).mkdir()
        (folder / "photos" / place / "two.jpg").write_bytes((folder / "photos" / "000.jpg").read_bytes())
    data = content()
    data["images"][0]["file_name"] = "two.jpg"
    with pytest.raises(DataError, match="2 files could be meant: .*a/two.jpg, .*b/two.jpg"):
        coco(folder, data)
    data["images"][0]["file_name"] = "elsewhere/b/two.jpg"
    assert coco(folder, data)[0].image.endswith("b/two.jpg")
    data["images"][0]["file_name"], data["images"][1]["file_name"] = "day1/000.jpg", "day2/000.jpg"
    with pytest.raises(DataError, match="2 bad") as caught:  # one photo cannot be both
        coco(folder, data)
    assert "day1/000.jpg" in str(caught.value) and "another name" in str(caught.value)
    data["images"][0]["file_name"] = "x\\missing.jpg"
    with pytest.raises(DataError, match="no such image file; tried .*x/missing.jpg"):
        coco(folder, data)
