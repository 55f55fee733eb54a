"""`keras-rcnn convert torchvision`: the weights of one of torchvision's detectors -> a preset folder."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_conversion, names
from keras_rcnn.cli.output import check_out, say

HELP = "a detector's weights -> a preset folder"
DESCRIPTION = "The weights of one of torchvision's detectors become a preset folder."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("--model", required=True, metavar="NAME", help="torchvision's, e.g. fasterrcnn_resnet50_fpn")
    add_conversion(parser, ".pth, .npz or .safetensors")
    parser.add_argument(
        "--class-names", type=names, metavar="A,B,C", help="default: COCO's for 90 classes, else numbers"
    )


def run(args: argparse.Namespace) -> None:
    """torchvision's weights -> a preset folder."""
    out = Path(args.out)
    check_out(out, args)
    from keras_rcnn.convert import assign, convert_torchvision, read_torch_file
    from keras_rcnn.convert.coco_names import COCO_NAMES
    from keras_rcnn.presets import save_preset
    from keras_rcnn.torchvision_detectors import torchvision_detector

    values = convert_torchvision(args.model, read_torch_file(args.weights))
    num_classes = values["box_predictor/logits/bias"].shape[0] - 1
    class_names = args.class_names
    if class_names is None and num_classes == len(COCO_NAMES):
        class_names = list(COCO_NAMES)
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(
            f"--class-names has {len(class_names)} names; the weights in {args.weights} have {num_classes}"
        )
    model = torchvision_detector(args.model, num_classes, class_names)
    assign(model, values)
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=f"torchvision {args.model}")
    say(f"{args.model} with {num_classes} classes: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}")
