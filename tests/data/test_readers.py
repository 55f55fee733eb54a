"""The three readers: load_coco, load_voc and load_csv."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import DataError, load_coco, load_csv, load_voc
from tests.shared import SHARED, needs_data

BAD_BOXES = {  # as xyxy, in an image of 100 x 80 px
    "no width": [[30, 10, 30, 40], [50, 40, 50, 60]],
    "no height": [[10, 30, 40, 30]],
    "reversed": [[90, 70, 20, 60]],
    "outside": [[10, 10, 40, 90], [-20, 10, 30, 40], [200, 10, 240, 40]],
    "not a number": [[10, 10, float("nan"), 40]],
}
GOOD = [[10, 10, 40, 50], [60, 20, 99, 79], [5, 5, 90, 70]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write_coco(folder, boxes=GOOD, format="xywh", **changes):
    """All boxes in a.png, none in b.png and c.png."""
    x = np.asarray(boxes, np.float64).reshape(-1, 4)
    if format == "xywh":
        x = np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], axis=1)
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "height": 80, "width": 100} for i, n in enumerate("abc", 5)],
        "annotations": [{"id": i, "image_id": 5, "category_id": 7, "bbox": box} for i, box in enumerate(x.tolist())],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    content.update(changes)
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json", folder / "images"


def write_voc(folder, boxes=GOOD, name="cat", difficult=0, size=(100, 80)):
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if (folder / "images").exists():
        (folder / "images").rename(folder / "JPEGImages")
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    for image, objects in (("a", boxes), ("b", [])):
        text = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2 in objects
        )
        size_text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
        (folder / f"Annotations/{image}.xml").write_text(f"<annotation><filename/>{size_text}{text}</annotation>")
    return folder


def write_csv(folder, boxes=GOOD, header="image,x1,y1,x2,y2,label", rows=()):
    lines = [header, *(",".join(["a.png", *map(str, box), "cat"]) for box in boxes), "b.png,,,,,", *rows]
    (folder / "table.csv").write_text("\n".join(line for line in lines if line) + "\n")
    return folder / "table.csv", folder / "images"


def load(kind, folder, boxes, **kwargs):
    if kind == "voc":
        return load_voc(write_voc(folder, boxes), "train", one_based=False, **kwargs)
    return (
        load_coco(*write_coco(folder, boxes), **kwargs)
        if kind == "coco"
        else load_csv(*write_csv(folder, boxes), **kwargs)
    )


# What the readers share


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_good_boxes(kind, folder):
    dataset = load(kind, folder, GOOD)
    assert dataset.class_names == (["dog", "cat"] if kind == "coco" else ["cat"])
    assert len(dataset) == (3 if kind == "coco" else 2)
    record = dataset[0]
    np.testing.assert_array_equal(record.boxes, GOOD)
    assert record.boxes.dtype == np.float32 and record.labels.dtype == np.int32 and record.areas.dtype == np.float32
    assert (record.height, record.width) == (80, 100) and record.read().shape == (80, 100, 3)
    assert [dataset.class_names[label] for label in record.labels] == ["cat"] * 3
    assert not record.crowd.any() and not record.difficult.any() and record.segmentations is None
    assert dataset[1].boxes.shape == (0, 4) and dataset[1].labels.shape == (0,)


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
@pytest.mark.parametrize("bad", BAD_BOXES)
def test_bad_boxes_are_named_or_skipped(kind, bad, folder, caplog):
    boxes = [*GOOD * 4, *BAD_BOXES[bad]]
    with pytest.raises(DataError) as caught:
        load(kind, folder, boxes)
    message = str(caught.value)
    assert {"coco": "coco.json", "voc": "a.xml", "csv": "table.csv"}[kind] in message
    assert f"{len(BAD_BOXES[bad])} bad annotation" in message
    assert f"{float(BAD_BOXES[bad][0][1])}" in message  # the value
    with caplog.at_level(logging.WARNING):
        dataset = load(kind, folder, boxes, on_bad="skip")
    np.testing.assert_array_equal(dataset[0].boxes, GOOD * 4)
    assert len(caplog.records) == 1 and f"skipped {len(BAD_BOXES[bad])} bad" in caplog.text


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_boxes_a_little_outside_are_clipped(kind, folder):
    dataset = load(kind, folder, [[-1.5, -1, 50, 81.5]])
    np.testing.assert_array_equal(dataset[0].boxes, [[0, 0, 50, 80]])


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_missing_image_file(kind, folder):
    load(kind, folder, GOOD)
    (folder / ("JPEGImages" if kind == "voc" else "images") / "a.png").unlink()
    with pytest.raises(DataError, match="a.(png|jpg): no such image file"):
        load(kind, folder, GOOD)
    assert "a" not in str(load(kind, folder, GOOD, on_bad="skip")[0].image_id)


def test_on_bad_is_checked(folder):
    with pytest.raises(ValueError, match="on_bad"):
        load_coco(*write_coco(folder), on_bad="ignore")


# COCO


def test_coco_keeps_ids_crowds_areas_and_segmentations(folder):
    polygon = [[10.0, 10.0, 40.0, 10.0, 40.0, 50.0]]
    rle = {"size": [80, 100], "counts": [5 * 80, 10, 8000 - 410]}
    annotations = [
        {"id": 1, "image_id": 6, "category_id": 3, "bbox": [10, 10, 30, 40], "area": 600, "segmentation": polygon},
        {
            "id": 2,
            "image_id": 6,
            "category_id": 7,
            "bbox": [5, 0, 1, 10],
            "iscrowd": 1,
            "area": 10,
            "segmentation": rle,
        },
        {"id": 3, "image_id": 6, "category_id": 7, "bbox": [5, 0, 10, 10], "segmentation": []},
    ]
    dataset = load_coco(*write_coco(folder, annotations=annotations))
    assert dataset.class_names == ["dog", "cat"] and dataset.category_ids == [3, 7]
    assert [record.image_id for record in dataset] == [5, 6, 7]
    record = dataset[1]
    assert record.labels.tolist() == [0, 1, 1] and record.crowd.tolist() == [False, True, False]
    assert record.areas.tolist() == [600, 10, 100] and record.segmentations == [polygon, rle, None]


def test_coco_polygons_that_stick_out_are_clipped_with_their_box(folder, caplog):
    polygon = [[80, 60, 130, 60, 130, 95, 80, 95]]
    annotation = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [80, 60, 50, 35], "segmentation": polygon}
    with caplog.at_level(logging.WARNING):
        dataset = load_coco(*write_coco(folder, annotations=[annotation]))
    np.testing.assert_array_equal(dataset[0].boxes, [[80, 60, 100, 80]])
    assert "clipped 1" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "no images"),
        ({"categories": []}, "unknown category_id 7"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 99, "bbox": [1, 1, 5, 5]}]}, "category_id 99"),
        ({"annotations": [{"id": 1, "image_id": 55, "category_id": 3, "bbox": [1, 1, 5, 5]}]}, "image_id 55"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 1, 5]}]}, "four numbers"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 3}]}, "no 'bbox'"),
        (
            {"images": [{"id": 5, "file_name": n, "height": 80, "width": 100} for n in ("a.png", "b.png")]},
            "a.png, b.png",
        ),
        ({"categories": [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}]}, "category id 7"),
        ({"categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "cat"}]}, "'cat' is given to 2"),
        ({"images": [{"id": 5, "height": 80, "width": 100}]}, "file_name"),
        ({"annotations": {}}, "expected a list"),
    ],
)
def test_coco_bad_files(changes, message, folder):
    with pytest.raises(DataError, match="coco.json") as caught:
        load_coco(*write_coco(folder, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("points", [[1, 1, 9, 9], [1, 1]])
def test_coco_polygons_with_too_few_points(points, folder, caplog):
    annotations = [{"id": 4, "image_id": 5, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": [points]}]
    dataset = load_coco(*write_coco(folder, annotations=annotations))
    assert "a.png, annotation 4: polygon with" in caplog.text and dataset[0].segmentations is None
    np.testing.assert_array_equal(dataset[0].boxes, [[1, 1, 10, 10]])


def test_coco_files_that_are_none(folder):
    images = folder / "images"
    (folder / "broken.json").write_text('{"images": [')
    (folder / "list.json").write_text("[]")
    for name, message in (("broken.json", "not valid json"), ("list.json", "not COCO"), ("no.json", "cannot be read")):
        with pytest.raises(DataError, match=message):
            load_coco(folder / name, images)
    with pytest.raises(DataError, match="no image folder"):
        load_coco(write_coco(folder)[0], folder / "nowhere")


def test_coco_with_corners_for_sizes_is_recognised(folder):
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError, match=r"look like \[x1, y1, x2, y2\]"):
            load_coco(*write_coco(folder, [*GOOD, [60, 50, 90, 70], [55, 5, 95, 9]], format="xyxy"), on_bad=on_bad)


def test_declared_size_is_checked_when_the_image_is_read(folder):
    images = [{"id": 5, "file_name": "a.png", "height": 100, "width": 80}]
    dataset = load_coco(*write_coco(folder, [[1, 1, 9, 9]], images=images))
    with pytest.raises(DataError, match="a.png: the image is 100 x 80 px, its annotation says 80 x 100 px.*EXIF"):
        dataset[0].read()


# VOC


def test_voc_counts_from_one(folder):
    dataset = load_voc(write_voc(folder, [[1, 1, 100, 80], [11, 21, 30, 40]], difficult=1), "train")
    np.testing.assert_array_equal(dataset[0].boxes, [[0, 0, 100, 80], [10, 20, 30, 40]])
    assert dataset[0].difficult.all() and [record.image_id for record in dataset] == ["a", "b"]


def test_voc_a_click_without_a_drag_is_no_box(folder):
    boxes = [*GOOD, [50, 60, 50, 60]]
    with pytest.raises(DataError, match=r"a.xml: object 4: box \[50.0, 60.0, 50.0, 60.0\] has no width"):
        load_voc(write_voc(folder, boxes), "train")
    assert len(load_voc(write_voc(folder, boxes), "train", on_bad="skip")[0].boxes) == 3


def test_voc_bad_files(folder):
    root = write_voc(folder)
    with pytest.raises(DataError, match="there are: train"):
        load_voc(root, "test")
    with pytest.raises(DataError, match="object 1: unknown class 'cat'; the classes are dog"):
        load_voc(root, "train", class_names=["dog"])
    (root / "ImageSets/Main/train.txt").write_text("a\na\n")
    with pytest.raises(DataError, match="more than once: a"):
        load_voc(root, "train")
    (root / "ImageSets/Main/train.txt").write_text("")
    with pytest.raises(DataError, match="no images"):
        load_voc(root, "train")
    (root / "ImageSets/Main/train.txt").write_text("a\nz\n")
    with pytest.raises(DataError, match="z.xml: no such annotation"):
        load_voc(root, "train")
    (root / "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match="a.xml: not valid xml"):
        load_voc(root, "train")


def test_voc_without_a_size_asks_the_image(folder):
    assert load_voc(write_voc(folder, size=None), "train")[0].width == 100


def test_voc_with_sizes_for_corners_is_recognised(folder):
    with pytest.raises(DataError, match="look like .x, y, width, height"):
        load_voc(write_voc(folder, [[60, 50, 30, 20], [70, 10, 20, 50], [50, 40, 45, 30]]), "train")


# CSV


@pytest.mark.parametrize(
    "header",
    [
        "image,x1,y1,x2,y2,label",
        "filename,xmin,ymin,xmax,ymax,class",
        "Path, Left, Top, Right, Bottom, Name",
        "",
    ],
)
def test_csv_headers(header, folder):
    dataset = load_csv(*write_csv(folder, header=header))
    np.testing.assert_array_equal(dataset[0].boxes, GOOD)
    assert dataset.class_names == ["cat"] and [record.image_id for record in dataset] == ["a.png", "b.png"]


def test_csv_of_the_tensorflow_tutorials(folder):
    (folder / "t.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,100,80,dog,1,2,30,40\n")
    np.testing.assert_array_equal(load_csv(folder / "t.csv", folder / "images")[0].boxes, [[1, 2, 30, 40]])


def test_csv_with_sizes(folder):
    (folder / "t.csv").write_text("image;x;y;w;h;label\na.png;60;50;30;20;dog\n")
    dataset = load_csv(folder / "t.csv", folder / "images", box_format="xywh", delimiter=";")
    np.testing.assert_array_equal(dataset[0].boxes, [[60, 50, 90, 70]])
    with pytest.raises(DataError, match="pass box_format='xywh'"):
        load_csv(folder / "t.csv", folder / "images", delimiter=";")


def test_csv_with_sizes_for_corners_is_recognised(folder):
    boxes = [[60, 50, 30, 20], [70, 10, 20, 50], [50, 40, 45, 30]]
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError, match=r"look like \[x, y, width, height\]: pass box_format='xywh'"):
            load_csv(*write_csv(folder, boxes), on_bad=on_bad)
    assert len(load_csv(*write_csv(folder, boxes), box_format="xywh")[0].boxes) == 3
    with pytest.raises(DataError, match=r"look like \[x1, y1, x2, y2\]: pass box_format='xyxy'"):
        load_csv(*write_csv(folder, [*GOOD, [60, 50, 90, 70]]), box_format="xywh")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,2,three,4,cat", "row 6: box"),
        ("a.png,1,2,30,40", "row 6: 5 columns"),
        ("a.png,1,2,30,40,", "row 6: unknown class ''"),
        (",1,2,30,40,cat", "row 6: no image"),
        ("z.png,1,2,30,40,cat", "z.png: no such image"),
    ],
)
def test_csv_bad_rows(row, message, folder):
    with pytest.raises(DataError, match="table.csv") as caught:
        load_csv(*write_csv(folder, rows=[row]))
    assert message in str(caught.value)
    assert len(load_csv(*write_csv(folder, rows=[row]), on_bad="skip")[0].boxes) == 3


def test_csv_bad_files(folder):
    images = folder / "images"
    for text, message in (("", "no images"), ("image,x1,y1\na.png,1,2", "no column for x2"), ("a,b\n", "2 columns")):
        (folder / "t.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            load_csv(folder / "t.csv", images)
    with pytest.raises(DataError, match="cannot be read"):
        load_csv(folder / "no.csv", images)
    with pytest.raises(DataError, match="unknown class 'cat'; the classes are dog"):
        load_csv(*write_csv(folder), class_names=["dog"])
    (images / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="a.png: empty file"):
        load_csv(*write_csv(folder))


# Real data: the numbers are those of the data's README


@needs_data
def test_real_coco():
    root = SHARED / "data"
    nuclei = load_coco(root / "nuclei/val.json", root / "nuclei/val")
    assert len(nuclei) == 108 and sum(len(record.boxes) for record in nuclei) == 3642
    assert nuclei[0].segmentations[0]["size"] == [nuclei[0].height, nuclei[0].width]
    aquarium = load_coco(root / "aquarium/valid.json", root / "aquarium/valid")
    assert len(aquarium) == 127 and sum(len(record.boxes) for record in aquarium) == 909
    assert aquarium.class_names == "fish jellyfish penguin puffin shark starfish stingray".split()
    coco = load_coco(root / "coco_open/annotations/instances_val2017.json", root / "coco_open/val2017")
    assert (len(coco), sum(len(record.boxes) for record in coco)) == (57, 517)
    assert (
        len(coco.class_names) == 80 and coco.category_ids[-1] == 90 and sum(record.crowd.sum() for record in coco) == 7
    )


@needs_data
def test_real_voc(caplog):
    root = SHARED / "data/bccd"
    with pytest.raises(DataError, match="BloodImage_00343.xml"):
        load_voc(root, "train")
    counts = np.zeros(3, int)
    for split, images in (("train", 205), ("val", 87), ("test", 72)):
        dataset = load_voc(root, split, on_bad="skip")
        assert len(dataset) == images and dataset.class_names == ["Platelets", "RBC", "WBC"]
        counts += np.bincount(np.concatenate([record.labels for record in dataset]), minlength=3)
    assert counts.tolist() == [361, 4155 - 2, 372]
