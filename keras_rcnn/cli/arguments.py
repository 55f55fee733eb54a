"""What several commands have on their command line."""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keras_rcnn.cli.output import say

if TYPE_CHECKING:
    from keras_rcnn.data import Dataset, ProposalSet
    from keras_rcnn.models import Detector
    from keras_rcnn.training.settings import Settings

Number = TypeVar("Number", int, float)

FORMATS = "coco, voc, yolo, csv, via, labelme, cvat, label_studio, createml, supervisely, tfrecord"
SOURCES = "--data PATH, --coco FILE --images DIR, --voc DIR --split NAME or --csv FILE --images DIR"
TOKEN = "KERAS_RCNN_TOKEN"  # in the environment: what a service wants, and clients send
PRESETS = "name, folder that train or convert has left, or hf://USER/REPO or kaggle://OWNER/MODEL/keras/VARIATION"
EXPORTS = "a .tflite file or OpenVINO's folder that export has left"


def add_preset(parser: argparse.ArgumentParser) -> None:
    """The preset that the command works on."""
    parser.add_argument("preset", metavar="PRESET", help=PRESETS)


def exported(args: argparse.Namespace) -> Any:
    """The detector of `--preset`, or PRESET, if that is an exported model, else None.

    Raises:
        ValueError: with an option that an exported model has no use for.
    """
    from keras_rcnn.export.exported_detector import ExportedDetector, is_export

    if args.preset is None or not is_export(args.preset):
        return None
    for option in ("size", "precision", "tta"):
        if getattr(args, option, None):
            raise ValueError(f"--{option} is not for {args.preset}: it is an exported model")
    return ExportedDetector(args.preset)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """For a command that writes a folder, which must be empty without it."""
    parser.add_argument("--overwrite", action="store_true", help="replace what is in OUT")


def add_conversion(parser: argparse.ArgumentParser, endings: str) -> None:
    """What every source of `keras-rcnn convert` has: the weights, and where they go."""
    parser.add_argument("--weights", required=True, metavar="FILE", help=endings)
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the file; default: float32"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for what comes out")
    add_overwrite(parser)


def add_changes(parser: argparse.ArgumentParser, what: str) -> None:
    """What a user's own config changed; `changes_of` reads it."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=f"{what}; repeatable")


def changes_of(texts: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as a dict: a value is a Python literal, or else the text itself."""
    changes = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise ValueError(f"--set takes KEY=VALUE, not {text!r}")
        try:
            changes[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            changes[key] = value  # a text needs no quotes
    return changes


def add_tta(parser: argparse.ArgumentParser) -> None:
    """The option to look at mirror images as well."""
    parser.add_argument(
        "--tta",
        action="store_true",
        help="look at each photo's mirror image as well and merge what is found, in twice the time",
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """What convolutions and dense layers compute in."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="of the arithmetic; bfloat16 is faster on GPUs, and on CPUs with units for it",
    )


def add_score(parser: argparse.ArgumentParser) -> None:
    """The least score of what is shown."""
    parser.add_argument(
        "--score", type=fraction, metavar="S", help="least score; default: the preset's for each class, or else 0.5"
    )


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder for pictures."""
    parser.add_argument("--out", default=default, metavar="DIR", help=f"folder for pictures; default: {default}")


def add_proposals(parser: argparse.ArgumentParser) -> None:
    """For detectors that are told where to look."""
    parser.add_argument(
        "--proposals",
        metavar="FILE",
        help="where R-CNN and Fast R-CNN look, .npz or .json; default: selective search in fast mode",
    )


def add_source(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """A data set; `prefix` is "" or "val-"."""
    title = "validation data" if prefix else "data"
    group = parser.add_argument_group(title)
    group.add_argument(
        f"--{prefix}data", metavar="PATH", help="folder or file as a tool exported it: its format is found out"
    )
    group.add_argument(f"--{prefix}coco", metavar="ANN.json", help="COCO annotations")
    group.add_argument(f"--{prefix}voc", metavar="DIR", help="Pascal VOC folder")
    group.add_argument(
        f"--{prefix}split",
        metavar="NAME",
        help="part of --data, or list in the VOC folder's ImageSets/Main; default: all its annotations",
    )
    group.add_argument(f"--{prefix}csv", metavar="FILE", help="table: image,x1,y1,x2,y2,label")
    also = "; default: that of --images" if prefix else ""
    group.add_argument(f"--{prefix}images", metavar="DIR", help=f"folder of the images, for COCO and CSV{also}")
    if not prefix:
        group.add_argument(
            "--class-names",
            type=names,
            metavar="A,B,...",
            help="of --data, in the order of the labels; default: its own",
        )
        group.add_argument("--class-attribute", metavar="NAME", help="of --data by VIA: which attribute has the class")
        group.add_argument("--format", metavar="NAME", help=f"of --data, one of {FORMATS}; default: as the files are")
        group.add_argument("--box-format", choices=("xyxy", "xywh"), help="of the CSV files; default: xyxy")
        group.add_argument("--delimiter", metavar="C", help="of the CSV files; default: what makes columns")
        group.add_argument("--columns", metavar="A,B,...", help="of CSV files whose first row does not name them")
        group.add_argument("--relative", action="store_true", help="boxes are shares of the image's sides, not px")
        group.add_argument("--crowd-as-objects", action="store_true", help="take COCO's crowd objects as any other")
        group.add_argument(
            "--on-bad", choices=("error", "skip"), help="refuse bad annotations and images (default), or leave them out"
        )


def source_of(args: argparse.Namespace, prefix: str = "") -> dict[str, Any] | None:
    """What `load_data` takes, from `--data`, `--coco`, `--voc` or `--csv` and their options; None without any."""
    options = {key: getattr(args, prefix + key) for key in ("data", "coco", "voc", "csv", "split", "images")}
    dashed = "--" + prefix.replace("_", "-")
    formats = [key for key in ("data", "coco", "voc", "csv") if options[key] is not None]
    if len(formats) > 1:
        raise ValueError(f"give one of {', '.join(dashed + name for name in formats)}, not {len(formats)}")
    for key in ("data", "voc"):
        if not formats and prefix and options["split"] is not None and getattr(args, key) is not None:
            formats, options[key] = [key], getattr(args, key)  # the same folder, another part of it
            options["images"] = options["images"] or (args.images if key == "data" else None)
    if not formats:
        lonely = [key for key in ("split", "images") if options[key] is not None]
        if lonely:
            needed = "voc or --data" if lonely[0] == "split" else "coco or --csv, or --data"
            raise ValueError(f"{dashed}{lonely[0]} needs {dashed}{needed}")
        if not prefix and args.format is not None:
            raise ValueError("--format needs --data")
        return None
    name = formats[0]
    source = {name: options[name]}
    if name in ("data", "voc"):
        source |= {key: options[key] for key in ("split", "images") if options[key] is not None}
    else:
        images = options["images"] or (args.images if prefix else None)
        if images is None:
            raise ValueError(f"{dashed}{name} needs {dashed}images as well")
        source["images"] = images
    if name == "data" and args.format is not None and (not prefix or options["data"] == args.data):
        source["format"] = args.format
    taken = {"csv": ("box_format", "delimiter", "columns", "relative"), "coco": ("crowd_as_objects", "relative")}
    taken["data"] = (*taken["csv"], "crowd_as_objects", "class_names", "class_attribute")
    source |= {key: getattr(args, key) for key in taken.get(name, ("relative",)) if getattr(args, key)}
    if source.get("delimiter") in ("tab", "\\t"):
        source["delimiter"] = "\t"
    return source


def splits_of(source: dict[str, Any], val: dict[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """What to train and to validate on for `--data`: its own splits where it has some, else a fifth set aside."""
    from keras_rcnn.data import splits
    from keras_rcnn.data.formats.detected import chosen_split, detected

    there = detected(source["data"], source.get("format"))
    names = there.split_names
    if "split" in source:
        source = source | {"split": chosen_split(there, source["split"], source["data"])}
    elif names:
        training = [name for name in names if name.lower() in ("train", "training")] or names
        if len(training) > 1:
            known = ", ".join(names)
            raise ValueError(f"{source['data']} has the splits {known}, and none is called train: name one by --split")
        source = source | {"split": training[0]}
    if val is not None:
        if "data" in val and "split" not in val:
            held = _held_out(splits(val["data"], val.get("format")))
            val = val | ({"split": held[0]} if held else {})
        return {"train": source, "val": val}
    held = [name for name in _held_out(names) if name != source["split"]]
    if held:
        say(f"{source['data']}: trained on {source['split']}, validated on {held[0]}")
        return {"train": source, "val": source | {"split": held[0]}}
    if "val_fraction" in settings.changed():
        return {"train": source}
    say(f"{source['data']}: there is no split to validate on, so a fifth of the photos is set aside (val_fraction=0.2)")
    return {"train": source, "val_fraction": 0.2}


def _held_out(names: list[str]) -> list[str]:
    return [name for name in names if name.lower() in ("val", "valid", "validation")]


def proposals_for(args: argparse.Namespace, model: Detector, dataset: Dataset) -> ProposalSet | None:
    """What `--proposals` says for a detector that is told where to look; None lets selective search run."""
    if args.proposals is None:
        return None
    if not model.wants_proposals:
        raise ValueError(f"--proposals {args.proposals}: {args.preset} finds its proposals itself")
    from keras_rcnn.data import load_proposals

    return load_proposals(args.proposals, dataset)


def _number(cast: Callable[[str], Number], good: Callable[[float], bool], wanted: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value: Any = cast(text)
        except ValueError:
            value = math.nan
        if not good(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


positive_whole = _number(int, lambda value: value >= 1, "a whole number of at least 1")
positive_number = _number(float, lambda value: 0 < value < math.inf, "a number over 0")
fraction = _number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def port_number(text: str) -> int:
    """A port, 0 for a free one."""
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def named_presets(texts: list[str]) -> dict[str, str]:
    """`[NAME=]PRESET` -> name -> preset; without a name, the last part of the preset's."""
    presets: dict[str, str] = {}
    for text in texts:
        name, equals, preset = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            preset = text
            name = preset.partition("://")[2].partition("@")[0] if "://" in preset else os.path.abspath(preset)
            name = Path(name).name
        if name in presets:
            raise ValueError(f"Two models are called {name}: name one of them, as in other={preset}")
        presets[name] = preset
    return presets


def names(text: str) -> list[str]:
    """The names between a text's commas."""
    return [name.strip() for name in text.split(",")]
