"""`keras-rcnn serve`: detectors behind HTTP."""

import argparse
import os
import re
import sys
from pathlib import Path

from keras_rcnn.cli.arguments import (
    PRESETS,
    TOKEN,
    add_precision,
    named_presets,
    port_number,
    positive_number,
    positive_whole,
)
from keras_rcnn.cli.output import say

HELP = "answer HTTP requests"
DESCRIPTION = (
    "Serves detectors over HTTP: POST /detect, TF Serving's REST API and the KServe v2 protocol. GET /docs lists the "
    "addresses."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("models", nargs="+", metavar="[NAME=]PRESET", help=f"{PRESETS}; NAME stands in the addresses")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which this machine alone can reach")
    parser.add_argument("--port", type=port_number, default=8501, metavar="N", help="default: 8501; 0 takes a free one")
    parser.add_argument(
        "--token-file", metavar="FILE", help=f"what clients have to send; or {TOKEN} in the environment"
    )
    parser.add_argument("--insecure", action="store_true", help="let anyone ask who can reach --host")
    add_precision(parser)
    limits = parser.add_argument_group("limits")
    for option, what in (
        ("max-batch", "photos that a model runs at once; default: 4"),
        ("queue", "photos that may wait for a model, before 429; default: 64"),
        ("max-images", "photos of a request; default: 16"),
        ("max-pixels", "width times height of a photo; default: 25000000"),
        (
            "workers",
            "threads that read photos and write answers; a model has one of its own; default: cores, at most 4",
        ),
    ):
        limits.add_argument(f"--{option}", type=positive_whole, metavar="N", help=what)
    limits.add_argument("--max-body", type=positive_number, metavar="MB", help="of a request; default: 32")
    limits.add_argument("--max-wait-ms", type=float, metavar="MS", help="that a photo waits for a batch; default: 5")
    limits.add_argument("--timeout", type=positive_number, metavar="S", help="seconds a request; default: 30")
    limits.add_argument(
        "--drain", type=float, default=0.5, metavar="S", help="seconds from SIGTERM to the end of new connections"
    )


def run(args: argparse.Namespace) -> None:
    """Detectors behind HTTP, until SIGTERM or Ctrl-C."""
    from keras_rcnn.data.request import check_number
    from keras_rcnn.serve import ServeSettings, create_app, require_extra

    require_extra()
    from keras_rcnn.serve.logs import json_log
    from keras_rcnn.serve.server import address_of, bound, is_loopback
    from keras_rcnn.serve.server import run as serve

    names = ("max_batch", "max_wait_ms", "queue", "max_images", "max_pixels", "workers", "timeout")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.max_body is not None:
        given["max_body"] = max(1, int(args.max_body * 2**20))
    if "queue" in given and "max_images" not in given:
        given["max_images"] = min(ServeSettings.max_images, given["queue"])
    settings = ServeSettings(**given)
    check_number("drain", args.drain, 0, 3600, "seconds")
    presets, token = named_presets(args.models), _token(args.token_file)
    if token is None and not args.insecure and not is_loopback(args.host):
        raise ValueError(
            f"--host {args.host} lets others ask, without a token: give --token-file FILE or {TOKEN}, or --insecure if "
            "something else keeps strangers away"
        )
    with bound(args.host, args.port) as listener:
        from keras_rcnn.presets import from_preset

        models = {name: from_preset(preset, dtype=args.precision) for name, preset in presets.items()}
        app = create_app(models, settings, token=token)
        for queue in app.state.service.queues.values():
            queue.model.warm_up()
        say(f"{', '.join(models)}: {address_of(listener)}/docs")
        sys.stdout.flush()
        with json_log():
            serve(app, settings, listener, args.drain)


def _token(path: str | None) -> str | None:
    """The token in a file or in the environment."""
    text = os.environ.get(TOKEN) if path is None else Path(path).read_text(encoding="utf-8")
    if text is None:
        return None
    token = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]{8,500}", token):
        raise ValueError(f"{path or TOKEN}: a token is 8 to 500 letters, digits and signs, without spaces")
    return token
