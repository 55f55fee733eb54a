"""`keras-rcnn train`: a recipe, or a data set and a few options -> a preset folder."""

import argparse
import sys
from pathlib import Path

from keras_rcnn.cli.arguments import SOURCES, add_source, positive_number, positive_whole, source_of, splits_of
from keras_rcnn.cli.output import check_out, message, say, write
from keras_rcnn.cli.tables import settings_help

HELP = "train on your own images"
DESCRIPTION = "Trains a detector from a recipe, or on a data set with default settings. OUT is a preset folder then."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.py", help="settings as a Python file; see zoo/*/recipe.py")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    add_source(parser)
    add_source(parser, "val-")
    parser.add_argument(
        "--base",
        metavar="PRESET",
        help="preset to start from; its predictors are new but for classes of the same name",
    )
    parser.add_argument(
        "--auto", action="store_true", help="take the settings that `keras-rcnn check` suggests for the data"
    )
    parser.add_argument("--epochs", type=positive_whole, metavar="N")
    parser.add_argument("--batch-size", type=positive_whole, metavar="N")
    parser.add_argument("--minutes", type=positive_number, metavar="M", help="end in good order after M minutes")
    parser.add_argument(
        "--strategy",
        choices=("mirrored", "multiworker", "jax"),
        help="train on all GPUs, on the machines that TF_CONFIG names, or on all devices of the JAX backend",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the trained preset")
    parser.add_argument(
        "--help-settings", action="store_true", help="list every setting that a recipe or --set can have"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    again.add_argument(
        "--resume-with-other-data",
        action="store_true",
        help="the same when photos were repaired, removed or added: the interrupted epoch begins again",
    )
    again.add_argument("--overwrite", action="store_true", help="replace the training that is in OUT")


def run(args: argparse.Namespace) -> None:
    """A recipe, or a data set and a few options -> a preset folder."""
    from keras_rcnn.training.cluster import ClusterError, WorkerLost, read_cluster, rejoin
    from keras_rcnn.training.folder import check_free
    from keras_rcnn.training.recipe import load_recipe, recipe_text
    from keras_rcnn.training.settings import DEFAULTS, settings_table
    from keras_rcnn.training.train import train

    if args.help_settings:
        say(settings_help(settings_table()))
        return
    if args.out is None:
        raise ValueError("where to? Name a folder for the trained preset: --out DIR")
    out = Path(args.out)
    args.resume = args.resume or args.resume_with_other_data
    check_free(out)
    check_out(out, args, but=args.recipe)
    settings = load_recipe(args.recipe, args.set)
    options = {
        "train": source_of(args),
        "val": source_of(args, "val_"),
        "base": args.base,
        "auto": args.auto or None,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "minutes": args.minutes,
        "on_bad": args.on_bad,
        "strategy": args.strategy,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if settings.train is None and "train" not in options:
        recipe = f"{args.recipe} has no `train`: give" if args.recipe else "Give a recipe, or"
        raise ValueError(f"what to train on? {recipe} {SOURCES}")
    if "data" in options.get("train", {}):
        options |= splits_of(options["train"], options.get("val", settings.val), settings)
    if settings.name == DEFAULTS["name"]:
        options["name"] = out.resolve().name or settings.name
    settings = settings.replace(**options)
    try:
        try:
            train(
                settings,
                out,
                resume=args.resume,
                verbose=1 if sys.stdout.isatty() else 2,
                other_data=args.resume_with_other_data,
            )
        except WorkerLost as error:
            say(f"keras-rcnn: {message(error)}", file=sys.stderr)
            rejoin(*([] if args.resume_with_other_data else ["--resume"]), without=["--overwrite"])
    except ClusterError as error:
        raise ValueError(str(error)) from error
    if settings.strategy == "multiworker" and not read_cluster().chief:
        return
    recipe = out / "recipe.py"
    if not (args.recipe and recipe.exists() and recipe.samefile(args.recipe)):
        write(recipe, recipe_text(settings))
    say(f"The trained preset: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}")
