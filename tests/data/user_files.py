"""A small data set written as people's tools write it, in each format, with changes."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from keras_rcnn.data import load_coco, load_csv, load_voc
from tests.shared import SHARED

CASES = SHARED / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"the users' inputs are not at {CASES}")
BOXES = {"000": [[25, 19, 53, 48], [103, 9, 151, 30]], "001": [[5, 8, 35, 43], [87, 85, 114, 112]]}


def content(**changes):
    """COCO's json; a change is `images=dict` of fields for each image (None takes one away), `annotations` likewise."""
    data = {
        "images": [{"id": i, "file_name": f"{n}.jpg", "width": 160, "height": 120} for i, n in enumerate(BOXES, 1)],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    for i, boxes in enumerate(BOXES.values(), 1):
        for label, (x1, y1, x2, y2) in enumerate(boxes, 1):
            polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
            data["annotations"].append(
                {
                    "id": len(data["annotations"]) + 1,
                    "image_id": i,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    for key, change in changes.items():
        if isinstance(change, list):
            data[key] = change
            continue
        for entry in data[key]:
            for field, value in change.items():
                entry[field] = value(entry[field]) if callable(value) else value
    return data


def coco(folder, data=None, images="photos", **kwargs):
    (folder / "coco.json").write_text(json.dumps(content() if data is None else data), encoding="utf-8")
    return load_coco(folder / "coco.json", folder / images, **kwargs)


def same_boxes(dataset, names=("red", "blue"), boxes=BOXES, atol=0.0):
    assert sorted(dataset.class_names) == sorted(names) and len(dataset) == len(boxes)
    for record, wanted in zip(dataset, boxes.values()):
        np.testing.assert_allclose(record.boxes, wanted, atol=atol)
        assert [dataset.class_names[label] for label in record.labels] == ["red", "blue"]
        assert (record.height, record.width) == (120, 160)


def rle(box, text=False):
    mask = np.zeros((120, 160), np.uint8)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = 1
    if text:
        return {"size": [120, 160], "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode()}
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [120, 160], "counts": np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()}


def voc(folder, xml="Annotations", images="JPEGImages", names=None, lists=None, **kwargs):
    names = names or {name: name for name in BOXES}
    for stem, name in names.items():
        text = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for label, (x1, y1, x2, y2) in zip(("red", "blue"), BOXES[stem])
        )
        path = folder / xml / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><filename>{name}.jpg</filename>{text}</annotation>")
        image = folder / images / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / f"{stem}.jpg").rename(image)
    (folder / "photos").rmdir()
    for name, data in (lists or {}).items():
        path = folder / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return load_voc(folder, **kwargs)


def table(folder, text, written="utf-8", **kwargs):
    (folder / "t.csv").write_bytes(text.encode(written))
    return load_csv(folder / "t.csv", folder / "photos", **kwargs)
