"""The page that a preset has on a hub: what it is, how it is used, how good it was measured to be, whose it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

# what Hugging Face calls licences; https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    "apache-2.0 mit openrail afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 "
    "agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 osl-3.0 pddl "
    "postgresql unlicense wtfpl zlib".split()
)
KINDS = {
    "RCNN": "R-CNN",
    "FastRCNN": "Fast R-CNN",
    "FasterRCNN": "Faster R-CNN",
    "MaskRCNN": "Mask R-CNN",
}
METRICS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
COLUMNS = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "small", "APm": "medium", "APl": "large"}


def model_card(record: Mapping[str, Any], handle: str, pictures: Sequence[str] = (), text: str | None = None) -> str:
    """A preset's README.md.

    Args:
        record: dict, what its `preset.json` says.
        handle: str, by which it will be loaded.
        pictures: list of str, names of image files beside it.
        text: str, a README.md that the preset has already. What it says stays; front matter is put before it if it has
            none.

    Returns:
        str, YAML front matter and Markdown.

    Example:

    >>> record = {"name": "figs", "license": "MIT", "detector": {"config": {"num_classes": 2}}}
    >>> model_card(record, "hf://someone/figs").splitlines()[:3]
    ['---', 'license: mit', 'library_name: keras_rcnn']
    """
    if text is not None and text.lstrip("\ufeff").startswith("---"):
        return text.lstrip("\ufeff")
    front = yaml.safe_dump(_front_matter(record), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{text if text is not None else _text(record, handle, pictures)}"


def license_id(name: str) -> str | None:
    """What Hugging Face calls a licence, or None if it has no word for it: `"Apache License 2.0"` -> `"apache-2.0"`."""
    words = re.sub(r"[\s_,]+", "-", name.strip().lower())
    words = re.sub(r"-?(licen[cs]e|version|the)(?=-|$)-?", "-", words).strip("-").replace("--", "-")
    words = re.sub(r"-v(?=\d)", "-", words)
    for candidate in (words, f"{words}.0", words.removesuffix("-only"), words.removesuffix("-or-later")):
        if candidate in LICENSES:
            return candidate
    return {"cc0": "cc0-1.0", "apache-2": "apache-2.0", "odc-by-1.0": "odc-by", "odbl-1.0": "odbl"}.get(words)


# === Front matter ===


def _front_matter(record: Mapping[str, Any]) -> dict[str, Any]:
    name = str(record["license"])
    known = license_id(name)
    kind = KINDS.get(record["detector"].get("class_name", ""))
    tags = ["keras", "keras-rcnn", "object-detection", *([kind.lower().replace(" ", "-")] if kind else [])]
    front: dict[str, Any] = {"license": known or "other"}
    if known is None:
        front["license_name"] = re.sub("[^a-z0-9.]+", "-", name.lower()).strip("-")[:100] or "other"
    front |= {"library_name": "keras_rcnn", "pipeline_tag": "object-detection"}
    front["tags"] = [*tags, "instance-segmentation"] if kind == "Mask R-CNN" else tags
    results = [
        {"type": "mean_average_precision", "name": f"AP of {words}, IoU 0.50:0.95", "value": round(value, 4)}
        for key, words in METRICS.items()
        if (value := _number(_metrics(record, key).get("AP"))) is not None
    ]
    if results:
        dataset = str((record.get("metrics") or {}).get("dataset") or "unnamed")
        slug = re.sub("[^a-z0-9]+", "-", dataset.lower()).strip("-")[:60] or "unnamed"
        front["metrics"] = ["mean_average_precision"]
        task = {"type": "object-detection"}
        result = {"task": task, "dataset": {"type": slug, "name": dataset}, "metrics": results}
        front["model-index"] = [{"name": str(record.get("name") or "detector"), "results": [result]}]
    return front


# === Text ===


def _text(record: Mapping[str, Any], handle: str, pictures: Sequence[str]) -> str:
    detector = record["detector"]
    kind = KINDS.get(detector.get("class_name", ""), detector.get("class_name") or "detector")
    backbone = (detector["config"].get("backbone") or {}).get("class_name")
    over = f" with the backbone {backbone}" if backbone else ""
    masks = " and masks" if kind == "Mask R-CNN" else ""
    python = (
        f'import keras_rcnn\n\nmodel = keras_rcnn.from_preset("{handle}")\n'
        f'found = model.detect("photo.jpg")  # boxes, scores, labels, names{masks}\n'
        'keras_rcnn.draw("photo.jpg", found, "found.png")'
    )
    parts = [
        f"# {_line(record.get('title') or record.get('name') or 'Detector')}",
        f"A {kind}{over}, a preset of keras_rcnn for Keras 3.",
        *(f"![{_line(record.get('name') or 'picture')}]({name})" for name in pictures),
        f"## Use\n\nWith keras_rcnn, extra `hub`:\n\n```bash\nkeras-rcnn detect photo.jpg --preset {handle}\n```",
        f"```python\n{python}\n```",
        f"## Classes\n\n{_classes(detector['config'])}",
        f"## Measured\n\n{_measured(record)}",
        f"## Licence\n\n{_line(record['license'])}",
    ]
    if record.get("source"):
        parts.append(f"## Source\n\n{_paragraph(record['source'])}")
    if record.get("notes"):
        parts.append(f"## Notes\n\n{_paragraph(record['notes'])}")
    return "\n\n".join(parts) + "\n"


def _classes(config: Mapping[str, Any]) -> str:
    names = config.get("class_names")
    if not names:
        return f"{config['num_classes']}, without names: 0 to {config['num_classes'] - 1}."
    return f"{len(names)}: " + ", ".join(map(_line, names)) + "."


def _measured(record: Mapping[str, Any]) -> str:
    metrics = record.get("metrics") or {}
    rows = {words: _metrics(record, key) for key, words in METRICS.items() if _metrics(record, key)}
    measured = {key for row in rows.values() for key, value in row.items() if _number(value) is not None}
    columns = {key: head for key, head in COLUMNS.items() if key in measured}
    if not columns:
        return "Nothing was measured."
    table = [f"| COCO's metrics | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for words, row in rows.items():
        numbers = [_number(row.get(key)) for key in columns]
        cells = ("" if number is None else f"{number:.3f}" for number in numbers)
        table.append(f"| {words} | {' | '.join(cells)} |")
    where = f"On {_line(metrics['dataset'])}:\n\n" if metrics.get("dataset") else ""
    return where + "\n".join(table)


def _metrics(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    values = (record.get("metrics") or {}).get(key)
    return values if isinstance(values, Mapping) else {}


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _line(value: object) -> str:
    """Text for a line of Markdown, in which nothing of it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(value).split()))


def _paragraph(value: object) -> str:
    """Text whose addresses stay links."""
    return re.sub(r"([<>])", r"\\\1", " ".join(str(value).split()))
