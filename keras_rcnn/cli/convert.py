"""`keras-rcnn convert SOURCE`: weights of other frameworks as ours. Each source is a module with what this one has."""

import argparse

from keras_rcnn.cli import from_caffe, from_detectron2, from_matterport, from_torchvision

HELP = "weights of another framework as ours"
DESCRIPTION = "Weights of another framework as ours: keras-rcnn convert SOURCE --help has the options of each."
SOURCES = {
    "torchvision": from_torchvision,
    "detectron2": from_detectron2,
    "matterport": from_matterport,
    "caffe": from_caffe,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sources, each with options of its own."""
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, source in SOURCES.items():
        own = sources.add_parser(name, help=source.HELP, description=source.DESCRIPTION)
        own.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show errors with a traceback")
        source.add_arguments(own)


def run(args: argparse.Namespace) -> None:
    """Converts the weights of the source."""
    SOURCES[args.source].run(args)
