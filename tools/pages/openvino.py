"""OpenVINO beside LiteRT: size, milliseconds and AP of both exports, in float32 and in 8 bits."""

import json
import tempfile
from pathlib import Path

from keras_rcnn.export.litert import export_litert
from keras_rcnn.export.openvino import export_openvino
from keras_rcnn.files import aside
from keras_rcnn.presets import zoo_folder

from .litert import LITERT, about, litert_table, measure_quality, milliseconds, presets, table

OPENVINO = "openvino.json"
# the function, and the ending of what it writes
_EXPORTS = {"OpenVINO": (export_openvino, ""), "LiteRT": (export_litert, ".tflite")}
_QUALITY = ("AP", "AP50", "segm_AP", "segm_AP50")


def measure_openvino(model, dataset, calibrate, *, size=None, known=None, threads=2, progress=True):
    """Exports a detector for both runtimes in float32 and int8, and measures the files.

    Args:
        model, dataset, calibrate, size, threads, progress: as in `measure_litert`.
        known: what this or `measure_litert` has returned before: where it is of the same images and size of input, AP
            is taken from there, and only size and milliseconds are measured.

    Returns:
        A dict as of `measure_litert`, whose rows have a `runtime`, too, `"OpenVINO"` or `"LiteRT"`.
    """
    rows, paths = [], []
    with tempfile.TemporaryDirectory() as folder:
        for runtime, (export, ending) in _EXPORTS.items():
            for precision in ("float32", "int8"):
                path = Path(folder) / f"{precision}{ending}"
                photos = calibrate if precision == "int8" else None
                written = export(model, path, precision=precision, calibrate=photos, size=size)
                rows.append({"runtime": runtime, "precision": precision, "bytes": written["bytes"]})
                paths.append(path)
        found = about(dataset, written["size"], threads, rows, "OpenVINO and ai-edge-litert on CPU")
        for row, path in zip(rows, paths):
            row |= _known(known or (), found, row) or measure_quality(path, dataset, threads=threads, progress=progress)
        for row, ms in zip(rows, milliseconds(paths, dataset[0].read(), threads=threads)):
            row["ms"] = ms
    return found


def _known(measurements, found, row):
    """The AP of a row in measurements of the same images at the same size, or None."""
    for measured in measurements:
        if all(measured[key] == found[key] for key in ("dataset", "images", "size")):
            for other in measured["rows"]:
                if (other.get("runtime", "LiteRT"), other["precision"]) == (row["runtime"], row["precision"]):
                    return {key: other[key] for key in _QUALITY if key in other}
    return None


def openvino_table(folder):
    """The Markdown table of a preset's `openvino.json`."""
    return table(json.loads((Path(folder) / OPENVINO).read_text(encoding="utf-8")), ["runtime", "precision"])


def export_tables():
    """`litert NAME` and `openvino NAME` -> the table, of every preset that has been measured."""
    tables = {f"litert {path.parent.name}": litert_table(path.parent) for path in zoo_folder().glob(f"*/{LITERT}")}
    measured = zoo_folder().glob(f"*/{OPENVINO}")
    return tables | {f"openvino {path.parent.name}": openvino_table(path.parent) for path in measured}


def main(arguments=None):
    """Measures presets of the zoo, and writes `openvino.json` beside their weights.

    AP of the same images at the same size is taken from `openvino.json` and `litert.json`: remove these if the weights
    are others.
    """
    for model, name, dataset, options in presets(main.__doc__, arguments):
        folder = zoo_folder() / name
        files = [folder / file for file in (OPENVINO, LITERT)]
        known = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
        measured = measure_openvino(model, dataset, options.calibrate, size=options.size, known=known)
        with aside(folder / OPENVINO) as temporary:
            temporary.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
