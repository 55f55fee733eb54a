"""What in `zoo/` follows from something else: the presets of published models, and README.md."""

from keras_rcnn.cli.tables import presets_table
from keras_rcnn.json_text import to_json
from keras_rcnn.preset_summary import chosen
from keras_rcnn.presets import PRESET, describe, list_presets, read_preset

from . import published

HEAD = """# The zoo

`keras_rcnn.from_preset(name)` loads one of these, and so does `--preset name` of the command line. AP is COCO's,
0 to 1, of boxes and of masks; MB are of the weights file. `python tools/refresh_zoo.py` writes this page from the
folders' preset.json.
"""
COLUMNS = ("preset", "what it is", "AP", "AP50", "mask AP", "mask AP50", "measured on", "MB", "weights", "licence")


def refresh(zoo):
    """Writes all that can be derived anew.

    Args:
        zoo: `pathlib.Path` of the folder.
    """
    for record in map(published.completed, published.records()):
        (zoo / record["name"]).mkdir(exist_ok=True)
        (zoo / record["name"] / PRESET).write_text(to_json(record), encoding="utf-8")
    for folder in sorted(path.parent for path in zoo.glob(f"*/{PRESET}")):
        record = read_preset(folder)
        if is_torchvisions(record):
            record["detector"], manifest = torchvisions(record)
            (folder / PRESET).write_text(to_json(record), encoding="utf-8")
            (folder / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
    (zoo / "README.md").write_text(page(zoo), encoding="utf-8")


def is_torchvisions(record):
    """Whether a preset's weights are torchvision's, to be downloaded and converted."""
    return (record.get("weights") or {}).get("converter") == "torchvision"


def torchvisions(record):
    """`(config, {path: shape of every weight})` of the detector for a preset of torchvision's."""
    from keras_rcnn.convert import COCO_NAMES
    from keras_rcnn.torchvision_detectors import torchvision_detector

    model = torchvision_detector(record["weights"]["model"], class_names=list(COCO_NAMES))
    return describe(model), {weight.path: list(weight.shape) for weight in model.weights}


def preset_tables():
    """The README's table, of a few presets, and the documentation's, of all."""
    every = chosen(list_presets())
    few = [preset for preset in every if preset["origin"] in ("keras_rcnn", "torchvision")]
    return {"zoo": presets_table(few, markdown=True), "presets": presets_table(every, markdown=True)}


def page(zoo):
    """The text of zoo/README.md."""
    records = [read_preset(path.parent) for path in sorted(zoo.glob(f"*/{PRESET}"))]
    rows = [COLUMNS, ["---", "---", *["--:"] * 4, "---", "--:", "---", "---"], *map(_row, records)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    details = [_details(record) for record in records if "command" in (record.get("metrics") or {})]
    return "\n".join([HEAD, table, *details]) + "\n"


def _row(record):
    metrics, weights = record.get("metrics") or {}, record.get("weights") or {}
    scores = [_figure((metrics.get(kind) or {}).get(key)) for kind in ("bbox", "segm") for key in ("AP", "AP50")]
    place = "downloaded at first use" if "url" in weights else "here" if weights else "none, train it"
    return [
        f"`{record['name']}`",
        record.get("title") or "-",
        *scores,
        metrics.get("dataset") or "-",
        f"{weights['size'] / 1e6:.1f}" if weights.get("size") else "-",
        place,
        record.get("license") or "-",
    ]


def _details(record):
    """How a preset that was trained here came about."""
    metrics = record["metrics"]
    lines = [f"\n## {record['name']}\n", f"{record.get('title') or ''}. {record.get('source') or ''}.\n"]
    results = {
        kind: ", ".join(f"{key} {_figure(value)}" for key, value in (metrics.get(kind) or {}).items())
        for kind in ("bbox", "segm")
    }
    facts = {
        "command": f"`{metrics['command']}`",
        "time": _duration(metrics.get("seconds")),
        "machine": metrics.get("machine"),
        "on": metrics.get("dataset"),
        "result": results["bbox"],
        "masks": results["segm"],
        "notes": record.get("notes"),
    }
    return "\n".join(lines + [f"- {key}: {value}" for key, value in facts.items() if value])


def _figure(value):
    return "-" if value is None else f"{value:.3f}"


def _duration(seconds):
    return f"{seconds / 60:.0f} minutes" if seconds else None
