"""Presets evaluated on COCO val2017, and what comes of it beside what was published."""

import argparse
import sys
from pathlib import Path

import numpy as np

from keras_rcnn.cli.output import write_json
from keras_rcnn.data import load_coco
from keras_rcnn.evaluation import detect_all
from keras_rcnn.evaluation.scoring import metrics_of
from keras_rcnn.presets import PresetError, from_preset, list_presets

PHOTOS = 5000  # of val2017
SAME = ("COCO val2017", "COCO 2014 minival")  # the very same photos
TOLERANCE = 0.002  # published figures are rounded to 0.001, and a photo decoded by another library is another photo
KINDS = {"bbox": "box AP", "segm": "mask AP", "keypoints": "keypoint AP"}


def main(words=None):
    """The command; its exit code is 1 if a figure is not the published one."""
    parser = argparse.ArgumentParser(
        description="Evaluates presets on COCO val2017 and prints their AP beside the published one. DIR is as COCO's "
        "own archives unpack: annotations/instances_val2017.json (for keypoints person_keypoints_val2017.json) and "
        "val2017/ with the photos.",
        epilog="python tools/reproduce.py maskrcnn_resnet50_fpn mask_rcnn_R_50_FPN_3x --coco ~/coco --photos 500",
    )
    parser.add_argument("preset", nargs="+", metavar="PRESET")
    parser.add_argument("--coco", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--photos", type=int, metavar="N", help="so many of them, evenly spread; there is no verdict then"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too; kept after each preset")
    arguments = parser.parse_args(words)
    if arguments.photos is not None and arguments.photos < 1:
        parser.error("--photos is a number from 1")
    try:
        all_published = {name: published(name) for name in arguments.preset}
        kinds = {name: "keypoints" in figures for name, figures in all_published.items()}
        datasets = {kind: photos_of(arguments.coco, kind, arguments.photos) for kind in set(kinds.values())}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    whole, figures = all(len(dataset) == PHOTOS for dataset in datasets.values()), {}
    for name, expected in all_published.items():
        dataset = datasets[kinds[name]]
        print(f"== {name}, {len(dataset)} photos", file=sys.stderr)
        figures[name] = measured(name, dataset, arguments.batch_size)
        if arguments.json:
            write_json(arguments.json, {"photos": len(dataset), "measured": figures, "published": all_published})
        print(table({name: figures[name]}, {name: expected}, whole), flush=True)
    if not whole:
        print(
            f"\nThese are not the {PHOTOS} photos that the published figures are of: a few points more or less mean "
            "nothing."
        )
    return int(whole and any(off(figures[name], expected) for name, expected in all_published.items()))


def published(name):
    """The AP of each kind that a preset's `preset.json` gives for COCO val2017.

    Raises:
        PresetError: there is no such preset, or nothing was published for COCO val2017.
    """
    record = next((preset for preset in list_presets() if preset["name"] == name), None)
    if record is None:
        raise PresetError(f"There is no preset {name!r} in the zoo; `keras-rcnn presets` lists them.")
    metrics = record.get("metrics") or {}
    values = {kind: metrics[kind]["AP"] for kind in KINDS if (metrics.get(kind) or {}).get("AP") is not None}
    if not values or not any(same in str(metrics.get("dataset")) for same in SAME):
        raise PresetError(
            f"{name}: there is no published AP on COCO val2017 ({metrics.get('dataset') or 'none at all'})"
        )
    return values


def photos_of(folder, keypoints=False, count=None):
    """COCO val2017 as it unpacks, or `count` of its photos; people alone if it is about their keypoints."""
    file = folder / "annotations" / f"{'person_keypoints' if keypoints else 'instances'}_val2017.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there. Unpack annotations_trainval2017.zip and val2017.zip in {folder}."
        )
    dataset = load_coco(file, folder / "val2017", on_bad="skip")
    if count is None or count >= len(dataset):
        return dataset
    chosen = {dataset[int(place)].image_id for place in np.linspace(0, len(dataset) - 1, count).round()}
    return dataset.filter(lambda record: record.image_id in chosen)


def measured(name, dataset, batch_size):
    """The AP of each kind that a preset finds."""
    model = from_preset(name)
    decoder = model.parts["decoder"]
    if decoder.score_threshold >= 0.5:  # Matterport's Config has 0.7, but its published AP is that of 0
        decoder.score_threshold = 0.0
    metrics = metrics_of(dataset, detect_all(model, dataset, batch_size=batch_size, progress=sys.stderr.isatty()))
    return {kind: metrics[kind]["AP"] for kind in KINDS if kind in metrics}


def off(figures, expected):
    """The kinds whose AP is missing or not the published one."""
    return [kind for kind, value in expected.items() if not abs(figures.get(kind, np.nan) - value) <= TOLERANCE]


def table(figures, published, whole):
    """Measured beside published, in points, as Markdown."""
    lines = ["| preset | | measured | published | difference |", "|---|---|--:|--:|--:|"]
    for name, expected in published.items():
        for kind, value in expected.items():
            own = figures[name].get(kind)
            verdict = " (off)" if whole and kind in off(figures[name], expected) else ""
            cells = ["-", "-"] if own is None else [f"{100 * own:.1f}", f"{100 * (own - value):+.1f}{verdict}"]
            lines.append(f"| {name} | {KINDS[kind]} | {cells[0]} | {100 * value:.1f} | {cells[1]} |")
    return "\n".join(lines)
