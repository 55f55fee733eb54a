"""Measures this project beside a peer in one run.

python tools/benchmark.py infer --model NAME [--weights FILE] [--photo FILE ...] [--peer PEER/bin/python]
python tools/benchmark.py train --model NAME [--weights FILE] --size 320 480 [--peer PEER/bin/python]
python tools/benchmark.py ops [--peer PEER/bin/python]
python tools/benchmark.py sizes [--photos FOLDER] [--preset NAME] [--backend tensorflow jax]
python tools/benchmark.py paste [--peer PEER/bin/python]
python tools/benchmark.py family RUN... --voc DIR --split test --json zoo/family.json

`infer` times `model.detect` from decoded photos to answers, and the graph alone; `train` a step of SGD of all layers on
photos with 12 objects each. Both take every combination of --backend, --jit, --precision and --batch that is named, and
with --peer every of torchvision's --forms. `ops` times NMS and RoIAlign of TensorFlow, XLA and torchvision and compares
their answers. `sizes` sends photos of 200 sizes through `detect` and counts compilations. `paste` makes 100 masks of
28 x 28 masks of a photo of 12 megapixels. `family` takes detectors that `keras-rcnn train` has left, in the order of
the papers, and prints AP, seconds an image and the training's CPU time of each, on the same images and in turn; R-CNN
and Fast R-CNN are told where to look by selective search with the settings of their recipes, which is measured apart.

All sides but `family`'s run in processes of their own, in turn (A B A B ...), with the same input, weights and number
of cores; each process calls twice before it times whole calls. Reported are medians of wall and CPU seconds, the first
call, which compiles, the resident memory after the imports and at its peak, the peak of an accelerator's memory, and
the share of the peak: operations of the convolutions and dense layers a second, over those of a large matrix product
that the same process timed at the same precision. What cannot be measured on a machine is reported with the reason.
Without --weights both sides get the same seeded ones, without --photo a drawn one. Nothing here is asserted: speed is a
figure, not a test.

On a GPU machine with JAX, torch and torchvision, but neither TensorFlow nor a network, JAX is measured beside the peer.
Keras comes along as wheels, which are fetched here:

{fetch}

and taken there with the project. One call takes less than ten minutes, $OUT being a folder for the figures; sides for
which --seconds did not suffice are named, and a second call with their --batch or --forms measures them:

{device}
"""

import argparse
import sys

_FETCH = """\
    echo /.whl/ >> .git/info/exclude
    python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \\
        -d .whl keras==3.15.1 namex==0.1.0 optree==0.20.0
"""
_DEVICE = """\
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
    export PYTHONPATH=/tmp/site PYTHONUNBUFFERED=1; nvidia-smi -L
    S="--model maskrcnn_resnet50_fpn --backend jax --precision float32 mixed_bfloat16 --batch 1 8 --size 800 1216"
    S="$S --peer python3 --forms eager channels_last bfloat16 compile --threads 0 --rounds 1 --calls 10"
    python3 tools/benchmark.py infer $S --seconds 250 --json $OUT/infer.json
    python3 tools/benchmark.py train $S --seconds 310 --json $OUT/train.json
"""


def main():
    """The command line; returns the exit status."""
    if sys.argv[1:2] == ["--worker"]:
        from bench.worker import work

        return work(sys.argv[2])
    arguments = parse()
    if arguments.what in ("infer", "train"):
        from bench.compare import compare_models as run
    elif arguments.what == "paste":
        from bench.compare import compare_paste as run
    elif arguments.what == "ops":
        from bench.operators import compare_operators as run
    elif arguments.what == "sizes":
        from bench.sizes import compare_sizes as run
    else:
        from bench.family import family as run
    return run(arguments)


def parse(arguments=None):
    """The arguments of the command line."""
    text = __doc__.replace("{fetch}", _FETCH.rstrip()).replace("{device}", _DEVICE.rstrip())
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True, metavar="infer|train|ops|sizes|paste|family")
    for name, add in (
        ("infer", _model), ("train", _model), ("ops", _ops), ("sizes", _sizes), ("paste", _paste), ("family", _family),
    ):  # fmt: skip
        one = commands.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add(one, name)
        one.add_argument("--threads", type=int, default=2, help="cores that a process may use, 0 for all")
        one.add_argument("--calls", type=int, default=5, help="timed calls a process")
        one.add_argument("--rounds", type=int, default=3, help="processes a side")
        one.add_argument("--seconds", type=int, help="start no process after so long, and stop the one at work")
        one.add_argument("--json", help="write the figures here, too")
        if name not in ("family", "sizes"):
            one.add_argument("--peer", help="the Python that has torch and torchvision; without it, no peer")
    return parser.parse_args(arguments)


def _model(parser, name):
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn", help="torchvision's name of the detector")
    parser.add_argument("--weights", help=".pth, .npz or .safetensors in torchvision's names; seeded ones without it")
    _runtime(parser)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images a call")
    parser.add_argument(
        "--forms",
        nargs="+",
        default=["eager", "channels_last", "bfloat16", "float16", "compile"],
        help="of the peer; joined by + for several at once, as channels_last+bfloat16",
    )
    if name == "infer":
        parser.add_argument("--photo", nargs="+", help="files; a drawn photo without any")
        parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"), help="of a drawn one")
        parser.set_defaults(rate=None)
    else:
        parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"), help="of the photos")
        parser.add_argument("--rate", type=float, default=1e-5, help="of the SGD, small for random weights")
        parser.set_defaults(photo=None)


def _runtime(parser):
    parser.add_argument("--backend", nargs="+", choices=["tensorflow", "jax"], default=["tensorflow"])
    parser.add_argument(
        "--jit",
        nargs="+",
        choices=["yes", "no", "auto"],
        default=["auto"],
        help="whether XLA compiles; JAX, which without it runs operation by operation, takes `no` only if it is alone",
    )
    policies = ["float32", "mixed_bfloat16", "mixed_float16"]
    parser.add_argument("--precision", nargs="+", choices=policies, default=["float32"], help="Keras's dtype policy")


def _ops(parser, name):
    parser.add_argument("--boxes", type=int, nargs="+", default=[1000, 4000, 10000], help="of the NMS of one set")
    parser.add_argument("--regions", type=int, default=1000, help="of a level, of a class, and of RoIAlign")
    parser.add_argument("--classes", type=int, default=90)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"), help="of the image")


def _sizes(parser, name):
    _runtime(parser)
    parser.set_defaults(jit=["yes"])
    parser.add_argument("--preset", default="nuclei_frcnn")
    parser.add_argument("--photos", metavar="FOLDER", help="of photos, which are resized; drawn ones without it")
    parser.add_argument("--count", type=int, default=200, help="photos, each of another size")
    parser.add_argument("--every", type=int, default=20, help="photos between two readings of the memory")


def _paste(parser, name):
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4000), metavar=("H", "W"), help="of the photo")


def _family(parser, name):
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that train has left")
    parser.add_argument("--voc", required=True, help="Pascal VOC folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--whole", help="write all that was measured here, each class's AP too")
    parser.add_argument("--cache", help="folder of selective search's results")
