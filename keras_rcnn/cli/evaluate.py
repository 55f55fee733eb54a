"""`keras-rcnn evaluate`: a preset's COCO or VOC metrics on a data set."""

import sys

from keras_rcnn.cli.arguments import (
    SOURCES,
    add_precision,
    add_preset,
    add_proposals,
    add_source,
    add_tta,
    positive_whole,
    proposals_for,
    source_of,
)
from keras_rcnn.cli.output import say, write_json
from keras_rcnn.cli.tables import metrics_table

HELP = "average precision on a data set"
DESCRIPTION = HELP


def add_arguments(parser):
    """The options of this command."""
    add_preset(parser)
    add_source(parser)
    parser.add_argument("--metric", choices=("coco", "voc07", "voc10"), default="coco", help="default: coco")
    parser.add_argument("--batch-size", type=positive_whole, metavar="N")
    add_precision(parser)
    add_tta(parser)
    add_proposals(parser)
    parser.add_argument("--json", metavar="FILE", help="write the metrics to this file as well")


def run(args):
    """A preset's COCO or VOC metrics on a data set."""
    source = source_of(args)
    if source is None:
        raise ValueError(f"what to evaluate on? Give {SOURCES}")
    from keras_rcnn.evaluation import AugmentedDetector, evaluate
    from keras_rcnn.presets import from_preset
    from keras_rcnn.training.build import load_data

    model = from_preset(args.preset, dtype=args.precision)
    dataset = load_data(source, args.on_bad or "error")
    proposals = proposals_for(args, model, dataset)
    metrics = evaluate(
        AugmentedDetector(model) if args.tta else model,
        dataset,
        batch_size=args.batch_size or 1,
        metric=args.metric,
        progress=sys.stderr.isatty(),
        proposals=proposals,
    )
    say(f"{args.preset} on {dataset.name}, {len(dataset)} images\n")
    say(metrics_table(metrics))
    if args.json:
        write_json(args.json, metrics)
