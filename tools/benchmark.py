"""Measures this project beside a peer in one run.

python tools/benchmark.py infer --peer PEER/bin/python --model NAME --weights FILE --photo FILE
python tools/benchmark.py paste --peer PEER/bin/python
python tools/benchmark.py family RUN... --voc DIR --split test --json zoo/family.json

`family` takes detectors that `keras-rcnn train` has left, in the order of the papers, and prints AP, seconds an image
and the training's CPU time of each, on the same images and in turn; R-CNN and Fast R-CNN are told where to look by
selective search with the settings of their recipes, whose time is measured apart.

Of the others both sides run in processes of their own, in turn (A B A B ...), with the same input and two threads;
each process warms up, then times whole calls: of `infer` from the decoded photo to the boxes, of `paste` from 100 masks
of 28 x 28 to 100 boolean masks of a photo of 12 megapixels. Reported are medians of wall and CPU seconds, the peak
resident memory and their ratios. Nothing here is asserted: speed is a figure, not a test.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["infer", "paste", "family"])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="for family: folders that train has left")
    parser.add_argument("--voc", help="for family: Pascal VOC folder")
    parser.add_argument("--split", default="test", help="for family; default: test")
    parser.add_argument("--whole", help="for family: write all that was measured here, each class's AP too")
    parser.add_argument("--cache", help="for family: folder of selective search's results")
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn", help="torchvision's name of the detector")
    parser.add_argument("--weights", help="for infer: .pth, .npz or .safetensors in torchvision's names")
    parser.add_argument("--photo", help="for infer")
    parser.add_argument("--masks", type=int, default=100, help="for paste: how many")
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4000), metavar=("H", "W"), help="for paste")
    parser.add_argument("--peer", help="the Python that has torch and torchvision")
    parser.add_argument("--rounds", type=int, default=3, help="processes a side")
    parser.add_argument("--calls", type=int, default=5, help="timed calls a process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "infer" and not (arguments.weights and arguments.photo):
        parser.error("infer needs --weights and --photo")
    if arguments.what == "family":
        if not (arguments.runs and arguments.voc):
            parser.error("family needs folders of trained detectors and --voc")
        return family(arguments)
    if arguments.side:
        return worker(arguments)
    return compare(arguments)


def compare(arguments):
    """A B A B: ours, the peer, the peer in its other form if it has one."""
    other = {"infer": "torchvision channels_last", "paste": "torchvision, to boolean"}[arguments.what]
    sides = {"keras_rcnn": sys.executable}
    if arguments.peer:
        sides |= {"torchvision": arguments.peer, other: arguments.peer}
    runs = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side, python in sides.items():
            runs[side].append(spawn(side, python, arguments))
            print(f"round {number + 1}, {side}: {runs[side][-1]['wall']}", file=sys.stderr, flush=True)
    table = {}
    for side, results in runs.items():
        table[side] = {
            "wall": statistics.median(t for r in results for t in r["wall"]),
            "cpu": statistics.median(t for r in results for t in r["cpu"]),
            "memory_mb": max(r["memory_mb"] for r in results),
            "found": results[0]["found"],
        }
    print(runs["keras_rcnn"][0]["input"])
    count = {"infer": "boxes", "paste": "pixels"}[arguments.what]
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{count:>12}{'wall ratio':>12}")
    ours = table["keras_rcnn"]
    for side, row in table.items():
        ratio = ours["wall"] / row["wall"]
        print(f"{side:28}{row['wall']:9.3f}{row['cpu']:9.3f}{row['memory_mb']:9.0f}{row['found']:12d}{ratio:12.2f}")
    if arguments.json:
        answer = {"input": runs["keras_rcnn"][0]["input"], "sides": table}
        Path(arguments.json).write_text(json.dumps(answer, indent=2) + "\n")


def family(arguments):
    """The detectors on the same images: one process, one thread pool, in turn."""
    sys.path.insert(0, str(ROOT))
    import time

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
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
        answer = {"dataset": what, "machine": f"{arguments.threads} CPU cores", "rows": rows}
        Path(arguments.json).write_text(json.dumps(answer, indent=2) + "\n")


def spawn(side, python, arguments):
    """One process; its last line is its JSON."""
    threads = str(arguments.threads)
    # waiting threads that spin are ruinous for the peer when anything else runs on the machine
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, __file__, arguments.what, "--side", side, "--size", *map(str, arguments.size)]
    for name in ("model", "weights", "photo", "masks", "calls", "threads"):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def worker(arguments):
    """Builds one side, warms it up, times it."""
    import resource
    import time

    builders = {"infer": (infer_ours, infer_peer), "paste": (paste_ours, paste_peer)}[arguments.what]
    call, what = builders[arguments.side != "keras_rcnn"](arguments)
    for _ in range(2):
        found = call()
    wall, cpu = [], []
    for _ in range(arguments.calls):
        start = time.perf_counter(), time.process_time()
        call()
        wall.append(round(time.perf_counter() - start[0], 4))
        cpu.append(round(time.process_time() - start[1], 4))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "memory_mb": memory, "found": int(found), "input": what}))


# === infer ===


def infer_ours(arguments):
    """`model.detect` on the decoded photo."""
    sys.path.insert(0, str(ROOT))
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    from keras_rcnn.convert import assign, convert_torchvision, read_torch_file
    from keras_rcnn.convert.build import torchvision_detector
    from keras_rcnn.data import read_image

    model = torchvision_detector(arguments.model)
    assign(model, convert_torchvision(arguments.model, of_model(read_torch_file(arguments.weights), arguments.model)))
    image = read_image(arguments.photo)
    size = model.preprocessor.batch([image])["images"].shape[1:3]
    what = f"{arguments.model}, {Path(arguments.photo).name}, input {size[0]}x{size[1]}"
    return lambda: len(model.detect(image, score=0.0)["scores"]), what


def infer_peer(arguments):
    """torchvision's own model on the decoded photo."""
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.models import detection

    torch.set_num_threads(arguments.threads)
    model = getattr(detection, arguments.model)(weights=None, weights_backbone=None)
    if arguments.weights.endswith(".npz"):
        with np.load(arguments.weights) as file:
            state = {name: torch.from_numpy(file[name]) for name in file.files}
    else:
        state = torch.load(arguments.weights, weights_only=True)
    model.load_state_dict(of_model(state, arguments.model), strict=False)
    if not arguments.model.endswith("v2"):  # as published: frozen, and epsilon 0 for ResNet
        freeze(model.backbone, 0.0 if "resnet" in arguments.model else 1e-5)
    model.eval()
    image = np.asarray(Image.open(arguments.photo).convert("RGB"))
    last = arguments.side.endswith("channels_last")
    if last:
        model = model.to(memory_format=torch.channels_last)

    def call():
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255)
            if last:
                tensor = tensor[None].contiguous(memory_format=torch.channels_last)[0]
            return len(model([tensor])[0]["scores"])

    return call, "the same"


def freeze(module, epsilon):
    """BatchNorm2d -> FrozenBatchNorm2d, as torchvision's constructors do when weights are given."""
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=epsilon)
            for part in ("weight", "bias", "running_mean", "running_var"):
                getattr(frozen, part).copy_(getattr(child, part).data)
            setattr(module, name, frozen)
        else:
            freeze(child, epsilon)


def of_model(state, model):
    """Mask R-CNN's weights serve a Faster R-CNN without their mask head."""
    return {k: v for k, v in state.items() if "mask" in model or ".mask_" not in k}


# === paste ===


def blobs(arguments):
    """Ellipses [n, 28, 28] as probabilities; boxes from 1/40 of the photo's side to all of it, some sticking out."""
    import numpy as np

    rng = np.random.default_rng(0)
    height, width = arguments.size
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    radius = rng.uniform(0.5, 1.0, (2, arguments.masks, 1, 1))
    masks = 1 / (1 + np.exp(8 * ((x / radius[0]) ** 2 + (y / radius[1]) ** 2 - 1)))
    sides = np.exp(rng.uniform(np.log(1 / 40), 0, (arguments.masks, 2))) * (width, height)
    corners = rng.uniform(-0.05, 1.0, (arguments.masks, 2)) * ((width, height) - 0.9 * sides)
    return masks.astype(np.float32), np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def paste_ours(arguments):
    """The function that `model.detect` calls."""
    sys.path.insert(0, str(ROOT))
    import cv2

    cv2.setNumThreads(arguments.threads)
    from keras_rcnn.data.paste import paste_masks

    masks, boxes = blobs(arguments)
    what = "{} masks, {} x {}".format(arguments.masks, *arguments.size)
    return counted(lambda: paste_masks(masks, boxes, *arguments.size), lambda pasted: pasted.sum()), what


def paste_peer(arguments):
    """torchvision's `paste_masks_in_image`, whose answer is probabilities; to compare, thresholded at 0.5."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    torch.set_num_threads(arguments.threads)
    masks, boxes = (torch.from_numpy(values) for values in blobs(arguments))

    def call():
        with torch.inference_mode():
            pasted = paste_masks_in_image(masks[:, None], boxes, tuple(arguments.size))
            return pasted >= 0.5 if arguments.side.endswith("boolean") else pasted

    return counted(call, lambda pasted: (pasted >= 0.5).sum()), "the same"


def counted(call, count):
    """`call`, the first of whose answers is counted; the others are only timed."""
    first = []

    def once():
        answer = call()
        if not first:
            first.append(count(answer))
        return first[0]

    return once


if __name__ == "__main__":
    main()
