"""TFRecords of TensorFlow's Object Detection API, read without TensorFlow; their photos are unpacked into a cache."""

import hashlib
import logging
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_rcnn.data.fields import name, shown
from keras_rcnn.data.formats.protobuf import read_example
from keras_rcnn.data.formats.tree import Tree
from keras_rcnn.data.names import is_there
from keras_rcnn.data.problems import DataError
from keras_rcnn.data.reading import read_text
from keras_rcnn.files import aside

logger = logging.getLogger(__name__)

LARGEST = 256 << 20  # bytes of one record
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BEGINNINGS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
_ITEM = re.compile(r"item\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def is_tfrecord(path: Path) -> bool:
    """Whether a file begins with a record of an example."""
    if not is_there(path):  # a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as stream:
            head = stream.read(13)
        size = os.path.getsize(path)
    except OSError:
        return False
    return len(head) == 13 and head[12] == 0x0A and 0 < struct.unpack("<Q", head[:8])[0] <= size - 16


def read_tfrecords(files: list[Path], root: Path, **_: Any) -> Tree:
    """Files of `tf.train.Example` -> `Tree`.

    A photo has `image/encoded`, and perhaps `image/filename`; its objects have `image/object/bbox/xmin`, ... as shares
    of its sides, and `image/object/class/text` or `label`. Photos are written to `$KERAS_RCNN_HOME/tfrecords`, once.

    Args:
        files: The files of records.
        root: Folder that they are in.
    """
    home = Path(os.environ.get("KERAS_RCNN_HOME") or "~/.keras_rcnn").expanduser() / "tfrecords"
    tree = Tree(files[0] if len(files) == 1 else root, folder=home, relative=True)
    names = _label_map(files, root)
    tree.class_names = list(names.values())
    for file in files:
        stat = file.stat()
        key = hashlib.sha256(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
        for place, record in enumerate(_records(file), 1):
            where = f"record {place} of {file.name}"
            try:
                features = read_example(record)
            except ValueError as error:
                tree.fault(where, f"is no tf.train.Example ({error})")
                continue
            _add(tree, where, features, home, f"{key}/{place:06d}", names)
    logger.warning("%s: its %d photos are unpacked in %s", tree.source, len(tree.images), home)
    return tree


def _add(
    tree: Tree, where: str, features: dict[str, list[Any]], home: Path, folder: str, names: dict[int, str]
) -> None:
    encoded = features.get("image/encoded", [])
    if len(encoded) != 1 or not isinstance(encoded[0], bytes) or not encoded[0]:
        tree.fault(where, "has no 'image/encoded'")
        return
    ending = next((ending for head, ending in _BEGINNINGS.items() if encoded[0].startswith(head)), ".img")
    title = _text((features.get("image/filename") or features.get("image/source_id") or [b""])[0])
    stem = re.sub(r"[^\w.-]+", "_", title.replace("\\", "/").rpartition("/")[2].rpartition(".")[0])[-80:].strip(".")
    path = home / f"{folder}_{stem or 'photo'}{ending}"
    if not path.is_file() or path.stat().st_size != len(encoded[0]):
        try:
            with aside(path) as temporary:
                temporary.write_bytes(encoded[0])
        except OSError as error:
            reason = f"a photo of the TFRecords cannot be unpacked here ({error.strerror})"
            raise DataError(f"{path}: {reason}; name another folder by KERAS_RCNN_HOME") from error
    image = tree.image(path.relative_to(home).as_posix(), where=where)
    columns = [features.get(f"image/object/bbox/{side}", []) for side in _SIDES]
    texts, labels = (features.get(f"image/object/class/{key}", []) for key in ("text", "label"))
    count = len(columns[0])
    if any(len(column) != count for column in columns) or (len(texts) != count and len(labels) != count):
        lengths = ", ".join(map(str, [*map(len, columns), len(texts), len(labels)]))
        tree.fault(where, f"xmin, ymin, xmax, ymax, class/text and class/label have {lengths} values")
        return
    for i, box in enumerate(zip(*columns)):
        label = _text(texts[i]) if len(texts) == count else names.get(labels[i], str(labels[i]))
        at = f"{i + 1} in {where}"
        if not all(isinstance(side, float) for side in box):
            tree.fault(at, f"its box {shown(box)} is not of floats")
        else:
            tree.add(image, at, label, list(box))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _records(file: Path) -> Iterator[bytes]:
    """The records of a file, one at a time."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        while head := stream.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else None
            if length is None or length > LARGEST or stream.tell() + length + 4 > size:
                raise DataError(f"{file}: cut off or no TFRecord (at byte {stream.tell() - len(head)} of {size})")
            yield stream.read(length)
            stream.read(4)


def _label_map(files: list[Path], root: Path) -> dict[int, str]:
    """`{number: name}` of the label map beside the records, a `.pbtxt`."""
    folders = dict.fromkeys([file.parent for file in files] + [root])
    for path in [path for folder in folders for path in sorted(folder.glob("*.pbtxt"))]:
        names = {}
        for item in _ITEM.findall(read_text(path)):
            number = re.search(r"\bid\s*:\s*(\d{1,9})\b", item)
            title = re.search(r"\b(?:display_name|name)\s*:\s*(['\"])(.*?)\1", item)
            if number and title and name(title[2]):
                names[int(number[1])] = name(title[2])
        if names:
            return dict(sorted(names.items()))
    return {}
