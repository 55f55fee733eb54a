"""What `keras-rcnn presets` prints of one preset, and of what downloaded files were."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from keras_rcnn.cli.tables import figure, table
from keras_rcnn.download import megabytes
from keras_rcnn.pins import pins_path, read_pins

WIDTH = 100
FIGURES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


def preset_card(preset: Mapping[str, Any]) -> str:
    """All that is known of a preset, and how it is used.

    Args:
        preset: of `preset_summary`.
    """
    facts = {
        "finds": preset["task"] + (", in boxes that it is given" if preset["wants_proposals"] else ""),
        "classes": _classes(preset),
        "photos": _sizes(preset),
        "AP": _scores(preset),
        "licence": preset.get("license"),
        "source": preset.get("source"),
        "notes": preset.get("notes"),
        "weights": _weights(preset),
        "address": preset["url"],
    }
    facts = {key: value for key, value in facts.items() if value}
    wide = max(map(len, facts))
    lines = [preset["name"], preset.get("title") or "", ""]
    for key, value in facts.items():
        first, *more = textwrap.wrap(value, WIDTH - wide - 2, break_long_words=False, break_on_hyphens=False)
        lines += [f"{key:{wide}}  {first}", *(" " * (wide + 2) + line for line in more)]
    return "\n".join([*lines, "", *_usage(preset)])


def pins_table() -> str:
    """What the files of unknown SHA-256 were at their first download."""
    pins = read_pins()
    if not pins:
        return f"No file of unknown SHA-256 has been downloaded yet; {pins_path()} will record what it was."
    rows = [[pin.preset, pin.date, str(pin.size), pin.sha256, url] for url, pin in sorted(pins.items())]
    return table(["preset", "first", "bytes", "SHA-256", "address"], rows, left=(0, 1, 3, 4)) + f"\n\n{pins_path()}"


def _classes(preset: Mapping[str, Any]) -> str:
    count, names = preset["num_classes"], preset["class_names"]
    if not names:
        return f"{count}, numbered"
    names = [name for name in names if name != "N/A"]
    gaps = f" ({count} numbers)" if len(names) < count else ""
    return f"{len(names)}{gaps}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"


def _sizes(preset: Mapping[str, Any]) -> str | None:
    if not preset["min_size"]:
        return None
    return f"scaled to a shorter side of {preset['min_size']} px, a longer one of at most {preset['max_size']} px"


def _scores(preset: Mapping[str, Any]) -> str | None:
    metrics = preset.get("metrics") or {}
    scores = [f"{word} {figure(metrics[key].get('AP'))}" for key, word in FIGURES.items() if metrics.get(key)]
    return f"{', '.join(scores)} on {metrics.get('dataset') or 'unknown data'}" if scores else None


def _weights(preset: Mapping[str, Any]) -> str:
    if not preset["weights"]:
        return "none, train it by its recipe.py"
    size = megabytes(preset["size"]) if preset["size"] else "of unknown size"
    if preset["url"] is None:
        return f"{size}, here"
    return f"{size}, {'here already' if preset['local'] else 'downloaded at first use'}"


def _usage(preset: Mapping[str, Any]) -> list[str]:
    if not preset["weights"]:
        return []
    name = preset["name"] if preset["folder"] is None else preset["folder"]
    boxes = ("", "")
    if preset["wants_proposals"]:
        boxes = ", proposals=boxes", " --proposals FILE"
    return [
        f'model = keras_rcnn.from_preset("{name}"); model.detect("photo.jpg"{boxes[0]})',
        f"keras-rcnn detect photo.jpg --preset {name}{boxes[1]}",
    ]
