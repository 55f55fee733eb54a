"""Pascal VOC's folders (Annotations, ImageSets, JPEGImages) -> records."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from keras_rcnn.data.records import DataError, Dataset, Problems, Record, checked_size, clean_boxes, refuse_swapped

_FIELDS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(root, split, *, class_names=None, on_bad="error", one_based=True):
    """Reads one split of a data set in Pascal VOC's format.

    Args:
        root: Folder with `Annotations/`, `ImageSets/Main/` and `JPEGImages/`.
        split: Name of the list in `ImageSets/Main`, e.g. `"trainval"`.
        class_names: Names in the order of the labels. None: all names in `Annotations/`, sorted, so that every split
            has the same (for VOC itself its 20).
        on_bad: `"error"` refuses the split if anything is wrong with it; `"skip"` leaves bad objects out and logs one
            warning.
        one_based: VOC counts px from 1 and includes the last one: a box over the whole image is `[1, 1, width, height]`
            and becomes `[0, 0, width, height]` here. False takes the numbers as they are.

    Returns:
        `Dataset`; image ids are the names in the list. `difficult` objects are kept and marked.

    Raises:
        DataError: What is wrong, with the file and the value.
    """
    root = Path(root)
    source = root / "ImageSets" / "Main" / f"{split}.txt"
    if not source.is_file():
        found = ", ".join(sorted(path.stem for path in source.parent.glob("*.txt"))) or "none"
        raise DataError(f"{source}: no such split; there are: {found}")
    names = [line.split()[0] for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise DataError(f"{source}: no images in the split")
    double = sorted(name for name, count in Counter(names).items() if count > 1)
    if double:
        raise DataError(f"{source}: images listed more than once: {', '.join(double[:20])}")

    problems = Problems(source, on_bad)
    if class_names is None:
        paths = sorted((root / "Annotations").glob("*.xml"))
        class_names = sorted({_class(node) for path in paths for node in _parse(path).iter("object")} - {""})
    label_of = {name: label for label, name in enumerate(class_names)}
    images = {path.stem: path for path in (root / "JPEGImages").glob("*.*")}
    pending = []
    for name in names:
        path = root / "Annotations" / f"{name}.xml"
        if not path.is_file():
            problems.add(path, "no such annotation file")
            continue
        tree = _parse(path)
        declared = [_number(tree, f"size/{key}") for key in ("height", "width")]
        image = images.get(name, root / "JPEGImages" / f"{name}.jpg")
        size = checked_size(image, declared if all(declared) else None, problems)
        if size is not None:
            pending.append((image, path, size, _objects(tree, path, label_of, problems)))

    raw = [box for *_, objects in pending for box, _, _ in objects]
    sizes = [size for _, _, size, objects in pending for _ in objects]
    hint = "write xmin + width into xmax and ymin + height into ymax"
    refuse_swapped(raw, sizes, source, hint, given="xyxy", on_bad=on_bad)
    records = [_record(*item, one_based, problems) for item in pending]
    problems.finish()
    return Dataset(records, class_names, name=source)


def _record(image, path, size, objects, one_based, problems):
    raw = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 4)
    boxes, good, reasons = clean_boxes(raw - [one_based, one_based, 0, 0], *size, raw)
    for i in np.flatnonzero(good & ~(raw[:, 2:] > raw[:, :2]).all(axis=1)):
        good[i] = False  # counted from 1 a click without a drag would be one px
        reasons[i] = f"box {raw[i].tolist()} has no width or no height (xmax <= xmin or ymax <= ymin)"
    for i, reason in reasons.items():
        problems.add(path.name, f"object {i + 1}: {reason}")
    kept = np.flatnonzero(good)
    return Record(
        image=str(image),
        image_id=path.stem,
        height=size[0],
        width=size[1],
        boxes=boxes[kept],
        labels=[objects[i][1] for i in kept],
        difficult=[objects[i][2] for i in kept],
    )


def _objects(tree, path, label_of, problems):
    """`[(box as in the file, label, difficult)]`."""
    objects = []
    for number, node in enumerate(tree.iter("object"), 1):
        name = _class(node)
        box = [_number(node, f"bndbox/{field}") for field in _FIELDS]
        if name not in label_of:
            problems.add(path.name, f"object {number}: unknown class {name!r}; the classes are {', '.join(label_of)}")
        elif None in box:
            problems.add(path.name, f"object {number} ({name}): its bndbox is not four numbers {', '.join(_FIELDS)}")
        else:
            objects.append((box, label_of[name], node.findtext("difficult", "0").strip() == "1"))
    return objects


def _class(node):
    return node.findtext("name", "").strip()


def _parse(path):
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not valid xml ({error})") from error


def _number(node, key):
    try:
        return float(node.findtext(key, ""))
    except ValueError:
        return None
