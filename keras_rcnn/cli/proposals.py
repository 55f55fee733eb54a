"""`keras-rcnn proposals`: selective search over a data set, or a file's boxes, and how many objects they cover."""

import argparse
import sys
from pathlib import Path

from keras_rcnn.cli.arguments import SOURCES, add_source, positive_whole, source_of
from keras_rcnn.cli.output import say
from keras_rcnn.cli.tables import recall_table

HELP = "regions to look at, and their recall"
DESCRIPTION = (
    "Runs selective search on a data set, or reads proposals from a file, and prints how many objects they cover."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_source(parser)
    parser.add_argument(
        "--mode", choices=("fast", "quality"), default="fast", help="of selective search; default: fast"
    )
    parser.add_argument(
        "--min-size", type=positive_whole, default=20, metavar="PX", help="shorter side of a box at least; default: 20"
    )
    parser.add_argument(
        "--max-boxes", type=positive_whole, default=2000, metavar="N", help="of an image; default: 2000"
    )
    parser.add_argument(
        "--width", type=positive_whole, default=500, metavar="PX", help="a larger image is shrunk to it; default: 500"
    )
    parser.add_argument(
        "--cache", metavar="DIR", help="keep each image's boxes here; the same command then goes on there"
    )
    parser.add_argument("--file", metavar="FILE", help="read the proposals from this .npz or .json file instead")
    parser.add_argument("--out", metavar="FILE", help="write the proposals to this .npz or .json file")


def run(args: argparse.Namespace) -> None:
    """Where to look: selective search over a data set, or a file's boxes, and how many of the objects they cover."""
    from keras_rcnn.data import compute_proposals, load_proposals, proposal_recall, save_proposals
    from keras_rcnn.training.build import load_data

    source = source_of(args)
    if source is None:
        raise ValueError(f"proposals for what? Give {SOURCES}")
    if args.out and Path(args.out).suffix.lower() not in (".npz", ".json"):
        raise ValueError(f"--out {args.out}: proposals are kept in .npz or .json files")
    dataset = load_data(source, args.on_bad or "error")
    if args.file:
        boxes = load_proposals(args.file, dataset)
    else:
        boxes = compute_proposals(
            dataset,
            args.mode,
            args.cache,
            min_size=args.min_size,
            max_boxes=args.max_boxes,
            width=args.width,
            progress=sys.stderr.isatty(),
        )
    say(recall_table(proposal_recall(dataset, boxes)))
    if args.out:
        save_proposals(args.out, boxes)
        say(f"\nProposals: {args.out}")
