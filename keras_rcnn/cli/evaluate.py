"""`keras-rcnn evaluate`: a preset's COCO or VOC metrics on a data set."""

import argparse
import sys

from keras_rcnn.cli.arguments import (
    SOURCES,
    add_precision,
    add_preset,
    add_proposals,
    add_source,
    add_tta,
    exported,
    positive_whole,
    proposals_for,
    source_of,
)
from keras_rcnn.cli.output import say, write_json
from keras_rcnn.cli.tables import metrics_table

HELP = "average precision on a data set"
DESCRIPTION = HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_preset(parser)
    add_source(parser)
    parser.add_argument("--metric", choices=("coco", "voc07", "voc10"), default="coco", help="default: coco")
    parser.add_argument("--batch-size", type=positive_whole, metavar="N")
    add_precision(parser)
    add_tta(parser)
    add_proposals(parser)
    parser.add_argument("--json", metavar="FILE", help="write the metrics to this file as well")
    parser.add_argument(
        "--report", metavar="FILE", help="write a page with curves, confusions, errors by kind and the worst photos"
    )
    parser.add_argument(
        "--store-thresholds",
        action="store_true",
        help="write the score with the best F1 of each class into the preset's folder, for detect",
    )


def run(args: argparse.Namespace) -> None:
    """A preset's COCO or VOC metrics on a data set."""
    source = source_of(args)
    if source is None:
        raise ValueError(f"what to evaluate on? Give {SOURCES}")
    from keras_rcnn.evaluation import AugmentedDetector, best_thresholds, detect_all, match_detections, write_report
    from keras_rcnn.evaluation.scoring import best_iou_type, metrics_of
    from keras_rcnn.preset_thresholds import preset_to_change, store_thresholds
    from keras_rcnn.presets import from_preset
    from keras_rcnn.training.build import load_data

    folder = preset_to_change(args.preset) if args.store_thresholds else None
    model = exported(args) or from_preset(args.preset, dtype=args.precision)
    dataset = load_data(source, args.on_bad or "error")
    proposals = proposals_for(args, model, dataset)
    detections = detect_all(
        AugmentedDetector(model) if args.tta else model,
        dataset,
        batch_size=args.batch_size or 1,
        progress=sys.stderr.isatty(),
        proposals=proposals,
    )
    metrics, iou_type = metrics_of(dataset, detections, args.metric), best_iou_type(dataset, detections)
    say(f"{args.preset} on {dataset.name}, {len(dataset)} images\n")
    say(metrics_table(metrics))
    if args.json:
        write_json(args.json, metrics)
    if args.report:
        page = write_report(
            args.report, dataset, detections, iou_type, metrics=metrics, title=f"{args.preset} on {dataset.name}"
        )
        say(f"\nThe report: {page}")
    if folder is not None:
        thresholds = best_thresholds(match_detections(dataset, detections, iou_type))
        store_thresholds(folder, thresholds)
        scores = (
            ", ".join(f"{name} {value:.3f}" for name, value in thresholds.items()) or "none, since nothing is found"
        )
        say(f"\nThresholds in {folder}: {scores}")
