"""What a file of annotations says, and an error with its name if it says nothing."""

import json
import logging
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from keras_rcnn.data.formats.recognised import beginning, kind_of_file, way_out
from keras_rcnn.data.problems import DataError
from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")


def spread(items: list[_Item], count: int) -> list[_Item]:
    """At most `count` of a list's items, from all over it."""
    return items[:: max(len(items) // count, 1)][:count]


def read_json(path: Path) -> Any:
    """What a json file says.

    Raises:
        DataError: it cannot be read, or is no json.
    """
    content = read_bytes(path)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise DataError(f"{path}: not valid json (nested too deeply)") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid json ({error}){way_out(_other(path))}") from error


def read_xml(path: FilePath) -> ElementTree.Element:
    """The root of an xml file, its tags without namespaces.

    Raises:
        DataError: it cannot be read, is no xml, or declares entities, which may grow to any size.
    """
    content = read_bytes(path)
    if b"<!ENTITY" in content:
        raise DataError(f"{path}: it declares entities (<!ENTITY ...>), which no annotation tool does; take them out")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(f"{path}: not valid xml ({error})") from error
    if any("}" in str(node.tag) for node in root.iter()):
        for node in root.iter():
            node.tag = str(node.tag).rpartition("}")[2]
    return root


def _other(path: Path) -> str | None:
    """The format of a file that is no json; None for json that is cut off, whatever reader it was meant for."""
    return None if beginning(path, 64).lstrip("\ufeff \r\n\t")[:1] in ("{", "[") else kind_of_file(path)


def read_bytes(path: FilePath) -> bytes:
    """What a file holds.

    Raises:
        DataError: it is no file, or cannot be read.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise DataError(f"{path}: cannot be read ({'a folder' if path.is_dir() else 'not a regular file'})")
        return path.read_bytes()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_text(path: FilePath, encoding: str | None = None) -> str:
    """What a text file says: UTF-8, UTF-16 with its mark, else as Western Europe's Windows writes it, with a warning.

    Args:
        path: Of the file.
        encoding: Its encoding; None finds it out.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    content = read_bytes(path)
    if encoding is None:
        marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
        encoding = marks.get(content[:2], "utf-8-sig")
        if encoding == "utf-8-sig" and b"\0" in content[:2]:
            encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            if encoding != "utf-8-sig":
                raise DataError(f"{path}: not {encoding.upper()} text ({error})") from error
            encoding = "cp1252"
            logger.warning("%s: not UTF-8 (%s); it is read as %s", path, error, encoding)
    try:
        return content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path}: cannot be read as {encoding} ({error}); save it as UTF-8") from error
