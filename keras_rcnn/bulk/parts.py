"""A table on its way: parts, each whole or not there, in a folder beside it; the table itself when all are there.

`found.parquet.parts/` holds `photos.txt`, the photos in their order; `job.json`, what makes the parts; and parts such
as `0000000256-0000000512-3.parquet`, named by the numbers of their photos and how many of these could not be read. A
part takes its name in one step when it is on the disk. So a process may end at any moment: what has a name is not done
again, and what has none is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from keras_rcnn.bulk.job import differences
from keras_rcnn.bulk.listing import Listing, write_listing
from keras_rcnn.bulk.rows import PhotoRow
from keras_rcnn.bulk.tables import TableError, count_rows, to_disk, write_rows
from keras_rcnn.files import aside

_NAME = re.compile(r"(\d{10})-(\d{10})-(\d+)$")
_WAITING = 2  # parts that may wait for the disk


class Part(NamedTuple):
    """A part's file, its photos from number `start` to before `stop`, and how many of them could not be read."""

    path: Path
    start: int
    stop: int
    errors: int


class Parts:
    """The folder of a table's parts.

    Args:
        out: of the table.
        ending: of the parts.
    """

    def __init__(self, out: Path, ending: str) -> None:
        self.out, self.ending = out, ending
        self.folder = out.with_name(f"{out.name}.parts")
        self._job = self.folder / "job.json"
        self._old = out.with_name(f".{out.name}.parts.old")

    # === One process ===

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """In the block the table is this process's alone; the system lets go of it however the process ends.

        Raises:
            OSError: another process writes it, or its folder cannot be written to.
        """
        from filelock import FileLock, Timeout

        self.out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out.with_name(f".{self.out.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OSError(f"{self.out}: another process is writing this table. Wait for it, or name another") from None
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    # === Begin ===

    def begun(self) -> dict[str, Any] | None:
        """The job that there are parts of."""
        return _read(self._job)

    def begin(self, job: Mapping[str, Any], listing: Listing, overwrite: bool) -> Listing:
        """Begins a job, or goes on with it if it is the one that parts are there of.

        Args:
            job: dict, all that the rows depend on.
            listing: the photos; its file is in the folder.
            overwrite: whether the parts of another job may go.

        Returns:
            The listing, its file where it stays.

        Raises:
            FileExistsError: there are parts of another job.
        """
        before, kept = self.begun(), self.folder / "photos.txt"
        if before is not None:
            other = differences(job, before)
            if other and not overwrite:
                raise FileExistsError(f"{self.folder} has parts that another command made ({other}). {self._ways(job)}")
            if other:
                self._job.unlink()  # first: without it they are nobody's
        if self.begun() is None:
            for part in self.folder.glob(f"*{self.ending}"):
                part.unlink()
            listing.path.replace(kept)
            _write(self._job, job)
        return dataclasses.replace(listing, path=kept)

    def _ways(self, job: Mapping[str, Any]) -> str:
        """What to do about parts that others have made."""
        before = self.begun() or {}
        photos = ""
        if job.get("photos_sha256") != before.get("photos_sha256"):
            photos = f", with {self.folder / 'photos.txt'} for its photos if the folder has others now"
        return f"Give that command again to go on with them{photos}; pass overwrite=True to begin anew, or name another"

    def list(self, photos: Any) -> Listing:
        """The photos written to a file in the folder, which is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return write_listing(photos, self.folder / ".photos.txt")

    def tidy(self) -> None:
        """Removes what is no part of anything: an unused list, files of a killed process."""
        shutil.rmtree(self._old, ignore_errors=True)
        if self.folder.is_dir():
            for left in self.folder.glob(".*"):
                left.unlink()
            if self.begun() is None:
                shutil.rmtree(self.folder)

    # === Go on ===

    def there(self) -> list[Part]:
        """The parts that are there, in order.

        Raises:
            TableError: two of them have the same photos.
        """
        found = []
        for path in self.folder.glob(f"*{self.ending}"):
            name = _NAME.fullmatch(path.stem)
            if name:
                found.append(Part(path, *map(int, name.groups())))
        found.sort(key=lambda part: part.start)
        for one, other in itertools.pairwise(found):
            if other.start < one.stop:
                raise TableError(f"{one.path} and {other.path} have the same photos: delete one, and run again")
        return found

    def missing(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The spans of photos between two numbers that there is no part of."""
        for part in self.there():
            if part.start > start:
                yield start, part.start
            start = part.stop
        if start < stop:
            yield start, stop

    def write(self, start: int, rows: list[PhotoRow]) -> None:
        """Writes the part with the rows of photos from number `start` on."""
        errors = sum("error" in row for row in rows)
        name = f"{start:010}-{start + len(rows):010}-{errors}{self.ending}"
        with aside(self.folder / name) as temporary:
            write_rows(rows, temporary)

    @contextlib.contextmanager
    def writer(self) -> Iterator[Callable[[int, list[PhotoRow]], None]]:
        """`write` in a thread of its own: the caller waits only if parts wait; it is told of an error at a later part.

        At the end of the block all that was given is on the disk, whether or not the block fails.
        """
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Future[None]] = []

            def write(start: int, rows: list[PhotoRow]) -> None:
                waiting.append(pool.submit(self.write, start, rows))
                while len(waiting) > _WAITING:
                    waiting.pop(0).result()

            yield write
            for one in waiting:
                one.result()

    # === End ===

    def checked(self) -> Generator[Path, None, None]:
        """The files of all parts, each of which has its photos' rows.

        Raises:
            TableError: one has not.
        """
        for part in self.there():
            if count_rows(part.path) != part.stop - part.start:
                raise TableError(
                    f"{part.path}: {count_rows(part.path)} rows of {part.stop - part.start} photos: delete this file, "
                    "and run the command again"
                )
            yield part.path

    def remove(self) -> None:
        """Removes the folder; a process that is killed meanwhile leaves it whole or under a name that `tidy` knows."""
        shutil.rmtree(self._old, ignore_errors=True)
        self.folder.rename(self._old)
        shutil.rmtree(self._old, ignore_errors=True)


def record_path(out: Path) -> Path:
    """Where it is written down what made a table."""
    return out.with_name(f"{out.name}.job.json")


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Writes down what made a table."""
    _write(record_path(out), record)


def read_record(out: Path) -> dict[str, Any] | None:
    """What made a table; None if that is not written down."""
    return _read(record_path(out))


def _write(path: Path, record: Mapping[str, Any]) -> None:
    with aside(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        to_disk(temporary)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise TableError(f"{path}: not valid json ({error}); delete it to begin anew") from error
    if not isinstance(record, dict):
        raise TableError(f"{path}: no record of a job; delete it to begin anew")
    return record
