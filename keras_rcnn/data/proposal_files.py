"""Files of proposals: .npz and .json, of this package or of another program."""

from __future__ import annotations

import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.data.problems import DataError, clean_boxes, refuse_swapped
from keras_rcnn.data.proposals import ProposalSet, proposal_error, write_npz
from keras_rcnn.data.reading import read_json
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath

if TYPE_CHECKING:
    from keras_rcnn.data.records import Dataset, Record


def save_proposals(path: FilePath, proposals: ProposalSet) -> None:
    """Writes proposals to a file that `load_proposals` reads.

    Args:
        path: `.npz` (an array `[n, 4]` for each image) or `.json` (`{image id: [[x1, y1, x2, y2], ...]}`).
        proposals: A `ProposalSet`.

    Raises:
        DataError: Another ending, or ids that are the same as text.
    """
    path = Path(path)
    _check_ending(path)
    boxes = {str(image_id): values for image_id, values in proposals.items()}
    if len(boxes) < len(proposals):
        raise DataError(f"{path}: some image ids are the same when they are written, such as 1 and '1'")
    if path.suffix.lower() == ".npz":
        write_npz(path, boxes)
        return
    # a float32's shortest text, not that of the double it becomes
    text = {key: [[float(str(side)) for side in box] for box in values] for key, values in boxes.items()}
    with aside(path) as temporary:
        temporary.write_text(json.dumps(text), encoding="utf-8")


def load_proposals(path: FilePath, dataset: Dataset) -> ProposalSet:
    """Reads the proposals of a data set from a file.

    Boxes are put in the order of their scores, where the file has scores, and otherwise stay in the file's.

    Args:
        path: `.npz` with an array `[n, 4]` (x1, y1, x2, y2) or `[n, 5]` (and a score) for each image, named by image
            id or file name; `.json` of the form `{name: [[x1, y1, x2, y2], ...]}`, or with COCO's list of results
            `[{"image_id": .., "bbox": [x, y, width, height], "score": ..}, ...]`.
        dataset: The `Dataset` that they are of: all of it; parts of the data set can use the answer as well.

    Returns:
        `ProposalSet`, boxes that stick out of their image by up to 2 px clipped.

    Raises:
        DataError: The file does not fit the data set: what is wrong, with the image and the value.
    """
    path = Path(path)
    _check_ending(path)
    arrays, form = _read_npz(path) if path.suffix.lower() == ".npz" else _read_json(path)
    arrays = {key: _ordered(values, f"{path}, {key}") for key, values in arrays.items()}
    owners = _owners(arrays, dataset, path)
    keys = list(owners)
    counts = [len(arrays[key]) for key in keys]
    raw = np.concatenate([arrays[key] for key in keys])
    sizes = np.repeat([(owners[key].height, owners[key].width) for key in keys], counts, axis=0)
    hint = "write them as the other" if form == "xywh" else "convert them, or write COCO's list of results"
    refuse_swapped(raw, sizes, path, hint, given=form, on_bad="error")
    boxes = raw if form == "xyxy" else np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
    boxes, _, reasons = clean_boxes(boxes, sizes[:, 0], sizes[:, 1], raw)
    if reasons:
        names = np.repeat(keys, counts)
        lines = [f"{names[i]}: {reason}" for i, reason in reasons.items()]
        other = "xyxy" if form == "xywh" else "xywh"
        problem = f"{len(reasons)} of {len(raw)} boxes do not fit their image as {form} (are they {other}, or those of"
        raise proposal_error(path, f"{problem} another size of the image?)", lines)
    parts = np.split(boxes, np.cumsum(counts)[:-1])
    boxes_of = {owners[key].image_id: part for key, part in zip(keys, parts, strict=True)}
    return ProposalSet({record.image_id: boxes_of[record.image_id] for record in dataset})


def _read_npz(path: Path) -> tuple[dict[str, Any], Literal["xyxy", "xywh"]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}, "xyxy"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz file of plain arrays ({error})") from error


def _read_json(path: Path) -> tuple[dict[str, Any], Literal["xyxy", "xywh"]]:
    content = read_json(path)
    if isinstance(content, dict):
        return content, "xyxy"
    if not isinstance(content, list):
        raise DataError(f"{path}: expected COCO's list of results, or an object {{name: [[x1, y1, x2, y2], ...]}}")
    arrays = defaultdict(list)
    scored = sum("score" in result for result in content if isinstance(result, dict))
    for number, result in enumerate(content):
        if not isinstance(result, dict) or "image_id" not in result or "bbox" not in result:
            raise DataError(f"{path}: result number {number} is no object with 'image_id' and 'bbox'")
        if scored and "score" not in result:
            raise DataError(f"{path}: result number {number} has no 'score', others have")
        if not isinstance(result["bbox"], list) or len(result["bbox"]) != 4:
            raise DataError(f"{path}: result number {number}: bbox {result['bbox']!r} is not [x, y, width, height]")
        arrays[str(result["image_id"])].append([*result["bbox"], *([result["score"]] if scored else [])])
    return dict(arrays), "xywh"


def _ordered(values: Any, where: str) -> np.ndarray:
    """`[n, 4]`, or `[n, 5]` by falling score -> float64 `[n, 4]`."""
    try:
        values = np.asarray(values)
        if values.size == 0:
            return np.zeros((0, 4))
        if values.dtype.kind not in "fiu":
            raise ValueError(f"these are no numbers but {values.dtype}")
        values = values.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: not an array [n, 4] of boxes ({error})") from error
    if values.ndim != 2 or values.shape[1] not in (4, 5):
        raise DataError(f"{where}: shape {values.shape}, expected [n, 4] boxes, or [n, 5] with a score")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{where}: box number {bad[0]}, {values[bad[0]].tolist()}, is not finite")
    return values[np.argsort(-values[:, 4], kind="stable"), :4] if values.shape[1] == 5 else values


def _owners(keys: Iterable[str], dataset: Dataset, path: Path) -> dict[str, Record]:
    """The record that each key names, by image id or by (the end of the) path; by the one that fits more keys."""
    ids, files = defaultdict(list), defaultdict(list)
    for record in dataset:
        ids[str(record.image_id)].append(record)
        if isinstance(record.image, (str, os.PathLike)):
            files[Path(record.image).name].append(record)
    by_id = {key: ids.get(key, []) for key in keys}
    by_file = {}
    for key in keys:
        parts = Path(key).parts
        same = files.get(parts[-1], []) if parts else []
        by_file[key] = [one for one in same if Path(one.image).parts[-len(parts) :] == parts]
    owners = max(by_id, by_file, key=lambda table: sum(map(bool, table.values())))
    unknown = [key for key, records in owners.items() if not records]
    if unknown:
        problem = f"{len(unknown)} of {len(owners)} names are no image id and no file name of {dataset.name}"
        problem += " (of part of a data set: load the proposals with all of it, the part can use them)"
        raise proposal_error(path, problem, unknown)
    double = [f"{key} ({', '.join(one.name for one in records)})" for key, records in owners.items() if records[1:]]
    if double:
        raise proposal_error(path, "names that fit more than one image, give more of the path", double)
    owners = {key: records[0] for key, records in owners.items()}
    named = defaultdict(list)
    for key, record in owners.items():
        named[record.image_id].append(key)
    double = [" and ".join(keys) for keys in named.values() if len(keys) > 1]
    if double:
        raise proposal_error(path, "names of the same image", double)
    missing = [record.name for record in dataset if record.image_id not in named]
    if missing:
        problem = f"no proposals for {len(missing)} of the {len(dataset)} images of {dataset.name}"
        raise proposal_error(path, f"{problem} (an image that has none needs an empty array or list)", missing)
    return owners


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in (".npz", ".json"):
        raise DataError(f"{path}: proposals are kept in .npz or .json files")
