"""`keras-rcnn app`: a page that shows what detectors do with a photo, step by step."""

import argparse
import sys

from keras_rcnn.app import MAX_PIXELS
from keras_rcnn.cli.arguments import PRESETS, named_presets, port_number, positive_whole
from keras_rcnn.cli.output import say

HELP = "show what detectors do with a photo, step by step, in a browser"
DESCRIPTION = (
    "Opens a page on this machine: anchors, objectness, proposals, RoIAlign, class scores, boxes and masks of a photo, "
    "one preset beside another, and the four papers in turn. Nothing is sent anywhere."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "models", nargs="*", metavar="[NAME=]PRESET", help=f"{PRESETS}; default: those whose weights are in the package"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which this machine alone can reach")
    parser.add_argument("--port", type=port_number, default=7860, metavar="N", help="default: 7860; 0 takes a free one")
    parser.add_argument("--insecure", action="store_true", help="let anyone look who can reach --host")
    parser.add_argument(
        "--max-pixels",
        type=positive_whole,
        default=MAX_PIXELS,
        metavar="N",
        help=f"width times height of a photo; default: {MAX_PIXELS}",
    )


def run(args: argparse.Namespace) -> None:
    """The page, until SIGTERM or Ctrl-C."""
    from keras_rcnn.app import create_page, require_extra

    require_extra()
    import uvicorn

    from keras_rcnn.serve.server import address_of, bound, is_loopback

    presets = named_presets(args.models or ["nuclei_mrcnn", "nuclei_frcnn", "everyday_frcnn"])
    if not args.insecure and not is_loopback(args.host):
        raise ValueError(
            f"--host {args.host} lets others use the page, which has no password: add --insecure if something else "
            "keeps strangers away"
        )
    with bound(args.host, args.port) as listener:
        from keras_rcnn.presets import from_preset

        page = create_page({name: from_preset(preset) for name, preset in presets.items()}, args.max_pixels)
        say(f"{', '.join(presets)}: {address_of(listener)}/")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(page, log_level="warning", timeout_graceful_shutdown=1)).run([listener])
