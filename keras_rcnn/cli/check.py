"""`keras-rcnn check`: what is in a data set, what is wrong with it, and what settings suit it."""

import argparse

from keras_rcnn.cli.arguments import SOURCES, add_source, source_of, splits_of
from keras_rcnn.cli.output import say, write_json

HELP = "look at a data set before a training: counts, faults, duplicates, anchors, suggested settings"
DESCRIPTION = (
    "Reads a data set as `train` would, and says what is in it, what is wrong with it, and which settings suit it. "
    "The exit code is 1 if there are errors, such as bad annotations or photos that are in both splits."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("path", nargs="?", metavar="DATA", help="the same as --data DATA")
    add_source(parser)
    add_source(parser, "val-")
    parser.add_argument("--base", metavar="PRESET", help="preset that the training will start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the training")
    parser.add_argument("--html", metavar="FILE", help="write a page with tables and photos as annotated")
    parser.add_argument("--json", metavar="FILE", help="write all that was found to this file as well")


def run(args: argparse.Namespace) -> int:
    """A data set -> what is to be said about it."""
    if args.path is not None and args.data is not None:
        raise ValueError("the data are given twice, as DATA and by --data")
    args.data = args.data if args.path is None else args.path
    sources = {"train": source_of(args), "val": source_of(args, "val_")}
    if sources["train"] is None:
        raise ValueError(f"what to check? Give a folder or a file, or {SOURCES}")
    from keras_rcnn.survey import BUILT, View, survey, survey_text, write_page
    from keras_rcnn.training.build import build_model, load_both
    from keras_rcnn.training.recipe import load_recipe

    settings = load_recipe(None, args.set)
    if "data" in sources["train"]:
        sources |= splits_of(sources["train"], sources["val"], settings)
    settings = settings.replace(**sources, base=args.base, on_bad=args.on_bad or "skip")
    training, validation = load_both(settings)
    if args.base is None:  # no weights are needed to see what it would see
        settings = settings.replace(backbone="efficientnet_lite0", backbone_weights="random")
    view = View.of(build_model(settings, training.class_names, skeleton=training.skeleton))
    result = survey(training, validation, view, fixed=BUILT if args.base else settings.changed())
    say(survey_text(result))
    if args.json:
        write_json(args.json, result | {"findings": [finding._asdict() for finding in result["findings"]]})
    if args.html:
        datasets = {"train": training} | ({} if validation is None else {"val": validation})
        say(f"The page: {write_page(args.html, result, datasets)}")
    return int(any(finding.level == "error" for finding in result["findings"]))
