"""`sizes`: `model.detect` over photos of many sizes: compilations, seconds an image and memory over time."""

import re
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from bench.measure import machine, resident_mb
from bench.sides import print_unavailable, spawn, write

_ENDINGS = (".jpg", ".jpeg", ".png")
# TensorFlow counts what XLA compiled, and says so in its log alone
_LOGGED = re.compile(r"Compiled (\S+) \d+ times")


def compare_sizes(arguments):
    """One process a backend; prints its table."""
    rows, unavailable = {}, {}
    for backend in arguments.backend:
        job = {
            "what": "sizes",
            "who": "ours",
            "python": sys.executable,
            "backend": backend,
            "jit": arguments.jit[0],
            "precision": arguments.precision[0],
            "threads": arguments.threads,
            "preset": arguments.preset,
            "photos": arguments.photos,
            "count": arguments.count,
            "every": arguments.every,
            "environment": {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compilation_profiler=1"},
        }
        name = f"{backend} jit={arguments.jit[0]}"
        answer = spawn(job, arguments.seconds)
        log = answer.pop("log", "")
        if "unavailable" in answer:
            unavailable[name] = answer["unavailable"]
            continue
        if backend == "tensorflow":
            compiled = [found[1] for found in _LOGGED.finditer(log)]
            answer["compilations"] = sum("one_step" in function for function in compiled)
            answer["compilations_in_all"] = len(compiled)
        rows[name] = answer
    whole = {"command": "sizes", "preset": arguments.preset, "machine": machine(arguments.threads)}
    whole |= {"backends": rows, "unavailable": unavailable}
    write(arguments.json, whole)
    for name, row in rows.items():
        print_row(name, row)
    print_unavailable(unavailable)
    return 0 if rows else 1


def print_row(name, row):
    print(f"{name}: {row['photos']} photos of {row['sizes']} sizes, {row['shapes']} shapes of the input")
    print(f"  compilations of the detector: {row['compilations']} (of anything: {row['compilations_in_all']})")
    first, last = row["seconds_first"], row["seconds_last"]
    print(f"  seconds an image: {first:.3f} over the first {row['ends']}, {last:.3f} over the last {row['ends']}")
    print(f"  median of those that did not compile: {row['seconds_median']:.3f}")
    print(
        f"  pixels beside those of the exact size (a multiple of {row['divisor']}): {100 * row['added']:+.1f} %; "
        f"beside the photos' own: {100 * row['padded']:+.1f} %"
    )
    print("  photos    " + "".join(f"{count:>7}" for count in row["memory"]))
    print("  memory, MB" + "".join(f"{value:>7}" for value in row["memory"].values()))


def measure(job):
    """In a process of its own: the photos, one after another."""
    from bench.ours import start

    imported = start(job)
    counted = _count_compilations(job)
    import keras

    import keras_rcnn

    keras.config.set_dtype_policy(job.precision)
    model = keras_rcnn.from_preset(job.preset)
    if job.jit != "auto":
        model.jit_compile = job.jit == "yes"
    shapes, found, times, memory = [], 0, [], {0: resident_mb()}
    predict = model.predict_on_batch

    def noted(x):
        shapes.append(x["images"].shape)
        return predict(x)

    model.predict_on_batch = noted
    sizes, exact, real = set(), [], []
    for number, photo in enumerate(resized(job.photos, job.count), start=1):
        sizes.add(photo.shape[:2])
        size = model.preprocessor.size(*photo.shape[:2])
        real.append(size[0] * size[1])
        exact.append(np.prod(model.preprocessor.padded_size([size], compiled=False)))
        start_time = time.perf_counter()
        found += len(model.detect(photo, masks=False)["scores"])
        times.append(time.perf_counter() - start_time)
        if number % job.every == 0:
            memory[number] = resident_mb()
    pixels = np.array([shape[1] * shape[2] for shape in shapes])
    new = [shape not in shapes[:i] for i, shape in enumerate(shapes)]
    settled = [seconds for seconds, first in zip(times, new) if not first]
    ends = min(50, max(len(times) // 4, 1))
    counts = [seconds for name, seconds in counted if "predict_step" in name]
    return {
        "photos": len(times),
        "sizes": len(sizes),
        "found": found,
        "shapes": len(set(shapes)),
        "compiled": bool(model.jit_compile),
        "compilations": len(counts),
        "compilations_in_all": len(counted),
        "compile_seconds": round(sum(counts), 1),
        "ends": ends,
        "seconds_first": round(statistics.mean(times[:ends]), 4),
        "seconds_last": round(statistics.mean(times[-ends:]), 4),
        "seconds_median": round(statistics.median(settled or times), 4),
        "divisor": model.preprocessor.size_divisor,
        "added": round(float(np.mean(pixels / np.array(exact))) - 1, 4),
        "padded": round(float(np.mean(pixels / np.array(real))) - 1, 4),
        "import_mb": imported,
        "memory": memory,
    }


def _count_compilations(job):
    """`[(name, seconds), ...]`, to which JAX will add what it compiles; empty on TensorFlow, which logs it."""
    counted = []
    if job.backend == "jax":
        import jax

        def note(event, seconds, **more):
            if event.endswith("backend_compile_duration"):
                counted.append((str(more.get("fun_name", "")), seconds))

        jax.monitoring.register_event_duration_secs_listener(note)
    return counted


def resized(folder, count, seed=0):
    """`count` photos, no two of the same size: longer sides from 200 to 1600 px, aspects around the photo's own; drawn
    ones without a folder."""
    from PIL import Image

    from bench.inputs import photos

    rng = np.random.default_rng(seed)
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _ENDINGS) if folder else []
    if folder and not paths:
        raise FileNotFoundError(f"{folder} holds no {', '.join(_ENDINGS)}")
    seen = set()
    for i in range(count):
        if paths:
            image = Image.open(paths[i % len(paths)]).convert("RGB")
        else:
            image = Image.fromarray(photos(None, 1, (480, 640), seed=i)[0])
        while True:
            aspect = image.width / image.height * np.exp(rng.normal(0, 0.2))
            longer = np.exp(rng.uniform(np.log(200), np.log(1600)))
            size = (round(longer), round(longer / aspect)) if aspect > 1 else (round(longer * aspect), round(longer))
            if size not in seen and min(size) > 16:
                break
        seen.add(size)
        yield np.asarray(image.resize(size, Image.Resampling.BILINEAR))
