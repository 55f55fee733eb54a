"""A table with one box a row -> records."""

import csv
import io
from operator import itemgetter
from pathlib import Path

import numpy as np

from keras_rcnn.data.fields import number, shown
from keras_rcnn.data.files import read_text
from keras_rcnn.data.formats import kind_of_text, way_out
from keras_rcnn.data.names import ENDINGS, Finder
from keras_rcnn.data.problems import (
    DataError,
    Problems,
    checked_size,
    clean_boxes,
    in_px,
    refuse_relative,
    refuse_swapped,
)
from keras_rcnn.data.records import Dataset, Record

_COLUMNS = {
    "image": (
        "image", "filename", "file_name", "file", "path", "image_path", "filepath", "image_name", "img", "imageid",
        "image_id",
    ),
    "x1": ("x1", "xmin", "x_min", "left", "x"),
    "y1": ("y1", "ymin", "y_min", "top", "y"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "label": ("label", "class", "class_name", "name", "category", "labelname", "label_name", "classname"),
}  # fmt: skip
_WIDTH_HEIGHT = {"x2": ("w", "width", "bbox_width", "box_width"), "y2": ("h", "height", "bbox_height", "box_height")}
_ORDER = ("image", "x1", "y1", "x2", "y2", "label")
_DELIMITERS = (",", ";", "\t", "|")


def load_csv(
    file,
    images,
    *,
    box_format="xyxy",
    class_names=None,
    on_bad="error",
    delimiter=None,
    columns=None,
    encoding=None,
    relative=False,
):
    """Reads a data set from a table with one object a row.

    A row whose box is empty (or 0, 0, 0, 0 without a class) is an image without objects. Files are found under the
    names of other systems, where these can mean one file only, see `Finder`; that is said once.

    Args:
        file: Path of the table. Its first row names the columns: image, x1, y1, x2, y2, label, or the usual other words
            for them (filename, xmin, ..., class), in any order. Without such a row they stand in this order.
        images: Folder that the image names are relative to.
        box_format: `"xyxy"`, or `"xywh"` if the columns are left, top, width and height.
        class_names: Names in the order of the labels. None: those in the table, sorted.
        on_bad: `"error"` refuses the table if anything is wrong with it; `"skip"` leaves bad rows out and logs one
            warning.
        delimiter: What separates the columns. None: a comma, semicolon, tab or `|`, whichever makes columns. But for
            the comma, numbers may have a decimal comma.
        columns: Names of the columns of a table whose first row does not name them, e.g. `"image,label,x1,y1,x2,y2"` or
            a list; an empty name for a column that is not read.
        encoding: Of the file. None: UTF-8, UTF-16 with its mark, or with a warning Windows' cp1252.
        relative: The boxes are shares of the image's width and height, not px.

    Returns:
        `Dataset`; image ids are the names in the table.

    Raises:
        DataError: What is wrong, with the file, the row and the value.

    Example:

    ```python
    dataset = load_csv("boxes.csv", "photos", box_format="xywh", delimiter=";")
    ```
    """
    if box_format not in ("xyxy", "xywh"):
        raise ValueError(f"box_format must be 'xyxy' or 'xywh', got {box_format!r}")
    file, folder = Path(file), Path(images)
    problems = Problems(file, on_bad)
    if not folder.is_dir():
        raise DataError(f"{file}: no image folder {folder}")
    rows, lines, places, decimal = _read(file, delimiter, box_format, columns, encoding, problems)
    names, boxes, unread, labels = _columns(rows, places, decimal)
    if class_names is not None:
        class_names = list(class_names)
    objects = _objects(lines, names, boxes, unread, labels, class_names, rows, places, problems)
    place_of = {}
    owners = [place_of.setdefault(name, len(place_of)) for name in names]
    place_of.pop("", None)
    if not place_of:
        problems.finish()
        raise DataError(f"{file}: no images in the table")

    found, tried = Finder(folder, file).find(place_of)
    sizes = np.full((len(names), 2), np.nan)
    for name, place in place_of.items():
        if name in tried:
            problems.add(folder / name, tried[name])
        else:
            size = checked_size(found[name], None, problems)
            if size is not None:
                sizes[place] = size
    if class_names is None:
        class_names = sorted({labels[i] for i in objects})
    owners = np.array(owners)
    objects = objects[np.isfinite(sizes[owners[objects], 0])]
    owners, raw, label_of = owners[objects], boxes[objects], {name: i for i, name in enumerate(class_names)}
    kinds, lines = np.array([label_of[labels[i]] for i in objects], np.int32), [lines[i] for i in objects]
    _check_format(raw, sizes[owners], file, box_format, relative, on_bad)

    px = in_px(raw, sizes[owners]) if relative else raw
    if box_format == "xywh":
        px = np.concatenate([px[:, :2], px[:, :2] + px[:, 2:]], axis=1)
    px, good, reasons = clean_boxes(px, *sizes[owners].T, raw)
    names = list(place_of)
    place_name = {place: name for name, place in place_of.items()}
    for i, reason in reasons.items():
        problems.add(f"row {lines[i]} ({place_name[owners[i]]})", reason)
    px, kinds, owners = px[good], kinds[good], owners[good]
    order = np.argsort(owners, kind="stable")
    px, kinds, owners = px[order], kinds[order], owners[order]
    records = []
    for name in names:
        place = place_of[name]
        if np.isfinite(sizes[place, 0]):
            first, last = np.searchsorted(owners, [place, place + 1])
            height, width = map(int, sizes[place])
            records.append(
                Record(str(found[name]), name, height, width, boxes=px[first:last], labels=kinds[first:last])
            )
    problems.finish()
    return Dataset(records, class_names, name=file, skipped=len(problems.found))


def _check_format(raw, sizes, file, box_format, relative, on_bad):
    if relative:
        return
    refuse_relative(raw, sizes, file, "pass relative=True to take them as shares")
    other = "xywh" if box_format == "xyxy" else "xyxy"
    refuse_swapped(raw, sizes, file, f"pass box_format='{other}'", given=box_format, on_bad=on_bad)


def _objects(lines, names, boxes, unread, labels, class_names, rows, places, problems):
    """The places of the rows that have an object; problems are noted."""
    classes = None if class_names is None else set(class_names)
    zero = (boxes == 0).all(axis=1)
    known = {label for label in set(labels) if label and (classes is None or label in classes)}
    good = ~unread & np.array([bool(name) and label in known for name, label in zip(names, labels)], bool)
    for i in np.flatnonzero(~good):
        where = f"row {lines[i]}"
        box = [rows[i][places[key]].strip() for key in _ORDER[1:5]]
        if not names[i]:
            problems.add(where, "no image name")
        elif not any(box) or (zero[i] and not labels[i]):
            continue
        elif unread[i]:
            problems.add(where, f"box {shown(box)} is not four numbers")
        else:
            among = f"; the classes are {', '.join(class_names)[:400]}" if class_names is not None else ""
            problems.add(where, f"unknown class {shown(labels[i])}{among}")
    return np.flatnonzero(good)


def _columns(rows, places, decimal):
    """`(names, boxes float64 [n, 4], where one of them is no number bool [n], labels)`."""
    boxes, unread = np.zeros((len(rows), 4)), np.zeros(len(rows), bool)
    if not rows:
        return [], boxes, unread, []
    image, *sides, label = zip(*map(itemgetter(*(places[key] for key in _ORDER)), rows))
    for i, cells in enumerate(sides):
        try:
            boxes[:, i] = list(map(float, cells))
        except ValueError:
            values = [number(cell, decimal) for cell in cells]
            boxes[:, i] = [np.nan if value is None else value for value in values]
            unread |= [value is None for value in values]
    return [cell.strip() for cell in image], boxes, unread, [cell.strip() for cell in label]


def _read(file, delimiter, box_format, columns, encoding, problems):
    """`(rows, their numbers, {column: its place}, the decimal sign)`."""
    text = read_text(file, encoding)
    if text[:4] == "sep=" and text[5:6] in ("\r", "\n"):  # a line for Excel
        delimiter, text = text[4] if delimiter is None else delimiter, "\n" + text.partition("\n")[2]
    if delimiter is None:
        delimiter = _sniffed(text)
    decimal = "." if delimiter == "," else ","
    rows, numbers = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for row in reader:
            if row and (row[0].strip() or any(cell.strip() for cell in row)):
                rows.append(row)
                numbers.append(reader.line_num)
    except (csv.Error, TypeError) as error:
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise ValueError(f"delimiter must be one character, got {delimiter!r}") from error
        line, last = reader.line_num, numbers[-1] if numbers else 0
        raise DataError(
            f"{file}: not a readable table ({error}, rows {last + 1} to {line}; is a quotation mark not closed?)"
        ) from error
    if not rows:
        raise DataError(f"{file}: no images in the table")
    header = [cell.strip() for cell in rows[0]]
    if columns is None:
        places = _header(header, box_format)
        if places is None:
            places = _headless(rows, decimal, file, text)
        else:
            missing = [key for key in _ORDER if key not in places]
            if missing:
                sizes = box_format == "xyxy" and "x2" in missing
                hint = "; for width and height pass box_format='xywh'" if sizes else ""
                named = f"no column for {', '.join(missing)} among {', '.join(header)[:400]}"
                raise DataError(f"{file}: {named}{hint}{_other(text)}")
            rows, numbers = rows[1:], numbers[1:]
    else:
        columns = columns.split(",") if isinstance(columns, str) else list(columns)
        places = _header([str(column).strip() for column in columns], box_format, given=True) or {}
        missing = [key for key in _ORDER if key not in places]
        if missing:
            raise ValueError(f"columns = {columns}: there is none for {', '.join(missing)}")
    return *_whole(rows, numbers, max(places.values()) + 1, problems), places, decimal


def _whole(rows, numbers, count, problems):
    """The rows that have enough columns, each on one line."""
    good, last = [], numbers[0] - 1 if numbers else 0
    for i, (row, line) in enumerate(zip(rows, numbers)):
        if len(row) < count:
            problems.add(f"row {line}", f"{len(row)} columns, expected at least {count}")
        elif line > last + 1 and any("\n" in cell or "\r" in cell for cell in row):
            problems.add(f"row {line}", f"a cell over several lines ({shown(row)}): is a quotation mark not closed?")
        else:
            good.append(i)
        last = line
    if len(good) == len(rows):
        return rows, numbers
    return [rows[i] for i in good], [numbers[i] for i in good]


def _header(cells, box_format, given=False):
    """`{column: its place}` by a first row that names some; None if it is a row of the table."""
    cells = [cell.lower() for cell in cells]
    if not given and sum(number(cell, ",") is not None for cell in cells) >= 4:
        return None  # whatever its class is called: "left", "name"
    places = {}
    for key, words in _COLUMNS.items():
        if box_format == "xywh":  # width and height are the box's; in an xyxy table they are mostly the image's
            words = _WIDTH_HEIGHT.get(key, ()) + words + ((key,) if given else ())
        found = [word for word in words if word in cells]
        if found:
            places[key] = cells.index(found[0])
    return places or None


def _headless(rows, decimal, file, text):
    """The columns of a table that does not name them: image, x1, y1, x2, y2 and label, image and label anywhere."""
    width = len(rows[0])
    if width != len(_ORDER):
        raise DataError(
            f"{file}: {width} columns ({shown(', '.join(rows[0]), 200)}) and no row that names them, expected "
            f"{', '.join(_ORDER)}; name them by columns=[...]{_other(text)}"
        )
    for row in rows[:100]:
        words = [i for i, cell in enumerate(row) if number(cell, decimal) is None]
        if len(row) == width and len(words) == 2 and all(row[i].strip() for i in words):
            numbers = [i for i in range(width) if i not in words]
            pictures = [i for i in words if row[i].strip().lower().endswith(ENDINGS)]
            image = pictures[0] if len(pictures) == 1 else words[0]
            label = words[0] if image == words[1] else words[1]
            return dict(zip(_ORDER, [image, *numbers, label]))
    return {key: place for place, key in enumerate(_ORDER)}


def _sniffed(text):
    """The delimiter that makes the most of the first lines."""
    lines = [line for line in text[:20_000].splitlines() if line.strip()][:20]

    def columns(delimiter):
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            return 0, 0, 0
        if not rows:
            return 0, 0, 0
        named = len(_header(rows[0], "xywh", given=True) or ())
        counted = sum(number(cell, "." if delimiter == "," else ",") is not None for cell in rows[-1])
        return max(named, min(counted, 4)), sum(len(row) == len(rows[0]) for row in rows), len(rows[0])

    return max(_DELIMITERS, key=columns)


def _other(text):
    kind = kind_of_text(text[:4096])
    return way_out(None if kind == "a table (CSV)" else kind)
