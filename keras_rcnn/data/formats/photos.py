"""Where the photos of a data set are, when its annotations do not say the folder."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from keras_rcnn.data.names import ENDINGS, Finder, is_there
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import spread
from keras_rcnn.interfaces import FilePath

_ANNOTATIONS = ("annotations", "ann", "labels", "json")
FOLDERS = ("images", "imgs", "img", "photos", "JPEGImages")


def walk(folder: FilePath, endings: tuple[str, ...]) -> Iterator[Path]:
    """The files of some endings in a folder and those below it, in order, but for hidden ones."""
    for below, folders, files in os.walk(folder):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for file in sorted(files):
            if file.lower().endswith(endings) and not file.startswith("."):
                yield Path(below, file)


def beside(file: Path) -> list[Path]:
    """The photos that lie beside a file and have its name, whatever their ending."""
    stem = file.name[: -len(file.suffix)] if file.suffix else file.name
    candidates = [file.with_name(stem + ending) for ending in ENDINGS]
    candidates += [file.with_name(stem + ending.upper()) for ending in ENDINGS]
    there = {}
    for path in candidates:
        if is_there(path):
            there.setdefault(path.stat().st_ino, path)  # a file system may not tell .jpg from .JPG
    return list(there.values())


def photo_folder(names: Iterable[str], file: Path, root: Path) -> Path:
    """The folder in which the photos of an annotation file are found: beside it, in `images`, of its own name, ...

    Args:
        names: The names that the annotations give.
        file: Path of the annotations.
        root: Folder of the data set, which `file` is in.

    Raises:
        DataError: none of the photos is in any of them.
    """
    parent = file.parent
    stem = re.sub(r"^(instances|person_keypoints|annotations?|_?annotations)_+(?=.)", "", file.stem)
    folders = [parent, root]
    for base in (parent, parent.parent, root):
        folders += [base / folder for folder in (*FOLDERS, file.stem, stem)]
        folders += [base / "images" / folder for folder in (file.stem, stem)]
    if root not in (parent, *parent.parents):
        folders = [folder for folder in folders if folder != root]
    folders = [folder for folder in dict.fromkeys([*folders, parent.parent]) if os.path.isdir(folder)]
    some = spread(list(names), 50)
    counts = [sum(is_there(folder / name) for name in some) for folder in folders]
    if not some:
        return parent  # what reads them says that there are none
    if not max(counts):  # by other names than they have; in the nearer folders first
        above = parent.parent if parent.name.lower() in _ANNOTATIONS else None
        folders = sorted(folders, key=lambda folder: folder in (parent, root, parent.parent))
        folders = [folder for folder in folders if folder != parent.parent or folder in (root, above)]
        counts = [len(Finder(folder, file).find(some, tell=False)[0]) for folder in folders]
    if not max(counts):
        looked = ", ".join(map(str, folders[:8]))
        raise DataError(
            f"{file}: none of its photos (e.g. {some[0]}) is in {looked}; give their folder by "
            "images=... (--images DIR)"
        )
    return folders[counts.index(max(counts))]
