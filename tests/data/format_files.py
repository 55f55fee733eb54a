"""Two photos with a rectangle and a polygon each, written as annotation tools export them."""

import csv
import io
import json

import numpy as np
from PIL import Image

from keras_rcnn.data import load_coco
from keras_rcnn.data.masks import full_mask

WIDTH, HEIGHT = 160, 120
# (class, box or polygon), in px that are no whole numbers
OBJECTS = {
    "000": [("red", [25.5, 19.25, 53, 48.75]), ("blue", [103, 9, 151.5, 12, 140, 30.5, 110, 28])],
    "001": [("red", [5.25, 8, 35, 43.5]), ("blue", [87, 85, 114, 85.5, 114.5, 112, 90, 110, 85, 95])],
}


def photos(folder, names=tuple(OBJECTS), ending=".jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        noise = np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{name}{ending}", format="JPEG")
    return folder


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def coco_tree(objects=OBJECTS, ending=".jpg"):
    images, annotations = [], []
    for i, (name, items) in enumerate(objects.items(), 1):
        images.append({"id": i, "file_name": f"{name}{ending}", "width": WIDTH, "height": HEIGHT})
        for label, sides in items:
            item = {
                "id": len(annotations) + 1,
                "image_id": i,
                "category_id": {"red": 1, "blue": 2}[label],
                "iscrowd": 0,
            }
            if len(sides) == 4:
                x1, y1, x2, y2 = sides
            else:
                x1, y1, x2, y2 = min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])
                item["segmentation"] = [sides]
            annotations.append(item | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }


def truth(folder, objects=OBJECTS):
    """The data set as load_coco reads it."""
    photos(folder / "truth", objects)
    return load_coco(write(folder / "truth/truth.json", coco_tree(objects)), folder / "truth")


def same(dataset, other, masks=True):
    """Boxes to 0.01 px, classes by their names, masks to the px."""
    stem = lambda record: str(record.image).replace("\\", "/").rpartition("/")[2].rpartition(".")[0][-3:]  # noqa: E731
    assert sorted(dataset.class_names) == sorted(other.class_names)
    assert sorted(map(stem, dataset)) == sorted(map(stem, other))
    wanted = {stem(record): record for record in other}
    for record in dataset:
        good = wanted[stem(record)]
        assert (record.height, record.width) == (good.height, good.width)
        np.testing.assert_allclose(record.boxes, good.boxes, atol=0.01)
        names = [dataset.class_names[label] for label in record.labels]
        assert names == [other.class_names[label] for label in good.labels]
        for i in range(len(names)) if masks else ():
            theirs = None if good.segmentations is None else good.segmentations[i]
            ours = None if record.segmentations is None else record.segmentations[i]
            assert (ours is None) == (theirs is None)
            if ours is not None:
                size = record.height, record.width
                np.testing.assert_array_equal(full_mask(ours, *size), full_mask(theirs, *size))


def via_regions(items, attribute="class"):
    regions = []
    for label, sides in items:
        if len(sides) == 4:
            x1, y1, x2, y2 = sides
            shape = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        else:
            shape = {"name": "polygon", "all_points_x": sides[::2], "all_points_y": sides[1::2]}
        regions.append({"shape_attributes": shape, "region_attributes": {attribute: label} if attribute else {}})
    return regions


def via(objects=OBJECTS, project=False, as_dict=False, attribute="class"):
    content = {}
    for name, items in objects.items():
        regions = via_regions(items, attribute)
        regions = {str(i): region for i, region in enumerate(regions)} if as_dict else regions
        content[f"{name}.jpg1234"] = {
            "filename": f"{name}.jpg",
            "size": 1234,
            "regions": regions,
            "file_attributes": {},
        }
    if not project:
        return content
    attributes = {"region": {"class": {"type": "text"}}, "file": {}}
    return {
        "_via_settings": {"ui": {}, "core": {}, "project": {"name": "x"}},
        "_via_img_metadata": content,
        "_via_attributes": attributes,
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(content),
    }


def via_csv(objects=OBJECTS, sign=""):
    stream = io.StringIO()
    table = csv.writer(stream)
    columns = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    table.writerow((sign + columns).split(","))
    for name, items in objects.items():
        for i, region in enumerate(via_regions(items)):
            shape, attributes = map(json.dumps, region.values())
            table.writerow([f"{name}.jpg", 1234, "{}", len(items), i, shape, attributes])
        if not items:
            table.writerow([f"{name}.jpg", 1234, "{}", 0, 0, "{}", "{}"])
    return stream.getvalue()


def labelme(name, items, path=None, **changes):
    shapes = []
    for label, sides in items:
        points = np.reshape(sides, (-1, 2)).tolist()
        kind = "rectangle" if len(sides) == 4 else "polygon"
        shapes.append({"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}})
    return {
        "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": path or f"{name}.jpg", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes,
    }  # fmt: skip


def cvat(objects=OBJECTS, labels=("red", "blue"), extra=""):
    tags = "".join(f"<label><name>{name}</name><color>#ff0000</color><type>any</type></label>" for name in labels)
    images = ""
    for i, (name, items) in enumerate(objects.items()):
        shapes = ""
        for label, sides in items:
            if len(sides) == 4:
                place = " ".join(f'{key}="{side}"' for key, side in zip(("xtl", "ytl", "xbr", "ybr"), sides))
                shapes += f'<box label="{label}" source="manual" occluded="0" {place} z_order="0"></box>'
            else:
                points = ";".join(f"{x},{y}" for x, y in zip(sides[::2], sides[1::2]))
                shapes += (
                    f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="0"></polygon>'
                )
        images += f'<image id="{i}" name="{name}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}{extra}</image>'
    meta = f"<meta><task><id>1</id><labels>{tags}</labels></task><dumped>2024-01-01</dumped></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{images}</annotations>'


def label_studio(objects=OBJECTS, prefix="/data/upload/1/1a2b3c4d-"):
    tasks = []
    for i, (name, items) in enumerate(objects.items(), 1):
        results = []
        for number, (label, sides) in enumerate(items):
            if len(sides) == 4:
                x1, y1, x2, y2 = sides
                sides = {"x": x1 / WIDTH * 100, "y": y1 / HEIGHT * 100, "width": (x2 - x1) / WIDTH * 100}
                value = {**sides, "height": (y2 - y1) / HEIGHT * 100, "rotation": 0, "rectanglelabels": [label]}
                kind = "rectanglelabels"
            else:
                points = [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in zip(sides[::2], sides[1::2])]
                value, kind = {"points": points, "closed": True, "polygonlabels": [label]}, "polygonlabels"
            size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
            tags = {"id": f"r{i}{number}", "from_name": "label", "to_name": "image", "type": kind, "origin": "manual"}
            results.append(size | {"value": value} | tags)
        annotation = {"id": i, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False}
        file = f"{prefix}{name}.jpg"
        upload = f"1a2b3c4d-{name}.jpg"
        tasks.append({"id": i, "annotations": [annotation], "file_upload": upload, "data": {"image": file}, "meta": {}})
    return tasks


def create_ml(objects=OBJECTS, key="image"):
    return [
        {
            key: f"{name}.jpg",
            "annotations": [
                {
                    "label": label,
                    "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
                }
                for label, (x1, y1, x2, y2) in items
            ],
        }
        for name, items in objects.items()
    ]


def yolo(items, names=("red", "blue")):
    lines = []
    for label, sides in items:
        scaled = [side / (WIDTH, HEIGHT)[i % 2] for i, side in enumerate(sides)]
        if len(scaled) == 4:
            x1, y1, x2, y2 = scaled
            scaled = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        lines.append(" ".join([str(names.index(label)), *(f"{side:.8f}" for side in scaled)]))
    return "".join(line + "\n" for line in lines)


def supervisely(items):
    objects = []
    for label, sides in items:
        points = np.reshape(sides, (-1, 2)).tolist()
        kind = "rectangle" if len(sides) == 4 else "polygon"
        objects.append(
            {"id": 1, "classId": 2, "description": "", "geometryType": kind, "tags": [], "classTitle": label,
             "points": {"exterior": points, "interior": []}}
        )  # fmt: skip
    return {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}


BOXES = {
    name: [(label, sides if len(sides) == 4 else [103, 9, 151.5, 30.5]) for label, sides in items]
    for name, items in OBJECTS.items()
}
