"""The collected inputs of users, and files of formats that no reader takes."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from keras_rcnn.data import DataError, Preprocessor, check_images, check_targets, load, load_coco, load_csv, load_voc
from keras_rcnn.evaluation.scoring import label_map
from keras_rcnn.training.build import load_data
from keras_rcnn.training.recipe import RecipeError
from tests.data.user_files import BOXES, CASES, needs_cases

SMALL = Preprocessor(min_size=32, max_size=64)


# Other formats


OTHERS = {
    "VIA": {"_via_settings": {}, "_via_img_metadata": {}},
    "VGG": {"a.jpg12": {"filename": "a.jpg", "regions": [], "size": 12}},
    "LabelMe": {"shapes": [], "imagePath": "a.jpg"},
    "Label Studio": [{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}],
    "CreateML": [{"image": "a.jpg", "annotations": []}],
    "COCO's results": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
    "Datumaro": {"categories": {}, "items": []},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_recognised(folder, name):
    (folder / "a.json").write_text(json.dumps(OTHERS[name]))
    with pytest.raises(DataError, match=f"a.json: not COCO's format.*it looks like .*{name}.*: "):
        load_coco(folder / "a.json", folder / "photos")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.05 0.05\n", "YOLO"),
        ("names: [red, blue]\ntrain: images/train\n", "YOLO"),
        ("<annotation><object/></annotation>", "Pascal VOC"),
        ("image,x1,y1,x2,y2,label\n", "CSV"),
    ],
)
def test_other_texts_are_recognised(folder, text, name):
    (folder / "a.txt").write_text(text)
    with pytest.raises(DataError, match=f"a.txt: not valid json.*it looks like .*{name}"):
        load_coco(folder / "a.txt", folder / "photos")
    if name == "YOLO":
        with pytest.raises(DataError, match="it looks like YOLO"):
            load_csv(folder / "a.txt", folder / "photos")
        with pytest.raises(DataError, match="no xml files in this folder; it looks like YOLO"):
            load_voc(folder)


# The collected inputs themselves


def case(name, file, images="images", **kwargs):
    return load_coco(CASES / name / file, CASES / name / images, **kwargs)


@needs_cases
@pytest.mark.parametrize(
    ("name", "file", "images"),
    [
        ("02-roboflow-text-bbox/train", "_annotations.coco.json", "."),
        ("03-label-studio-windows", "result.json", "images"),
        ("04-via-coco", "via_flat.json", "images"),
        ("04-via-coco", "via_size.json", "images"),
        *(
            ("12-text-numbers", f"{name}.json", "images")
            for name in "area_null area_text ids_half_text ids_text iscrowd_text no_bbox size_text".split()
        ),
        ("23-polygons", "sliver.json", "../12-text-numbers/images"),
        ("23-polygons", "segmentation_null.json", "../12-text-numbers/images"),
    ],
)
def test_cases_of_coco(name, file, images):
    dataset = case(name, file, images)
    truth = case("02-roboflow-text-bbox/train", "_annotations.numbers.json", ".")
    assert dataset.class_names == truth.class_names == ["red", "blue"]
    for one, other in zip(dataset, truth):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert not one.crowd.any()


@needs_cases
def test_cases_in_which_nothing_can_be_learned():
    with pytest.raises(DataError, match="12 of 12 objects are crowd"):
        check_targets(case("01-all-crowd", "instances_default.json"))
    check_targets(case("01-all-crowd", "instances_default.json", crowd_as_objects=True))
    with pytest.raises(DataError, match="4 of 4 images have no objects"):
        check_targets(case("13-negatives", "all_empty.json"))
    for file in ("empty_bbox.json", "three_of_four_empty.json"):
        check_targets(case("13-negatives", file))
    with pytest.raises(DataError, match="relative"):
        case("11-relative", "relative.json")


@needs_cases
@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("05-voc-blanks", {"default": 4}),
        (
            "05b-voc-list-variants",
            {"blanks": 4, "bom": 2, "class_list": 2, "red_train": 2, "utf16": 2, "with_ending": 2},
        ),
        ("06-voc-subfolders", {"default": 4, None: 4}),
        ("07-voc-flat", {"train": 4, None: 4}),
        ("07-voc-flat/train", {None: 4}),
        ("08-voc-size-zero", {"trainval": 4}),
    ],
)
def test_cases_of_voc(name, splits):
    for split, count in splits.items():
        dataset = load_voc(CASES / name, split)
        assert len(dataset) == count and dataset.class_names == ["blue", "red"]
        assert all(len(record.boxes) == 2 and (record.width, record.height) == (160, 120) for record in dataset)


@needs_cases
@pytest.mark.parametrize(
    "name", ["case", "excel_de", "noneclass", "openimages", "retinanet", "semicolon", "tab", "tfod"]
)
def test_cases_of_tables(name):
    options = {"relative": True} if name == "openimages" else {}
    dataset = load_csv(CASES / "22-tables" / f"{name}.csv", CASES / "22-tables" / "photos", **options)
    shift = 0.5 if name == "excel_de" else 0
    np.testing.assert_allclose(dataset[0].boxes, np.array(BOXES["000"]) + shift, atol=1e-2)
    assert len(dataset) == 3


@needs_cases
@pytest.mark.parametrize("file", ["labelme.json", "via_region_data.json", "via.csv", "000.txt"])
def test_cases_of_other_formats(file):
    names = ["red"]
    dataset = load(CASES / "21-other-formats" / file, class_names=names)
    box = [64, 48, 96, 72] if file == "000.txt" else [1, 2, 31, 22]
    np.testing.assert_allclose(dataset[0].boxes, [box], atol=1e-4)
    assert dataset.class_names == names and dataset[0].image.endswith("000.jpg")


@needs_cases
def test_a_case_of_several_formats():
    folder = CASES / "21-other-formats"
    with pytest.raises(DataError, match=r"of 3 formats: yolo .*via .*labelme.*format='yolo'"):
        load(folder)
    np.testing.assert_allclose(load(folder, format="labelme")[0].boxes, [[1, 2, 31, 22]])


@needs_cases
@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("03-label-studio-windows", 6),
        ("04-via-coco/via_flat.json", 4),
        ("07-voc-flat", 4),
        ("22-tables/tfod.csv", 3),
        ("22-tables/semicolon.csv", 3),
        ("12-text-numbers/ids_text.json", 4),
    ],
)
def test_cases_are_found_out(path, count):
    assert len(load(CASES / path)) >= min(count, 3)


@needs_cases
def test_cases_that_are_hostile(caplog):
    with pytest.raises(DataError, match="deep.json: not valid json .nested too deeply"):
        load_coco(CASES / "hostile/deep.json", CASES)
    for file in ("a.json", "b.json"):
        dataset = case("hostile/poly", file, ".")
        np.testing.assert_array_equal(dataset[0].boxes, [[5, 6, 25, 27]])
        with pytest.raises(DataError, match="no mask"):
            dataset.batches(SMALL, masks=True)
    assert "1e+300 px outside" in caplog.text


@needs_cases
@pytest.mark.parametrize("name", ["09-truncated-jpeg", "10-size-mismatch"])
def test_cases_of_images_that_cannot_be_used(name):
    dataset = case(name, "train.json")
    reason = "truncated or damaged" if "jpeg" in name else "80 x 60 px, its annotation says 160 x 120"
    with pytest.raises(DataError, match=f"(?s)train.json: 1 bad image.*005.jpg: .*{reason}"):
        check_images(dataset)
    with pytest.raises(DataError, match="005.jpg"):
        dataset.batches(SMALL).check(training=False)
    assert len(check_images(dataset, on_bad="skip")) == 7


@needs_cases
def test_cases_of_relative_tables():
    images = CASES / "11-relative" / "images"
    with pytest.raises(DataError, match="relative.csv: 12 of 12 boxes lie in 0..1.*relative=True"):
        load_csv(CASES / "11-relative/relative.csv", images)
    table = load_csv(CASES / "11-relative/relative.csv", images, relative=True)
    scaled = case("11-relative", "relative.json", relative=True)
    np.testing.assert_allclose(table[0].boxes, scaled[0].boxes, atol=0.02)
    np.testing.assert_allclose(scaled[0].boxes, BOXES["000"], atol=0.02)


@needs_cases
def test_cases_of_validation_categories():
    train = case("17-val-categories", "train.json")
    for file, expected in (("val_other_order", [0, 1]), ("val_fewer", [0]), ("val_more", None)):
        val = case("17-val-categories", f"{file}.json")
        model = SimpleNamespace(class_names=train.class_names)
        if expected is None:
            with pytest.raises(ValueError, match="val_more.json: .*only the dataset has 'green'"):
                label_map(model, val)
            continue
        labels = label_map(model, val)
        assert [train.class_names[i] for i, label in enumerate(labels) if label >= 0] == [
            train.class_names[i] for i in expected
        ]
        assert all(val.class_names[label] == train.class_names[i] for i, label in enumerate(labels) if label >= 0)


@needs_cases
def test_cases_of_recipes():
    tables, voc = CASES / "22-tables", CASES / "08-voc-size-zero"
    shifted = load_data({"voc": str(voc), "split": "trainval", "one_based": False})
    np.testing.assert_array_equal(shifted[0].boxes, load_voc(voc, "trainval")[0].boxes + [1, 1, 0, 0])
    assert len(load_data({"csv": tables / "semicolon.csv", "images": tables / "photos", "delimiter": ";"})) == 3
    with pytest.raises(RecipeError, match="'csv' has no 'box_fromat'; it has .*box_format"):
        load_data({"csv": tables / "tfod.csv", "images": tables / "photos", "box_fromat": "xywh"})


def test_what_never_ends_is_not_opened(folder):
    """A pipe waits for ever; a device has no end."""
    os.mkfifo(folder / "pipe")
    for path in (folder / "pipe", "/dev/zero"):
        for reader in (load_coco, load_csv):
            with pytest.raises(DataError, match=f"^{path}: cannot be read .not a regular file.$"):
                reader(path, folder / "photos")
    with pytest.raises(DataError, match="photos: cannot be read .a folder.$"):
        load_coco(folder / "photos", folder / "photos")


def test_a_zero_byte_makes_no_other_alphabet(folder):
    (folder / "a.csv").write_bytes(b"image,x1,y1,x2,y2,label\n000.jpg,1,2,30,40,a\0b\n")
    assert load_csv(folder / "a.csv", folder / "photos").class_names == ["a\0b"]
