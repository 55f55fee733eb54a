"""What the command prints: tables and words, from what the package's functions return."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.printable import printable

if TYPE_CHECKING:
    import numpy as np

    from keras_rcnn.models import Detector


def boxes_table(detections: Mapping[str, Any]) -> str:
    """One photo's detections as text, best first."""
    rows = [
        [str(i), name, f"{score:.3f}", *(f"{x:.1f}" for x in box)]
        for i, (name, score, box) in enumerate(
            zip(detections["names"], detections["scores"], detections["boxes"]), start=1
        )
    ]
    return table(["#", "name", "score", "x1", "y1", "x2", "y2"], rows, left=(1,))


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """What `evaluate` returns as text: the data set's figures, then each class's."""
    tasks = [task for task in ("bbox", "segm", "keypoints") if task in metrics]
    columns = list(dict.fromkeys(key for task in tasks for key in metrics[task]))
    figures = table(
        ["", *columns], [[task, *(figure(metrics[task].get(key)) for key in columns)] for task in tasks], left=(0,)
    )
    classes = metrics["per_class"]
    columns = list(dict.fromkeys(key for values in classes.values() for key in values))
    rows = [[name, *(figure(values.get(key)) for key in columns)] for name, values in classes.items()]
    return figures + "\n\n" + table(["class", *columns], rows, left=(0,))


def comparison_table(rows: Mapping[str, Any], models: Mapping[str, Detector]) -> str:
    """What `compare` returns as text, with the weights' number."""
    body = [
        [
            name,
            *(figure(row["bbox"][key]) for key in ("AP", "AP50")),
            f"{row['seconds']:.3f}",
            f"{models[name].count_params() / 1e6:.2f}",
        ]
        for name, row in rows.items()
    ]
    return table(["", "AP", "AP50", "seconds an image", "million weights"], body, left=(0,))


def recall_table(recall: Mapping[str, Any]) -> str:
    """What `proposal_recall` returns as text: a row for each number of proposals that is looked at."""
    rows = [
        [str(limit), f"{count:.1f}", *(figure(values[limit]) for values in recall["recall"].values())]
        for limit, count in recall["boxes"].items()
    ]
    head = ["best", "an image", *(f"recall at IoU {threshold:g}" for threshold in recall["recall"])]
    return f"{recall['images']} images, {recall['objects']} objects\n\n" + table(head, rows)


def caffe_usage(model: str, path: Path, values: Mapping[str, np.ndarray]) -> str:
    """What `convert caffe` has written, and the Python that puts it into a detector."""
    from keras_rcnn.convert.caffe import ANCHOR_SIZES

    backbone = {"vgg16": "VGG16", "caffenet": "CaffeNet", "zf": "ZF"}[model]
    parts = sorted({name.split("/")[0] for name in values if not name.startswith("conv")})
    units = tuple(len(values[bias]) for i in range(2) if (bias := f"box_head/fc_{i}/bias") in values) or (4096, 4096)
    logits = values.get("box_predictor/logits/bias")
    detector = "FasterRCNN" if "rpn_head" in parts else "FastRCNN"
    more = ""
    if "rpn_head" in parts:
        sizes = ANCHOR_SIZES[len(values["rpn_head/objectness/bias"])]
        more = f"    anchors=layers.AnchorGenerator([{sizes}], strides=(16,)),\n"
    whole = {"box_head", "box_predictor"} <= set(parts)
    load = [f"values = convert.read_caffe_weights({model!r}, file)"] if parts else []
    if whole:
        load.append("convert.assign(model, values)")
    for part in () if whole else parts:
        of_part = f'{{name: value for name, value in values.items() if name.startswith("{part}/")}}'
        load.append(f'convert.assign(model.get_layer("{part}"), {of_part})')
    return f"""The weights of {", ".join([backbone, *parts])}: {path}

from keras_rcnn import {detector}, backbones, convert, data, layers

file = {str(path)!r}
model = {detector}(
    backbones.{backbone}(weights=file, freeze_at={2 if model == "vgg16" else 1}),
    num_classes={20 if logits is None else len(logits) - 1},
    neck=layers.SingleLevel("C4"),
{more}    box_pool=layers.RoIPool({7 if model == "vgg16" else 6}, (16,), name="box_pool"),
    box_head=layers.BoxHead({units}, dropout=0.5),
    preprocessor=data.Preprocessor(600, 1000, [m / 255 for m in convert.CAFFE_MEAN], [1 / 255] * 3),
)
{chr(10).join(load)}"""


def presets_table(presets: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The zoo as text, or as a Markdown table, which does not say what this machine has downloaded."""
    rows = []
    for preset in presets:
        scores = [figure(preset[key]) for key in ("AP", "mask_AP", "keypoint_AP")]
        size, measured = preset["size"], preset["dataset"] or "-"
        rows.append([preset["name"], *scores, f"{size / 1e6:.1f}" if size else "-", measured])
    head = ["preset", "box AP", "mask AP", "point AP", "MB", "measured on"]
    if not any(preset["keypoint_AP"] for preset in presets):
        head, rows = [*head[:3], *head[4:]], [[*row[:3], *row[4:]] for row in rows]
    if markdown:
        align = ["---", *["--:"] * (len(head) - 2), "---", "---", "---"]
        more = [[preset.get("title") or "-", preset.get("license") or "-"] for preset in presets]
        rows = [[f"`{row[0]}`", *row[1:], *words] for row, words in zip(rows, more)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [[*head, "what it is", "licence"], align, *rows])
    here = ["yes" if preset["local"] else "no" for preset in presets]
    rows = [[*row[:-1], word, re.split(r" \(|, published", row[-1])[0]] for row, word in zip(rows, here)]
    return table([*head[:-1], "here", head[-1]], rows, left=(0, len(head) - 1, len(head)))


def figure(value: float | None) -> str:
    """A number between 0 and 1, or a dash."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def count(detections: Mapping[str, Any]) -> str:
    """How many objects of which class, in words."""
    counts = Counter(detections["names"])
    if not counts:
        return "no objects"
    classes = ", ".join(f"{printable(name)} {count}" for name, count in counts.most_common())
    return f"{counts.total()} object{'s' * (counts.total() > 1)} ({classes})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], left: Sequence[int] = ()) -> str:
    """Columns of text, to the right but for those named in `left`; what a cell cannot show is escaped."""
    head, rows = [printable(cell) for cell in head], [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.ljust(wide) if i in left else cell.rjust(wide) for i, (cell, wide) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def settings_help(rows: Iterable[Sequence[Any]]) -> str:
    """`training.settings.settings_table` as text."""
    lines, group = [], None
    wide = max(len(f"{name} = {default}") for _, name, default, *_ in rows)
    for its, name, default, unit, description in rows:
        if its != group:
            lines += [*([""] if lines else []), its]
            group = its
        lines.append(f"  {f'{name} = {default}':{wide}}  {description}{f' [{unit}]' if unit else ''}")
    return "\n".join(lines)
