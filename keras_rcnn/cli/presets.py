"""`keras-rcnn presets`: what there is in the zoo, some of it, or one preset's card."""

import argparse
from typing import Any

from keras_rcnn.cli.arguments import fraction, positive_number
from keras_rcnn.cli.output import say
from keras_rcnn.cli.preset_card import pins_table, preset_card
from keras_rcnn.cli.tables import presets_table
from keras_rcnn.preset_summary import ORIGINS, TASKS, chosen

HELP = "list the model zoo, or one preset of it"
DESCRIPTION = (
    "Lists the model zoo, those presets of it that the options leave, by source, task and AP. With NAME: all that is "
    "known of one preset, and how to use it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("preset", nargs="?", metavar="NAME", help="a preset, or a folder: its card")
    parser.add_argument("--task", choices=TASKS, help="what it finds; boxes: nothing else")
    parser.add_argument(
        "--min-ap", type=fraction, metavar="AP", help="of boxes, 0 to 1; of masks if only theirs is known"
    )
    parser.add_argument("--max-size", type=positive_number, metavar="MB", help="of the weights file")
    parser.add_argument("--license", metavar="WORD", help="part of the licence's name, e.g. mit")
    parser.add_argument("--source", choices=ORIGINS, help="whose weights they are")
    parser.add_argument("--local", action="store_true", help="those that need no download any more")
    parser.add_argument("--markdown", action="store_true", help="as the table of the documentation")
    parser.add_argument("--pins", action="store_true", help="what downloaded files of unknown SHA-256 were")


def run(args: argparse.Namespace) -> None:
    """What there is in the zoo."""
    from keras_rcnn.presets import list_presets, preset_summary

    wanted: dict[str, Any] = {
        "task": args.task,
        "min_ap": args.min_ap,
        "max_bytes": args.max_size and args.max_size * 1e6,
        "license": args.license,
        "origin": args.source,
        "local": args.local,
    }
    if args.preset or args.pins:
        others = any(value not in (None, False) for value in wanted.values()) or args.markdown
        if others or (args.preset and args.pins):
            raise ValueError("A preset's NAME and --pins stand alone; the other options are for the list")
        say(preset_card(preset_summary(args.preset)) if args.preset else pins_table())
        return
    presets = chosen(list_presets(), **wanted)
    if not presets:
        raise ValueError("No preset is like that; `keras-rcnn presets` lists them all")
    say(presets_table(presets, markdown=args.markdown))
