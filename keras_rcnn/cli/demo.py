"""`keras-rcnn demo`: the embedded detectors on the embedded photos."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from keras_rcnn.cli.arguments import add_out, add_score
from keras_rcnn.cli.output import say
from keras_rcnn.cli.tables import boxes_table, count

if TYPE_CHECKING:
    import numpy as np

HELP = "a cat, a person and cell nuclei in the photos that come with the package"
DESCRIPTION = HELP
PHOTOS = {"everyday_frcnn": ("chelsea.jpg", "astronaut.jpg"), "nuclei_mrcnn": ("fluorescence.png",)}
_ROWS = 5  # of a photo's table that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_score(parser)
    add_out(parser, "detections")


def run(args: argparse.Namespace) -> None:
    """The embedded detectors on the embedded photos."""
    from keras_rcnn.presets import from_preset, zoo_folder
    from keras_rcnn.visualize import draw, side_by_side

    out = Path(args.out)
    pictures: list[np.ndarray] = []
    for preset, names in PHOTOS.items():
        model = from_preset(preset)
        for name in names:
            photo = zoo_folder() / "demo" / name
            detections = model.detect(photo, score=args.score)
            path = out / f"{photo.stem}_detected.png"
            pictures.append(draw(photo, detections, path))
            say(f"{count(detections)} in {name}, by the preset {preset}: {path}")
            head, *rows = boxes_table(detections).splitlines()
            more = [f"and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
            say("\n".join([head, *rows[:_ROWS], *more]) + "\n")
    path = out / "demo.png"
    side_by_side(pictures, path)
    say(f"All in one picture: {path}")
