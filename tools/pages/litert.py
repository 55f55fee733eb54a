"""What a LiteRT export costs and gives: size, milliseconds and AP for each precision."""

import json
import os
import platform
import tempfile
import time
from pathlib import Path

from keras_rcnn.data.images import read_image
from keras_rcnn.data.paste import pasted
from keras_rcnn.data.request import check_request
from keras_rcnn.export.litert import TOLERANCES, export_litert
from keras_rcnn.export.litert_detector import LiteRTDetector, fit
from keras_rcnn.files import aside

LITERT = "litert.json"
_RUNS = 40


class LiteRTModel:
    """An exported file where a detector is wanted, in `keras_rcnn.evaluate` for instance.

    Args:
        path: the `.tflite` file.
        threads: int.
    """

    wants_proposals = False

    def __init__(self, path, threads=None):
        self.detector = LiteRTDetector(path, threads)
        self.class_names = self.detector.class_names
        self.has_masks = "masks" in self.detector.run.get_output_details()

    def detect(self, images, score=0.5, batch_size=None, masks=True):
        """As `Detector.detect`, one image after another."""
        many = isinstance(images, (list, tuple))
        images, results = check_request(images, score=score, batch_size=batch_size, masks=masks)[0], []
        for image in images:
            photo = read_image(image)
            detections = self.detector.detect(photo, score)
            if self.has_masks:
                crops = detections.pop("masks")
                if masks:
                    detections["masks"] = pasted(crops, detections["boxes"], photo.shape[:2], masks)
            results.append(detections)
        return results if many else results[0]


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
    return about(dataset, written["size"], threads, rows)


def about(dataset, size, threads, rows):
    """What `measure_litert` returns, of its rows."""
    return {
        "dataset": dataset.name,
        "images": len(dataset),
        "size": list(size),
        "threads": threads,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, ai-edge-litert on CPU (XNNPACK)",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "rows": rows,
    }


def milliseconds(paths, photo, *, threads=2, runs=_RUNS):
    """The fastest run in ms of each exported file, the photo's resizing not counted.

    The files take turns: what else goes on beside it slows all of them down.
    """
    models = [LiteRTDetector(path, threads) for path in paths]
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

    scores, quality = evaluate(LiteRTModel(path, threads), dataset, progress=progress), {}
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
    measured = json.loads((Path(folder) / LITERT).read_text(encoding="utf-8"))
    keys = [key for key in ("AP", "AP50", "segm_AP", "segm_AP50") if key in measured["rows"][0]]
    names = {"AP": "box AP", "AP50": "box AP50", "segm_AP": "mask AP", "segm_AP50": "mask AP50"}
    lines = [f"| precision | MB | ms | {' | '.join(names[key] for key in keys)} |", "|---|" + "---:|" * (2 + len(keys))]
    for row in measured["rows"]:
        scores = " | ".join(f"{row[key]:.3f}" for key in keys)
        lines.append(f"| {row['precision']} | {row['bytes'] / 1e6:.1f} | {row['ms']:.0f} | {scores} |")
    return "\n".join(lines)


def main(arguments=None):
    """Measures presets of the zoo, and writes `litert.json` beside their weights."""
    import argparse

    from keras_rcnn.data import load_coco
    from keras_rcnn.presets import from_preset, zoo_folder

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO json of the validation images")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True, help="folder of photos for int8")
    parser.add_argument("--size", type=int, nargs="+", help="of the input in px, or height and width")
    options = parser.parse_args(arguments)
    dataset = load_coco(options.annotations, options.images)
    dataset.name = f"{options.annotations.resolve().parent.name} {options.annotations.stem}"  # no path of this machine
    for name in options.presets:
        measured = measure_litert(from_preset(name), dataset, options.calibrate, size=options.size)
        write_litert(zoo_folder() / name, measured)
