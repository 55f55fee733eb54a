"""Whose format a file is that a reader cannot take, and what to do about it."""

import re
from pathlib import Path
from typing import Any

_LOAD = "read it by load(...) (--data)"
_WAYS = {
    "VGG Image Annotator (VIA)": _LOAD,
    "LabelMe": f"{_LOAD}, or all files of its folder by giving the folder",
    "YOLO": f"{_LOAD}, best by giving its folder or its data.yaml",
    "Label Studio's own json": _LOAD,
    "CreateML": _LOAD,
    "Supervisely": f"{_LOAD}, or all files of its folder by giving the folder",
    "CVAT's own xml": _LOAD,
    "TFRecords": _LOAD,
    "COCO's results (detections without images and categories)": "give the annotations, e.g. instances_val2017.json",
    "Datumaro": "export it as COCO, `datum convert -f coco`, and read that by load_coco (--coco)",
    "Pascal VOC": "read its folder by load(...) (--data) or load_voc (--voc)",
    "COCO": "read it by load(...) (--data) or load_coco (--coco)",
    "a table (CSV)": "read it by load(...) (--data) or load_csv (--csv)",
}
_YOLO_LINE = re.compile(r"^\s*\d+(\s+[-+0-9.eE]+){4,}\s*$")


def way_out(format_name: str | None) -> str:
    """What to say of a file of another format: `"; it looks like ...: ..."`, or nothing if it is None."""
    return f"; it looks like {format_name}: {_WAYS[format_name]}" if format_name else ""


def kind_of_json(content: Any) -> str | None:
    """The format of some json; None if it is none that is known."""
    if isinstance(content, dict):
        if {"images", "annotations", "categories"} <= set(content):
            return "COCO"
        if {"items", "categories"} <= set(content):
            return "Datumaro"
        if "_via_img_metadata" in content or "_via_settings" in content:
            return "VGG Image Annotator (VIA)"
        if "shapes" in content and ("imagePath" in content or "imageData" in content):
            return "LabelMe"
        if "objects" in content and "size" in content:
            return "Supervisely"
        if ("result" in content and "task" in content) or ("data" in content and "annotations" in content):
            return "Label Studio's own json"
    values = list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []
    first = next((value for value in values if isinstance(value, dict)), {})
    if isinstance(content, list) and "annotator" in first and "annotation_id" in first:
        return "Label Studio's own json"
    if "regions" in first and "filename" in first:
        return "VGG Image Annotator (VIA)"
    if isinstance(content, dict):
        return None
    if "data" in first and ("annotations" in first or "completions" in first or "predictions" in first):
        return "Label Studio's own json"
    if "image_id" in first and "score" in first:
        return "COCO's results (detections without images and categories)"
    if ("annotations" in first or "annotation" in first) and ({"image", "imagefilename", "imageURL"} & set(first)):
        return "CreateML"
    return "LabelMe" if "shapes" in first else None


def kind_of_text(text: str) -> str | None:
    """The format of the beginning of a text file; None if it is none that is known."""
    lines = [line for line in text.splitlines() if line.strip()][:20]
    if not lines:
        return None
    if all(map(_YOLO_LINE.match, lines)):
        return "YOLO"
    head = text.lstrip("\ufeff \r\n\t")
    if head.startswith("<"):
        if "<annotations" in head[:1000]:
            return "CVAT's own xml"
        return "Pascal VOC" if "<annotation" in head[:1000] else None
    if "region_shape_attributes" in lines[0]:
        return "VGG Image Annotator (VIA)"
    if head.startswith(("{", "[")):
        return next((format_name for key, format_name in _KEYS.items() if re.search(key, head)), None)
    if re.search(r"^(names|nc|train|val)\s*:", text, re.M) and "names" in text:
        return "YOLO"
    return "a table (CSV)" if len(re.split("[,;\t]", lines[0])) > 4 else None


# what the beginning of some json has in it, at any depth
_KEYS = {
    r'"(_via_\w+|region_attributes|shape_attributes)"\s*:': "VGG Image Annotator (VIA)",
    r'"shapes"\s*:\s*\[': "LabelMe",
    r'"imagePath"\s*:': "LabelMe",
    r'"classTitle"\s*:': "Supervisely",
    r'"images"\s*:\s*\[[^\]]{0,2000}"file_name"\s*:': "COCO",
}


def kind_of_file(path: Path, length: int = 4096) -> str | None:
    """The format of a file by its beginning; None if it is none that is known, or cannot be read."""
    return kind_of_text(beginning(path, length))


def beginning(path: Path, length: int = 4096) -> str:
    """The text that a file begins with; none if it cannot be read."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            return ""
        with path.open("rb") as stream:
            head = stream.read(length)
    except (OSError, ValueError):
        return ""
    return head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")


def kind_of_folder(folder: Path) -> str | None:
    """The format of the annotations in a folder, by the first of its files that tells; None if none does."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number > 1000:
            break
        if path.suffix.lower() in (".json", ".txt", ".csv", ".yaml", ".yml", ".xml") and path.is_file():
            format_name = kind_of_file(path)
            if format_name:
                return format_name
    return None
