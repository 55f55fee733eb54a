"""`keras-rcnn compress`: a preset with its fully connected layers truncated, and what that costs and saves."""

import argparse
import sys
from pathlib import Path

from keras_rcnn.cli.arguments import (
    SOURCES,
    add_overwrite,
    add_preset,
    add_proposals,
    add_source,
    positive_whole,
    proposals_for,
    source_of,
)
from keras_rcnn.cli.output import check_out, say
from keras_rcnn.cli.tables import comparison_table

HELP = "truncated SVD of the fully connected layers"
DESCRIPTION = (
    "Replaces each layer of the box head by two of low rank, and prints AP, seconds and size of both detectors."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_preset(parser)
    parser.add_argument(
        "--ranks", required=True, type=positive_whole, nargs="+", metavar="T", help="one for each layer"
    )
    add_source(parser)
    add_proposals(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float16", help="of the file; default: float16"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the truncated preset")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """A preset with its fully connected layers truncated, and what that costs and saves."""
    out = Path(args.out)
    check_out(out, args)
    source = source_of(args)
    if source is None:
        raise ValueError(f"compared on what? Give {SOURCES}")
    from keras_rcnn.evaluation import compare
    from keras_rcnn.models import truncate_box_head
    from keras_rcnn.presets import from_preset, save_preset
    from keras_rcnn.training.build import load_data

    model, dataset = from_preset(args.preset), load_data(source, args.on_bad or "error")
    small = truncate_box_head(model, args.ranks)
    proposals = proposals_for(args, model, dataset)
    rows = compare({"whole": model, "truncated": small}, dataset, proposals=proposals, progress=sys.stderr.isatty())
    say(f"{args.preset} on {dataset.name}, {len(dataset)} images; ranks {', '.join(map(str, args.ranks))}\n")
    say(comparison_table(rows, {"whole": model, "truncated": small}))
    source = f"{args.preset}, its box head truncated to ranks {', '.join(map(str, args.ranks))}"
    save_preset(small, out, args.dtype, name=out.resolve().name, source=source)
    say(f"\nThe truncated preset: {out}")
