"""Where to look, from outside the network: selective search, or boxes that another program has found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from keras_rcnn.data import search as worker_file
from keras_rcnn.data.images import read_image
from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.data.preprocess import scale_boxes
from keras_rcnn.data.problems import DataError, clean_boxes
from keras_rcnn.data.records import Record
from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath

if TYPE_CHECKING:
    from keras_rcnn.data.records import Dataset

logger = logging.getLogger(__name__)


# numbers of proposals are rounded up to this, so that a model is compiled for a few of them only
_PROPOSAL_STEP = 500


class ProposalSet(Mapping[Any, np.ndarray]):
    """The proposals of a data set: image id -> boxes, best first.

    Args:
        boxes: dict from `image_id` to `[n, 4]`, `[x1, y1, x2, y2]` in px of the image, best first.

    Raises:
        DataError: Boxes of another shape, or that are not finite.

    Example:

    ```python
    proposals = compute_proposals(dataset, cache="proposals")
    proposals[dataset[0]]                    # float32 [n, 4]; proposals[dataset[0].image_id] is the same
    ```
    """

    def __init__(self, boxes: Mapping[Any, ArrayLike]) -> None:
        self._boxes = {}
        for image_id, values in boxes.items():
            values = np.asarray(values, np.float32)
            values = values.reshape(-1, 4) if values.size == 0 else values
            if values.ndim != 2 or values.shape[1] != 4:
                raise DataError(f"proposals of image {image_id!r}: shape {values.shape}, expected [n, 4]")
            if not np.isfinite(values).all():
                raise DataError(f"proposals of image {image_id!r}: not all of the numbers are finite")
            self._boxes[image_id] = values

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._boxes[key.image_id if isinstance(key, Record) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._boxes)

    def __len__(self) -> int:
        return len(self._boxes)

    def __repr__(self) -> str:
        return f"<ProposalSet: {len(self)} images, {sum(map(len, self._boxes.values()))} boxes>"

    def check(self, dataset: Dataset) -> None:
        """Raises a `DataError` unless every image of `dataset` has proposals, and these lie in it."""
        missing = [record.name for record in dataset if record.image_id not in self._boxes]
        if missing:
            raise proposal_error(dataset.name, f"{len(missing)} of {len(dataset)} images have no proposals", missing)
        bad = []
        for record in dataset:
            reasons = clean_boxes(self[record], record.height, record.width)[2]
            bad += [f"{record.name}: {reason}" for reason in reasons.values()]
        if bad:
            raise proposal_error(
                dataset.name, f"{len(bad)} proposals do not fit; boxes are [x1, y1, x2, y2] in px", bad
            )


def pad_proposals(
    given: Sequence[ArrayLike] | None,
    images: Sequence[np.ndarray],
    sizes: Sequence[Sequence[float]] | np.ndarray,
    cells: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Proposals in pixels of the images -> float32 [B, P, 4] in pixels of the resized ones, padded with zeros.

    Of those that are the same in the feature map's `cells`, and so get the same answer, the first is kept, as Fast
    R-CNN's code does (DEDUP_BOXES).
    """
    given = given or [selective_search(image) for image in images]
    scaled = [
        scale_boxes(np.reshape(boxes, (-1, 4)), image.shape[:2], size)
        for boxes, image, size in zip(given, images, sizes, strict=True)
    ]
    if cells is not None:
        scaled = [boxes[np.sort(np.unique(cells(boxes), axis=0, return_index=True)[1])] for boxes in scaled]
    most = max(-(-max(map(len, scaled)) // _PROPOSAL_STEP), 1) * _PROPOSAL_STEP
    answer = np.zeros((len(images), most, 4), np.float32)
    for row, boxes in zip(answer, scaled, strict=True):
        row[: len(boxes)] = boxes
    return answer


def check_proposals(proposals: object, dataset: Dataset) -> None:
    """Raises a `DataError` unless these are a `ProposalSet` that fits the data set, see there."""
    if not isinstance(proposals, ProposalSet):
        raise DataError(
            "proposals are a ProposalSet, such as compute_proposals and load_proposals return, not a "
            f"{type(proposals).__name__}: ProposalSet({{image_id: boxes, ...}}) makes one"
        )
    proposals.check(dataset)


# === Selective search ===


def selective_search(
    image: Any,
    mode: Literal["fast", "quality"] = "fast",
    max_boxes: int = 2000,
    min_size: int = 20,
    width: int | None = 500,
    seed: int = 0,
) -> np.ndarray:
    """Boxes that may hold an object: segments of similar px, merged step by step (Uijlings et al. 2013, by OpenCV).

    The same image and settings give the same boxes: the C library's `rand` is seeded for each image. It is one for the
    whole process, so threads of other libraries that draw from it meanwhile would disturb the order;
    `compute_proposals` has processes for it.

    An image of one colour is one segment: its only proposal is the whole image. None is left if that, too, is smaller
    than `min_size`.

    Args:
        image: What `read_image` takes: uint8 RGB `[h, w, 3]`, or a path.
        mode: `"fast"`, or `"quality"` for more segmentations: about 3 times the boxes and the seconds.
        max_boxes: The best so many are kept.
        min_size: Both sides of a box are at least so many px, of the image as it is segmented.
        width: A larger image is shrunk to `width` x `2 * width` px to be segmented (R-CNN's code: 500). None: never.
        seed: int. Boxes are ranked by their place in the hierarchy times a random number, as in the paper.

    Returns:
        float32 `[n, 4]`, `[x1, y1, x2, y2]` in px of the image as given, without doubles, best first.
    """
    return worker_file.search(read_image(image), mode, max_boxes, min_size, width, seed)


def compute_proposals(
    dataset: Dataset,
    mode: Literal["fast", "quality"] = "fast",
    cache: FilePath | None = None,
    workers: int | None = None,
    max_boxes: int = 2000,
    min_size: int = 20,
    width: int | None = 500,
    seed: int = 0,
    progress: bool = True,
) -> ProposalSet:
    """Runs `selective_search` over a data set, in several processes.

    Args:
        dataset: A `Dataset`.
        mode, max_boxes, min_size, width, seed: As in `selective_search`.
        cache: Folder for the results, one file an image, named by the image's content and the settings: a run that was
            interrupted goes on where it was, and other settings or another image are computed anew. None: not kept.
        workers: Processes. None: one a core.
        progress: Whether to show a progress bar.

    Returns:
        `ProposalSet`. An image without any proposal has an empty array; one warning counts these.

    Raises:
        ImageError, DataError: An image that cannot be read or has not the size that was annotated.
        RuntimeError: A process failed; the image is named.
    """
    worker_file.check_settings(mode, max_boxes, min_size, width, seed)
    settings = {"mode": mode, "max_boxes": max_boxes, "min_size": min_size, "width": width, "seed": seed}
    if workers is not None:
        check_whole("workers", workers, "processes, or None")
    workers = (os.cpu_count() or 1) if workers is None else int(workers)
    if cache is not None:
        cache = Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
    boxes = {}
    with _Searchers(workers) as searchers:
        # a thread for each process, which reads the image that the process segments
        pool = ThreadPoolExecutor(workers)
        try:
            jobs = {pool.submit(_proposals, one, settings, cache, searchers): one.image_id for one in dataset}
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="proposals", disable=not progress):
                boxes[jobs[job]] = job.result()
        except BaseException:
            searchers.stop()  # what is under way ends at once
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    empty = [record.name for record in dataset if not len(boxes[record.image_id])]
    if empty:
        logger.warning(
            "%s: no proposals in %d of %d images: %s", dataset.name, len(empty), len(dataset), _listed(empty, "; ")
        )
    return ProposalSet({record.image_id: boxes[record.image_id] for record in dataset})


def _proposals(record: Record, settings: dict[str, Any], cache: Path | None, searchers: _Searchers) -> np.ndarray:
    path = None if cache is None else cache / f"{_key(record, settings)}.npz"
    if path is not None and path.is_file():
        # a file that a full disk has damaged is as good as none
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as file:
            return file["boxes"].reshape(-1, 4).astype(np.float32)
    boxes = searchers.search(record, settings)
    if path is not None:
        write_npz(path, {"boxes": boxes})
    return boxes


def _key(record: Record, settings: dict[str, Any]) -> str:
    """Names what a result depends on: the image's content, the settings and OpenCV's version."""
    if isinstance(record.image, (str, os.PathLike)) and os.path.isfile(record.image):
        content = hashlib.sha256(Path(record.image).read_bytes())
    else:
        image = record.read()
        content = hashlib.sha256(f"{image.shape}".encode() + image.tobytes())
    content.update(json.dumps([settings, cv2.__version__], sort_keys=True).encode())
    return content.hexdigest()[:32]


class _Searchers:
    """Processes that run `search.py`, each started by the first image that needs it.

    They are plain child processes: `multiprocessing` would import the package in each of them, and the user's script.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._started, self._stopped, self._lock = [], False, threading.Lock()

    def __enter__(self) -> _Searchers:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def search(self, record: Record, settings: dict[str, Any]) -> np.ndarray:
        """The proposals of a record."""
        image = record.read()
        process = self._idle.get()
        try:
            if process is None:
                process = self._start()
            worker_file.send(cast(IO[bytes], process.stdin), settings, image)
            problem, boxes = worker_file.receive(cast(IO[bytes], process.stdout))
        except (EOFError, OSError) as error:
            how = f"did not start: {error}" if process is None else f"ended with code {process.wait()}"
            raise RuntimeError(f"{record.name}: the process that searches it {how}") from error
        finally:
            self._idle.put(process)
        if problem is not None:
            raise RuntimeError(f"{record.name}: selective search failed: {problem}")
        return boxes

    def stop(self) -> None:
        """Ends the processes, done with their work or not."""
        with self._lock:
            self._stopped = True
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        self._started = []

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise OSError("stopped")
            # -P: the folder of the file, with its csv.py, must not come before Python's own modules
            command = [sys.executable, "-P", worker_file.__file__]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._started.append(process)
        return process


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # numpy.savez has no keys that are named as its arguments are
    with aside(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, values in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values))


def proposal_error(source: object, problem: str, lines: Sequence[str]) -> DataError:
    """A `DataError` about some images' proposals."""
    return DataError(f"{source}: {problem}\n  {_listed(lines, chr(10) + '  ')}")


def _listed(lines: Sequence[str], separator: str, shown: int = 5) -> str:
    more = [f"... and {len(lines) - shown} more"] if len(lines) > shown else []
    return separator.join([*map(str, lines[:shown]), *more])


# === How good they are ===


def proposal_recall(
    dataset: Dataset,
    proposals: ProposalSet,
    thresholds: Sequence[float] = (0.5, 0.7),
    limits: Sequence[int] = (100, 300, 1000, 2000),
) -> dict[str, Any]:
    """The share of the objects that proposals cover: what no detector on top of them can exceed.

    Crowd and difficult objects are left out.

    Args:
        dataset: A `Dataset`.
        proposals: A `ProposalSet`.
        thresholds: An object is covered by a proposal of at least this IoU.
        limits: How many proposals of each image are looked at, the best first.

    Returns:
        dict `{"images", "objects", "boxes", "recall"}`: counts of images and objects; the proposals an image, on
        average, within each limit `{limit: float}`; and `{threshold: {limit: recall}}`, NaN without any object.

    Raises:
        DataError: The proposals do not fit the data set.
    """
    check_proposals(proposals, dataset)
    for limit in limits:
        check_whole("limits", limit, "proposals of an image")
    for threshold in thresholds:
        check_number("thresholds", threshold, 0, 1, "an IoU")
    limits = [int(limit) for limit in limits]
    covered = [[] for _ in limits]  # for each object the best IoU within the limit
    for record in dataset:
        truth, boxes = record.boxes[~(record.crowd | record.difficult)], proposals[record]
        overlap = pairwise_iou(truth, boxes[: max(limits)])
        for best, limit in zip(covered, limits, strict=True):
            best.append(overlap[:, :limit].max(axis=1, initial=0.0))
    covered = [np.concatenate(best) for best in covered]
    counts = np.array([len(proposals[record]) for record in dataset])
    objects = len(covered[0])

    def recall(best: np.ndarray, threshold: float) -> float:
        return float((best >= threshold).mean()) if objects else float("nan")

    return {
        "images": len(dataset),
        "objects": objects,
        "boxes": {limit: float(np.minimum(counts, limit).mean()) for limit in limits},
        "recall": {
            threshold: {limit: recall(best, threshold) for limit, best in zip(limits, covered, strict=True)}
            for threshold in thresholds
        },
    }
