"""Pascal VOC's folders, or its xml files alone, -> records."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rcnn.data.fields import flag, number, shown
from keras_rcnn.data.formats.photos import walk
from keras_rcnn.data.formats.recognised import kind_of_folder, way_out
from keras_rcnn.data.names import ENDINGS, Finder, is_there, without_ending
from keras_rcnn.data.problems import (
    DataError,
    Problems,
    checked_size,
    clean_boxes,
    in_px,
    refuse_relative,
    refuse_swapped,
)
from keras_rcnn.data.reading import read_text, read_xml
from keras_rcnn.data.records import Dataset, Record
from keras_rcnn.interfaces import FilePath, OnBad

logger = logging.getLogger(__name__)

_FIELDS = ("xmin", "ymin", "xmax", "ymax")
_SPLITS = ("train", "val", "valid", "validation", "test")
_MARK = re.compile(r"\s+(-?1|0)$")  # in the lists of one class: whether it is in the image


class _Object(NamedTuple):
    number: int
    name: str
    box: list[float | None]  # with None where there is no number
    difficult: bool


class _Annotation(NamedTuple):
    file_name: str
    size: tuple[str | None, ...]
    objects: list[_Object]


def load_voc(
    root: FilePath,
    split: str | None = None,
    *,
    images: FilePath | None = None,
    class_names: Sequence[str] | None = None,
    on_bad: OnBad = "error",
    one_based: bool = True,
    relative: bool = False,
    difficult_as_objects: bool = False,
) -> Dataset:
    """Reads a data set in Pascal VOC's format: VOC's own folders, or xml files anywhere in a folder.

    The image of an annotation is the one of its name, of any ending; else the one that its `filename` says. Files are
    found under the names of other systems, where these can mean one file only, see `Finder`; that is said once.

    Args:
        root: Folder with `Annotations/`, `ImageSets/Main/` and `JPEGImages/`; or with xml files, beside the photos or
            in folders of their own, as labelImg, Roboflow, CVAT and VoTT leave them.
        split: Name of the list in `ImageSets/Main`, e.g. `"trainval"`, path of another list in `root`, or of a folder
            in it (Roboflow's `"train"`). None: all that is annotated; `Dataset.split` makes splits of it.
        images: Folder of the images. None: `JPEGImages`, or else anywhere in `root`.
        class_names: Names in the order of the labels. None: all names in the annotations, sorted, so that every split
            has the same (for VOC itself its 20).
        on_bad: `"error"` refuses the split if anything is wrong with it; `"skip"` leaves bad objects out and logs one
            warning.
        one_based: VOC counts px from 1 and includes the last one: a box over the whole image is `[1, 1, width, height]`
            and becomes `[0, 0, width, height]` here. False takes the numbers as they are.
        relative: The boxes are shares of the image's width and height, not px.
        difficult_as_objects: Takes objects with `difficult` as any other.

    Returns:
        `Dataset`; image ids are the names in the list, without an image's ending. `difficult` objects are kept and
        marked.

    Raises:
        DataError: What is wrong, with the file and the value.

    Example:

    ```python
    dataset = load_voc("VOC2007", "trainval")
    train, val = load_voc("labelled_photos").split(0.2)
    ```
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise DataError(f"{root}: is a file, give VOC's folder" if os.path.isfile(root) else f"{root}: no such folder")
    folder, files = _xml_files(root)
    source, chosen = _chosen(root, folder, split, files)
    problems = Problems(source, on_bad)
    of_classes = files if class_names is None else {name: files[name] for name in chosen if name in files}
    annotations = {}
    for name in of_classes:
        try:
            annotations[name] = _read(files[name])
        except DataError as error:
            if name in chosen or on_bad == "error":
                problems.add(files[name], str(error).removeprefix(f"{files[name]}: "))
    if class_names is None:
        class_names = sorted({object_.name for item in annotations.values() for object_ in item.objects} - {""})
    label_of = {name: label for label, name in enumerate(class_names)}
    for name in chosen:
        if name not in files:
            problems.add(folder / f"{name}.xml", "no such annotation file")
    chosen = [name for name in chosen if name in annotations]
    if not annotations and on_bad == "error":
        problems.finish()  # what follows would only repeat it
    if images is not None and not os.path.isdir(images):
        raise DataError(f"{root}: no image folder {images}")
    paths = _images(root, Path(images) if images is not None else None, files, annotations, chosen, problems)

    pending: list[tuple[str, Path, Path, tuple[int, int], list[_Object]]] = []
    for name in chosen:
        if name not in paths:
            continue
        size = checked_size(paths[name], annotations[name].size, problems)
        if size is not None:
            objects = _good(annotations[name].objects, files[name], label_of, problems)
            pending.append((name, paths[name], files[name], size, objects))
    raw: list[Any] = [object_.box for *_, objects in pending for object_ in objects]
    sizes = [size for *_, size, objects in pending for _ in objects]
    if not relative:
        refuse_relative(raw, sizes, source, "pass relative=True to take them as shares")
        hint = "write xmin + width into xmax and ymin + height into ymax"
        refuse_swapped(raw, sizes, source, hint, given="xyxy", on_bad=on_bad)
    records = [_record(*item, label_of, one_based, relative, difficult_as_objects, problems) for item in pending]
    problems.finish()
    return Dataset(records, class_names, name=source, bad=problems.found)


def _record(
    name: str,
    image: Path,
    path: Path,
    size: tuple[int, int],
    objects: list[_Object],
    label_of: dict[str, int],
    one_based: bool,
    relative: bool,
    difficult_as_objects: bool,
    problems: Problems,
) -> Record:
    raw = np.array([item.box for item in objects], np.float64).reshape(-1, 4)
    px = in_px(raw, size) if relative else raw - [one_based, one_based, 0, 0]
    boxes, good, reasons = clean_boxes(px, *size, raw)
    for i in np.flatnonzero(good & ~(raw[:, 2:] > raw[:, :2]).all(axis=1)):
        good[i] = False  # counted from 1 a click without a drag would be one px
        reasons[int(i)] = f"box {raw[i].tolist()} has no width or no height (xmax <= xmin or ymax <= ymin)"
    for i, reason in reasons.items():
        problems.add(path.name, f"object {objects[i].number}: {reason}")
    kept = np.flatnonzero(good)
    return Record(
        image=str(image),
        image_id=name,
        height=size[0],
        width=size[1],
        boxes=boxes[kept],
        labels=[label_of[objects[i].name] for i in kept],
        difficult=[objects[i].difficult and not difficult_as_objects for i in kept],
    )


def _good(objects: list[_Object], path: Path, label_of: dict[str, int], problems: Problems) -> list[_Object]:
    """The objects that have a class and four numbers."""
    good = []
    for item in objects:
        if item.name not in label_of:
            known = ", ".join(label_of)[:400]
            problems.add(path.name, f"object {item.number}: unknown class {shown(item.name)}; the classes are {known}")
        elif None in item.box:
            fields = ", ".join(_FIELDS)
            problems.add(path.name, f"object {item.number} ({item.name}): its bndbox is not four numbers {fields}")
        else:
            good.append(item)
    return good


# === Which annotations ===


def voc_splits(files: list[Path], root: Path) -> dict[str | None, list[Path]]:
    """The lists in `ImageSets/Main`, but for those of one class, or the folders named as splits: `{split: files}`."""
    lists = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    whole = [name for name in lists if "_" not in name or not any(name.endswith(f"_{other}") for other in lists)]
    if not whole:
        parts = {part for path in files for part in path.relative_to(root).parts[:-1]}
        whole = [name for name in _SPLITS if name in parts]
    return dict.fromkeys(whole, files) or {None: files}


def _xml_files(root: Path) -> tuple[Path, dict[str, Path]]:
    """`(folder, {name without .xml, relative to the folder: path})`."""
    usual = [path for path in sorted(root.iterdir()) if path.name.lower() == "annotations"]
    folder, files = root, {}
    for folder in (*usual[:1], root):
        files = {}
        for path in walk(folder, (".xml",)):
            files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        if files:
            break
    return folder, files


def _chosen(root: Path, folder: Path, split: str | None, files: dict[str, Path]) -> tuple[Path, list[str]]:
    """`(what the data set is called, the annotations' names)`."""
    split, lists = None if split is None else str(split), root / "ImageSets" / "Main"
    there = sorted(path.stem for path in lists.glob("*.txt"))
    if split is None:
        if not files:
            raise DataError(f"{folder}: no xml files in this folder{_other(root)}")
        if there:
            logger.warning("%s: all %d annotations are read; it has the splits %s", root, len(files), ", ".join(there))
        return root, list(files)
    source = lists / f"{split}.txt"
    for path in (lists / f"{split}.txt", lists / split, root / f"{split}.txt", root / split):
        if is_there(path):
            source = path
            break
    else:
        inside = [name for name, path in files.items() if root / split in path.parents]
        if inside:
            return root / split, inside
        known = ", ".join(there) or "none"
        way = (
            f"; without a split all {len(files)} annotations are read; Dataset.split, or in a training "
            "val_fraction=0.2, sets some aside to validate on"
            if files and not there
            else ""
        )
        raise DataError(f"{source}: no such split; there are: {known}{way}{'' if files else _other(root)}")
    lines = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{source}: no images in the split")
    return source, _listed(lines, source, files)


def _listed(lines: list[str], source: Path, files: dict[str, Path]) -> list[str]:
    """The annotations' names that a list gives: whole lines, perhaps with an image's ending, folders or a mark."""
    plain = {name.casefold(): name for name in files}
    names, marked = [], False
    for line in lines:
        name = _annotated(line, files, plain)
        if name is None and _MARK.search(line):
            marked, line = True, _MARK.sub("", line)
            name = _annotated(line, files, plain)
        names.append(without_ending(line) if name is None else name)
    double = sorted(name for name, count in Counter(names).items() if count > 1)
    if double and not marked:
        raise DataError(f"{source}: images listed more than once: {', '.join(double[:20])}")
    return list(dict.fromkeys(names))


def _annotated(text: str, files: dict[str, Path], plain: dict[str, str]) -> str | None:
    """The annotation that an entry of a list means; None if there is none."""
    text = text.strip().strip('"').replace("\\", "/")
    for candidate in (text, without_ending(text), without_ending(text, (".xml",))):
        parts = [part for part in candidate.split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if name in files:
                return name
            if name.casefold() in plain:
                return plain[name.casefold()]
    return None


def _other(root: Path) -> str:
    layout = kind_of_folder(root)
    return way_out(None if layout == "Pascal VOC" else layout)


# === Which images ===


def _images(
    root: Path,
    folder: Path | None,
    files: dict[str, Path],
    annotations: dict[str, _Annotation],
    chosen: list[str],
    problems: Problems,
) -> dict[str, Path]:
    """`{name: path of its image}`: of the same name, else as `filename` says."""
    explicit = folder is not None
    folder = folder or (root / "JPEGImages" if (root / "JPEGImages").is_dir() else root)
    same = defaultdict(list)  # name without its ending -> files
    for path in walk(folder, ENDINGS):
        same[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    paths, left = {}, {}
    for name in chosen:
        beside = _beside(files[name], folder)
        matches = same.get(name) or (same.get(beside) if beside else None) or []
        file_name = annotations[name].file_name
        if len(matches) > 1:  # a.jpg and a.png
            matches = [path for path in matches if path.name == Path(file_name.replace("\\", "/")).name] or matches
        if len(matches) == 1:
            paths[name] = matches[0]
        elif matches:
            problems.add(files[name], f"{len(matches)} images have its name: {', '.join(map(str, matches[:4]))}")
        else:
            left[name] = without_ending(name)
    # elsewhere: by its own name in any folder, then by the name that it says
    for step in ("name", "filename"):
        wanted = {name: left[name] if step == "name" else annotations[name].file_name for name in left}
        wanted = {name: text for name, text in wanted.items() if text}
        matches, tried = Finder(folder, root).find(wanted.values(), tell=step == "filename")
        for name, text in wanted.items():
            if text in matches:
                paths[name] = matches[text]
                del left[name]
            elif step == "filename":
                left[name] = tried[text]
    for name, why in left.items():
        why = why if why.startswith("no such image") else f"no such image file in {folder}"
        where = "" if explicit or folder == root else f" ({folder})"
        problems.add(folder / f"{name}.jpg", f"{why}{where}, for {files[name].name}")
    return paths


def _beside(path: Path, folder: Path) -> str | None:
    """The name that an image beside an annotation has in the images' folder; None outside of it."""
    try:
        return path.with_suffix("").relative_to(folder).as_posix()
    except ValueError:
        return None


# === What they say ===


def _read(path: Path) -> _Annotation:
    tree = read_xml(path)
    if tree.tag != "annotation":
        way = way_out("CVAT's own xml") if tree.tag == "annotations" else ""
        raise DataError(f"{path}: not VOC's format, its root is <{tree.tag[:80]}>, expected <annotation>{way}")
    if not len(tree):
        raise DataError(f"{path}: <annotation> is empty; a photo without objects has its <filename> at least")
    size = tuple(tree.findtext(f"size/{key}") for key in ("height", "width"))
    objects = [
        _Object(
            place,
            (node.findtext("name") or "").strip(),
            [number(node.findtext(f"bndbox/{field}")) for field in _FIELDS],
            bool(flag(node.findtext("difficult"))),
        )
        for place, node in enumerate(tree.iter("object"), 1)
    ]
    return _Annotation((tree.findtext("filename") or "").strip(), size, objects)
