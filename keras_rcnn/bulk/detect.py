"""Photos on disk in, a table out: read ahead, detected, written behind; killed at any moment, it goes on."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from keras_rcnn.bulk.coco_file import CocoFile, write_results
from keras_rcnn.bulk.job import differences, fingerprint
from keras_rcnn.bulk.listing import Listing, list_photos
from keras_rcnn.bulk.parts import Parts, read_record, write_record
from keras_rcnn.bulk.rows import PhotoRow, rows_of
from keras_rcnn.bulk.tables import ending_of, join, line_of, plain_rows, to_disk
from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.files import aside
from keras_rcnn.interfaces import BatchDetector, FilePath

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

_SECONDS = 10.0  # after which a part is written, however few its photos: what a kill costs
_TOLD = 10  # photos that could not be read, of which the log tells


class Summary(TypedDict):
    """What `detect_files` has written.

    Attributes:
        path: of the table.
        photos: how many it is of.
        errors: how many of these could not be read.
    """

    path: Path
    photos: int
    errors: int


def detect_files(
    model: BatchDetector,
    photos: FilePath | Iterable[FilePath],
    out: FilePath,
    *,
    score: float | None = None,
    size: int | None = None,
    batch_size: int = 1,
    coco: FilePath | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    part_size: int = 256,
    threads: int | None = None,
    progress: bool = True,
) -> Summary:
    """Detects on a collection of photos of any size, and writes a table with a row for each.

    Threads read the next photos while the model works, and another one writes what is done. Rows are written in parts,
    to the folder `OUT.parts`, at least every ten seconds; at the end they become the table, and what made it is noted
    in `OUT.job.json`. A process that is killed loses what is not in a part yet: the same call again goes on from there,
    and when all is done it returns at once. Memory holds a few photos, two parts, and 16 bytes a photo of a list.

    Args:
        model: a `Detector`, an `AugmentedDetector` or a `ServedDetector`.
        photos: a folder, in which and below which photos are looked for; a `.txt` file with one path a line; a photo;
            or an iterable of such.
        out: `.parquet` (which needs pyarrow: the extra `bulk`) or `.jsonl`, a row for each photo as `PhotoRow` has it;
            or `.json`, COCO results, whose photos that could not be read are in `OUT.errors.jsonl`.
        score: float, the least score; None: the model's own, as in `detect`.
        size: int, shorter side that photos are resized to, as in `detect`; None: the preprocessor's.
        batch_size: int, photos that the model sees at once.
        coco: of a COCO file, which has the ids of images and categories for COCO results.
        shard: `(i, n)`: the part `i` of `n`, from 1, of the photos, for one of n machines; the table is called
            `OUT-i-of-n`, and `merge_tables` joins them.
        overwrite: whether to replace a table that is there, and parts that another call made.
        part_size: int, photos in a part at most.
        threads: int, photos that are read ahead; None: 4, or a batch.
        progress: show photos, their rate and the time left on stderr.

    Returns:
        A `Summary`.

    Raises:
        ValueError: an argument is not as above, or there are no photos, before anything is detected.
        FileExistsError: the table is there and was made by another call, or parts of another call are.
        ImportError: Parquet without pyarrow.
        OSError: another process writes the same table, or it cannot be written.

    Example:

    >>> model = keras_rcnn.from_preset("nuclei_frcnn")
    >>> keras_rcnn.bulk.detect_files(model, "photos", "found.jsonl", score=0.5, progress=False)["errors"]
    0
    """
    check_whole("batch_size", batch_size)
    check_whole("part_size", part_size)
    if score is not None:
        check_number("score", score, 0, 1)
    ending = ending_of(out)
    file = _coco_of(model, out, ending, coco)
    out = shard_path(out, shard)
    if out.is_dir():
        raise IsADirectoryError(f"{out}: a folder of this name is there")
    parts = Parts(out, ".jsonl" if ending == ".json" else ending)
    options = {key: value for key, value in (("score", score), ("size", size)) if value is not None}
    with parts.occupied():
        try:
            found = list_photos(photos)
            listing = parts.list(found if file is None else file.check_photos(found))
            if not listing.count:
                raise ValueError(f"{_named(photos)}: there are no photos")
            job = {
                "photos_sha256": listing.digest,
                "photos": listing.count,
                "model": fingerprint(model),
                "score": None if score is None else float(score),
                "size": None if size is None else int(size),
                "coco_sha256": file and file.digest,
                "shard": shard and "{} of {}".format(*shard),
            }
            done = _finished(parts, job, overwrite)
            if done is not None:
                return done
            listing = parts.begin(job, listing, overwrite)
        finally:
            parts.tidy()
        span = _span(listing.count, shard)
        detect = _detector(model, batch_size, threads, options)
        _write_parts(parts, listing, span, detect, part_size, _Bar(parts, span, progress))
        return _finish(parts, job, span, file)


def shard_path(out: FilePath, shard: tuple[int, int] | None) -> Path:
    """Where one machine of several writes: `found-2-of-4.parquet` for `found.parquet`."""
    out = Path(out)
    if shard is None:
        return out
    number, count = shard
    check_whole("shard", number, f"the number of a part of {count}")
    check_whole("shard", count, "the number of parts")
    if number > count:
        raise ValueError(f"shard is a part of so many, from 1 to {count} of {count}, not {number}")
    return out.with_name(f"{out.stem}-{number}-of-{count}{out.suffix}")


def _span(count: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    """The numbers of a shard's photos: neighbours, so that shards one behind another are in the order of the whole."""
    number, shards = shard or (1, 1)
    return (number - 1) * count // shards, number * count // shards


def _named(photos: Any) -> str:
    return str(photos) if not isinstance(photos, (list, tuple)) else ", ".join(map(str, photos[:3])) or "photos"


def _coco_of(model: Any, out: FilePath, ending: str, coco: FilePath | None) -> CocoFile | None:
    if (ending == ".json") != (coco is not None):
        raise ValueError(
            f"{out}: COCO results name images and classes by ids: give the COCO file that has them, coco=... (--coco "
            "FILE), or write .jsonl"
            if coco is None
            else f"{out}: a coco file is for COCO results, .json"
        )
    if coco is None:
        return None
    file = CocoFile(coco)
    file.check_classes(getattr(model, "class_names", None))
    return file


def _finished(parts: Parts, job: dict[str, Any], overwrite: bool) -> Summary | None:
    """What a finished job has written; None if there is something to do."""
    if parts.begun() is not None or overwrite or not parts.out.exists():
        return None
    record = read_record(parts.out)
    other = "what made it is not noted" if record is None else differences(job, record.get("job", {}))
    if other:
        raise FileExistsError(
            f"{parts.out} is there, and another command made it ({other}): pass overwrite=True to replace it, or name "
            "another"
        )
    record = record or {}
    return {"path": parts.out, "photos": record["photos"], "errors": record["errors"]}


def _detector(
    model: BatchDetector, batch_size: int, threads: int | None, options: dict[str, Any]
) -> Callable[[Iterable[str]], Any]:
    ahead = threads or max(batch_size, 4)
    return lambda paths: rows_of(model, paths, batch_size=batch_size, threads=ahead, options=options)


def _write_parts(
    parts: Parts, listing: Listing, span: tuple[int, int], detect: Callable[..., Any], part_size: int, bar: _Bar
) -> None:
    """Detects on all photos that there is no part of. What was done when it fails is kept."""
    with bar, parts.writer() as write:
        for start, stop in list(parts.missing(*span)):
            rows: list[PhotoRow] = []
            since = time.monotonic()
            try:
                with contextlib.closing(detect(listing.read(start, stop))) as batches:
                    for batch in batches:
                        rows += batch
                        bar.add(batch)
                        if len(rows) >= part_size or time.monotonic() - since >= _SECONDS:
                            full, rows = rows, []
                            write(start, full)
                            start, since = start + len(full), time.monotonic()
            finally:
                if rows:
                    write(start, rows)


class _Bar:
    """Photos, their rate and the time left; and the first photos that cannot be read."""

    def __init__(self, parts: Parts, span: tuple[int, int], progress: bool) -> None:
        there = parts.there()
        self.done, self.total = sum(part.stop - part.start for part in there), span[1] - span[0]
        self.errors, self.told, self.progress = sum(part.errors for part in there), 0, progress
        self.bar: tqdm | None = None

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        # a log gets a line now and then
        every = {"mininterval": 0.5} if sys.stderr.isatty() else {"mininterval": 15, "maxinterval": 60}
        more: dict[str, Any] = {"smoothing": 0.05, "dynamic_ncols": True, "disable": not self.progress, **every}
        self.bar = tqdm(total=self.total, initial=self.done, desc="detect", unit="photo", **more)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, rows: list[PhotoRow]) -> None:
        """Counts rows."""
        for row in rows:
            if "error" in row:
                self.errors += 1
                self.told += 1
                if self.told <= _TOLD:
                    if self.bar is not None:
                        self.bar.clear()
                    logger.warning("%s", row["error"])
                if self.told == _TOLD:
                    logger.warning("The table has what else cannot be read.")
        if self.bar is not None:
            if self.errors:
                self.bar.set_postfix_str(f"unreadable: {self.errors:,}", refresh=False)
            self.bar.update(len(rows))


def _finish(parts: Parts, job: dict[str, Any], span: tuple[int, int], file: CocoFile | None) -> Summary:
    """All parts as the table, with a note of what made it."""
    out = parts.out
    errors = sum(part.errors for part in parts.there())
    whole = parts.folder / f".whole{out.suffix}"  # where a killed process leaves no more than `tidy` finds
    try:
        if file is None:
            join(parts.checked(), whole)
        else:
            rows = itertools.chain.from_iterable(map(plain_rows, parts.checked()))
            _write_coco(rows, file, whole, out)
            to_disk(whole)
        write_record(out, {"job": job, "photos": span[1] - span[0], "errors": errors})
        os.replace(whole, out)
    finally:
        whole.unlink(missing_ok=True)
    parts.remove()
    return {"path": out, "photos": span[1] - span[0], "errors": errors}


def _write_coco(rows: Iterator[PhotoRow], file: CocoFile, temporary: Path, out: Path) -> None:
    """Results, and beside them the rows of photos that could not be read, if there are any."""
    unread = out.with_name(f"{out.stem}.errors.jsonl")
    with aside(unread) as beside, open(beside, "w", encoding="utf-8", newline="\n") as errors:

        def results() -> Iterator[dict[str, Any]]:
            for row in rows:
                if "error" in row:
                    errors.write(line_of(row))
                yield from file.results(row)

        write_results(results(), temporary)
    if not unread.stat().st_size:
        unread.unlink()
