"""What the README and docs/pages speak of, small: photos, data sets and detectors under the names used there."""

import csv
import json
import shutil

from PIL import Image

from keras_rcnn import layers
from keras_rcnn.data import ProposalSet, save_proposals
from keras_rcnn.presets import save_preset
from tests.models.test_fast_rcnn import around, fast_rcnn
from tests.models.test_mask_rcnn import tiny_mask_rcnn
from tests.models.tiny import shapes, tiny_detector

CLASSES = ["square", "bar"]
VOC = "VOC2007", "PATH/TO/bccd"


def write_photos(folder):
    """Two photos, and folders of photos."""
    image = Image.fromarray(shapes(1, size=256)[0].image)
    for name in ("photo.jpg", "street.jpg", "holiday/a.jpg", "photos/a.jpg", "photos/b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)


def write_data(folder):
    """Six pictures as COCO with polygons (train, val, trainval), Pascal VOC, a table, YOLO and VIA."""
    data = shapes(6)
    for name, images, chosen in (("train", "train", data[:4]), ("val", "val", data[4:]), ("trainval", "images", data)):
        _write_coco(folder / f"{name}.json", folder / images, chosen)
    (folder / "photos").mkdir(exist_ok=True)
    rows = [["image", "x1", "y1", "x2", "y2", "label"]]
    for record in data:
        Image.fromarray(record.image).save(folder / "photos" / f"{record.image_id}.png")
        rows += [[f"{record.image_id}.png", *box, name] for box, name in _objects(record)]
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    for name in VOC:
        _write_voc(folder / name, data)
    _write_yolo(folder / "roboflow", data)
    _write_via(folder / "via_project.json", data)
    return data


def write_runs(folder, data):
    """Detectors that were never trained, under the names of trained ones, and files of proposals."""
    detectors = {
        "mine": tiny_detector(class_names=CLASSES),
        "masks": tiny_mask_rcnn(class_names=CLASSES),
        "fast": fast_rcnn(class_names=CLASSES, box_head=layers.BoxHead((32, 16))),
    }
    for name, model in detectors.items():
        save_preset(model, folder / "runs" / name)
    for name, like in (("voc", "mine"), ("fruits", "masks"), ("bccd_fast_rcnn", "fast")):
        shutil.copytree(folder / "runs" / like, folder / "runs" / name)
    for name, chosen in (("val", data[4:]), ("test", data[4:])):
        found = around(chosen)
        if name == "test":  # a VOC record is called by its file's name
            found = ProposalSet({str(key): found[key] for key in found})
        save_proposals(folder / "runs" / f"{name}.npz", found)


def _objects(record):
    return [(box, CLASSES[label]) for box, label in zip(record.boxes.tolist(), record.labels.tolist())]


def _write_coco(path, folder, records):
    folder.mkdir()
    content = {"categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]}
    content |= {"images": [], "annotations": []}
    for record in records:
        name = f"{record.image_id}.png"
        Image.fromarray(record.image).save(folder / name)
        size = {"height": record.height, "width": record.width}
        content["images"].append({"id": record.image_id, "file_name": name, **size})
        for (x1, y1, x2, y2), name in _objects(record):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": record.image_id,
                    "category_id": CLASSES.index(name) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    path.write_text(json.dumps(content))


def _write_yolo(root, data):
    """As Roboflow exports it."""
    for split, chosen in (("train", data[:4]), ("valid", data[4:5]), ("test", data[5:])):
        for name in ("images", "labels"):
            (root / split / name).mkdir(parents=True)
        for record in chosen:
            Image.fromarray(record.image).save(root / split / "images" / f"{record.image_id}.png")
            height, width = record.height, record.width
            lines = [
                f"{CLASSES.index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
                f"{(y2 - y1) / height}\n"
                for (x1, y1, x2, y2), name in _objects(record)
            ]
            (root / split / "labels" / f"{record.image_id}.txt").write_text("".join(lines))
    paths = "".join(
        f"{key}: ../{split}/images\n" for key, split in (("train", "train"), ("val", "valid"), ("test", "test"))
    )
    (root / "data.yaml").write_text(f"{paths}\nnc: 2\nnames: {CLASSES}\n")


def _write_via(path, data):
    content = {}
    for record in data:
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
                "region_attributes": {"class": name},
            }
            for (x1, y1, x2, y2), name in _objects(record)
        ]
        file = f"{record.image_id}.png"
        content[f"{file}-1"] = {"filename": file, "size": -1, "regions": regions, "file_attributes": {}}
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}))


def _write_voc(root, data):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for record in data:
        Image.fromarray(record.image).save(root / "JPEGImages" / f"{record.image_id}.png")
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>"
            f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), name in _objects(record)
        )
        (root / "Annotations" / f"{record.image_id}.xml").write_text(
            f"<annotation><size><width>{record.width}</width><height>{record.height}</height><depth>3</depth></size>"
            f"{objects}</annotation>"
        )
    names = [str(record.image_id) for record in data]
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(names[:4]))
    (root / "ImageSets/Main/test.txt").write_text("\n".join(names[4:]))


def pages(root):
    """README.md and the pages that are not made of docstrings."""
    return [root / "README.md", *sorted((root / "docs" / "pages").glob("*.md"))]
