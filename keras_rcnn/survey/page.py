"""A survey as one HTML page: what is to be said, tables, and sheets of photos with their objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.data import Dataset, Record
from keras_rcnn.data.masks import full_mask
from keras_rcnn.html_page import Markup, element, figure, html_table, sheet, write_html
from keras_rcnn.interfaces import FilePath
from keras_rcnn.survey.text import survey_text
from keras_rcnn.visualize import draw

PHOTOS = 24  # a split
MASK_PIXELS = 2e8  # of all masks of a photo; with more it is shown with boxes alone


def write_page(
    path: FilePath, result: Mapping[str, Any], datasets: Mapping[str, Dataset], photos: int = PHOTOS
) -> Path:
    """Writes a survey as one HTML file that needs nothing else.

    Args:
        path: of the file.
        result: of `survey`.
        datasets: dict, `"train"` and `"val"` -> `Dataset`, whose photos are shown with boxes and masks.
        photos: int, how many of each: those with the most objects and with the smallest, and others evenly from all.

    Returns:
        `path` as a `pathlib.Path`.
    """
    findings = "".join(element("li", finding.text, finding.level) for finding in result["findings"])
    settings = " ".join(f"--set {key}={value}" for key, value in result.get("suggestions", {}).items())
    parts = [
        "<h1>Data check</h1>",
        f"<ul>{findings}</ul>" if findings else "<p>Nothing is wrong.</p>",
        f"<p>Suggested: {element('code', settings)}</p>" if settings else "",
        *(_table(name, split) for name, split in result["splits"].items()),
        *(_sheet(name, dataset, photos) for name, dataset in datasets.items()),
        "<h2>All of it</h2>",
        element("pre", survey_text(result)),
    ]
    return write_html(path, "Data check", parts)


def _table(name: str, split: Mapping[str, Any]) -> str:
    rows = [[label, count["objects"], count["images"]] for label, count in split["classes"].items()]
    head = element("h2", f"{name}: {split['images']} images, {split['objects']} objects")
    return head + html_table(["class", "objects", "images"], rows)


def _sheet(name: str, dataset: Dataset, photos: int) -> str:
    figures = [_figure(dataset, record) for record in chosen_photos(dataset, photos)]
    return element("h2", f"{name}, as annotated") + sheet(figures)


def chosen_photos(dataset: Dataset, count: int) -> list[Record]:
    """A third with the most objects, a third with the smallest, and the rest evenly from all."""
    records = list(dataset)
    if len(records) <= count:
        return records
    smallest = [
        np.sqrt((r.boxes[:, 2:] - r.boxes[:, :2]).prod(axis=1)).min() if len(r.boxes) else np.inf for r in records
    ]
    crowded = np.argsort([-len(record.boxes) for record in records], kind="stable")
    places = dict.fromkeys([*crowded[: count // 3], *np.argsort(smallest, kind="stable")[: count // 3]])
    evenly = np.linspace(0, len(records) - 1, count).round().astype(int)
    places |= dict.fromkeys(evenly)
    return [records[i] for i in list(places)[:count]]


def _few_masks(record: Record) -> bool:
    """Whether all objects have masks, and these fit into memory."""
    masks = record.segmentations
    if not masks or any(mask is None for mask in masks):
        return False
    return len(masks) * record.height * record.width <= MASK_PIXELS


def _figure(dataset: Dataset, record: Record) -> Markup:
    caption = f"{Path(record.name).name}: {len(record.boxes)} objects"
    try:
        objects = {"boxes": record.boxes, "labels": record.labels}
        if _few_masks(record):
            size = record.height, record.width
            objects["masks"] = np.array([full_mask(mask, *size) for mask in record.segmentations], bool)
        return figure(draw(record.read(), objects, class_names=dataset.class_names), caption)
    except ValueError as error:
        return figure(None, f"{caption}: {error}")
