"""`keras-rcnn detect`: photos in, annotated pictures and JSON out, or a table of a collection of any size."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from keras_rcnn.cli.arguments import (
    EXPORTS,
    PRESETS,
    TOKEN,
    add_out,
    add_precision,
    add_score,
    add_tta,
    exported,
    positive_whole,
)
from keras_rcnn.cli.detect_table import TABLES, add_table, check_no_table, run_merge, run_table
from keras_rcnn.cli.output import say, with_run_lengths, write_json
from keras_rcnn.cli.photos import photos_in, picture_path
from keras_rcnn.cli.tables import boxes_table, count

HELP = "find objects in photos"
DESCRIPTION = "Finds objects in photos; writes an annotated picture for each, or one table of a whole collection."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image file, or folder of image files")
    parser.add_argument("--preset", metavar="PRESET", help=f"{PRESETS}; or {EXPORTS}")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="ask keras-rcnn serve or TF Serving: http://HOST:8501/NAME or grpc://HOST:8500/NAME",
    )
    add_score(parser)
    parser.add_argument(
        "--size",
        type=positive_whole,
        metavar="PX",
        help="shorter side that photos are resized to; default: the preset's",
    )
    add_precision(parser)
    add_tta(parser)
    add_out(parser, "detections")
    parser.add_argument("--json", metavar="FILE", help="write the boxes to this file as well")
    add_table(parser)


def run(args: argparse.Namespace) -> int:
    """Photos in, annotated pictures and JSON, or a table, out."""
    if Path(args.out).suffix.lower() in TABLES and not Path(args.out).is_dir():
        if args.merge:
            return run_merge(args)
        return run_table(args, lambda: _detector(args))
    check_no_table(args)
    return _run_pictures(args)


def _detector(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """What detects, and the options of its `detect`."""
    from keras_rcnn.presets import DEFAULT_PRESET, from_preset

    if args.server:
        from keras_rcnn.export.client import ServedDetector

        for option in ("preset", "size", "precision", "tta"):
            if getattr(args, option):
                raise ValueError(f"--{option} is not for --server: the model is there already")
        token = os.environ.get(TOKEN, "").strip() if args.server.startswith("http") else None
        return ServedDetector(args.server, token=token or None), {"score": 0.5 if args.score is None else args.score}
    model = exported(args)
    if model is not None:
        return model, {"score": args.score}
    model = from_preset(args.preset or DEFAULT_PRESET, dtype=args.precision)
    if args.tta:
        from keras_rcnn.evaluation import AugmentedDetector

        return AugmentedDetector(model, sizes=(args.size,)), {"score": args.score}
    return model, {"score": args.score, "size": args.size}


def _run_pictures(args: argparse.Namespace) -> int:
    from keras_rcnn.data import ImageError, read_image
    from keras_rcnn.visualize import draw

    photos, results = list(photos_in(args.photos)), []
    taken = {photo.resolve() for photo in photos if isinstance(photo, Path)}  # no picture replaces a photo
    model, options = _detector(args)
    skeleton = getattr(getattr(model, "model", model), "skeleton", None)
    for photo in photos:
        try:
            if isinstance(photo, ImageError):
                raise photo
            image = read_image(photo)
        except ImageError as error:
            say(f"keras-rcnn: {error}", file=sys.stderr)
            results.append({"image": str(getattr(error, "path", photo)), "error": str(error)})
            continue
        detections = model.detect(photo if args.server else image, **options)
        path = picture_path(photo, Path(args.out), taken)
        draw(image, detections, path, skeleton=skeleton)
        height, width = image.shape[:2]
        results.append({"image": str(photo), "height": height, "width": width, **with_run_lengths(detections)})
        if len(photos) == 1:
            say(boxes_table(detections) + "\n")
        say(f"{photo}: {count(detections)}; picture: {path}")
    if args.json:
        write_json(args.json, results)
        say(f"Boxes: {args.json}")
    return int(any("error" in result for result in results))
