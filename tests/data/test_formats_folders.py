"""YOLO, Pascal VOC, tables and TFRecords, as folders that are found out; and what is written as COCO json."""

import json
import os
import struct

import numpy as np
import pytest

from keras_rcnn.data import DataError, Dataset, Record, load, load_coco, save_coco, splits
from tests.data.format_files import (
    BOXES,
    HEIGHT,
    OBJECTS,
    WIDTH,
    coco_tree,
    labelme,
    photos,
    same,
    supervisely,
    truth,
    via,
    write,
    yolo,
)

NAMES = "names: [red, blue]\n"
PARTS = {"train": {"000": OBJECTS["000"]}, "val": {"001": OBJECTS["001"]}}


def labels(folder, objects=OBJECTS):
    for name, items in objects.items():
        write(folder / f"{name}.txt", yolo(items))


# YOLO


def as_ultralytics(folder):
    for split, objects in PARTS.items():
        photos(folder / "images" / split, objects)
        labels(folder / "labels" / split, objects)
    return write(folder / "data.yaml", f"path: {folder}\ntrain: images/train\nval: images/val\ntest:\n{NAMES}")


def as_roboflow(folder):
    for split, objects in (("train", PARTS["train"]), ("valid", PARTS["val"])):
        photos(folder / split / "images", objects)
        labels(folder / split / "labels", objects)
    write(folder / "README.roboflow.txt", "https://universe.roboflow.com/x\nLicense: CC BY 4.0\n")
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    return write(
        folder / "data.yaml", f"{paths}\nnc: 2\nnames: ['red', 'blue']\n\nroboflow:\n  workspace: x\n  version: 1\n"
    )


def as_moved(folder):
    as_ultralytics(folder)
    paths = "path: /home/someone/my data\ntrain: C:\\data\\images\\train\nval: /home/someone/else/images/val\n"
    return write(folder / "data.yaml", f"{paths}names:\n  0: red\n  1: blue\n")


def as_lists(folder):
    photos(folder / "images")
    labels(folder / "labels")
    write(folder / "train.txt", "./images/000.jpg\n")
    write(folder / "val.txt", "images/001.jpg\n")
    return write(folder / "coco8.yaml", f"train: train.txt\nval: [val.txt]\n{NAMES}")


@pytest.mark.parametrize("written", [as_ultralytics, as_roboflow, as_moved, as_lists])
def test_yolo_with_its_settings(tmp_path, written, caplog):
    path = written(tmp_path / "a b")
    for source in (path, path.parent):
        assert splits(source) == ["train", "val"]
        same(load(source, "train"), truth(tmp_path / "t", PARTS["train"]))
        same(load(source, "valid"), truth(tmp_path / "v", PARTS["val"]))
        same(load(source), truth(tmp_path))
        assert load(source, "val").class_names == ["red", "blue"]
    assert "all its splits are read: train, val" in caplog.text


@pytest.mark.parametrize("list_of", ["classes.txt", "obj.names", "_darknet.labels"])
def test_yolo_beside_the_photos(tmp_path, list_of):
    folder = photos(tmp_path / "a", OBJECTS | {"002": [], "003": []})
    labels(folder, OBJECTS | {"002": []})
    write(folder / list_of, "red\nblue\n")
    dataset = load(folder)
    assert splits(folder) == [] and dataset.class_names == ["red", "blue"]
    assert [len(record.boxes) for record in dataset] == [2, 2, 0, 0]
    same(dataset[:2], truth(tmp_path))


def as_cvat_darknet(folder):
    """CVAT's "YOLO 1.1"."""
    labels(photos(folder / "obj_train_data"))
    write(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(folder / "obj.names", "red\nblue\n")
    write(folder / "train.txt", "data/obj_train_data/000.jpg\ndata/obj_train_data/001.jpg\n")
    return folder


def as_cvat_ultralytics(folder):
    """CVAT's "Ultralytics YOLO Detection 1.0"."""
    photos(folder / "images/train")
    labels(folder / "labels/train")
    write(folder / "train.txt", "data/images/train/000.jpg\ndata/images/train/001.jpg\n")
    write(folder / "data.yaml", "names:\n  0: red\n  1: blue\npath: .\ntrain: train.txt\n")
    return folder


def as_label_studio_yolo(folder):
    photos(folder / "images")
    labels(folder / "labels")
    write(folder / "classes.txt", "red\nblue\n")
    write(
        folder / "notes.json",
        {"categories": [{"id": 0, "name": "red"}, {"id": 1, "name": "blue"}], "info": {"year": 1}},
    )
    return folder


@pytest.mark.parametrize("written", [as_cvat_darknet, as_cvat_ultralytics, as_label_studio_yolo])
def test_yolo_from_other_tools(tmp_path, written):
    folder = written(tmp_path / "a")
    same(load(folder), truth(tmp_path))
    assert splits(folder) == (["train"] if written is as_cvat_ultralytics else [])


def test_yolo_without_settings(tmp_path, caplog):
    folder = as_roboflow(tmp_path / "a").parent
    (folder / "data.yaml").unlink()
    assert splits(folder) == ["train", "valid"]
    same(load(folder, "val", class_names=["red", "blue"]), truth(tmp_path, PARTS["val"]))
    assert load(folder).class_names == ["0", "1"] and "names by class_names=[...]" in caplog.text


def test_one_file_of_yolo(tmp_path):
    folder = photos(tmp_path / "a/images", ["000"], ".JPG").parent
    labels(folder / "labels", PARTS["train"])
    same(load(folder / "labels/000.txt", class_names=["red", "blue"]), truth(tmp_path, PARTS["train"]))


def test_yolos_number_of_classes_is_another(tmp_path, caplog):
    photos(tmp_path / "images", ["000"])
    labels(tmp_path / "labels", PARTS["train"])
    assert load(write(tmp_path / "data.yaml", f"nc: 2\n{NAMES}")).class_names == ["red", "blue"]
    assert not caplog.text
    assert load(write(tmp_path / "data.yaml", f"nc: 3\n{NAMES}")).class_names == ["red", "blue"]
    assert "nc is 3, but it has 2 names" in caplog.text


def test_a_photos_name_that_is_not_utf8(tmp_path, caplog):
    photo = photos(tmp_path / "images", ["000"]) / "000.jpg"
    labels(tmp_path / "labels", PARTS["train"])
    try:
        photo.with_name(os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    (tmp_path / "labels" / os.fsdecode(b"caf\xe9.txt")).write_text(yolo(OBJECTS["001"]))
    dataset = load(write(tmp_path / "data.yaml", NAMES), on_bad="skip")
    assert [record.name for record in dataset] == [str(photo)]
    assert "skipped 1 bad annotation" in caplog.text and "it should be text in UTF-8" in caplog.text


def test_yolos_names_stay_as_they_are_written(tmp_path):
    photos(tmp_path / "images", ["000"])
    write(tmp_path / "labels/000.txt", "0 0.5 0.5 0.2 0.2\n")
    assert load(write(tmp_path / "data.yaml", "names: [no, 1.10, 2024-01-01]\n")).class_names == [
        "no",
        "1.10",
        "2024-01-01",
    ]
    assert load(write(tmp_path / "data.yaml", "names: {'0': Äpfel}\n")).class_names == ["Äpfel"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "object in line 1 of 000.txt: a class and 3 numbers"),
        ("0 0.5 0.5 0.2 x", "is not a class and numbers"),
        ("0 50 50 20 20", "is not in 0..1: YOLO's numbers are shares"),
        ("7 0.5 0.5 0.2 0.2", "class 7 has no name; there are 2"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5 has no name"),
        ("0 0.5 0.5 0.2 0.2 0.9", "a detection with its score"),
        ("0 0.5 0.5 nan 0.2", "is not in 0..1"),
        ("0 0.5 0.5 0 0.2", "has no width or no height"),
        ("0 0.9 0.5 0.4 0.2", "outside its image"),
    ],
)
def test_yolos_lines_that_are_wrong(tmp_path, line, message):
    photos(tmp_path / "images", ["000"])
    write(tmp_path / "labels/000.txt", f"{line}\n1 0.5 0.5 0.25 0.25\n")
    path = write(tmp_path / "data.yaml", NAMES)
    with pytest.raises(DataError, match=f"data.yaml: 1 bad annotation(?s:.*){message}"):
        load(path)
    np.testing.assert_allclose(load(path, on_bad="skip")[0].boxes, [[60, 45, 100, 75]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: 7\n", "'names' .'7'. is neither"),
        ("names: [[a], b]\ntrain: images\n", "'names' .list. is neither"),
        ("names: {a: b}\n", "is neither a list of names"),
        ("names: [red, blue\n", "not valid yaml"),
        ("- names\n- train: a\n", "not YOLO's settings, it is list"),
        ("a: &a [x, x]\nnames: *a\n", "has aliases .*a., which are not read"),
        ("names: " + "[" * 5000, "not valid yaml"),
        ("names: !!python/object/apply:os.system [ls]\n", "class 1 has no name; there are 1: .'ls'."),
    ],
)
def test_damaged_settings(tmp_path, text, message):
    photos(tmp_path / "images", ["000"])
    labels(tmp_path / "labels", PARTS["train"])
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "data.yaml", text), format="yolo")


def test_aliases_of_aliases_are_not_expanded(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(DataError, match="has aliases"):
        load(write(photos(tmp_path) / "data.yaml", "\n".join([*lines, "names: *a11", "train: a"])))


def test_yolo_without_photos_or_labels(tmp_path):
    write(tmp_path / "a/data.yaml", f"train: images/train\n{NAMES}")
    with pytest.raises(DataError, match="no photos in this folder; give theirs by images"):
        load(tmp_path / "a")
    photos(tmp_path / "a/images/train")
    with pytest.raises(DataError, match="2 photos, and none of them has its txt file .e.g. .*labels/train/000.txt"):
        load(tmp_path / "a")


# Pascal VOC and tables


def voc(folder, objects=BOXES):
    for name, items in objects.items():
        text = ""
        for label, (x1, y1, x2, y2) in items:
            box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            text += f"<object><name>{label}</name><bndbox>{box}</bndbox></object>"
        write(folder / f"{name}.xml", f"<annotation><filename>{name}.jpg</filename>{text}</annotation>")


def test_voc(tmp_path):
    voc(photos(tmp_path / "flat"))
    same(load(tmp_path / "flat"), truth(tmp_path, BOXES))
    photos(tmp_path / "two/images")
    voc(tmp_path / "two/annotations")
    same(load(tmp_path / "two"), truth(tmp_path, BOXES))
    for split, name in (("train", "000"), ("valid", "001")):
        voc(photos(tmp_path / "roboflow" / split, [name]), {name: BOXES[name]})
    assert splits(tmp_path / "roboflow") == ["train", "valid"] and splits(tmp_path / "flat") == []
    same(load(tmp_path / "roboflow", "val"), truth(tmp_path / "v", {"001": BOXES["001"]}))
    with pytest.raises(DataError, match="one file of Pascal VOC's; give its folder"):
        load(tmp_path / "flat/000.xml")
    photos(tmp_path / "own/JPEGImages")
    voc(tmp_path / "own/Annotations")
    for name, text in {"train": "000", "val": "001", "red_train": "000  1"}.items():
        write(tmp_path / f"own/ImageSets/Main/{name}.txt", text)
    assert splits(tmp_path / "own") == ["train", "val"]
    same(load(tmp_path / "own", "val"), truth(tmp_path / "v", {"001": BOXES["001"]}))


def table(objects=BOXES):
    """As Roboflow's "Tensorflow Object Detection" is."""
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, items in objects.items():
        rows += [f"{name}.jpg,{WIDTH},{HEIGHT},{label},{','.join(map(str, box))}" for label, box in items]
    return "\n".join(rows) + "\n"


def test_tables(tmp_path):
    write(photos(tmp_path / "a") / "_annotations.csv", table())
    same(load(tmp_path / "a"), truth(tmp_path, BOXES))
    photos(tmp_path / "b/images")
    for split, name in (("train", "000"), ("test", "001")):
        write(tmp_path / f"b/{split}_labels.csv", table({name: BOXES[name]}))
    assert splits(tmp_path / "b") == ["train", "test"]
    same(load(tmp_path / "b", "test"), truth(tmp_path / "v", {"001": BOXES["001"]}))
    same(load(tmp_path / "b"), truth(tmp_path, BOXES))
    same(load(tmp_path / "a/_annotations.csv", box_format="xyxy", delimiter=","), truth(tmp_path, BOXES))


def test_other_tables_are_no_annotations(tmp_path):
    write(photos(tmp_path / "a") / "coco.json", coco_tree())
    write(tmp_path / "a/results.csv", "epoch,loss,ap,ap50,ap75,lr\n1,2,3,4,5,x\n")
    write(tmp_path / "a/README.txt", "One, two, three, four, five, six and seven.\n")
    same(load(tmp_path / "a"), truth(tmp_path))
    write(photos(tmp_path / "b") / "mine.csv", "file,l,t,r,b,what\n000.jpg,1,2,30,40,red\n")
    with pytest.raises(DataError, match="no column for x1"):
        load(tmp_path / "b")
    names = ["image", "x1", "y1", "x2", "y2", "label"]
    write(tmp_path / "b/mine.csv", "000.jpg;1;2;30;40;red\n")
    assert load(tmp_path / "b", columns=names)[0].boxes.tolist() == [[1, 2, 30, 40]]


def test_yolo_with_photos_elsewhere(tmp_path):
    photos(tmp_path / "photos")
    labels(tmp_path / "txt")
    same(load(tmp_path / "txt", images=tmp_path / "photos", class_names=["red", "blue"]), truth(tmp_path))


def test_the_folder_of_the_annotations_alone(tmp_path):
    photos(tmp_path / "y/images")
    labels(tmp_path / "y/labels")
    write(tmp_path / "y/labels/classes.txt", "red\nblue\n")
    same(load(tmp_path / "y/labels"), truth(tmp_path))
    photos(tmp_path / "v/JPEGImages")
    voc(tmp_path / "v/Annotations")
    same(load(tmp_path / "v/Annotations"), truth(tmp_path, BOXES))
    photos(tmp_path / "c/images")
    write(tmp_path / "c/annotations/instances_default.json", coco_tree())
    same(load(tmp_path / "c/annotations"), truth(tmp_path))
    photos(tmp_path / "l/images")
    for name, items in OBJECTS.items():
        write(tmp_path / f"l/json/{name}.json", labelme(name, items))
        write(tmp_path / f"s/ann/{name}.jpg.json", supervisely(items))
    photos(tmp_path / "s/img")
    same(load(tmp_path / "l/json"), truth(tmp_path))
    same(load(tmp_path / "s/ann"), truth(tmp_path))
    same(load(tmp_path / "l/json/000.json"), truth(tmp_path / "t", {"000": OBJECTS["000"]}))


# TFRecords


def number(value):
    text = b""
    while value > 0x7F:
        text, value = text + bytes([value & 0x7F | 0x80]), value >> 7
    return text + bytes([value])


def field(key, data):
    return number(key << 3 | 2) + number(len(data)) + data


def feature(values):
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, value) for value in values))
    if isinstance(values[0], float):
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
    return field(3, field(1, b"".join(map(number, values))))


def example(features):
    entries = [field(1, key.encode()) + field(2, feature(values)) for key, values in features.items() if values]
    return field(1, b"".join(field(1, entry) for entry in entries))


def features_of(folder, name, items, text=True):
    boxes = np.array([box for _, box in items]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    sides = {f"image/object/bbox/{key}": boxes[:, i].tolist() for i, key in enumerate(("xmin", "ymin", "xmax", "ymax"))}
    return {
        "image/encoded": [(folder / f"{name}.jpg").read_bytes()],
        "image/filename": [f"{name}.jpg".encode()],
        "image/format": [b"jpg"],
        "image/height": [HEIGHT],
        "image/width": [WIDTH],
        **sides,
        "image/object/class/text": [label.encode() for label, _ in items] if text else [],
        "image/object/class/label": [["red", "blue"].index(label) + 1 for label, _ in items],
    }


def records(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(struct.pack("<QI", len(data), 0) + data + b"\0\0\0\0" for data in examples))
    return path


LABEL_MAP = "item {\n  name: \"red\",\n  id: 1\n}\nitem {\n  id: 2\n  name: 'blue'\n}\n"


@pytest.mark.parametrize("text", [True, False])
def test_tfrecords(tmp_path, monkeypatch, text):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    source = photos(tmp_path / "source")
    for split, name in (("train", "000"), ("valid", "001")):
        data = example(features_of(source, name, BOXES[name], text))
        records(tmp_path / "a" / split / "x.tfrecord", [data])
        write(tmp_path / "a" / split / "x_label_map.pbtxt", LABEL_MAP)
    assert splits(tmp_path / "a") == ["train", "valid"]
    dataset = load(tmp_path / "a")
    same(dataset, truth(tmp_path, BOXES))
    same(load(tmp_path / "a", "val"), truth(tmp_path / "v", {"001": BOXES["001"]}))
    assert dataset.class_names == ["red", "blue"]
    assert str(tmp_path / "home") in dataset[0].image
    same(load(tmp_path / "a/train/x.tfrecord"), truth(tmp_path / "t", {"000": BOXES["000"]}))


def test_tfrecords_of_tensorflow(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    source = photos(tmp_path / "source")
    kinds = {bytes: ("bytes_list", tf.train.BytesList), float: ("float_list", tf.train.FloatList)}
    with tf.io.TFRecordWriter(str(tmp_path / "a.record-00000-of-00001")) as writer:
        for name, items in (BOXES | {"001": []}).items():
            features = {}
            for key, values in features_of(source, name, items or BOXES[name]).items():
                values = values if items or "object" not in key else []
                kind, cls = kinds.get(type(values[0]) if values else float, ("int64_list", tf.train.Int64List))
                features[key] = tf.train.Feature(**{kind: cls(value=values)})
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    same(load(tmp_path / "a.record-00000-of-00001"), truth(tmp_path, BOXES | {"001": []}))


def test_damaged_tfrecords(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    source = photos(tmp_path / "source")
    whole = [example(features_of(source, name, items)) for name, items in BOXES.items()]
    path = records(tmp_path / "a.tfrecord", whole)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(DataError, match="cut off or no TFRecord .at byte"):
        load(path)
    records(path, [whole[0], b"\x0a\xff\xff\xff\xff\xff\x0f"])
    with pytest.raises(DataError, match="record 2 of a.tfrecord: is no tf.train.Example"):
        load(path)
    assert len(load(path, on_bad="skip")) == 1
    features = features_of(source, "000", BOXES["000"])
    records(path, [whole[1], example(features | {"image/object/bbox/xmin": [0.5]})])
    with pytest.raises(
        DataError, match="record 2 of a.tfrecord: xmin, ymin, xmax, ymax.* have 1, 2, 2, 2, 2, 2 values"
    ):
        load(path)
    records(path, [example(features | {"image/filename": [b"../../../etc/passwd.jpg"]})])
    assert str(tmp_path / "home") in load(path)[0].image
    for seed in range(200):
        rng, damaged = np.random.default_rng(seed), bytearray(data)
        for _ in range(5):
            damaged[int(rng.integers(200) if seed % 2 else rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            load(path, on_bad="skip" if seed % 3 else "error")
        except DataError as error:
            assert "a.tfrecord" in str(error) or "home" in str(error)


# COCO json from anything


def test_what_is_written_is_what_was_read(tmp_path):
    folder = as_roboflow(tmp_path / "a").parent
    for name, images in (("all.json", None), ("b/all.json", None), ("b/rel.json", folder)):
        save_coco(load(folder, "train"), tmp_path / name, images)
        content = json.loads((tmp_path / name).read_text())
        file = content["images"][0]["file_name"]
        inside = "train/images/000.jpg"
        assert file == {"all.json": f"a/{inside}", "b/all.json": str(folder / inside), "b/rel.json": inside}[name]
        same(load(tmp_path / name, images=images, format="coco"), truth(tmp_path / "t", PARTS["train"]))
        same(load_coco(tmp_path / name, images or (tmp_path / name).parent), truth(tmp_path / "t", PARTS["train"]))


def test_masks_of_any_kind_are_written(tmp_path, caplog):
    photos(tmp_path, ["000"])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:20, 30:50] = 1
    record = Record(
        str(tmp_path / "000.jpg"), "a", HEIGHT, WIDTH, [[30, 10, 50, 20], [1, 1, 9, 9]], [0, 0],
        difficult=[False, True], segmentations=[mask, None],
    )  # fmt: skip
    save_coco(Dataset([record], ["fig"]), tmp_path / "a.json")
    back = load(tmp_path / "a.json")
    np.testing.assert_array_equal(back[0].boxes, record.boxes)
    assert back[0].crowd.tolist() == [False, True] and "1 difficult objects are written as crowd" in caplog.text
    assert back[0].segmentations[1] is None and isinstance(back[0].segmentations[0], dict)
    record.image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(DataError, match="image 'a' is no file"):
        save_coco(Dataset([record], ["fig"]), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_classes_in_a_given_order(tmp_path):
    photos(tmp_path)
    path = write(tmp_path / "coco.json", coco_tree())
    dataset = load(path, class_names=["green", "blue", "red"])
    assert [record.labels.tolist() for record in dataset] == [[2, 1], [2, 1]]
    assert dataset.category_ids == [3, 2, 1]
    with pytest.raises(DataError, match="unknown class 'blue'"):
        load(path, class_names=["red"])
    assert len(load(path, class_names=["red"], on_bad="skip")[0].boxes) == 1
    with pytest.raises(DataError, match="unknown class 'red'"):
        load(write(tmp_path / "via.json", via()), class_names=["blue"])
