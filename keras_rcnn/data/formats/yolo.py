"""YOLO: a txt file for each photo, the classes' names in a data.yaml or a list of them."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import identity, name, number, shown
from keras_rcnn.data.formats.photos import FOLDERS, beside, walk
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.formats.yolo_yaml import read_yaml
from keras_rcnn.data.names import ENDINGS, is_there
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_text
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "valid", "test", "minival")
_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")


def yolo_splits(files: list[Path], root: Path) -> dict[str | None, list[Path]]:
    """The splits that a data.yaml names and that are there, else those of folders named so: `{split: files}`."""
    settings = _settings(files, root)
    named: dict[str | None, list[Path]] = {key: files for key in SPLITS if settings.get(key) and _listed(settings, key)}
    if named:
        return named
    photos = walk(root, ENDINGS) if os.path.isdir(root) else ()
    there = dict.fromkeys(split for split in (_split_of(path, root) for path in photos) if split)
    return dict.fromkeys(there, files) if there else {None: files}


def read_yolo(
    files: list[Path],
    root: Path,
    *,
    split: str | None = None,
    images: FilePath | None = None,
    class_names: Sequence[str] | None = None,
    **_: Any,
) -> Tree:
    """YOLO's folders, a data.yaml or one txt file -> `Tree`.

    A photo without a txt file, or with an empty one, has no objects.

    Args:
        files: The data.yaml, one txt file, or whatever marks the folder as YOLO's.
        root: Folder of the data set.
        split: One of the data.yaml's, or of the folders'; None for all photos.
        images: Folder of the photos, where it is not the one that the settings or `root` tell.
        class_names: The names, where no file has them.
    """
    settings = _settings(files, root)
    single = files[0] if len(files) == 1 and files[0].suffix.lower() == ".txt" and files[0] != root else None
    if single is not None and _is_label(single):
        photos = {single: _photo_of(single, Path(images) if images else None)}
        photos = {photo: label for label, photo in photos.items()}
    else:
        photos = {photo: _label_of(photo, root) for photo in _photos(settings, root, split, images)}
        if not any(map(is_there, photos.values())):
            some = next(iter(photos.values()), None)
            raise DataError(
                f"{root}: {len(photos)} photos{f' of the split {split!r}' if split else ''}, and none of them has its "
                f"txt file{f' (e.g. {some})' if some else ''}; YOLO's photos lie in images/ and their files in labels/"
            )
    source = settings.get("file") or (single if single is not None else root)
    tree = Tree(source, folder=root, relative=True)
    lines, highest = [], -1
    for photo, label in photos.items():
        image = tree.image(_relative_name(photo, root))
        for place, line in enumerate(read_text(label).splitlines() if is_there(label) else (), 1):
            if line.strip():
                where = f"in line {place} of {label.name}"
                values = [number(word) for word in line.split()]
                lines.append((image, where, line, values))
                if values[0] is not None and 0 <= values[0] < 100_000 and values[0] % 1 == 0:
                    highest = max(highest, int(values[0]))
    names = _names(settings, root, highest, class_names)
    tree.class_names = list(names.values())
    pose = "kpt_shape" in settings
    for image, where, line, values in lines:
        _add(tree, image, where, line, values[:5] if pose else values, names)
    return tree


def _add(tree: Tree, image: str | None, where: str, line: str, values: list[Any], names: dict[int, str]) -> None:
    if None in values:
        tree.fault(where, f"{shown(line.strip())} is not a class and numbers")
        return
    label, sides = values[0], values[1:]
    if label not in names:
        tree.fault(
            where, f"class {values[0]:g} has no name; there are {len(names)}: {shown(list(names.values()), 400)}"
        )
    elif len(sides) == 5:
        tree.fault(where, "a class and five numbers: a detection with its score, and no annotation")
    elif len(sides) < 4 or len(sides) % 2:
        tree.fault(where, f"a class and {len(sides)} numbers, expected x y width height or the x y of a polygon")
    elif not all(-0.5 <= side <= 1.5 for side in sides):
        tree.fault(
            where, f"{shown(line.strip())} is not in 0..1: YOLO's numbers are shares of the photo's width and height"
        )
    elif len(sides) == 4:
        x, y, width, height = sides
        box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if width <= 0 or height <= 0:
            tree.fault(where, f"{shown(line.strip())} has no width or no height")
        else:
            tree.add(image, where, names[label], box)
    else:
        tree.add(image, where, names[label], polygons=[sides])


def _relative_name(photo: Path, root: Path) -> str:
    try:
        return photo.relative_to(root).as_posix()
    except ValueError:
        return str(photo.absolute())


# === Settings ===


def _settings(files: list[Path], root: Path) -> dict[str, Any]:
    """What a data.yaml says, with its path as `file` and its folder as `folder`; nothing without one."""
    yamls = [file for file in files if file.suffix.lower() in (".yaml", ".yml")]
    if len(yamls) > 1:
        some = ", ".join(str(file.relative_to(root)) for file in yamls[:4])
        raise DataError(
            f"{root}: {len(yamls)} files of YOLO's settings ({some}); give the one that is meant in its place"
        )
    return read_yaml(yamls[0]) | {"file": yamls[0], "folder": yamls[0].parent} if yamls else {}


def _names(settings: dict[str, Any], root: Path, highest: int, class_names: Sequence[str] | None) -> dict[int, str]:
    """`{number: name}` of the classes."""
    if "names" in settings:
        known, count = settings["names"], identity(settings.get("nc"))
        if isinstance(count, int) and count != len(known):
            logger.warning(
                "%s: nc is %d, but it has %d names (%s): the names count. Correct the one that is wrong.",
                settings["file"], count, len(known), shown(list(known.values()), 400),
            )  # fmt: skip
        return known
    for folder in dict.fromkeys((root, root / "train", root / "labels", root / "train" / "labels", root.parent)):
        for file in _LISTS:
            path = folder / file
            if is_there(path) and not _is_label(path):
                lines = [line.strip() for line in read_text(path).splitlines()]
                return {i: line for i, line in enumerate(lines) if name(line)}
    if class_names is not None:
        return dict(enumerate(class_names))
    logger.warning(
        "%s: no data.yaml and no classes.txt has the names of the %d classes: they are called by their numbers; give "
        "names by class_names=[...]", root, highest + 1,
    )  # fmt: skip
    return {i: str(i) for i in range(highest + 1)}


# === Which photos, and which file is whose ===


def _photos(settings: dict[str, Any], root: Path, split: str | None, images: FilePath | None) -> list[Path]:
    """The photos of a split, or all."""
    if images is not None:
        return list(walk(Path(images), ENDINGS))
    keys = [key for key in SPLITS if settings.get(key) and split in (None, key)]
    listed = [photo for key in keys for photo in _listed(settings, key)]
    if keys and not listed:
        wanted = "; ".join(f"{key}: {shown(settings[key])}" for key in keys)
        logger.warning(
            "%s: there are no photos where it says (%s); they are looked for in %s", settings["file"], wanted, root
        )
    if not listed:
        photos = list(walk(root, ENDINGS)) or list(walk(_of_labels(root), ENDINGS))
        listed = [photo for photo in photos if split is None or _split_of(photo, root) == split]
        if not listed:
            of_split = f" of the split {split!r}" if split else ""
            raise DataError(f"{root}: no photos{of_split} in this folder; give theirs by images=... (--images DIR)")
    return list(dict.fromkeys(listed))


def _of_labels(root: Path) -> Path:
    """The folder of the photos whose txt files are in `root`, a folder `labels` or one below it."""
    parts = list(root.absolute().parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place].lower() == "labels":
            return Path(*parts[:place], "images", *parts[place + 1 :])
    return root


def _listed(settings: dict[str, Any], key: str) -> list[Path]:
    """The photos that a data.yaml's `train`, `val` or `test` names: a folder, a list of files, or several such."""
    values = settings[key] if isinstance(settings[key], list) else [settings[key]]
    photos = []
    for value in values:
        path = _resolved(str(value), settings)
        if path is None:
            continue
        if path.is_dir():
            photos += walk(path, ENDINGS)
        elif path.suffix.lower() == ".txt":
            lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
            there = [_resolved(line, settings, path.parent) for line in lines]
            photos += [photo for photo in there if photo is not None]
    return photos


def _resolved(text: str, settings: dict[str, Any], *bases: Path) -> Path | None:
    """Where a path of a data.yaml is: as it stands, or its last folders beside the file, which may have moved."""
    base = Path(settings["folder"])
    top = base / str(settings.get("path") or ".").replace("\\", "/")
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    candidates = [Path(text), *(folder / Path(*parts) for folder in (top, *bases, base) if parts)]
    candidates = candidates if os.path.isabs(text) else candidates[1:]
    tail = [part for part in parts if part != ".."]
    candidates += [base / Path(*tail[start:]) for start in range(len(tail))]
    for path in candidates:
        try:
            if path.exists() and (path.is_dir() or path.is_file()):
                return path
        except (OSError, ValueError):
            continue
    return None


def _split_of(path: Path, root: Path) -> str | None:
    """The folder of a photo's that is named as a split; None if there is none."""
    folders = path.relative_to(root).parts[:-1] if root in path.parents else ()
    return next((part for part in folders if part.lower() in (*SPLITS, "validation", "training", "testing")), None)


def _label_of(photo: Path, root: Path) -> Path:
    """The txt file of a photo: in `labels` for a photo in `images`, else beside it; it need not be there."""
    own = photo.with_suffix(".txt")
    parts = list(own.parts)
    of_photos = [folder.lower() for folder in FOLDERS]
    places = [place for place in range(len(parts) - 2, -1, -1) if parts[place].lower() in of_photos]
    candidates = [Path(*parts[:place], "labels", *parts[place + 1 :]) for place in places]
    candidates += [own, own.parent / "labels" / own.name, own.parent.parent / "labels" / own.name]
    candidates += [root / "labels" / own.name, root / own.name]
    return next((path for path in candidates if is_there(path)), candidates[0])


def _photo_of(label: Path, images: Path | None) -> Path:
    """The photo of one txt file."""
    folders = [label.parent, *(label.parent / folder for folder in FOLDERS), label.parent.parent / "images"]
    for folder in [images] if images else folders:
        photos = beside(folder / label.name)
        if photos:
            return photos[0]
    looked = ", ".join(map(str, [images] if images else folders[:3]))
    raise DataError(f"{label}: no photo of its name in {looked}; give its folder by images=... (--images DIR)")


def _is_label(path: Path) -> bool:
    """Whether a txt file has objects in it, or nothing, rather than names."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    return all(len(words) > 4 and number(words[0]) is not None for words in lines)
