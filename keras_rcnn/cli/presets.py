"""`keras-rcnn presets`: what there is in the zoo."""

import argparse

from keras_rcnn.cli.output import say
from keras_rcnn.cli.tables import presets_table

HELP = "list the model zoo"
DESCRIPTION = HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--markdown", action="store_true", help="as the README's table")


def run(args: argparse.Namespace) -> None:
    """What there is in the zoo."""
    from keras_rcnn.presets import list_presets

    say(presets_table(list_presets(), markdown=args.markdown))
