"""A table with one box a row -> records."""

import csv
import io
import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np

from keras_rcnn.data.fields import number, shown
from keras_rcnn.data.formats.recognised import kind_of_text, way_out
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
from keras_rcnn.data.reading import read_text
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import FilePath, OnBad

_BoxFormat = Literal["xyxy", "xywh"]
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
_CHUNK = 500  # rows; of fewer than 700 new lists the garbage collector takes no notice


def load_csv(
    file: FilePath,
    images: FilePath,
    *,
    box_format: _BoxFormat = "xyxy",
    class_names: Sequence[str] | None = None,
    on_bad: OnBad = "error",
    delimiter: str | None = None,
    columns: str | Sequence[str] | None = None,
    encoding: str | None = None,
    relative: bool = False,
) -> Dataset:
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
    if not os.path.isdir(folder):
        raise DataError(f"{file}: no image folder {folder}")
    table = _read(file, delimiter, box_format, columns, encoding, problems)
    names, labels, lines = table.names, table.labels, table.lines
    boxes = np.concatenate([np.zeros((0, 4)), *table.boxes])
    if class_names is not None:
        class_names = list(class_names)
    objects = _objects(table, boxes, class_names, problems)
    place_of = {}
    owners = [place_of.setdefault(name, len(place_of)) for name in names]
    place_of.pop("", None)
    if not place_of:
        problems.finish()
        raise DataError(f"{file}: no images in the table")

    paths, tried = Finder(folder, file).find(place_of)
    sizes = np.full((len(names), 2), np.nan)
    for name, place in place_of.items():
        if name in tried:
            problems.add(folder / name, tried[name])
        else:
            size = checked_size(paths[name], None, problems)
            if size is not None:
                sizes[place] = size
    if class_names is None:
        class_names = sorted({labels[i] for i in objects})
    owners = np.array(owners)
    objects = objects[np.isfinite(sizes[owners[objects], 0])]
    owners, raw, label_of = owners[objects], boxes[objects], {name: i for i, name in enumerate(class_names)}
    classes, lines = np.array([label_of[labels[i]] for i in objects], np.int32), [lines[i] for i in objects]
    _check_format(raw, sizes[owners], file, box_format, relative, on_bad)

    px = in_px(raw, sizes[owners]) if relative else raw
    if box_format == "xywh":
        px = np.concatenate([px[:, :2], px[:, :2] + px[:, 2:]], axis=1)
    px, good, reasons = clean_boxes(px, *sizes[owners].T, raw=raw)
    place_name = {place: name for name, place in place_of.items()}
    for i, reason in reasons.items():
        problems.add(f"row {lines[i]} ({place_name[owners[i]]})", reason)
    px, classes, owners = px[good], classes[good], owners[good]
    order = np.argsort(owners, kind="stable")
    px, classes, owners = px[order], classes[order], owners[order]
    records = []
    for name, place in place_of.items():
        if np.isfinite(sizes[place, 0]):
            first, last = np.searchsorted(owners, [place, place + 1])
            height, width = map(int, sizes[place])
            records.append(
                Record(str(paths[name]), name, height, width, boxes=px[first:last], labels=classes[first:last])
            )
    problems.finish()
    return Dataset(records, class_names, name=file, bad=problems.found)


def is_table(text: str) -> bool:
    """Whether a text begins as a table of boxes: with columns that are named as such, or four numbers among six."""
    try:
        row = next(csv.reader(text.splitlines(), delimiter=_sniffed(text)), [])
    except csv.Error:
        return False
    counted = sum(number(cell, ",") is not None for cell in row)
    places = _header([cell.strip() for cell in row], "xywh") or {}
    return all(key in places for key in _ORDER) or (len(row) == len(_ORDER) and counted >= 4)


def image_names(
    file: FilePath,
    delimiter: str | None = None,
    columns: str | Sequence[str] | None = None,
    encoding: str | None = None,
) -> list[str]:
    """The names of the images in a table, as `load_csv` finds them."""
    table = _read(Path(file), delimiter, "xywh", columns, encoding, Problems(file, "skip"))
    return list(dict.fromkeys(name for name in table.names if name))


def _check_format(
    raw: np.ndarray, sizes: np.ndarray, file: Path, box_format: _BoxFormat, relative: bool, on_bad: OnBad
) -> None:
    if relative:
        return
    refuse_relative(raw, sizes, file, "pass relative=True to take them as shares")
    other = "xywh" if box_format == "xyxy" else "xyxy"
    refuse_swapped(raw, sizes, file, f"pass box_format='{other}'", given=box_format, on_bad=on_bad)


class _Table:
    """The columns of a table that are read, row by row.

    Rows are not kept: a million lists keep the garbage collector busy for longer than the reading takes.
    """

    def __init__(self, places: dict[str, int], decimal: str, problems: Problems) -> None:
        self.places, self.decimal, self.problems = places, decimal, problems
        self.names, self.labels, self.lines, self.boxes = [], [], [], []
        self.unread = {}  # place of a row -> its cells, where the box is not four numbers
        self._get = itemgetter(*(places[key] for key in _ORDER))
        self._last = 0

    def add(self, rows: list[list[str]], lines: list[int]) -> None:
        """Takes rows and the numbers of their lines, and notes problems of rows that are none."""
        count = max(self.places.values()) + 1
        last, good = self._last, []
        for i, (row, line) in enumerate(zip(rows, lines)):
            if len(row) < count:
                self.problems.add(f"row {line}", f"{len(row)} columns, expected at least {count}")
            elif line > last + 1 and any("\n" in cell or "\r" in cell for cell in row):
                said = f"a cell over several lines ({shown(row)}): is a quotation mark not closed?"
                self.problems.add(f"row {line}", said)
            else:
                good.append(i)
            last = line
        self._last = last
        if len(good) < len(rows):
            rows, lines = [rows[i] for i in good], [lines[i] for i in good]
        if not rows:
            return
        image, *sides, label = zip(*map(self._get, rows))
        boxes = np.empty((len(rows), 4))
        for i, cells in enumerate(sides):
            try:
                boxes[:, i] = list(map(float, cells))
            except ValueError:
                values = [number(cell, self.decimal) for cell in cells]
                boxes[:, i] = [np.nan if value is None else value for value in values]
                for place, value in enumerate(values):
                    if value is None:
                        self.unread[len(self.names) + place] = [column[place].strip() for column in sides]
        self.names += [cell.strip() for cell in image]
        self.labels += [cell.strip() for cell in label]
        self.lines += lines
        self.boxes.append(boxes)


def _objects(table: _Table, boxes: np.ndarray, class_names: Sequence[str] | None, problems: Problems) -> np.ndarray:
    """The places of the rows that have an object; problems are noted."""
    classes = None if class_names is None else set(class_names)
    known = {label for label in set(table.labels) if label and (classes is None or label in classes)}
    good = np.array([bool(name) and label in known for name, label in zip(table.names, table.labels)], bool)
    good[list(table.unread)] = False
    for i in np.flatnonzero(~good):
        where, cells, label = f"row {table.lines[i]}", table.unread.get(i), table.labels[i]
        if not table.names[i]:
            problems.add(where, "no image name")
        elif (cells is not None and not any(cells)) or (not label and not boxes[i].any()):
            continue
        elif cells is not None:
            problems.add(where, f"box {shown(cells)} is not four numbers")
        else:
            among = f"; the classes are {', '.join(class_names)[:400]}" if class_names is not None else ""
            problems.add(where, f"unknown class {shown(label)}{among}")
    return np.flatnonzero(good)


def _read(
    file: Path,
    delimiter: str | None,
    box_format: _BoxFormat,
    columns: str | Sequence[str] | None,
    encoding: str | None,
    problems: Problems,
) -> _Table:
    """The `_Table` of a file."""
    text = read_text(file, encoding)
    if text[:4] == "sep=" and text[5:6] in ("\r", "\n"):  # a line for Excel
        delimiter, text = text[4] if delimiter is None else delimiter, "\n" + text.partition("\n")[2]
    if delimiter is None:
        delimiter = _sniffed(text)
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter must be one character, got {delimiter!r}")
    decimal = "." if delimiter == "," else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    table, rows, lines = None, [], []
    try:
        for row in reader:
            if row and (row[0].strip() or any(cell.strip() for cell in row)):
                rows.append(row)
                lines.append(reader.line_num)
                if len(rows) == _CHUNK:
                    table = table or _table(rows, lines, decimal, box_format, columns, file, text, problems)
                    table.add(rows, lines)
                    rows, lines = [], []
    except csv.Error as error:
        last = lines[-1] if lines else 0
        raise DataError(
            f"{file}: not a readable table ({error}, rows {last + 1} to {reader.line_num}; is a quotation mark not "
            "closed?)"
        ) from error
    if table is None and not rows:
        raise DataError(f"{file}: no images in the table")
    table = table or _table(rows, lines, decimal, box_format, columns, file, text, problems)
    table.add(rows, lines)
    return table


def _table(
    rows: list[list[str]],
    lines: list[int],
    decimal: str,
    box_format: _BoxFormat,
    columns: str | Sequence[str] | None,
    file: Path,
    text: str,
    problems: Problems,
) -> _Table:
    """An empty table with the columns that the first rows tell; a row that names them is taken away."""
    if columns is not None:
        columns = columns.split(",") if isinstance(columns, str) else list(columns)
        places = _header([str(column).strip() for column in columns], box_format, given=True) or {}
        missing = [key for key in _ORDER if key not in places]
        if missing:
            raise ValueError(f"columns = {columns}: there is none for {', '.join(missing)}")
        return _Table(places, decimal, problems)
    header = [cell.strip() for cell in rows[0]]
    places = _header(header, box_format)
    if places is None:
        return _Table(_headless(rows, decimal, file, text), decimal, problems)
    missing = [key for key in _ORDER if key not in places]
    if missing:
        hint = "; for width and height pass box_format='xywh'" if box_format == "xyxy" and "x2" in missing else ""
        named = f"no column for {', '.join(missing)} among {', '.join(header)[:400]}"
        raise DataError(f"{file}: {named}{hint}{_other(text)}")
    del rows[0], lines[0]
    return _Table(places, decimal, problems)


def _header(cells: list[str], box_format: _BoxFormat, given: bool = False) -> dict[str, int] | None:
    """`{column: its place}` by a first row that names some; None if it is a row of the table."""
    cells = [cell.lower() for cell in cells]
    if not given and sum(number(cell, ",") is not None for cell in cells) >= 4:
        return None  # whatever its class is called: "left", "name"
    places = {}
    for key, words in _COLUMNS.items():
        if box_format == "xywh":  # width and height are the box's; in an xyxy table they are mostly the image's
            words = _WIDTH_HEIGHT.get(key, ()) + words + ((key,) if given else ())
        matches = [word for word in words if word in cells]
        if matches:
            places[key] = cells.index(matches[0])
    return places or None


def _headless(rows: list[list[str]], decimal: str, file: Path, text: str) -> dict[str, int]:
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


def _sniffed(text: str) -> str:
    """The delimiter that makes the most of the first lines."""
    lines = [line for line in text[:20_000].splitlines() if line.strip()][:20]

    def columns(delimiter: str) -> tuple[int, int, int]:
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


def _other(text: str) -> str:
    format_name = kind_of_text(text[:4096])
    return way_out(None if format_name == "a table (CSV)" else format_name)
