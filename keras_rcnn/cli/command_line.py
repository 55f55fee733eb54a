"""The command line and its exit codes."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_rcnn
from keras_rcnn.cli import (
    app,
    check,
    compress,
    convert,
    convert_data,
    demo,
    detect,
    evaluate,
    export,
    presets,
    proposals,
    push,
    serve,
    train,
)
from keras_rcnn.cli.detect_table import TABLES
from keras_rcnn.cli.output import import_keras_quietly, library_log, message, say

COMMANDS = (
    demo,
    detect,
    check,
    train,
    evaluate,
    compress,
    proposals,
    export,
    serve,
    app,
    presets,
    push,
    convert,
    convert_data,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: list of str, the command line without the program's name; `None` takes `sys.argv`.

    Returns:
        The exit code.
    """
    args = command_line().parse_args(argv)
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be printable
    try:
        with library_log():
            if args.command != "presets" and not args.debug:
                import_keras_quietly()
            return args.run(args) or 0
    except BrokenPipeError:  # `keras-rcnn presets | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        way = ""
        if args.command == "train":
            way = f"; --out {args.out} --resume goes on from its checkpoint"
        elif args.command == "detect" and Path(args.out).suffix.lower() in TABLES:
            way = "; the same command goes on from here"
        say(f"keras-rcnn: {str(error) or 'interrupted'}{way}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        say(f"keras-rcnn: {message(error)}", file=sys.stderr)
        return 2


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show errors with a traceback")
    parser = argparse.ArgumentParser(
        "keras-rcnn", description="The R-CNN family of object detectors on Keras 3: detect, train, evaluate."
    )
    parser.add_argument("--version", action="version", version=f"keras-rcnn-zoo {keras_rcnn.__version__}")
    parser.add_argument("--debug", action="store_true", help="show errors with a traceback")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].replace("_", "-")
        own = commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION, parents=[common])
        own.set_defaults(run=command.run)
        command.add_arguments(own)
    return parser
