"""The formats that a data set can have: to add one, write its reader and name it here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_rcnn.data.coco import dataset_of, read_coco
from keras_rcnn.data.formats.create_ml import read_create_ml
from keras_rcnn.data.formats.cvat import read_cvat
from keras_rcnn.data.formats.label_studio import read_label_studio
from keras_rcnn.data.formats.labelme import read_labelme
from keras_rcnn.data.formats.photos import FOLDERS, photo_folder
from keras_rcnn.data.formats.supervisely import read_supervisely
from keras_rcnn.data.formats.tfrecord import read_tfrecords
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.formats.via import read_via
from keras_rcnn.data.formats.yolo import read_yolo, yolo_splits
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.records import Dataset
from keras_rcnn.data.table import image_names, load_csv
from keras_rcnn.data.voc import load_voc, voc_splits
from keras_rcnn.interfaces import FilePath, OnBad


class Format(NamedTuple):
    """A format.

    Args:
        title: What `formats.recognised` calls its files.
        description: What is read of it, in a line.
        load: Function of `(files, root, split=..., images=..., on_bad=..., class_names=..., relative=..., ...)` that
            gives a `Dataset`.
        splits: Function of `(files, root)` that gives `{split: files}`; None where folders and file names tell.
        single: Whether a file has a whole data set, rather than a photo.
    """

    title: str
    description: str
    load: Callable[..., Dataset]
    splits: Callable[[list[Path], Path], dict[str | None, list[Path]]] | None = None
    single: bool = False


def _tree(read: Callable[..., Tree]) -> Callable[..., Dataset]:
    """A reader of trees as a function that gives a `Dataset`."""

    def load(
        files: list[Path],
        root: Path,
        *,
        images: FilePath | None,
        on_bad: OnBad,
        class_names: Sequence[str] | None,
        relative: bool,
        **options: Any,
    ) -> Dataset:
        tree = read(files, root, images=images, class_names=class_names, **options)
        folder = tree.folder if images is None or tree.folder is not None else images
        if folder is None:
            if not tree.images:
                tree.dataset(root)  # says why
            folder = photo_folder(tree.images, files[0], root)
        return tree.dataset(folder, on_bad=on_bad, class_names=class_names, relative=relative)

    return load


def _load_coco(
    files: list[Path],
    root: Path,
    *,
    images: FilePath | None,
    on_bad: OnBad,
    class_names: Sequence[str] | None,
    relative: bool,
    crowd_as_objects: bool = False,
    **_: Any,
) -> Dataset:
    (file,) = files
    content = read_coco(file)
    if images is None:
        entries = [entry for entry in content["images"] if isinstance(entry, dict)]
        names = [entry["file_name"] for entry in entries if isinstance(entry.get("file_name"), str)]
        if not names:
            raise DataError(f"{file}: none of its images has a 'file_name'")
        images = photo_folder(names, file, root)
    options: dict[str, Any] = {"relative": relative, "crowd_as_objects": crowd_as_objects}
    return dataset_of(content, file, images, on_bad=on_bad, class_names=class_names, **options)


def _load_voc(
    files: list[Path],
    root: Path,
    *,
    split: str | None,
    images: FilePath | None,
    on_bad: OnBad,
    class_names: Sequence[str] | None,
    relative: bool,
    **options: Any,
) -> Dataset:
    known = {key: options[key] for key in ("one_based", "difficult_as_objects") if key in options}
    if images is None and root.name.lower() == "annotations":  # the folder of the xml files alone
        beside = [root.parent / name for name in FOLDERS if (root.parent / name).is_dir()]
        images = beside[0] if beside else None
    return load_voc(root, split, images=images, on_bad=on_bad, class_names=class_names, relative=relative, **known)


def _load_csv(
    files: list[Path],
    root: Path,
    *,
    images: FilePath | None,
    on_bad: OnBad,
    class_names: Sequence[str] | None,
    relative: bool,
    **options: Any,
) -> Dataset:
    (file,) = files
    known = {key: options[key] for key in ("box_format", "delimiter", "columns", "encoding") if key in options}
    if images is None:
        table = {key: known[key] for key in known if key != "box_format"}
        images = photo_folder(image_names(file, **table), file, root)
    return load_csv(file, images, on_bad=on_bad, class_names=class_names, relative=relative, **known)


FORMATS = {
    "coco": Format("COCO", "COCO json: boxes, polygons, run lengths, crowd", _load_coco, single=True),
    "voc": Format("Pascal VOC", "Pascal VOC xml: boxes", _load_voc, voc_splits),
    "yolo": Format("YOLO", "YOLO txt and data.yaml: boxes, polygons", _tree(read_yolo), yolo_splits),
    "csv": Format("a table (CSV)", "a table with a box a row", _load_csv, single=True),
    "via": Format(
        "VGG Image Annotator (VIA)", "VIA json and csv: rect, polygon, circle, ellipse", _tree(read_via), single=True
    ),
    "labelme": Format("LabelMe", "LabelMe json: rectangle, polygon, circle, mask", _tree(read_labelme)),
    "cvat": Format("CVAT's own xml", "CVAT for images xml: box, polygon, ellipse, mask", _tree(read_cvat), single=True),
    "label_studio": Format(
        "Label Studio's own json",
        "Label Studio json: rectangle, polygon, ellipse",
        _tree(read_label_studio),
        single=True,
    ),
    "createml": Format("CreateML", "Create ML json: boxes", _tree(read_create_ml), single=True),
    "supervisely": Format("Supervisely", "Supervisely json: rectangle, polygon, bitmap", _tree(read_supervisely)),
    "tfrecord": Format("TFRecords", "TFRecords of the Object Detection API: boxes", _tree(read_tfrecords)),
}
NAME_OF = {entry.title: key for key, entry in FORMATS.items()}
# the options of one format alone
OPTIONS = {
    "crowd_as_objects": "coco",
    "one_based": "voc",
    "difficult_as_objects": "voc",
    "box_format": "csv",
    "delimiter": "csv",
    "columns": "csv",
    "encoding": "csv",
    "class_attribute": "via",
}
