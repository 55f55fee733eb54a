"""`keras-rcnn demo`: the embedded detector on the embedded photo."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_out, add_score
from keras_rcnn.cli.output import say
from keras_rcnn.cli.tables import boxes_table, count

HELP = "find the cells in the photo that comes with the package"
DESCRIPTION = HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_score(parser)
    add_out(parser, "detections")


def run(args: argparse.Namespace) -> None:
    """The embedded detector on the embedded photo."""
    from keras_rcnn.presets import DEFAULT_PRESET, from_preset, zoo_folder
    from keras_rcnn.visualize import draw

    photo = zoo_folder() / "demo" / "immunohistochemistry.png"
    model = from_preset(DEFAULT_PRESET)
    # its nuclei are half as large as those of the training, which saw 256 px at 320
    detections = model.detect(photo, score=args.score, size=896)
    path = Path(args.out) / f"{photo.stem}_detected.png"
    draw(photo, detections, path)
    say(boxes_table(detections))
    say(f"\n{count(detections)} in {photo.name}, by the preset {DEFAULT_PRESET}.\nPicture: {path}")
