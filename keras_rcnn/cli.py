"""The command `keras-rcnn`. What it prints is printed here and nowhere else in the package.

Exit codes: 0, 1 if some photos could not be read (the others were), 2 for an error, which is one line on stderr.
TensorFlow takes seconds to import, so each command imports what it needs when it runs.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import keras_rcnn
from keras_rcnn.printable import printable
from keras_rcnn.tables import (
    boxes_table,
    caffe_usage,
    comparison_table,
    count,
    metrics_table,
    presets_table,
    recall_table,
    settings_help,
)

PHOTOS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif",
)  # fmt: skip
# photos that Pillow reads with another package's help, or not at all
OTHER_PHOTOS = (
    ".heic", ".heif", ".hif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw", ".jxl", ".jpx",
    ".j2k", ".jpf", ".dib", ".tga", ".pnm", ".pbm", ".apng", ".mpo",
)  # fmt: skip
CHECKED = 16  # photos at most that an export is checked on


def main(argv=None):
    """Runs one command.

    Args:
        argv: list of str, the command line without the program's name; `None` takes `sys.argv`.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be printable
    try:
        with _log():
            if args.command != "presets" and not args.debug:
                _import_keras_quietly()
            return args.run(args) or 0
    except BrokenPipeError:  # `keras-rcnn presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        way = f"; --out {args.out} --resume goes on from its checkpoint" if args.command == "train" else ""
        _say(f"keras-rcnn: {str(error) or 'interrupted'}{way}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        _say(f"keras-rcnn: {_message(error)}", file=sys.stderr)
        return 2


# === Commands ===


def demo(args):
    """The embedded detector on the embedded photo."""
    from keras_rcnn.presets import DEFAULT_PRESET, from_preset, zoo_folder
    from keras_rcnn.visualize import draw

    photo = zoo_folder() / "demo" / "immunohistochemistry.png"
    model = from_preset(DEFAULT_PRESET)
    # its nuclei are half as large as those of the training, which saw 256 px at 320
    found = model.detect(photo, score=args.score, size=896)
    path = Path(args.out) / f"{photo.stem}_detected.png"
    draw(photo, found, path)
    _say(boxes_table(found))
    _say(f"\n{count(found)} in {photo.name}, by the preset {DEFAULT_PRESET}.\nPicture: {path}")


def detect(args):
    """Photos in, annotated pictures and JSON out."""
    from keras_rcnn.data import ImageError, read_image
    from keras_rcnn.presets import DEFAULT_PRESET, from_preset
    from keras_rcnn.visualize import draw

    photos, results = list(_photos(args.photos)), []
    taken = {photo.resolve() for photo in photos if isinstance(photo, Path)}  # no picture replaces a photo
    if args.server:
        from keras_rcnn.export.client import ServedDetector

        for option in ("preset", "size", "precision"):
            if getattr(args, option):
                raise ValueError(f"--{option} is not for --server: the model is there already")
        model, options = ServedDetector(args.server), {}
    else:
        model = from_preset(args.preset or DEFAULT_PRESET, dtype=args.precision)
        options = {"size": args.size}
    for photo in photos:
        try:
            if isinstance(photo, ImageError):
                raise photo
            image = read_image(photo)
        except ImageError as error:
            _say(f"keras-rcnn: {error}", file=sys.stderr)
            results.append({"image": str(getattr(error, "path", photo)), "error": str(error)})
            continue
        found = model.detect(photo if args.server else image, score=args.score, **options)
        path = _picture_path(photo, Path(args.out), taken)
        draw(image, found, path)
        results.append({"image": str(photo), "height": image.shape[0], "width": image.shape[1], **_plain(found)})
        if len(photos) == 1:
            _say(boxes_table(found) + "\n")
        _say(f"{photo}: {count(found)}; picture: {path}")
    if args.json:
        _write_json(args.json, results)
        _say(f"Boxes: {args.json}")
    return int(any("error" in result for result in results))


def train(args):
    """A recipe, or a data set and a few options -> a preset folder."""
    from keras_rcnn.training.cluster import ClusterError, WorkerLost, read_cluster, rejoin
    from keras_rcnn.training.recipe import load_recipe
    from keras_rcnn.training.settings import DEFAULTS, settings_table
    from keras_rcnn.training.train import train as run

    if args.help_settings:
        _say(settings_help(settings_table()))
        return
    if args.out is None:
        raise ValueError("where to? Name a folder for the trained preset: --out DIR")
    out = Path(args.out)
    args.resume = args.resume or args.resume_with_other_data
    _check_out(out, args, but=args.recipe)
    settings = load_recipe(args.recipe, args.set, DEFAULTS)
    chosen = {
        "train": _source(args),
        "val": _source(args, "val_"),
        "base": args.base,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "minutes": args.minutes,
        "on_bad": args.on_bad,
        "strategy": args.strategy,
    }
    vars(settings).update({key: value for key, value in chosen.items() if value is not None})
    if settings.train is None:
        raise ValueError(
            "what to train on? Give a recipe, or --coco FILE --images DIR, --voc DIR --split NAME or "
            "--csv FILE --images DIR"
        )
    if settings.name == DEFAULTS["name"]:
        settings.name = "".join(c if c.isalnum() else "_" for c in out.resolve().name) or settings.name
    try:
        try:
            run(
                settings,
                out,
                resume=args.resume,
                verbose=1 if sys.stdout.isatty() else 2,
                other_data=args.resume_with_other_data,
            )
        except WorkerLost as error:
            _say(f"keras-rcnn: {_message(error)}", file=sys.stderr)
            rejoin(*([] if args.resume_with_other_data else ["--resume"]), without=["--overwrite"])
    except ClusterError as error:
        raise ValueError(str(error)) from error
    if settings.strategy == "multiworker" and not read_cluster().chief:
        return
    _write_recipe(out / "recipe.py", settings, DEFAULTS, but=args.recipe)
    _say(f"The trained preset: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}")


def evaluate(args):
    """A preset's COCO or VOC metrics on a data set."""
    source = _source(args)
    if source is None:
        raise ValueError(
            "what to evaluate on? Give --coco FILE --images DIR, --voc DIR --split NAME or --csv FILE --images DIR"
        )
    from keras_rcnn.evaluation import evaluate as run
    from keras_rcnn.presets import from_preset
    from keras_rcnn.training.build import load_data

    model = from_preset(args.preset, dtype=args.precision)
    dataset = load_data(source, args.on_bad or "error")
    found = _proposals_for(args, model, dataset)
    metrics = run(
        model,
        dataset,
        batch_size=args.batch_size or 1,
        metric=args.metric,
        progress=sys.stderr.isatty(),
        proposals=found,
    )
    _say(f"{args.preset} on {dataset.name}, {len(dataset)} images\n")
    _say(metrics_table(metrics))
    if args.json:
        _write_json(args.json, metrics)


def compress(args):
    """A preset with its fully connected layers truncated, and what that costs and saves."""
    out = Path(args.out)
    _check_out(out, args)
    source = _source(args)
    if source is None:
        raise ValueError("compared on what? Give --coco FILE --images DIR, --voc DIR --split NAME or --csv FILE")
    from keras_rcnn.evaluation import compare
    from keras_rcnn.models import truncate_box_head
    from keras_rcnn.presets import from_preset, save_preset
    from keras_rcnn.training.build import load_data

    model, dataset = from_preset(args.preset), load_data(source, args.on_bad or "error")
    small = truncate_box_head(model, args.ranks)
    found = _proposals_for(args, model, dataset)
    rows = compare({"whole": model, "truncated": small}, dataset, proposals=found, progress=sys.stderr.isatty())
    _say(f"{args.preset} on {dataset.name}, {len(dataset)} images; ranks {', '.join(map(str, args.ranks))}\n")
    _say(comparison_table(rows, {"whole": model, "truncated": small}))
    source = f"{args.preset}, its box head truncated to ranks {', '.join(map(str, args.ranks))}"
    save_preset(small, out, args.dtype, name=out.resolve().name, source=source)
    _say(f"\nThe truncated preset: {out}")


def proposals(args):
    """Where to look: selective search over a data set, or a file's boxes, and how many of the objects they cover."""
    from keras_rcnn.data import compute_proposals, load_proposals, proposal_recall, save_proposals
    from keras_rcnn.training.build import load_data

    source = _source(args)
    if source is None:
        raise ValueError("proposals for what? Give --coco FILE --images DIR, --voc DIR --split NAME or --csv FILE")
    if args.out and Path(args.out).suffix.lower() not in (".npz", ".json"):
        raise ValueError(f"--out {args.out}: proposals are kept in .npz or .json files")
    dataset = load_data(source, args.on_bad or "error")
    if args.file:
        found = load_proposals(args.file, dataset)
    else:
        found = compute_proposals(
            dataset,
            args.mode,
            args.cache,
            min_size=args.min_size,
            max_boxes=args.max_boxes,
            width=args.width,
            progress=sys.stderr.isatty(),
        )
    _say(recall_table(proposal_recall(dataset, found)))
    if args.out:
        save_proposals(args.out, found)
        _say(f"\nProposals: {args.out}")


def _proposals_for(args, model, dataset):
    """What `--proposals` says for a detector that is told where to look; None lets selective search run."""
    if args.proposals is None:
        return None
    if not model.wants_proposals:
        raise ValueError(f"--proposals {args.proposals}: {args.preset} finds its proposals itself")
    from keras_rcnn.data import load_proposals

    return load_proposals(args.proposals, dataset)


def export(args):
    """A preset -> a model for another runtime, checked against `detect`."""
    from keras_rcnn.data.files import spread
    from keras_rcnn.export import export as run
    from keras_rcnn.export.parity import table
    from keras_rcnn.export.target import new_path
    from keras_rcnn.presets import from_preset

    if args.format != "saved_model":
        new_path(args.out)  # before anybody waits for the model
    given = {key: getattr(args, key) for key in ("precision", "calibrate", "size", "masks", "score")}
    options = {key: value for key, value in given.items() if value is not None}
    photos = None if args.check is None else _photo_files(args.check)
    if photos and len(photos) > CHECKED:
        _say(f"Checked on {CHECKED} of the {len(photos)} photos in {args.check}.")
        photos = spread(photos, CHECKED)
    result = run(from_preset(args.preset), args.out, args.format, photos=photos, **options)
    _say(f"{table(result['parity'])}\n\nChecked against detect. Exported: {result['path']}")


def presets(args):
    """What there is in the zoo."""
    from keras_rcnn.presets import presets as zoo

    _say(presets_table(zoo(), markdown=args.markdown))


def convert(args):
    """torchvision's weights -> a preset folder, Caffe's -> weights for a backbone and its head."""
    out = Path(args.out)
    _check_out(out, args)
    if args.framework == "caffe":
        _convert_caffe(args, out)
        return
    from keras_rcnn.convert import assign, convert_torchvision, read_torch_file
    from keras_rcnn.convert.build import torchvision_detector
    from keras_rcnn.convert.coco_names import COCO_NAMES
    from keras_rcnn.presets import save_preset

    values = convert_torchvision(args.model, read_torch_file(args.weights))
    num_classes = values["box_predictor/logits/bias"].shape[0] - 1
    names = args.class_names
    if names is None and num_classes == len(COCO_NAMES):
        names = list(COCO_NAMES)
    if names is not None and len(names) != num_classes:
        raise ValueError(f"--class-names has {len(names)} names; the weights in {args.weights} have {num_classes}")
    model = torchvision_detector(args.model, num_classes, names)
    assign(model, values)
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=f"torchvision {args.model}")
    _say(f"{args.model} with {num_classes} classes: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}")


def _convert_caffe(args, out):
    from safetensors.numpy import save

    from keras_rcnn.convert import read_caffe_weights

    if args.class_names is not None:
        raise ValueError("--class-names is for torchvision's detectors; weights of Caffe become no preset")
    values = read_caffe_weights(args.model, args.weights)
    path = out / "weights.safetensors"
    _write(path, save({name: value.astype(args.dtype, copy=False) for name, value in values.items()}))
    _say(caffe_usage(args.model, path, values))


# === The command line ===


def _parser():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show errors with a traceback")
    parser = argparse.ArgumentParser(
        "keras-rcnn", description="The R-CNN family of object detectors on Keras 3: detect, train, evaluate."
    )
    parser.add_argument("--version", action="version", version=f"keras-rcnn-zoo {keras_rcnn.__version__}")
    parser.add_argument("--debug", action="store_true", help="show errors with a traceback")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run, help, description=None):
        one = commands.add_parser(run.__name__, help=help, description=description or help, parents=[common])
        one.set_defaults(run=run)
        return one

    one = command(demo, "find the cells in the photo that comes with the package")
    _add_score(one)
    _add_out(one, "detections")

    one = command(detect, "find objects in photos", "Finds objects in photos; writes an annotated picture for each.")
    one.add_argument("photos", nargs="+", metavar="PHOTO", help="image file, or folder of image files")
    one.add_argument("--preset", metavar="NAME_OR_DIR", help="preset, or folder that train or convert has left")
    one.add_argument("--server", metavar="URL", help="ask TF Serving: http://HOST:8501/NAME or grpc://HOST:8500/NAME")
    _add_score(one)
    one.add_argument(
        "--size", type=_positive, metavar="PX", help="shorter side that photos are resized to; default: the preset's"
    )
    _add_precision(one)
    _add_out(one, "detections")
    one.add_argument("--json", metavar="FILE", help="write the boxes to this file as well")

    one = command(
        train,
        "train on your own images",
        "Trains a detector from a recipe, or on a data set with default settings. OUT is a preset folder then.",
    )
    one.add_argument("recipe", nargs="?", metavar="RECIPE.py", help="settings as a Python file; see zoo/*/recipe.py")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    _add_source(one)
    _add_source(one, "val-")
    one.add_argument(
        "--base",
        metavar="NAME_OR_DIR",
        help="preset to start from; its predictors are new but for classes of the same name",
    )
    one.add_argument("--epochs", type=_positive, metavar="N")
    one.add_argument("--batch-size", type=_positive, metavar="N")
    one.add_argument("--minutes", type=_positive_float, metavar="M", help="end in good order after M minutes")
    one.add_argument(
        "--strategy",
        choices=("mirrored", "multiworker", "jax"),
        help="train on all GPUs, on the machines that TF_CONFIG names, or on all devices of the JAX backend",
    )
    one.add_argument("--out", metavar="DIR", help="folder for the trained preset")
    one.add_argument("--help-settings", action="store_true", help="list every setting that a recipe or --set can have")
    again = one.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    again.add_argument(
        "--resume-with-other-data",
        action="store_true",
        help="the same when photos were repaired, removed or added: the interrupted epoch begins again",
    )
    again.add_argument("--overwrite", action="store_true", help="replace the training that is in OUT")

    one = command(evaluate, "average precision on a data set")
    one.add_argument("preset", metavar="NAME_OR_DIR", help="preset, or folder that train or convert has left")
    _add_source(one)
    one.add_argument("--metric", choices=("coco", "voc07", "voc10"), default="coco", help="default: coco")
    one.add_argument("--batch-size", type=_positive, metavar="N")
    _add_precision(one)
    _add_proposals(one)
    one.add_argument("--json", metavar="FILE", help="write the metrics to this file as well")

    one = command(
        compress,
        "truncated SVD of the fully connected layers",
        "Replaces each layer of the box head by two of low rank, and prints AP, seconds and size of both detectors.",
    )
    one.add_argument("preset", metavar="NAME_OR_DIR", help="preset, or folder that train or convert has left")
    one.add_argument("--ranks", required=True, type=_positive, nargs="+", metavar="T", help="one for each layer")
    _add_source(one)
    _add_proposals(one)
    one.add_argument("--dtype", choices=("float32", "float16"), default="float16", help="of the file; default: float16")
    one.add_argument("--out", required=True, metavar="DIR", help="folder for the truncated preset")
    one.add_argument("--overwrite", action="store_true", help="replace what is in OUT")

    one = command(
        proposals,
        "regions to look at, and their recall",
        "Runs selective search on a data set, or reads proposals from a file, and prints how many objects they cover.",
    )
    _add_source(one)
    one.add_argument("--mode", choices=("fast", "quality"), default="fast", help="of selective search; default: fast")
    one.add_argument(
        "--min-size", type=_positive, default=20, metavar="PX", help="shorter side of a box at least; default: 20"
    )
    one.add_argument("--max-boxes", type=_positive, default=2000, metavar="N", help="of an image; default: 2000")
    one.add_argument(
        "--width", type=_positive, default=500, metavar="PX", help="a larger image is shrunk to it; default: 500"
    )
    one.add_argument("--cache", metavar="DIR", help="keep each image's boxes here; the same command then goes on there")
    one.add_argument("--file", metavar="FILE", help="read the proposals from this .npz or .json file instead")
    one.add_argument("--out", metavar="FILE", help="write the proposals to this .npz or .json file")

    one = command(
        export,
        "a model for TF Serving, LiteRT or ONNX",
        "Writes a preset for another runtime and checks, on photos, that it answers as detect does.",
    )
    one.add_argument("preset", metavar="NAME_OR_DIR", help="preset, or folder that train or convert has left")
    one.add_argument("--format", choices=("saved_model", "litert", "onnx"), default="saved_model")
    one.add_argument(
        "--out", required=True, metavar="PATH", help="of saved_model a folder, which gets PATH/1; or a file"
    )
    one.add_argument("--precision", choices=("float32", "float16", "dynamic", "int8"), help="of litert")
    one.add_argument("--calibrate", metavar="DIR", help="photos like those to come, for int8")
    one.add_argument("--size", type=int, nargs="+", metavar="PX", help="of litert's input: a side, or height and width")
    one.add_argument(
        "--masks", choices=("crops", "pasted"), help="of saved_model: 28 x 28 (crops), or of the photo's size"
    )
    one.add_argument("--score", type=float, metavar="S", help="of saved_model: leave out detections below this score")
    one.add_argument("--check", metavar="DIR", help=f"photos to check it on, at most {CHECKED}; default: the demo's")

    one = command(presets, "list the model zoo")
    one.add_argument("--markdown", action="store_true", help="as the README's table")

    one = command(
        convert,
        "weights of another framework as ours",
        "torchvision's detectors become a preset folder, Caffe's backbones and their heads OUT/weights.safetensors.",
    )
    one.add_argument("framework", choices=("torchvision", "caffe"))
    one.add_argument(
        "--model", required=True, metavar="NAME", help="e.g. fasterrcnn_resnet50_fpn; of Caffe vgg16, caffenet or zf"
    )
    one.add_argument("--weights", required=True, metavar="FILE", help=".pth, .npz, .safetensors or .caffemodel")
    one.add_argument("--class-names", type=_names, metavar="A,B,C", help="default: COCO's for 90 classes, else numbers")
    one.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the file; default: float32")
    one.add_argument("--out", required=True, metavar="DIR", help="folder for what comes out")
    one.add_argument("--overwrite", action="store_true", help="replace what is in OUT")
    return parser


def _add_precision(parser):
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="of the arithmetic; bfloat16 is faster on GPUs, and on CPUs with units for it",
    )


def _add_score(parser):
    parser.add_argument("--score", type=_fraction, default=0.5, metavar="S", help="least score; default: 0.5")


def _add_out(parser, default):
    parser.add_argument("--out", default=default, metavar="DIR", help=f"folder for pictures; default: {default}")


def _add_proposals(parser):
    parser.add_argument(
        "--proposals",
        metavar="FILE",
        help="where R-CNN and Fast R-CNN look, .npz or .json; default: selective search in fast mode",
    )


def _add_source(parser, prefix=""):
    title = "validation data" if prefix else "data"
    group = parser.add_argument_group(title)
    group.add_argument(f"--{prefix}coco", metavar="ANN.json", help="COCO annotations")
    group.add_argument(f"--{prefix}voc", metavar="DIR", help="Pascal VOC folder")
    group.add_argument(
        f"--{prefix}split", metavar="NAME", help="list in the VOC folder's ImageSets/Main; default: all its annotations"
    )
    group.add_argument(f"--{prefix}csv", metavar="FILE", help="table: image,x1,y1,x2,y2,label")
    also = "; default: that of --images" if prefix else ""
    group.add_argument(f"--{prefix}images", metavar="DIR", help=f"folder of the images, for COCO and CSV{also}")
    if not prefix:
        group.add_argument("--box-format", choices=("xyxy", "xywh"), help="of the CSV files; default: xyxy")
        group.add_argument("--delimiter", metavar="C", help="of the CSV files; default: what makes columns")
        group.add_argument("--columns", metavar="A,B,...", help="of CSV files whose first row does not name them")
        group.add_argument("--relative", action="store_true", help="boxes are shares of the image's sides, not px")
        group.add_argument("--crowd-as-objects", action="store_true", help="take COCO's crowd objects as any other")
        group.add_argument(
            "--on-bad", choices=("error", "skip"), help="refuse bad annotations and images (default), or leave them out"
        )


def _source(args, prefix=""):
    """What `load_data` takes, from `--coco`, `--voc` or `--csv` and what belongs to them; None without any."""
    options = {key: getattr(args, prefix + key) for key in ("coco", "voc", "csv", "split", "images")}
    dashed = "--" + prefix.replace("_", "-")
    kinds = [key for key in ("coco", "voc", "csv") if options[key] is not None]
    if len(kinds) > 1:
        raise ValueError(f"give one of {', '.join(dashed + kind for kind in kinds)}, not {len(kinds)}")
    if not kinds and prefix and options["split"] is not None and args.voc is not None:
        kinds, options["voc"] = ["voc"], args.voc  # the same VOC folder, another list
    if not kinds:
        lonely = [key for key in ("split", "images") if options[key] is not None]
        if lonely:
            raise ValueError(f"{dashed}{lonely[0]} needs {dashed}{'voc' if lonely[0] == 'split' else 'coco or --csv'}")
        return None
    kind = kinds[0]
    source = {kind: options[kind]}
    if kind == "voc":
        source |= {key: options[key] for key in ("split", "images") if options[key] is not None}
    else:
        images = options["images"] or (args.images if prefix else None)
        if images is None:
            raise ValueError(f"{dashed}{kind} needs {dashed}images as well")
        source["images"] = images
    taken = {"csv": ("box_format", "delimiter", "columns", "relative"), "coco": ("crowd_as_objects", "relative")}
    source |= {key: getattr(args, key) for key in taken.get(kind, ("relative",)) if getattr(args, key)}
    if source.get("delimiter") in ("tab", "\\t"):
        source["delimiter"] = "\t"
    return source


def _number(kind, good, what):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not good(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


_positive = _number(int, lambda value: value >= 1, "a whole number of at least 1")
_positive_float = _number(float, lambda value: 0 < value < math.inf, "a number over 0")
_fraction = _number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _names(text):
    return [name.strip() for name in text.split(",")]


# === Files ===


def _photos(paths):
    """The photos among files and folders; an `ImageError` stands for a folder without any.

    Photos of other formats are read where Pillow can, else named on stderr.
    """
    from PIL import Image

    from keras_rcnn.data import ImageError

    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        files, left = [], []
        for file in sorted(path.iterdir()):
            ending = file.suffix.lower()
            if file.name.startswith("._"):  # what macOS leaves beside a file on other disks
                continue
            if ending in PHOTOS or (ending in OTHER_PHOTOS and _pillow_reads(Image, ending)):
                files.append(file)
            elif ending in OTHER_PHOTOS:
                left.append(file.name)
        why = ""
        if left:
            some = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            why = f"{len(left)} left out, of formats that Pillow does not read: {some}; save them as JPEG"
        if not files:
            error = ImageError(f"{path}: no image files in this folder{f' ({why})' if why else ''}")
            error.path = path
            yield error
        elif left:
            _say(f"keras-rcnn: {path}: {why}", file=sys.stderr)
        yield from files


def _pillow_reads(pillow, ending):
    return pillow.registered_extensions().get(ending) in pillow.OPEN


def _photo_files(folder):
    """The photos in a folder, of which there must be some."""
    photos = list(_photos([folder]))
    for photo in photos:
        if isinstance(photo, Exception):
            raise photo
    return photos


def _picture_path(photo, out, taken):
    """A file name in `out` that no photo and no earlier picture has."""
    suffix = ".jpg" if photo.suffix.lower() in (".jpg", ".jpeg") else ".png"
    stem, number = f"{photo.stem}_detected", 1
    while (path := out / f"{stem}{f'_{number}' if number > 1 else ''}{suffix}").resolve() in taken:
        number += 1
    taken.add(path.resolve())
    return path


def _check_out(out, args, but=None):
    """Refuses a folder with anything in it, unless the command says what to do; `but` may lie in it."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file: --out names a folder")
    resume = getattr(args, "resume", False)
    if not out.is_dir() or args.overwrite or resume:
        return
    but = but and Path(but).resolve()
    # .training.lock is what a killed training leaves
    found = sorted(
        path.name for path in out.iterdir() if path.resolve() != but and not path.name.startswith(".training.")
    )
    if found:
        ways = "go on with --resume, or replace it with --overwrite" if hasattr(args, "resume") else "or --overwrite it"
        more = ", ..." if len(found) > 4 else ""
        raise FileExistsError(f"{out} is not empty ({', '.join(found[:4])}{more}): name a new folder, {ways}")


def _write_recipe(path, settings, defaults, but=None):
    """The settings that are not the defaults, as the recipe of this training; a recipe that stands there stays."""
    if but is not None and path.exists() and path.samefile(but):
        return
    lines = [f"{key} = {value!r}" for key, value in vars(settings).items() if value != defaults.get(key)]
    text = '"""The settings of the training that left this folder: `keras-rcnn train recipe.py --out DIR`."""\n\n'
    _write(path, text + "\n".join(lines) + "\n")


def _write_json(path, value):
    _write(Path(path), json.dumps(_plain(value), indent=1, allow_nan=False) + "\n")


def _write(path, text):
    """Aside and renamed, so that a full disk leaves the old file."""
    from keras_rcnn.data.files import aside

    with aside(path) as temporary:
        temporary.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))


def _plain(value):
    """Arrays and NaN -> what JSON has: lists and null; masks become COCO's run lengths."""
    if isinstance(value, dict):
        return {key: _run_lengths(one) if key == "masks" else _plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_lengths(masks):
    from keras_rcnn.evaluation.coco import encode_masks

    def text(counts):
        return counts if isinstance(counts, str) else bytes(counts).decode()

    return [{"size": [int(side) for side in one["size"]], "counts": text(one["counts"])} for one in encode_masks(masks)]


# === Text ===


def _say(text, file=None):
    """Prints what may have file names, class names and other people's messages in it."""
    print(printable(text, lines=True), file=file)


def _message(error):
    """One line, or one for each of several problems."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras's bold letters
    lines = (text or type(error).__name__).splitlines()
    if re.search(r"bad (annotation|image|mask)\(s\)", lines[0]):
        lines[0] += " (--on-bad skip leaves them out)"
    lines = [re.sub(r"\bbox_format='(\w+)'", r"--box-format \1", line) for line in lines]  # as it is said here
    lines = [line.replace("pass relative=True", "pass --relative") for line in lines]
    lines = [line.replace("columns=[...]", "--columns A,B,...") for line in lines]
    return ": ".join(line.strip() for line in lines) if len(lines) == 2 else "\n".join(lines)


# === Noise ===


class _Formatter(logging.Formatter):
    def format(self, record):
        return printable(super().format(record), lines=True)


@contextlib.contextmanager
def _log():
    """The library's warnings on stderr, for as long as the command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("keras_rcnn")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _import_keras_quietly():
    """Imports Keras and its backend with stderr aside: some of TensorFlow's notices heed no log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


if __name__ == "__main__":
    sys.exit(main())
