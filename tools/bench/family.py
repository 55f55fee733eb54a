"""`family`: the papers' detectors on the same images, in one process and in turn."""

import json
import statistics
import sys
import time
from pathlib import Path

from bench.measure import machine

ROOT = Path(__file__).resolve().parents[2]


def family(arguments):
    """The detectors on the same images: one process, one thread pool, in turn."""
    sys.path.insert(0, str(ROOT))
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads or 0)
    from keras_rcnn.data import compute_proposals, selective_search
    from keras_rcnn.evaluation import compare
    from keras_rcnn.presets import from_preset, read_preset
    from keras_rcnn.training.build import load_data
    from keras_rcnn.training.recipe import load_recipe

    folders = {Path(run).name: Path(run) for run in arguments.runs}
    models = {name: from_preset(folder) for name, folder in folders.items()}
    data = load_data({"voc": arguments.voc, "split": arguments.split}, "skip", next(iter(models.values())).class_names)
    searches = [load_recipe(folders[n] / "recipe.py").search for n, model in models.items() if model.wants_proposals]
    if any(search != searches[0] for search in searches):
        raise SystemExit(f"the recipes differ in where to look: {searches}")
    proposals, seconds = None, 0.0
    if searches:
        proposals = compute_proposals(data, cache=arguments.cache, **searches[0])
        times = []
        for record in data[: arguments.calls]:
            image, start = record.read(), time.perf_counter()
            selective_search(image, **searches[0])
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times)
    measured = compare(models, data, proposals=proposals, timed=arguments.calls, rounds=arguments.rounds)
    rows = []
    for name, model in models.items():
        training = read_preset(folders[name]).get("metrics") or {}
        rows.append(
            {
                "preset": name,
                **{key: round(measured[name]["bbox"][key], 4) for key in ("AP50", "AP")},
                "proposal_seconds": round(seconds, 3) if model.wants_proposals else 0.0,
                "seconds": round(measured[name]["seconds"], 4),
                "training_seconds": training.get("seconds"),
                "training_cpu_seconds": training.get("cpu_seconds"),
            }
        )
        print(rows[-1])
    if arguments.whole:
        Path(arguments.whole).write_text(json.dumps(measured, indent=2) + "\n")
    if arguments.json:
        what = f"{arguments.split} split of {Path(arguments.voc).name}, {len(data)} images"
        answer = {"dataset": what, "machine": f"{machine(arguments.threads)['cores']} CPU cores", "rows": rows}
        Path(arguments.json).write_text(json.dumps(answer, indent=2) + "\n")
    return 0
