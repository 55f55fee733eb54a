"""`ops`: NMS and RoIAlign of TensorFlow, of XLA (on TensorFlow and on JAX) and of torchvision, on the same arrays.

Every side leaves its answers in a folder; they are compared with the peer's, or without one with TensorFlow's own.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import inputs
from bench.measure import machine, timed
from bench.sides import in_turn, print_unavailable, write

# P2 to P5
_STRIDES = (4, 8, 16, 32)
_RPN_IOU, _CLASS_IOU, _CLASS_SCORE, _DETECTIONS = 0.7, 0.5, 0.05, 100


def compare_operators(arguments):
    """The table of all sides."""
    ours = {"who": "ours", "python": sys.executable, "jit": "yes"}
    sides = {
        "TensorFlow's own": {**ours, "backend": "tensorflow", "jit": "no"},
        "XLA, TensorFlow": {**ours, "backend": "tensorflow"},
        "XLA, JAX": {**ours, "backend": "jax"},
    }
    if arguments.peer:
        sides["torchvision"] = {"who": "peer", "python": arguments.peer}
    keys = ("boxes", "regions", "classes", "channels", "size")
    settings = {key: getattr(arguments, key) for key in keys}
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(sides.values()):
            side["answers"] = str(Path(folder) / f"{number}.npz")
        results, unavailable = in_turn("ops", sides, arguments, settings)
        reference = next((name for name in ("torchvision", "TensorFlow's own", *results) if name in results), None)
        differences = {
            name: differ(sides[name]["answers"], sides[reference]["answers"]) for name in results if name != reference
        }
    cases = list(next(iter(results.values()))[0]["times"]) if results else []
    answer = {
        "command": "ops",
        **settings,
        "machine": machine(arguments.threads),
        "rounds": arguments.rounds,
        "calls": arguments.calls,
        "compared_with": reference,
        "cases": {case: {name: row(runs, case) for name, runs in results.items()} for case in cases},
        "differences": differences,
        "unavailable": unavailable,
    }
    write(arguments.json, answer)
    print_operators(answer)
    return 0 if results else 1


def row(runs, case):
    """Medians of one side."""
    return {
        **{key: statistics.median(t for run in runs for t in run["times"][case][key]) for key in ("wall", "cpu")},
        "first": statistics.median(run["times"][case]["first"] for run in runs),
        "device": runs[0]["device"],
    }


def differ(found, expected):
    """Of each answer in two files: the rows that differ, for what is chosen, or the largest difference of features."""
    found, expected = np.load(found), np.load(expected)
    answer = {}
    for key in expected.files:
        one, other = found[key], expected[key]
        if key.startswith("roi"):
            answer[key] = float(np.abs(one - other).max())
        else:
            same = one.shape == other.shape and (one == other).reshape(len(one), -1).all(axis=1)
            answer[key] = {"kept": len(one), "expected": len(other), "differ": int(np.sum(~np.asarray(same)))}
    return answer


def print_operators(answer):
    names = list(next(iter(answer["cases"].values()), {}))
    where = answer["machine"]
    print(f"ops: {where['processor']}, {where['cores']} cores, load {where['load']}; wall and CPU milliseconds")
    print(f"{'':34}" + "".join(f"{name:>24}" for name in names))
    for case, rows in answer["cases"].items():
        cells = (f"{1000 * rows[name]['wall']:.1f} {1000 * rows[name]['cpu']:.1f}" for name in names)
        print(f"{case:34}" + "".join(f"{cell:>24}" for cell in cells))
    for name, differences in answer["differences"].items():
        told = []
        for case, one in differences.items():
            if isinstance(one, float):
                told.append(f"{case} {one:.1e}")
            elif one["differ"] or one["kept"] != one["expected"]:
                told.append(f"{case} {one['differ']} of {one['expected']} boxes")
            else:
                told.append(f"{case} the same {one['kept']} boxes")
        print(f"{name}, beside {answer['compared_with']}: {'; '.join(told)}")
    print_unavailable(answer["unavailable"])


# === Cases ===


def arrays(job):
    """What all sides are given."""
    height, width = job.size
    made = {"nms": {count: inputs.candidates(count, height, width, seed=count) for count in job.boxes}}
    levels = [inputs.candidates(job.regions, height, width, seed=level) for level in range(5)]
    # no two scores of different levels are equal either: who kept which of them would be chance
    scores = np.stack([scores + np.float32(level / 5 / job.regions) for level, (_, scores) in enumerate(levels)], 1)
    made["rpn"] = np.stack([boxes for boxes, _ in levels], 1), scores
    regions, _ = inputs.candidates(job.regions, height, width, seed=11)
    rng = np.random.default_rng(12)
    sides = np.tile(regions[:, 2:] - regions[:, :2], 2)[:, None]
    own = regions[:, None] + rng.normal(0, 0.05, (job.regions, job.classes, 4)) * sides
    own[..., 2:] = np.maximum(own[..., 2:], own[..., :2] + 1)
    made["decoder"] = own.astype(np.float32), inputs.class_scores(job.regions, job.classes)
    cells = [(-(-height // stride), -(-width // stride)) for stride in _STRIDES]
    made["maps"] = [rng.standard_normal((1, *one, job.channels), dtype=np.float32) for one in cells]
    made["regions"] = regions
    made["by"] = rng.standard_normal((1, job.regions, 7, 7, job.channels), dtype=np.float32)
    return made


def measure(job):
    """One side: times of every case; its answers go to the file `job.answers`."""
    made = arrays(job)
    calls, device = (ours if job.who == "ours" else peer)(job, made)
    times, answers = {}, {}
    for case, (call, answer) in calls.items():
        one = timed(call, job.calls)
        answers[case] = answer(one.pop("answer"))
        times[case] = one
    np.savez(job.answers, **answers)
    return {"times": times, "device": device}


def ours(job, made):
    """The package's own functions, traced as a graph: `{case: (call, its answer as one array)}`."""
    from bench.ours import device, start

    start(job)
    from keras import ops

    from keras_rcnn.ops import nms, roi

    run, gradient, wait = (_jax if job.backend == "jax" else _tensorflow)(job)
    calls = {}

    def add(case, function, given, answer):
        traced, given = run(function), [ops.convert_to_tensor(one) for one in given]
        calls[case] = (lambda: wait(traced(*given)), answer)

    for count, (boxes, scores) in made["nms"].items():
        add(
            f"nms of {count} boxes",
            lambda boxes, scores, count=count: nms.nms(boxes, scores, _RPN_IOU, count),
            (boxes, scores),
            lambda found: np.asarray(found[0])[: int(found[1])],
        )
    most = job.regions

    def rpn(boxes, scores):
        return nms.multiclass_nms(boxes, scores, _RPN_IOU, -0.5, most, most)

    def decoder(boxes, scores):
        return nms.multiclass_nms(boxes, scores, _CLASS_IOU, _CLASS_SCORE, _DETECTIONS, _DETECTIONS)

    def kept(found):
        return np.asarray(found[0])[0][np.asarray(found[2])[0] >= 0]

    for case, function, key in (("rpn", rpn, "rpn"), ("decoder", decoder, "decoder")):
        count, classes = made[key][1].shape
        add(f"{case} nms of {classes} x {count}", function, [one[None] for one in made[key]], kept)

    def align(boxes, *maps):
        levels = roi.level_index(boxes, 2, 5)
        return roi.multilevel_roi_align(list(maps), boxes, levels, [1 / one for one in _STRIDES], 7)

    def align_and_back(boxes, by, *maps):
        return gradient(lambda maps: ops.sum(align(boxes, *maps) * by), list(maps))

    regions = made["regions"][None]
    add("roi_align", align, (regions, *made["maps"]), lambda found: np.asarray(found)[0])
    add("roi_align with gradient", align_and_back, (regions, made["by"], *made["maps"]), _flat)
    return calls, device(job)[0]


def _flat(maps):
    return np.concatenate([np.asarray(one).reshape(-1) for one in maps])


def _tensorflow(job):
    import tensorflow as tf

    def gradient(function, maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = function(maps)
        return tape.gradient(value, maps)

    def wait(answer):
        tf.test.experimental.sync_devices()
        return answer

    return lambda function: tf.function(function, jit_compile=job.jit == "yes"), gradient, wait


def _jax(job):
    import jax

    return jax.jit, lambda function, maps: jax.grad(function)(maps), jax.block_until_ready


def peer(job, made):
    """torchvision's operators, as its detectors call them."""
    import torch
    from torchvision import ops

    from bench.peer import device, start, where

    start(job)
    on = where()

    def moved(array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(on)

    def wait(answer):
        if on == "cuda":
            torch.cuda.synchronize()
        return answer

    calls = {}
    for count, given in made["nms"].items():
        boxes, scores = map(moved, given)
        calls[f"nms of {count} boxes"] = (
            lambda boxes=boxes, scores=scores: wait(ops.nms(boxes, scores, _RPN_IOU)),
            lambda found: found.cpu().numpy(),
        )
    for case in ("rpn", "decoder"):
        given, scores = made[case]
        count, classes = scores.shape
        boxes, scores = moved(given.reshape(-1, 4)), moved(scores.reshape(-1))
        labels = torch.arange(classes, device=on).repeat(count)

        def rpn(boxes=boxes, scores=scores, labels=labels):
            return wait(boxes[ops.batched_nms(boxes, scores, labels, _RPN_IOU)[: job.regions]])

        def decoder(boxes=boxes, scores=scores, labels=labels):
            above = torch.where(scores > _CLASS_SCORE)[0]
            boxes, scores, labels = boxes[above], scores[above], labels[above]
            return wait(boxes[ops.batched_nms(boxes, scores, labels, _CLASS_IOU)[:_DETECTIONS]])

        calls[f"{case} nms of {classes} x {count}"] = (
            rpn if case == "rpn" else decoder,
            lambda found: found.cpu().numpy(),
        )
    names = ["0", "1", "2", "3"]
    pool = ops.MultiScaleRoIAlign(names, 7, 2)
    maps = {name: moved(one.transpose(0, 3, 1, 2)) for name, one in zip(names, made["maps"])}
    regions, by = [moved(made["regions"])], moved(made["by"][0].transpose(0, 3, 1, 2))

    @torch.inference_mode()
    def align():
        return wait(pool(maps, regions, [tuple(job.size)]))

    def align_and_back():
        for one in maps.values():
            one.requires_grad_(True)
            one.grad = None
        (pool(maps, regions, [tuple(job.size)]) * by).sum().backward()
        return wait([one.grad for one in maps.values()])

    calls["roi_align"] = (align, lambda found: found.cpu().numpy().transpose(0, 2, 3, 1))
    calls["roi_align with gradient"] = (
        align_and_back,
        lambda found: _flat([one.cpu().numpy().transpose(0, 2, 3, 1) for one in found]),
    )
    return calls, device(job)[0]
