"""`keras-rcnn demo`: the embedded detector on the embedded photo."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_out, add_score
from keras_rcnn.cli.output import say
from keras_rcnn.cli.tables import boxes_table, count

HELP = "find the cells in the photo that comes with the package"
DESCRIPTION = HELP
_ROWS = 10  # of the table that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_score(parser)
    add_out(parser, "detections")


def run(args: argparse.Namespace) -> None:
    """The embedded detector on the embedded photo."""
    from keras_rcnn.presets import DEFAULT_PRESET, from_preset, zoo_folder
    from keras_rcnn.visualize import draw

    photo = zoo_folder() / "demo" / "fluorescence.png"
    detections = from_preset(DEFAULT_PRESET).detect(photo, score=args.score)
    path = Path(args.out) / f"{photo.stem}_detected.png"
    draw(photo, detections, path)
    head, *rows = boxes_table(detections).splitlines()
    more = [f"and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
    say("\n".join([head, *rows[:_ROWS], *more]))
    say(f"\n{count(detections)} in {photo.name}, by the preset {DEFAULT_PRESET}.\nPicture: {path}")
