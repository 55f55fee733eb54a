"""`keras-rcnn convert-data`: a data set of any format that is known -> COCO json."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import FORMATS, names
from keras_rcnn.cli.output import say

HELP = "a data set of another format as COCO json"
DESCRIPTION = "Reads a data set as a tool exported it, and writes it as COCO json."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("data", metavar="DATA", help="folder or file as a tool exported it: its format is found out")
    parser.add_argument("--out", required=True, metavar="ANN.json", help="the COCO json")
    parser.add_argument(
        "--images", metavar="DIR", help="folder of the photos, which file names are then relative to; default: found"
    )
    parser.add_argument("--split", metavar="NAME", help="part of the data; default: all of it")
    parser.add_argument("--format", metavar="NAME", help=f"one of {FORMATS}; default: as the files are")
    parser.add_argument("--class-names", type=names, metavar="A,B,...", help="in the order of the labels")
    parser.add_argument("--class-attribute", metavar="NAME", help="of VIA's regions: which attribute has the class")
    parser.add_argument("--relative", action="store_true", help="boxes are shares of the image's sides, not px")
    parser.add_argument(
        "--on-bad", choices=("error", "skip"), default="error", help="refuse bad annotations, or leave them out"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file OUT")


def run(args: argparse.Namespace) -> None:
    """A data set of any format that is known -> COCO json."""
    from keras_rcnn.data import load, save_coco

    out = Path(args.out)
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: --out names a json file")
    if out.exists() and not args.overwrite:
        raise FileExistsError(f"{out} is there already: name a new file, or --overwrite it")
    options = {key: getattr(args, key) for key in ("format", "images", "on_bad", "relative", "class_names")}
    if args.class_attribute:
        options["class_attribute"] = args.class_attribute
    dataset = load(args.data, args.split, **options)
    save_coco(dataset, out, args.images)
    say(f"{dataset.summary()}\nCOCO json: {out}")
