"""What a LiteRT export costs and gives: size, milliseconds and AP for each precision."""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from keras_rcnn.data import load_coco
from keras_rcnn.export.exported_detector import ExportedDetector
from keras_rcnn.export.fixed_input import TOLERANCES
from keras_rcnn.export.litert import export_litert
from keras_rcnn.export.litert_detector import fit
from keras_rcnn.files import aside
from keras_rcnn.presets import from_preset, zoo_folder

LITERT = "litert.json"
_RUNS = 40


def measure_litert(model, dataset, calibrate, *, size=None, precisions=tuple(TOLERANCES), threads=2, progress=True):
    """Exports a detector in each precision, and measures the files.

    Args:
        model: a detector without proposals from outside.
        dataset: `keras_rcnn.data.Dataset` for the AP.
        calibrate: folder of photos for int8; not the data set's.
        size: of the input, see `export_litert`.
        precisions: which.
        threads: int, of LiteRT.
        progress: bool, a bar on stderr.

    Returns:
        A dict that JSON can say: `dataset`, `images`, `size` (height, width), `threads`, `machine`, `load` (how many
        processes wanted its cores in the last minute: what else ran makes `ms` larger), and `rows`, for each precision
        a dict: `precision`, `bytes`, `ms` (the fastest of 40 runs, without the resizing), `AP` and
        `AP50` of boxes, and with masks `segm_AP` and `segm_AP50`.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{precision}.tflite" for precision in precisions]
        for precision, path in zip(precisions, paths):
            photos = calibrate if precision == "int8" else None
            written = export_litert(model, path, precision=precision, calibrate=photos, size=size)
            quality = measure_quality(path, dataset, threads=threads, progress=progress)
            rows.append({"precision": precision, "bytes": written["bytes"], **quality})
        for row, ms in zip(rows, milliseconds(paths, dataset[0].read(), threads=threads)):
            row["ms"] = ms
    return about(dataset, written["size"], threads, rows, "ai-edge-litert on CPU (XNNPACK)")


def about(dataset, size, threads, rows, runtimes):
    """What `measure_litert` returns, of its rows."""
    return {
        "dataset": dataset.name,
        "images": len(dataset),
        "size": list(size),
        "threads": threads,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {runtimes}",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "rows": rows,
    }


def milliseconds(paths, photo, *, threads=2, runs=_RUNS):
    """The fastest run in ms of each exported file, the photo's resizing not counted.

    The files take turns: what else goes on beside it slows all of them down.
    """
    models = [ExportedDetector(path, threads).detector for path in paths]
    seconds = [[] for _ in paths]
    for _ in range(runs):
        for model, each in zip(models, seconds):
            image, size = fit(photo, model.settings)
            start = time.perf_counter()
            model.run(image=image[None], size=size)
            each.append(time.perf_counter() - start)
    return [round(1000 * min(each), 1) for each in seconds]


def measure_quality(path, dataset, *, threads=2, progress=True):
    """`AP`, `AP50` and with masks `segm_AP` and `segm_AP50` of an exported file; see `measure_litert`."""
    from keras_rcnn.evaluation import evaluate

    scores, quality = evaluate(ExportedDetector(path, threads), dataset, progress=progress), {}
    for task, prefix in (("bbox", ""), ("segm", "segm_")):
        if task in scores:
            quality |= {f"{prefix}{key}": round(float(scores[task][key]), 4) for key in ("AP", "AP50")}
    return quality


def write_litert(folder, measured):
    """Writes what `measure_litert` returns into a preset's folder, as `litert.json`."""
    with aside(Path(folder) / LITERT) as temporary:
        temporary.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def litert_table(folder):
    """The Markdown table of a preset's `litert.json`."""
    return table(json.loads((Path(folder) / LITERT).read_text(encoding="utf-8")), ["precision"])


def table(measured, columns):
    """The Markdown table of rows, whose first columns are these."""
    rows = measured["rows"]
    keys = [key for key in ("AP", "AP50", "segm_AP", "segm_AP50") if key in rows[0]]
    names = {"AP": "box AP", "AP50": "box AP50", "segm_AP": "mask AP", "segm_AP50": "mask AP50"}
    head = [*columns, "MB", "ms", *(names[key] for key in keys)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(columns)}" + "---:|" * (2 + len(keys))]
    for row in rows:
        numbers = [f"{row['bytes'] / 1e6:.1f}", f"{row['ms']:.0f}", *(f"{row[key]:.3f}" for key in keys)]
        lines.append(f"| {' | '.join([*(row[key] for key in columns), *numbers])} |")
    return "\n".join(lines)


def main(arguments=None):
    """Measures presets of the zoo, and writes `litert.json` beside their weights."""
    for model, name, dataset, options in presets(main.__doc__, arguments):
        write_litert(zoo_folder() / name, measure_litert(model, dataset, options.calibrate, size=options.size))


def presets(description, arguments=None):
    """What a command line asks to measure: a preset's model, its name, the data set and the options, one by one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO json of the validation images")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True, help="folder of photos for int8")
    parser.add_argument("--size", type=int, nargs="+", help="of the input in px, or height and width")
    options = parser.parse_args(arguments)
    dataset = load_coco(options.annotations, options.images)
    dataset.name = f"{options.annotations.resolve().parent.name} {options.annotations.stem}"  # no path of this machine
    for name in options.presets:
        yield from_preset(name), name, dataset, options
