"""The tables of several machines as one."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_rcnn.bulk.coco_file import read_results, write_results
from keras_rcnn.bulk.job import differences
from keras_rcnn.bulk.parts import read_record, write_record
from keras_rcnn.bulk.tables import TableError, arrow, ending_of, join, plain_rows, to_disk
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)$")


def merge_tables(tables: Iterable[FilePath], out: FilePath, overwrite: bool = False) -> Path:
    """Joins tables, such as the shards of `detect_files`, one behind another.

    Shards are put in the order of their numbers, so that the table is that of a single machine.

    Args:
        tables: `.parquet`, `.jsonl` or `.json` files, of one kind.
        out: of the same kind.
        overwrite: whether it may replace a file.

    Returns:
        The path of the table.

    Raises:
        ValueError: a shard is missing, a photo is in two tables, tables are of several kinds, or were made with other
            models, options or photos, as far as `TABLE.job.json` beside them says.
        FileExistsError: the table is there already.

    Example:

    >>> for i in (1, 2):
    ...     _ = keras_rcnn.bulk.detect_files(model, "photos", "half.jsonl", shard=(i, 2), progress=False)
    >>> keras_rcnn.bulk.merge_tables(["half-1-of-2.jsonl", "half-2-of-2.jsonl"], "both.jsonl")
    PosixPath('both.jsonl')
    """
    out, paths = Path(out), _ordered([Path(table) for table in tables])
    ending = ending_of(out)
    if not paths:
        raise ValueError(f"{out}: there are no tables to merge")
    for path in paths:
        if path.suffix.lower() != ending:
            raise ValueError(f"{path}: tables of one kind are merged, and {out} is {ending}")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such table")
    if out.exists() and (not overwrite or out in paths):
        raise FileExistsError(f"{out} is there: name another" + ("" if out in paths else ", or pass overwrite=True"))
    record = _common_record(paths)
    with aside(out) as temporary:
        if ending == ".json":
            write_results(_once(paths, (map(_image_id, read_results(path)) for path in paths)), temporary)
            to_disk(temporary)
        else:
            for _ in _once(paths, (map(_image, _images(path)) for path in paths)):
                pass
            join(paths, temporary)
        if record:
            write_record(out, record)
    return out


def _ordered(paths: list[Path]) -> list[Path]:
    """Shards by their numbers, of which none may be missing; other tables as they are given."""
    found = [_SHARD.fullmatch(path.stem) for path in paths]
    if not any(found):
        return paths
    if not all(found):
        other = next(path for path, match in zip(paths, found) if match is None)
        raise ValueError(f"{other}: no shard (NAME-I-of-N), and others are: merge these alone")
    shards = {(match[1], int(match[3])): {} for match in found if match}
    if len(shards) > 1:
        raise ValueError(f"shards of several tables: {', '.join(f'{name} of {count}' for name, count in shards)}")
    ((_, count),) = shards
    numbers = {int(match[2]): path for match, path in zip(found, paths) if match}
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if missing or len(paths) != count:
        which = f"{', '.join(map(str, missing[:10]))} missing" if missing else "one is named twice"
        raise ValueError(f"{paths[0]}: shards 1 to {count} make the table; {which}")
    return [numbers[number] for number in range(1, count + 1)]


def _common_record(paths: list[Path]) -> dict[str, Any] | None:
    """The record of all tables together, if all have one."""
    records = [read_record(path) for path in paths]
    known = [(path, record) for path, record in zip(paths, records) if record]
    jobs = [{key: value for key, value in record["job"].items() if key != "shard"} for _, record in known]
    for (path, _), job in zip(known[1:], jobs[1:]):
        other = differences(job, jobs[0])
        if other and _SHARD.fullmatch(path.stem):
            raise ValueError(f"{path} was made by another command than {known[0][0]} ({other})")
    if len(known) < len(paths) or not _SHARD.fullmatch(paths[0].stem):
        return None
    total = {key: sum(record[key] for _, record in known) for key in ("photos", "errors")}
    return {"job": {**jobs[0], "shard": None}, **total}


def _images(path: Path) -> Iterator[str]:
    if path.suffix.lower() == ".parquet":
        try:
            with arrow().parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["image"]):
                    yield from batch.column(0).to_pylist()
        except arrow().ArrowException as error:
            raise TableError(f"{path}: cannot be read as Parquet ({error})") from error
    else:
        yield from (row["image"] for row in plain_rows(path))


def _image(name: str) -> tuple[str, None]:
    return name, None


def _image_id(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(result["image_id"]), result


def _once(paths: list[Path], tables: Iterable[Iterator[tuple[str, Any]]]) -> Iterator[Any]:
    """The values of tables' `(photo, value)`, in which a photo is in one table, and there at one place."""
    seen: set[bytes] = set()
    for path, table in zip(paths, tables):
        for name, values in itertools.groupby(table, key=lambda pair: pair[0]):
            key = hashlib.blake2b(name.encode(), digest_size=16).digest()
            if key in seen:
                raise ValueError(f"{path}: {name} is in it twice, or in a table before it as well")
            seen.add(key)
            values = [value for _, value in values]
            if values[0] is None and len(values) > 1:
                raise ValueError(f"{path}: {name} is in it twice")
            yield from values
