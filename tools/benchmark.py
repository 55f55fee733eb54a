"""Measures this project beside a peer in one run: `python tools/benchmark.py infer --peer PEER/bin/python ...`.

Both sides run in processes of their own, in turn (A B A B ...), with the same weights, photo and input size and two
threads; each process warms up, then times whole calls from the decoded photo to the boxes. Reported are medians of wall
and CPU seconds, the peak resident memory and their ratios. Nothing here is asserted: speed is a figure, not a test.
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
    parser.add_argument("what", choices=["infer", "worker"])
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn", help="torchvision's name of the detector")
    parser.add_argument("--weights", required=True, help=".pth, .npz or .safetensors in torchvision's names")
    parser.add_argument("--photo", required=True)
    parser.add_argument("--peer", help="the Python that has torch and torchvision")
    parser.add_argument("--rounds", type=int, default=3, help="processes a side")
    parser.add_argument("--calls", type=int, default=5, help="timed calls a process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "worker":
        return worker(arguments)
    return infer(arguments)


def infer(arguments):
    """A B A B: ours, the peer, the peer with channels_last."""
    sides = {"keras_rcnn": sys.executable}
    if arguments.peer:
        sides |= {"torchvision": arguments.peer, "torchvision channels_last": arguments.peer}
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
            "detections": results[0]["detections"],
        }
    print(f"{arguments.model}, {Path(arguments.photo).name}, input {runs['keras_rcnn'][0]['input']}")
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{'boxes':>7}{'wall ratio':>12}")
    ours = table["keras_rcnn"]
    for side, row in table.items():
        ratio = ours["wall"] / row["wall"]
        print(
            f"{side:28}{row['wall']:9.3f}{row['cpu']:9.3f}{row['memory_mb']:9.0f}{row['detections']:7d}{ratio:12.2f}"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"model": arguments.model, "sides": table}, indent=2) + "\n")


def spawn(side, python, arguments):
    """One process; its last line is its JSON."""
    threads = str(arguments.threads)
    # waiting threads that spin are ruinous for the peer when anything else runs on the machine
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, __file__, "worker", "--side", side]
    for name in ("model", "weights", "photo", "calls", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def worker(arguments):
    """Builds one side, warms it up, times it."""
    import resource
    import time

    build = ours if arguments.side == "keras_rcnn" else peer
    call, size = build(arguments)
    for _ in range(2):
        found = call()
    wall, cpu = [], []
    for _ in range(arguments.calls):
        start = time.perf_counter(), time.process_time()
        call()
        wall.append(round(time.perf_counter() - start[0], 4))
        cpu.append(round(time.process_time() - start[1], 4))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "memory_mb": memory, "detections": found, "input": size}))


def ours(arguments):
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
    return lambda: len(model.detect(image, score=0.0)["scores"]), f"{size[0]}x{size[1]}"


def peer(arguments):
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


if __name__ == "__main__":
    main()
