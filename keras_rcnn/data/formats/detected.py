"""Which format the data at a path has, and which of its files belong to which split."""

import logging
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from keras_rcnn.data.formats.photos import walk
from keras_rcnn.data.formats.recognised import beginning, kind_of_file, kind_of_json, way_out
from keras_rcnn.data.formats.registry import FORMATS, NAME_OF, Format
from keras_rcnn.data.formats.tfrecord import is_tfrecord
from keras_rcnn.data.names import is_there
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_json
from keras_rcnn.data.table import is_table
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

SPLITS = ("train", "trainval", "training", "val", "valid", "validation", "test", "testing")
ALIASES = ({"train", "training"}, {"val", "valid", "validation"}, {"test", "testing"})
_ENDINGS = (".json", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml", ".tfrecord", ".tfrecords", ".record")
_PARSED = 50  # json files of a folder that are read whole to see what they are
_TEXTS = 1000  # txt files of a folder that are looked into, to find one of YOLO's
_HEAD = 65536


class Detected(NamedTuple):
    """What the data at a path is.

    Args:
        name: The format's, in `FORMATS`.
        root: Folder of the data.
        splits: `{split: its files}`; the split None has what belongs to none.
    """

    name: str
    root: Path
    splits: dict[str | None, list[Path]]

    @property
    def split_names(self) -> list[str]:
        """The splits that have a name; none if the data is in one piece."""
        return [name for name in self.splits if name is not None]


def detected(path: FilePath, chosen: str | None = None) -> Detected:
    """The format of a file or folder, its root and its splits.

    Args:
        path: Of the file or folder.
        chosen: Name of the format; None finds it out.

    Raises:
        DataError: there is nothing there, nothing that is known, or files of several formats.
    """
    path = Path(path)
    if chosen is not None and chosen not in FORMATS:
        raise ValueError(f"format {chosen!r} is none of {', '.join(FORMATS)}")
    if os.path.isdir(path):
        return _in_folder(path, chosen)
    if not is_there(path):
        if os.path.exists(path):
            raise DataError(f"{path}: cannot be read (not a regular file)")
        raise DataError(f"{path}: no such file or folder")
    if path.suffix.lower() in (".zip", ".gz", ".tar", ".7z", ".rar"):
        raise DataError(f"{path}: an archive; unpack it, and give the folder")
    name = chosen
    if name is None:
        title = kind(path, whole=True)
        if title not in NAME_OF:
            known = ", ".join(entry.title for entry in FORMATS.values())
            raise DataError(f"{path}: of no format that is known{way_out(title)}; read are {known}")
        name = NAME_OF[title]
    if name == "voc":
        raise DataError(f"{path}: one file of Pascal VOC's; give its folder, {path.parent}")
    entry = FORMATS[name]
    splits: dict[str | None, list[Path]] = {None: [path]}
    if name == "yolo":
        splits = entry.splits([path], path.parent)
    return Detected(name, path.parent, splits)


def kind(path: Path, whole: bool = False) -> str | None:
    """The title of a file's format; None if it is none that is known.

    Args:
        path: Of the file.
        whole: Whether a json file may be read whole, if its beginning does not tell.

    Raises:
        DataError: a json file that is read whole and is none.
    """
    ending = path.suffix.lower()
    if ending in (".tfrecord", ".tfrecords", ".record") or re.search(r"\.tfrecord|\.record-\d|-of-\d", path.name):
        return "TFRecords" if is_tfrecord(path) else None
    if ending == ".json" or (whole and _begins_as_json(path)):
        title = kind_of_file(path) or kind_of_file(path, _HEAD)
        return kind_of_json(read_json(path)) if whole and title is None else title
    return kind_of_file(path, _HEAD if ending in (".yaml", ".yml") else 4096)


def _begins_as_json(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"[")
    except OSError:
        return False


def _in_folder(root: Path, chosen: str | None) -> Detected:
    files, others, error = _files(root)
    if chosen is not None:
        if not files[chosen]:
            if chosen != "yolo":
                there = ", ".join(name for name in files if files[name]) or "nothing that is known"
                raise DataError(f"{root}: no files of the format {chosen!r}; there is {there}")
            files[chosen] = [root]
        name = chosen
    else:
        names = [name for name in files if files[name]]
        if not names:
            if error is not None:
                raise error
            known = ", ".join(entry.title for entry in FORMATS.values())
            raise DataError(f"{root}: no annotations in this folder{way_out(others)}; read are {known}")
        if len(names) > 1:
            some = "; ".join(f"{name} ({files[name][0].relative_to(root)}{_more(files[name])})" for name in names)
            raise DataError(
                f"{root}: annotations of {len(names)} formats: {some}; choose one by format={names[0]!r} "
                f"(--format {names[0]}), or give the file that is meant in place of the folder"
            )
        (name,) = names
    if name == "yolo" and files[name][0].suffix.lower() == ".txt":
        files[name] = [root]  # one of its files shows what the folder is
    entry = FORMATS[name]
    return Detected(name, root, entry.splits(files[name], root) if entry.splits else _by_name(files[name], root, entry))


def _more(files: list[Path]) -> str:
    return f" and {len(files) - 1} more" if len(files) > 1 else ""


def _files(root: Path) -> tuple[dict[str, list[Path]], str | None, DataError | None]:
    """`({format: files}, title of a format without a reader, an error of a file that is damaged)`."""
    files, others = {name: [] for name in FORMATS}, None
    tables, errors = [], {}  # what need not be of boxes; {damaged file: its error}
    parsed, texts = defaultdict(int), 0
    for path in walk(root, _ENDINGS):
        ending = path.suffix.lower()
        if ending == ".txt" and (texts >= _TEXTS or files["yolo"]):
            continue
        if ending == ".xml" and any(file.parent == path.parent for file in files["voc"][-1:]):
            continue
        texts += ending == ".txt"
        try:
            title = kind(path)
            if title is None and ending == ".json" and parsed[path.parent] < _PARSED:
                title = kind(path, whole=True)
                parsed[path.parent] += title is None
        except DataError as error:
            errors[path] = error
            continue
        if title == FORMATS["csv"].title and (ending == ".txt" or not is_table(beginning(path))):
            tables += [path] if ending != ".txt" else []
        elif title in NAME_OF:
            files[NAME_OF[title]].append(path)
        else:
            others = others or title
    if any(file.suffix.lower() in (".yaml", ".yml") for file in files["yolo"]):
        files["yolo"] = [file for file in files["yolo"] if file.suffix.lower() in (".yaml", ".yml")]
    if not any(files.values()):
        files["csv"] = tables
    for name in ("labelme", "supervisely"):  # a damaged file among those that have a photo each is one of them
        folders = {file.parent for file in files[name]}
        files[name] += [path for path in errors if path.parent in folders]
    return files, others, next(iter(errors.values()), None)


def _by_name(files: list[Path], root: Path, entry: Format) -> dict[str | None, list[Path]]:
    """`{split: files}`, by folders and, where a file has a whole data set, by words in its name."""
    splits = defaultdict(list)
    for file in files:
        splits[_split_of(file, root, entry.single)].append(file)
    if entry.single:
        for split, group in splits.items():
            instances = [file for file in group if file.name.startswith("instances")]
            if len(instances) == 1:
                splits[split] = instances
            elif len(group) > 1:
                some = ", ".join(str(file.relative_to(root)) for file in group[:6])
                raise DataError(
                    f"{root}: {len(group)} files with annotations of the same kind ({some}); give the one that is "
                    "meant in place of the folder"
                )
    if set(splits) == {None} or (entry.single and None in splits and len(splits) > 1):
        if len(splits) > 1:
            some = ", ".join(str(file.relative_to(root)) for group in splits.values() for file in group[:2])
            raise DataError(
                f"{root}: files with annotations of some splits, and of none ({some}); give the one that is meant in "
                "place of the folder"
            )
        return dict(splits)
    order = {word: place for place, word in enumerate(SPLITS)}
    return dict(sorted(splits.items(), key=lambda pair: order.get(str(pair[0]).lower(), len(order))))


def _split_of(file: Path, root: Path, single: bool) -> str | None:
    for folder in file.relative_to(root).parts[:-1]:
        if folder.lower() in SPLITS:
            return folder
    if single:
        words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word in SPLITS]
        return words[0] if len(words) == 1 else None
    return None


def chosen_split(source: Detected, split: str, path: FilePath) -> str:
    """The split that a name means, `"val"` for `"valid"` too.

    Raises:
        DataError: there is none of this name.
    """
    names = source.split_names
    if split in names:
        return split
    same = next((group for group in ALIASES if str(split).lower() in group), {str(split).lower()})
    matches = [name for name in names if name.lower() in same]
    if len(matches) == 1:
        return matches[0]
    if source.name == "voc":
        return split  # another list, or folder, which load_voc looks for
    there = f"there are: {', '.join(names)}" if names else "the data has no splits; Dataset.split makes them"
    raise DataError(f"{path}: no such split {split!r}; {there}")
