"""`keras-rcnn detect --out found.parquet`: a collection of photos as one table, on one machine or by shards."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from keras_rcnn.cli.arguments import positive_whole
from keras_rcnn.cli.output import say

TABLES = (".parquet", ".jsonl", ".json")
_OPTIONS = ("batch_size", "coco", "shard", "merge", "overwrite")


def add_table(parser: argparse.ArgumentParser) -> None:
    """The options of a table."""
    group = parser.add_argument_group(
        "a table of a collection",
        "If --out ends in .parquet, .jsonl or .json (COCO results), a row is written for each photo, and no pictures "
        "are drawn. Folders are searched with those below them, a PHOTO.txt is a list with one path a line, and what "
        "cannot be read is a row with its error. The same command goes on after it was killed.",
    )
    group.add_argument("--batch-size", type=positive_whole, metavar="N", help="photos at once; default: 1")
    group.add_argument("--coco", metavar="FILE", help="the ids of images and categories, for COCO results")
    group.add_argument(
        "--shard", type=shard, metavar="I/N", help="the part I of N, for one of N machines; writes OUT-I-of-N"
    )
    group.add_argument("--merge", action="store_true", help="join tables, named in place of photos, such as all shards")
    group.add_argument(
        "--overwrite", action="store_true", help="replace a table that is there, and parts that another command left"
    )


def shard(text: str) -> tuple[int, int]:
    """`"2/4"` -> `(2, 4)`."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, a part from 1/N to N/N")
    return int(number), int(count)


def check_no_table(args: argparse.Namespace) -> None:
    """Raises a ValueError for an option of tables when pictures are drawn."""
    for option in _OPTIONS:
        if getattr(args, option):
            raise ValueError(
                f"--{option.replace('_', '-')} is for a table: --out FILE.parquet, .jsonl or .json, not {args.out}"
            )


def run_table(args: argparse.Namespace, detector: Callable[[], tuple[Any, dict[str, Any]]]) -> int:
    """Photos in, a table out."""
    from keras_rcnn.bulk import detect_files
    from keras_rcnn.bulk.tables import ending_of

    if args.json:
        raise ValueError(f"--json is for pictures: {args.out} has the boxes")
    ending_of(args.out)
    for photo in args.photos:
        if not os.path.exists(photo):
            raise FileNotFoundError(f"{photo}: no such folder, list or photo")
    model, options = detector()
    table = detect_files(
        model,
        args.photos,
        args.out,
        **options,
        batch_size=args.batch_size or 1,
        coco=args.coco,
        shard=args.shard,
        overwrite=args.overwrite,
    )
    failed = f", {table['errors']:,} of which could not be read" if table["errors"] else ""
    say(f"{table['path']}: {table['photos']:,} photos{failed}")
    return int(table["errors"] > 0)


def run_merge(args: argparse.Namespace) -> int:
    """Tables in, one table out."""
    from keras_rcnn.bulk import merge_tables

    given = [
        option
        for option in ("preset", "server", "score", "size", "precision", "tta", "json", *_OPTIONS[:3])
        if getattr(args, option) not in (None, False)
    ]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} is for detecting: --merge joins tables as they are")
    say(f"{merge_tables(args.photos, args.out, args.overwrite)}: {len(args.photos)} tables")
    return 0
