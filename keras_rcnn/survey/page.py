"""A survey as one HTML page: what is to be said, tables, and sheets of photos with their objects."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.data import Dataset
from keras_rcnn.data.masks import full_mask
from keras_rcnn.files import aside
from keras_rcnn.survey.text import survey_text
from keras_rcnn.visualize import draw

PHOTOS = 24  # a split
MASK_PIXELS = 2e8  # of all masks of a photo; with more it is shown with boxes alone
SIDE = 320  # px of a photo's longer side in the sheet
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1080px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
li.error { color: #b00020 } li.warning { color: #8a5a00 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
.sheet { display: flex; flex-wrap: wrap; gap: .5rem } .sheet figure { margin: 0; width: 250px }
.sheet img { width: 100%; display: block } figcaption { font-size: .75rem; overflow-wrap: anywhere; color: #555 }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .85rem }
"""


def write_page(
    path: str | Path, result: Mapping[str, Any], datasets: Mapping[str, Dataset], photos: int = PHOTOS
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
    path = Path(path)
    findings = "".join(
        f'<li class="{finding.level}">{html.escape(finding.text)}</li>' for finding in result["findings"]
    )
    settings = " ".join(f"--set {key}={value}" for key, value in result.get("suggestions", {}).items())
    parts = [
        "<h1>Data check</h1>",
        f"<ul>{findings}</ul>" if findings else "<p>Nothing is wrong.</p>",
        f"<p>Suggested: <code>{html.escape(settings)}</code></p>" if settings else "",
        *(_table(name, split) for name, split in result["splits"].items()),
        *(_sheet(name, dataset, photos) for name, dataset in datasets.items()),
        f"<h2>All of it</h2><pre>{html.escape(survey_text(result))}</pre>",
    ]
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Data check</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _table(name, split):
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td><td>{count['objects']}</td><td>{count['images']}</td></tr>"
        for label, count in split["classes"].items()
    )
    head = f"{name}: {split['images']} images, {split['objects']} objects"
    return f"<h2>{html.escape(head)}</h2><table><tr><th>class</th><th>objects</th><th>images</th></tr>{rows}</table>"


def _sheet(name, dataset, photos):
    figures = "".join(_figure(dataset, record) for record in chosen_photos(dataset, photos))
    return f'<h2>{html.escape(name)}, as annotated</h2><div class="sheet">{figures}</div>'


def chosen_photos(dataset, count):
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


def _few_masks(record):
    """Whether all objects have masks, and these fit into memory."""
    masks = record.segmentations
    if not masks or any(mask is None for mask in masks):
        return False
    return len(masks) * record.height * record.width <= MASK_PIXELS


def _figure(dataset, record):
    from PIL import Image

    caption = f"{Path(record.name).name}: {len(record.boxes)} objects"
    try:
        objects = {"boxes": record.boxes, "labels": record.labels}
        if _few_masks(record):
            size = record.height, record.width
            objects["masks"] = np.array([full_mask(mask, *size) for mask in record.segmentations], bool)
        picture = Image.fromarray(draw(record.read(), objects, class_names=dataset.class_names))
    except ValueError as error:
        return f"<figure><figcaption>{html.escape(f'{caption}: {error}')}</figcaption></figure>"
    picture.thumbnail((2 * SIDE, 2 * SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    code = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{code}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
