"""A table with one box a row -> records."""

import csv
from pathlib import Path

import numpy as np

from keras_rcnn.data.records import DataError, Dataset, Problems, Record, checked_size, clean_boxes, refuse_swapped

_COLUMNS = {
    "image": ("image", "filename", "file_name", "file", "path", "image_path", "filepath", "image_name", "img"),
    "x1": ("x1", "xmin", "x_min", "left", "x"),
    "y1": ("y1", "ymin", "y_min", "top", "y"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "label": ("label", "class", "class_name", "name", "category"),
}
_WIDTH_HEIGHT = {"x2": ("w", "width", "bbox_width", "box_width"), "y2": ("h", "height", "bbox_height", "box_height")}
_ORDER = ("image", "x1", "y1", "x2", "y2", "label")


def load_csv(file, images, *, box_format="xyxy", class_names=None, on_bad="error", delimiter=","):
    """Reads a data set from a table with one object a row; a row with an empty box is an image without objects.

    Args:
        file: Path of the table. Its first row names the columns: image, x1, y1, x2, y2, label, or the usual other words
            for them (filename, xmin, ..., class), in any order. Without such a row they stand in this order.
        images: Folder that the image names are relative to.
        box_format: `"xyxy"`, or `"xywh"` if the columns are left, top, width and height.
        class_names: Names in the order of the labels. None: those in the table, sorted.
        on_bad: `"error"` refuses the table if anything is wrong with it; `"skip"` leaves bad rows out and logs one
            warning.
        delimiter: What separates the columns.

    Returns:
        `Dataset`; image ids are the names in the table.

    Raises:
        DataError: What is wrong, with the file, the row and the value.
    """
    if box_format not in ("xyxy", "xywh"):
        raise ValueError(f"box_format must be 'xyxy' or 'xywh', got {box_format!r}")
    file, folder = Path(file), Path(images)
    problems = Problems(file, on_bad)
    rows, columns = _read(file, delimiter, box_format)

    objects, names = {}, set()  # image -> [(row number, box, class name)]
    for number, row in rows:
        row = [cell.strip() for cell in row]
        if len(row) <= max(columns.values()):
            problems.add(f"row {number}", f"{len(row)} columns, expected at least {max(columns.values()) + 1}")
            continue
        image, *box, name = (row[columns[key]] for key in _ORDER)
        if not image:
            problems.add(f"row {number}", "no image name")
            continue
        of_image = objects.setdefault(image, [])
        if not any(box):
            continue
        try:
            box = [float(side) for side in box]
        except ValueError:
            problems.add(f"row {number}", f"box {box} is not four numbers")
            continue
        if not name or (class_names is not None and name not in class_names):
            known = f"; the classes are {', '.join(class_names)}" if class_names is not None else ""
            problems.add(f"row {number}", f"unknown class {name!r}{known}")
            continue
        names.add(name)
        of_image.append((number, box, name))
    if not objects:
        problems.finish()
        raise DataError(f"{file}: no images in the table")

    sizes = {image: checked_size(folder / image, None, problems) for image in objects}
    usable = [(box, sizes[image]) for image, items in objects.items() if sizes[image] for _, box, _ in items]
    refuse_swapped(
        [box for box, _ in usable],
        [size for _, size in usable],
        file,
        f"pass box_format='{'xywh' if box_format == 'xyxy' else 'xyxy'}'",
        given=box_format,
        on_bad=on_bad,
    )
    class_names = sorted(names) if class_names is None else list(class_names)
    records = [
        _record(folder / image, image, sizes[image], items, class_names, box_format, problems)
        for image, items in objects.items()
        if sizes[image]
    ]
    problems.finish()
    return Dataset(records, class_names, name=file)


def _record(path, image_id, size, items, class_names, box_format, problems):
    raw = np.array([box for _, box, _ in items], np.float64).reshape(-1, 4)
    boxes = raw if box_format == "xyxy" else np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
    boxes, good, reasons = clean_boxes(boxes, *size, raw)
    for i, reason in reasons.items():
        problems.add(f"row {items[i][0]} ({image_id})", reason)
    kept = np.flatnonzero(good)
    labels = [class_names.index(items[i][2]) for i in kept]
    return Record(str(path), image_id, *size, boxes=boxes[kept], labels=labels)


def _read(file, delimiter, box_format):
    """`([(row number, cells)], {column: its place})`."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable table ({error})") from error
    if not rows:
        raise DataError(f"{file}: no images in the table")
    header = [cell.strip().lower() for cell in rows[0][1]]
    columns = {}
    for key, words in _COLUMNS.items():
        if box_format == "xywh":  # width and height are the box's; in an xyxy table they are mostly the image's
            words = _WIDTH_HEIGHT.get(key, ()) + words
        found = [word for word in words if word in header]
        if found:
            columns[key] = header.index(found[0])
    if len(columns) == len(_COLUMNS):
        return rows[1:], columns
    if columns:
        missing = [key for key in _ORDER if key not in columns]
        hint = "; for width and height pass box_format='xywh'" if box_format == "xyxy" and "x2" in missing else ""
        raise DataError(f"{file}: no column for {', '.join(missing)} among {', '.join(header)}{hint}")
    if len(header) != len(_ORDER):
        raise DataError(f"{file}: {len(header)} columns ({', '.join(header)}), expected {', '.join(_ORDER)}")
    return rows, {key: place for place, key in enumerate(_ORDER)}
