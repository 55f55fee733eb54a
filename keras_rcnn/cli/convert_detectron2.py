"""`keras-rcnn convert detectron2`: a model of Detectron2's zoo, or one trained with it -> a preset folder."""

import argparse
import ast
from pathlib import Path
from typing import Any

from keras_rcnn.cli.output import say


def convert_detectron2_weights(args: argparse.Namespace, out: Path) -> None:
    """Writes the preset that the command asks for.

    Args:
        args: of the command line.
        out: its folder.

    Raises:
        ValueError: for weights, names or settings that do not fit each other.
    """
    from keras_rcnn.convert import assign, convert_detectron2, detectron2_config, read_detectron2_file
    from keras_rcnn.convert.detectron2_names import detectron2_class_names
    from keras_rcnn.detectron2_detectors import detectron2_detector
    from keras_rcnn.presets import save_preset

    overrides = settings(args.set)
    detectron2_config(args.model, overrides)  # before the file is read
    values = convert_detectron2(args.model, read_detectron2_file(args.weights), overrides)
    num_classes = values["box_predictor/logits/bias"].shape[0] - 1
    wanted = overrides.get("MODEL.ROI_HEADS.NUM_CLASSES", num_classes)
    if wanted != num_classes:
        raise ValueError(f"MODEL.ROI_HEADS.NUM_CLASSES is {wanted}; the weights in {args.weights} have {num_classes}")
    names = args.class_names or detectron2_class_names(args.model, num_classes)
    if names is not None and len(names) != num_classes:
        raise ValueError(f"--classes has {len(names)} names; the weights in {args.weights} have {num_classes}")
    model = detectron2_detector(args.model, num_classes, names, **overrides)
    assign(model, values)
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=f"Detectron2 {args.model}")
    proposals = " --proposals FILE" if model.wants_proposals else ""
    say(f"{args.model} with {num_classes} classes: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}{proposals}")


def settings(changes: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts, the values as in Python -> a dict.

    Raises:
        ValueError: for a text without `=`.

    Example:

    >>> settings(["INPUT.MIN_SIZE_TEST=600", "MODEL.ANCHOR_GENERATOR.SIZES=[[16], [32], [64], [128], [256]]"])
    {'INPUT.MIN_SIZE_TEST': 600, 'MODEL.ANCHOR_GENERATOR.SIZES': [[16], [32], [64], [128], [256]]}
    """
    known = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, such as MODEL.ROI_HEADS.NUM_CLASSES=3, not {change!r}")
        try:
            known[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            known[key.strip()] = text.strip()  # a text needs no quotes
    return known
