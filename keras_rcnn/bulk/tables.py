"""Tables of rows: Parquet and JSON lines, written a part at a time, joined and read back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keras_rcnn.bulk.rows import PhotoRow
from keras_rcnn.interfaces import FilePath

if TYPE_CHECKING:
    import pyarrow

ENDINGS = (".parquet", ".jsonl", ".json")
_GROUP = 4096  # rows of a Parquet row group at most,
_GROUP_BYTES = 64 << 20  # or bytes of them in memory
_ARRAYS = {"boxes": (np.float32, (-1, 4)), "scores": (np.float32, (-1,)), "labels": (np.int32, (-1,))}


class TableError(ValueError):
    """A table, or a part of one, that is not what this package writes."""


def ending_of(path: FilePath) -> str:
    """The ending of a table's name.

    Raises:
        ValueError: it is none of a table.
        ImportError: it is Parquet's, and pyarrow is not there.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{path}: a table is a .parquet or .jsonl file, or a .json file of COCO results")
    if ending == ".parquet":
        arrow()
    return ending


def arrow() -> Any:
    """pyarrow with its Parquet, or an ImportError that says how to install it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"Parquet needs pyarrow: pip install 'keras-rcnn-zoo[bulk]' ({error}); .jsonl does not"
        ) from error
    return pyarrow


def schema() -> pyarrow.Schema:
    """The columns of a table, the same for every detector: those that a photo or a detector has not are null.

    Raises:
        ImportError: pyarrow is not there.
    """
    pa = arrow()
    numbers, whole = pa.list_(pa.float32()), pa.int32()
    mask = pa.struct([("size", pa.list_(whole)), ("counts", pa.string())])
    return pa.schema(
        [
            ("image", pa.string()),
            ("height", whole),
            ("width", whole),
            ("error", pa.string()),
            ("boxes", pa.list_(numbers)),
            ("scores", numbers),
            ("labels", pa.list_(whole)),
            ("names", pa.list_(pa.string())),
            ("masks", pa.list_(mask)),
            ("keypoints", pa.list_(pa.list_(numbers))),
        ]
    )


def table_of(rows: Sequence[PhotoRow]) -> pyarrow.Table:
    """Rows as an Arrow table."""
    return arrow().Table.from_pylist(rows, schema=schema())


def write_rows(rows: Sequence[PhotoRow], path: Path) -> None:
    """Writes a part, by its ending, down to the disk."""
    if path.suffix == ".parquet":
        arrow().parquet.write_table(table_of(rows), path)
    else:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(map(line_of, rows))
    to_disk(path)


def line_of(row: PhotoRow) -> str:
    """A row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def to_disk(path: Path) -> None:
    """Waits until a file's bytes are on the disk, and not in the system's memory alone."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def join(parts: Iterable[Path], out: Path) -> None:
    """Tables of one ending one behind another, a part in memory at a time."""
    if out.suffix == ".parquet":
        _join_parquet(parts, out)
    else:
        with open(out, "wb") as whole:
            for part in parts:
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
    to_disk(out)


def _join_parquet(parts: Iterable[Path], out: Path) -> None:
    pa, columns = arrow(), schema()
    waiting: list[Any] = []
    with pa.parquet.ParquetWriter(out, columns) as writer:

        def write() -> None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()

        for part in parts:
            for table in _tables(part):
                waiting.append(table)
                if sum(map(len, waiting)) >= _GROUP or sum(one.nbytes for one in waiting) >= _GROUP_BYTES:
                    write()
        write()


def _tables(path: Path) -> Iterator[Any]:
    """A Parquet file's row groups."""
    pa, columns = arrow(), schema()
    try:
        with pa.parquet.ParquetFile(path) as file:
            if file.schema_arrow.names != columns.names:
                raise TableError(f"{path}: its columns are {', '.join(file.schema_arrow.names)}: no table of this kind")
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).cast(columns)
    except pa.ArrowException as error:
        raise TableError(f"{path}: cannot be read as Parquet ({error})") from error


def plain_rows(path: Path) -> Iterator[PhotoRow]:
    """The rows of a table as they were written, one at a time."""
    if path.suffix.lower() == ".parquet":
        for table in _tables(path):
            for start in range(0, len(table), 64):
                for row in table.slice(start, 64).to_pylist():
                    yield cast(PhotoRow, {key: value for key, value in row.items() if value is not None})
        return
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TableError(f"{path}, line {number}: not valid json ({error})") from error
            if not isinstance(row, dict) or "image" not in row or not {"boxes", "error"} & set(row):
                raise TableError(f"{path}, line {number}: no row of a photo")
            yield cast(PhotoRow, row)


def count_rows(path: Path) -> int:
    """How many rows a part has."""
    if path.suffix == ".parquet":
        pa = arrow()
        try:
            return pa.parquet.read_metadata(path).num_rows
        except pa.ArrowException as error:
            raise TableError(f"{path}: cannot be read as Parquet ({error})") from error
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def read_rows(table: FilePath) -> Iterator[dict[str, Any]]:
    """The rows of a table, one at a time, with arrays as `model.detect` returns them.

    Args:
        table: a `.parquet` or `.jsonl` file.

    Yields:
        A dict for each photo: `image`, and `error`; or `image`, `height` and `width` and the detections, which `draw`
        and `keras_rcnn.evaluation.coco_metrics` take.

    Raises:
        TableError: the file is no such table.

    Example:

    >>> keras_rcnn.bulk.detect_files(model, "photos", "found.jsonl", progress=False)["photos"]
    8
    >>> {row["image"]: row["scores"] for row in keras_rcnn.bulk.read_rows("found.jsonl") if "error" not in row}
    """
    path = Path(table)
    if ending_of(path) == ".json":
        raise TableError(f"{path}: COCO results have no rows of photos; json.load reads them")
    for row in plain_rows(path):
        values: dict[str, Any] = dict(row)
        if "error" not in values:
            for key, (dtype, shape) in _ARRAYS.items():
                values[key] = np.array(values[key], dtype).reshape(shape)
            if "keypoints" in values:
                points = np.array(values["keypoints"], np.float32)
                values["keypoints"] = points if points.ndim == 3 else points.reshape(0, 0, 3)
        yield values
