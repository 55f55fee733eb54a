"""Annotation tools' json and xml: each gives what the same data gives as COCO json."""

import base64
import contextlib
import copy
import io
import json
import math
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import DataError, load, splits
from keras_rcnn.data.masks import full_mask
from tests.data.format_files import (
    BOXES,
    HEIGHT,
    OBJECTS,
    WIDTH,
    coco_tree,
    create_ml,
    cvat,
    label_studio,
    labelme,
    photos,
    same,
    supervisely,
    truth,
    via,
    via_csv,
    write,
)


def as_coco(folder):
    return write(photos(folder / "images").parent / "annotations/instances_default.json", coco_tree())


def as_via(folder):
    return write(photos(folder) / "via_project.json", via(project=True))


def as_via_regions(folder):
    return write(photos(folder / "images").parent / "via_region_data.json", via())


def as_via_1(folder):
    return write(photos(folder) / "via_region_data.json", via(as_dict=True, attribute="name"))


def as_via_list(folder):
    """The images alone, as programs pass them on."""
    return write(photos(folder) / "via.json", list(via().values()))


def as_via_csv(folder):
    return write(photos(folder) / "via_region_data.csv", via_csv())


def as_via_1_csv(folder):
    return write(photos(folder) / "via_export.csv", via_csv(sign="#"))


def as_labelme(folder):
    photos(folder)
    for name, items in OBJECTS.items():
        write(folder / f"{name}.json", labelme(name, items))
    return folder


def as_labelme_apart(folder):
    photos(folder / "photos")
    for name, items in OBJECTS.items():
        write(folder / f"labels/{name}.json", labelme(name, items, f"..\\photos\\{name}.jpg"))
    return folder


def as_cvat(folder):
    return write(photos(folder / "images").parent / "annotations.xml", cvat())


def as_label_studio(folder):
    return write(photos(folder) / "project-1-at-2024.json", label_studio())


def as_label_studio_min(folder):
    rows = []
    for task in label_studio():
        values = [result["value"] | {"original_width": WIDTH} for result in task["annotations"][0]["result"]]
        rows.append(
            {"image": task["data"]["image"], "id": task["id"], "label": values, "annotator": 1, "annotation_id": 1}
        )
    return write(photos(folder / "images").parent / "min.json", rows)


def as_supervisely(folder):
    photos(folder / "ds0/img")
    write(folder / "meta.json", {"classes": [{"title": "red", "shape": "rectangle"}], "tags": []})
    for name, items in OBJECTS.items():
        write(folder / f"ds0/ann/{name}.jpg.json", supervisely(items))
    return folder


WRITERS = (
    as_coco, as_via, as_via_regions, as_via_1, as_via_list, as_via_csv, as_via_1_csv, as_labelme, as_labelme_apart,
    as_cvat, as_label_studio, as_label_studio_min, as_supervisely,
)  # fmt: skip


@pytest.mark.parametrize("written", WRITERS, ids=lambda writer: writer.__name__)
def test_the_same_data_in_each_format(tmp_path, written, caplog):
    caplog.set_level("INFO")
    path = written(tmp_path / "my datä set")
    good = truth(tmp_path)
    same(load(path), good)
    assert caplog.text.count("read as") == 1 and caplog.records[0].levelname == "INFO"
    same(load(path.parent if path.is_file() and path.parent.name != "annotations" else tmp_path / "my datä set"), good)
    assert splits(path) == []


def test_create_ml(tmp_path):
    path = write(photos(tmp_path / "a") / "_annotations.createml.json", create_ml(BOXES))
    same(load(path), truth(tmp_path, BOXES))
    write(path, create_ml(BOXES, "imagefilename"))
    same(load(tmp_path / "a"), truth(tmp_path, BOXES))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("_annotations.coco.json", coco_tree),
        ("_annotations.createml.json", lambda objects: create_ml(objects)),
        ("annotations.xml", cvat),
        ("via_region_data.json", via),
        ("via.csv", via_csv),
    ],
)
def test_folders_of_splits(tmp_path, name, content, caplog):
    objects = BOXES if "createml" in name else OBJECTS
    parts = {"train": {"000": objects["000"]}, "valid": {"001": objects["001"]}}
    for split, items in parts.items():
        write(photos(tmp_path / "root" / split, items) / name, content(items))
    assert splits(tmp_path / "root") == ["train", "valid"]
    same(load(tmp_path / "root", "train"), truth(tmp_path / "t", parts["train"]))
    same(load(tmp_path / "root", "val"), truth(tmp_path / "v", parts["valid"]))
    assert "all its splits" not in caplog.text
    same(load(tmp_path / "root"), truth(tmp_path, objects))
    assert "all its splits are read: train, valid" in caplog.text
    with pytest.raises(DataError, match="no such split 'test'; there are: train, valid"):
        load(tmp_path / "root", "test")


def test_coco_splits_by_the_names_of_its_files(tmp_path):
    for split, name in (("train", "000"), ("val", "001")):
        photos(tmp_path / f"{split}2017", [name])
        write(tmp_path / f"annotations/instances_{split}2017.json", coco_tree({name: OBJECTS[name]}))
        write(tmp_path / f"annotations/person_keypoints_{split}2017.json", coco_tree({name: []}))
        write(tmp_path / f"annotations/captions_{split}2017.json", {"images": [], "annotations": []})
    assert splits(tmp_path) == ["train", "val"]
    same(load(tmp_path, "val"), truth(tmp_path / "t", {"001": OBJECTS["001"]}))
    same(load(tmp_path / "annotations/instances_train2017.json"), truth(tmp_path / "t", {"000": OBJECTS["000"]}))


def test_photos_that_are_not_found(tmp_path):
    photos(tmp_path / "elsewhere")
    path = write(tmp_path / "a/b/via.json", via())
    with pytest.raises(
        DataError, match=r"via.json: none of its photos .e.g. 000.jpg. is in .*images=... .--images DIR"
    ):
        load(path)
    same(load(path, images=tmp_path / "elsewhere"), truth(tmp_path))


@pytest.mark.parametrize("ending", [".JPG", ".jpeg"])
def test_photos_under_other_names(tmp_path, ending, caplog):
    photos(tmp_path / "a/images", ending=ending)
    content = via()
    for entry in content.values():
        entry["filename"] = "C:\\Users\\me\\My Photos\\" + entry["filename"].replace(".jpg", ending.lower())
    same(load(write(tmp_path / "a/via.json", content)), truth(tmp_path))
    assert "under other names" in caplog.text


# VIA


def with_shapes(*shapes, **region):
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "red"} | region} for shape in shapes]
    return {"k": {"filename": "000.jpg", "size": -1, "regions": regions, "file_attributes": {}}}


def test_via_circles_and_ellipses(tmp_path, caplog):
    photos(tmp_path, ["000"])
    shapes = (
        {"name": "circle", "cx": 50, "cy": 60, "r": 20},
        {"name": "ellipse", "cx": 100, "cy": 60, "rx": 30, "ry": 10, "theta": math.pi / 2},
        {"name": "ellipse", "cx": 100, "cy": 60, "rx": 30, "ry": 10},
        {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]},
        {"name": "point", "cx": 1, "cy": 2},
    )
    dataset = load(write(tmp_path / "via.json", with_shapes(*shapes)))
    np.testing.assert_allclose(dataset[0].boxes, [[30, 40, 70, 80], [90, 30, 110, 90], [70, 50, 130, 70]], atol=0.01)
    assert "1 of polyline, 1 of point" in caplog.text
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for mask, area in zip(dataset[0].segmentations, (math.pi * 400, math.pi * 300, math.pi * 300)):
        assert abs(full_mask(mask, HEIGHT, WIDTH).sum() - area) < 0.04 * area
    disc = (x - 50) ** 2 + (y - 60) ** 2 <= 400
    assert (full_mask(dataset[0].segmentations[0], HEIGHT, WIDTH) != disc).sum() < 60


def test_via_without_classes(tmp_path, caplog):
    """As the balloons of Mask R-CNN's tutorial are."""
    photos(tmp_path)
    dataset = load(write(tmp_path / "via_region_data.json", via(attribute=None, as_dict=True)))
    assert dataset.class_names == ["object"] and [len(record.boxes) for record in dataset] == [2, 2]
    assert "all are of one class, 'object'" in caplog.text


def test_via_with_several_attributes(tmp_path):
    photos(tmp_path, ["000"])
    rect = {"name": "rect", "x": 1, "y": 2, "width": 30, "height": 20}
    path = write(tmp_path / "via.json", with_shapes(rect, colour="dark", ripe={"yes": True, "no": False}))
    assert load(path).class_names == ["red"]
    assert load(path, class_attribute="ripe").class_names == ["yes"]
    with pytest.raises(DataError, match="no region has the attribute 'x'; there are: class, colour, ripe"):
        load(path, class_attribute="x")
    content = with_shapes(rect, colour="dark", ripe="yes")
    del content["k"]["regions"][0]["region_attributes"]["class"]
    with pytest.raises(DataError, match="attributes colour, ripe, and none is called class.*class_attribute="):
        load(write(path, content))


# LabelMe


def test_labelme_parts_of_one_object_and_other_shapes(tmp_path, caplog):
    photos(tmp_path, ["000"])
    parts = [10, 10, 30, 10, 30, 30, 10, 30], [50, 10, 70, 10, 70, 30, 50, 30]
    content = labelme("000", [("red", part) for part in parts])
    for shape in content["shapes"]:
        shape["group_id"] = 1
    crop = np.zeros((11, 21), np.uint8)
    crop[2:9, 3:15] = 1
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    content["shapes"] += [
        {"label": "blue", "points": [[50, 60], [50, 80]], "shape_type": "circle", "group_id": None},
        {"label": "blue", "points": [[1, 2]], "shape_type": "point"},
        {"label": "blue", "points": [[1, 2], [3, 4]], "shape_type": "line"},
        {"label": "blue", "points": [[100, 60], [120, 70]], "shape_type": "mask",
         "mask": base64.b64encode(stream.getvalue()).decode()},
    ]  # fmt: skip
    record = load(write(tmp_path / "000.json", content))[0]
    np.testing.assert_allclose(record.boxes, [[10, 10, 70, 30], [30, 40, 70, 80], [100, 60, 121, 71]], atol=0.01)
    assert len(record.segmentations[0]) == 2 and "1 of point, 1 of line" in caplog.text
    full = np.zeros((HEIGHT, WIDTH), np.uint8)
    full[60:71, 100:121] = crop
    np.testing.assert_array_equal(full_mask(record.segmentations[2], HEIGHT, WIDTH), full)


# CVAT


def test_cvat_masks_turned_boxes_and_lines(tmp_path, caplog):
    photos(tmp_path / "images", ["000"])
    extra = (
        '<mask label="blue" source="manual" occluded="0" rle="1, 3, 2, 2" left="10" top="20" width="4" height="2"/>'
        '<box label="red" xtl="50" ytl="50" xbr="90" ybr="70" rotation="90"/>'
        '<ellipse label="red" cx="100" cy="60" rx="20" ry="10" rotation="0"/>'
        '<polyline label="lane" points="1,2;3,4"/><points label="eye" points="1,2"/>'
    )
    dataset = load(write(tmp_path / "annotations.xml", cvat({"000": []}, ("red", "blue"), extra)))
    record = dataset[0]
    np.testing.assert_allclose(record.boxes, [[11, 20, 14, 22], [60, 40, 80, 80], [80, 50, 120, 70]], atol=0.01)
    full = np.zeros((HEIGHT, WIDTH), np.uint8)
    full[20:22, 10:14] = [[0, 1, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(full_mask(record.segmentations[0], HEIGHT, WIDTH), full)
    assert "1 of polyline, 1 of points" in caplog.text and dataset.class_names == ["red", "blue"]


def test_cvat_of_a_video(tmp_path):
    box = "<box frame='0' xtl='1' ytl='1' xbr='9' ybr='9'/>"
    text = f"<annotations><meta/><track id='0' label='car'>{box}</track></annotations>"
    with pytest.raises(DataError, match="tracks through a video.*CVAT for images"):
        load(write(tmp_path / "annotations.xml", text))


# Label Studio


def test_label_studio_by_several_people(tmp_path, caplog):
    photos(tmp_path)
    tasks = label_studio()
    cancelled = copy.deepcopy(tasks[0]["annotations"][0]) | {"was_cancelled": True, "result": []}
    tasks[0]["annotations"].insert(0, cancelled)
    tasks[1]["annotations"].append(copy.deepcopy(tasks[1]["annotations"][0]))
    tasks.append({"id": 9, "data": {"image": "gone.jpg"}, "annotations": []})
    same(load(write(tmp_path / "export.json", tasks)), truth(tmp_path / "t"))
    assert "1 tasks without an annotation" in caplog.text and "1 photos have several annotations" in caplog.text


def test_label_studio_says_more_of_a_region(tmp_path, caplog):
    photos(tmp_path)
    tasks = label_studio()
    for entry in tasks:
        results = entry["annotations"][0]["result"]
        for result in results[:]:
            more = {key: side for key, side in result["value"].items() if "labels" not in key}
            results.append(result | {"type": "choices", "value": more | {"choices": ["sharp"]}})
            results.append(result | {"type": "textarea", "value": more | {"text": ["a note"]}})
        # the tags Labels and Rectangle, in place of RectangleLabels
        bare = {key: side for key, side in results[0]["value"].items() if key != "rectanglelabels"}
        results.append(results[0] | {"type": "labels", "value": bare | {"labels": ["red"]}})
        results[0] |= {"type": "rectangle", "value": bare}
        point = {"x": 1, "y": 2, "width": 0.5, "keypointlabels": ["eye"]}
        results.append({"id": "k", "type": "keypointlabels", "value": point})
        results.append({"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"})
    same(load(write(tmp_path / "export.json", tasks)), truth(tmp_path / "t"))
    assert "2 of keypointlabels" in caplog.text


def test_label_studio_turned_and_painted(tmp_path):
    photos(tmp_path)
    tasks = label_studio()
    result = tasks[0]["annotations"][0]["result"][0]
    result["value"] |= {"x": 50, "y": 50, "width": 25, "height": 25, "rotation": 90}
    boxes = load(write(tmp_path / "export.json", tasks))[0].boxes
    np.testing.assert_allclose(boxes[0], [80 - 30, 60, 80, 60 + 40], atol=0.01)
    result["value"] = {"format": "rle", "rle": [0, 1], "brushlabels": ["red"]}
    with pytest.raises(DataError, match="painted by brush.*Export > COCO"):
        load(write(tmp_path / "export.json", tasks))
    assert len(load(tmp_path / "export.json", on_bad="skip")[0].boxes) == 1


# Supervisely


def test_supervisely_bitmaps(tmp_path):
    photos(tmp_path / "ds/img", ["000"])
    crop = np.zeros((10, 20), np.uint8)
    crop[:, 5:] = 255
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    content = supervisely([])
    bitmap = {"data": base64.b64encode(zlib.compress(stream.getvalue())).decode(), "origin": [30, 40]}
    content["objects"] = [{"classTitle": "red", "geometryType": "bitmap", "bitmap": bitmap}]
    record = load(write(tmp_path / "ds/ann/000.jpg.json", content).parents[1])[0]
    np.testing.assert_array_equal(record.boxes, [[35, 40, 50, 50]])
    assert full_mask(record.segmentations[0], HEIGHT, WIDTH).sum() == 150


# What is refused


def task(**value):
    return [{"id": 7, "data": {"image": "000.jpg"}, "annotations": [{"result": [{"value": value}]}]}]


def painted(**sides):
    sides = " ".join(f'{key}="{value}"' for key, value in sides.items())
    return cvat({"000": []}, extra=f'<mask label="red" left="0" top="0" {sides}/>')


def test_folders_with_several_formats(tmp_path):
    good, tmp_path = truth(tmp_path), photos(tmp_path / "a")
    write(tmp_path / "via.json", via())
    write(tmp_path / "coco.json", coco_tree())
    message = r"annotations of 2 formats: coco .coco.json.; via .via.json.; choose one by format='coco' .--format coco"
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    same(load(tmp_path, format="via"), good)
    with pytest.raises(DataError, match="no files of the format 'cvat'; there is coco, via"):
        load(tmp_path, format="cvat")
    with pytest.raises(ValueError, match="format 'xx' is none of coco, voc, yolo"):
        load(tmp_path, format="xx")
    with pytest.raises(ValueError, match="load has no option 'colour'"):
        load(tmp_path, colour=1)
    with pytest.raises(ValueError, match="box_format is an option of the format 'csv'"):
        load(tmp_path / "via.json", box_format="xywh")
    write(tmp_path / "via2.json", via())
    (tmp_path / "coco.json").unlink()
    with pytest.raises(DataError, match=r"2 files with annotations of the same kind .via.json, via2.json."):
        load(tmp_path)


def test_a_photo_that_is_annotated_twice(tmp_path):
    photos(tmp_path)
    write(tmp_path / "000.json", labelme("000", OBJECTS["000"]))
    write(tmp_path / "001.json", labelme("001", OBJECTS["001"], "000.jpg"))
    with pytest.raises(DataError, match="001.json: the image '000.jpg' has annotations already"):
        load(tmp_path)
    assert len(load(tmp_path, on_bad="skip")) == 1
    content = via()
    content["again"] = content["000.jpg1234"]
    with pytest.raises(DataError, match="image 'again': the image '000.jpg' has annotations already"):
        load(write(tmp_path / "b/via.json", content), images=tmp_path)


def test_a_damaged_file_among_many(tmp_path):
    photos(tmp_path)
    write(tmp_path / "000.json", labelme("000", OBJECTS["000"]))
    write(tmp_path / "001.json", "")
    with pytest.raises(DataError, match="001.json: not valid json"):
        load(tmp_path)
    assert len(load(tmp_path, on_bad="skip")) == 1


def test_labelme_files_that_begin_with_their_picture(tmp_path):
    names = [f"{i:03d}" for i in range(60)]
    photos(tmp_path, names)
    for name in names:
        write(tmp_path / f"{name}.json", {"imageData": "A" * 70_000} | labelme(name, OBJECTS["000"]))
    assert len(load(tmp_path)) == 60


def test_archives_pipes_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="an archive; unpack it"):
        load(write(tmp_path / "export.zip", "PK"))
    os.mkfifo(tmp_path / "a.tfrecord")
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="cannot be read .not a regular file"):
        load(tmp_path / "a.tfrecord")
    with pytest.raises(DataError, match=r"a.json: cannot be read .not a regular file"):
        load(tmp_path)
    path = write(tmp_path / "b/via.json", via())
    with pytest.raises(DataError, match="no image folder gone"):
        load(path, images="gone")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="gone: no such file or folder"):
        load(tmp_path / "gone")
    with pytest.raises(DataError, match="no annotations in this folder; read are COCO"):
        load(photos(tmp_path / "a"))
    with pytest.raises(DataError, match="of no format that is known"):
        load(write(tmp_path / "a.json", {"hello": 1}))
    with pytest.raises(DataError, match="looks like Datumaro"):
        load(write(tmp_path / "d/a.json", {"categories": {}, "items": []}).parent)
    with pytest.raises(DataError, match=r"b.json: not valid json"):
        load(write(tmp_path / "b/b.json", "{").parent)


RECT = {"name": "rect", "x": 1, "y": 1, "width": 3, "height": 3}
UNNAMED = {"label": None, "points": [[1, 2], [30, 20]], "shape_type": "rectangle"}
BITMAP = {"classTitle": "a", "geometryType": "bitmap", "tags": [], "bitmap": {"data": "eJw=", "origin": [1, 2]}}
CIRCLE = {"label": "a", "points": [[1, 2], [float("nan"), 20]], "shape_type": "circle"}
FAULTS = [
    ("via.json", with_shapes(RECT | {"x": "a"}), "object 1 of 000.jpg: its rect"),
    ("via.json", with_shapes(RECT | {"x": 500}), "object 1 of 000.jpg: box .*outside"),
    ("via.json", with_shapes({"name": "polygon", "all_points_x": [1]}), "not as many all_points_x"),
    ("via.json", with_shapes({"name": "blob"}), "its shape 'blob' is none of"),
    ("via.json", with_shapes({"name": "circle", "cx": 1, "cy": 2, "r": float("inf")}), "its circle"),
    ("000.json", labelme("000", [], shapes=[UNNAMED]), "object 1 of 000.json: has no class"),
    ("000.json", labelme("000", [], shapes=[{"label": "a", "points": [[1, "b"]]}]), "are not pairs of numbers"),
    ("000.json", labelme("000", [], shapes=[CIRCLE]), "its circle has the points .*, which are not finite"),
    ("000.json", labelme("000", [], shapes=[7]), "object 1 of 000.json: is int"),
    ("annotations.xml", cvat({"000": [("red", ["a", 1, 2, 3])]}), "object 1 of 000.jpg: box .*is not four numbers"),
    ("annotations.xml", painted(rle="9", width=2, height=2), "its rle covers 9 px, its mask is 2 x 2 px"),
    ("annotations.xml", painted(rle="1e12", width=1e6, height=1e6), "its rle covers"),
    ("ls.json", task(x="a", y=1, width=2, height=2, rectanglelabels=["red"]), "object 1 of 000.jpg: its rectangle"),
    ("c.json", [{"image": "000.jpg", "annotations": [{"label": "red", "coordinates": {"x": 1}}]}], "its coordinates"),
    ("ann/000.jpg.json", {"size": {}, "objects": [BITMAP], "tags": []}, "its bitmap"),
]


@pytest.mark.parametrize(("file", "content", "message"), FAULTS, ids=range(len(FAULTS)))
def test_objects_that_cannot_be_read(tmp_path, file, content, message):
    photos(tmp_path / "a", ["000"])
    path = write(tmp_path / "a" / file, content)
    with pytest.raises(DataError, match=message):
        load(path)
    with contextlib.suppress(DataError):  # that nothing is left
        assert len(load(path, on_bad="skip")[0].boxes) == 0


def test_entities_are_not_expanded(tmp_path):
    lines = ['<!ENTITY a0 "ha">'] + [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)]
    text = f"<!DOCTYPE annotations [{''.join(lines)}]><annotations><image name='&a9;'/></annotations>"
    with pytest.raises(DataError, match="declares entities"):
        load(write(photos(tmp_path) / "annotations.xml", text))


def test_deep_and_damaged_json(tmp_path):
    photos(tmp_path)
    for text in ("[" * 100_000, '{"a": ' * 100_000, '{"k": {"filename": "000.jpg", "regions": [', "\x00\x01", ""):
        with pytest.raises(DataError, match="a.json") as caught:
            load(write(tmp_path / "a.json", text))
        assert "read it by" not in str(caught.value)  # by what it was read by


def test_a_photo_with_no_objects_stays(tmp_path):
    objects = OBJECTS | {"002": []}
    photos(tmp_path / "a", objects)
    for name, content in (("a.json", via(objects)), ("a.csv", via_csv(objects)), ("a.xml", cvat(objects)),
                          ("a.json", label_studio(objects))):  # fmt: skip
        dataset = load(write(tmp_path / "a" / name, content))
        assert [len(record.boxes) for record in dataset] == [2, 2, 0]


@pytest.mark.parametrize("written", WRITERS, ids=lambda writer: writer.__name__)
def test_damaged_files_are_read_or_named(tmp_path, written):
    """Whatever is cut out of a file, or put into it: the data, or an error that is one of the package's."""
    from tests.data.test_fuzz import damaged_bytes, damaged_tree

    path = written(tmp_path / "a")
    file = path if path.is_file() else sorted(path.rglob("*.json"))[0]
    whole = file.read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        if file.suffix == ".json" and seed % 3:
            data = json.dumps(damaged_tree(json.loads(whole), rng)).encode("utf-8", "replace")
        else:
            data = damaged_bytes(whole, rng)
        file.write_bytes(data)
        for on_bad in ("error", "skip"):
            try:
                load(path, on_bad=on_bad)
            except DataError as error:
                assert str(tmp_path) in str(error)
