"""`keras-rcnn convert caffe`: a backbone's weights, and its head's, -> a file of ours."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_conversion
from keras_rcnn.cli.output import check_out, say, write
from keras_rcnn.cli.tables import caffe_usage

HELP = "a backbone's weights and its head's -> OUT/weights.safetensors"
DESCRIPTION = (
    "The weights of one of Caffe's backbones and of its head become OUT/weights.safetensors; they are no preset."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("--model", required=True, metavar="NAME", help="vgg16, caffenet or zf")
    add_conversion(parser, ".caffemodel")


def run(args: argparse.Namespace) -> None:
    """Caffe's weights -> weights for a backbone and its head."""
    out = Path(args.out)
    check_out(out, args)
    from safetensors.numpy import save

    from keras_rcnn.convert import read_caffe_weights

    values = read_caffe_weights(args.model, args.weights)
    path = out / "weights.safetensors"
    write(path, save({name: value.astype(args.dtype, copy=False) for name, value in values.items()}))
    say(caffe_usage(args.model, path, values))
