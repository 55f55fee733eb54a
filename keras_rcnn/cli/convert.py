"""`keras-rcnn convert`: weights of torchvision and Detectron2 -> a preset folder, Caffe's -> weights for a backbone."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_overwrite, names
from keras_rcnn.cli.output import check_out, say, write
from keras_rcnn.cli.tables import caffe_usage

HELP = "weights of another framework as ours"
DESCRIPTION = (
    "torchvision's and Detectron2's detectors become a preset folder, Caffe's backbones and their heads "
    "OUT/weights.safetensors."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("framework", choices=("torchvision", "detectron2", "caffe"))
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="e.g. fasterrcnn_resnet50_fpn; of Detectron2 its config's, e.g. mask_rcnn_R_50_FPN_1x; of Caffe vgg16, "
        "caffenet or zf",
    )
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help=".pth, .pkl, .npz, .safetensors or .caffemodel"
    )
    parser.add_argument(
        "--class-names", "--classes", type=names, metavar="A,B,C", help="default: the data set's, else numbers"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what your own config of Detectron2 changed, e.g. INPUT.MIN_SIZE_TEST=600; repeatable",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the file; default: float32"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for what comes out")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Weights of torchvision and Detectron2 -> a preset folder, Caffe's -> weights for a backbone and its head."""
    out = Path(args.out)
    check_out(out, args)
    if args.framework == "detectron2":
        from keras_rcnn.cli.convert_detectron2 import convert_detectron2_weights

        convert_detectron2_weights(args, out)
        return
    if args.set:
        raise ValueError("--set is for Detectron2's models, whose configs have such keys")
    if args.framework == "caffe":
        _convert_caffe(args, out)
        return
    from keras_rcnn.convert import assign, convert_torchvision, read_torch_file
    from keras_rcnn.convert.coco_names import COCO_NAMES
    from keras_rcnn.presets import save_preset
    from keras_rcnn.torchvision_detectors import torchvision_detector

    values = convert_torchvision(args.model, read_torch_file(args.weights))
    num_classes = values["box_predictor/logits/bias"].shape[0] - 1
    names = args.class_names
    if names is None and num_classes == len(COCO_NAMES):
        names = list(COCO_NAMES)
    if names is not None and len(names) != num_classes:
        raise ValueError(f"--class-names has {len(names)} names; the weights in {args.weights} have {num_classes}")
    model = torchvision_detector(args.model, num_classes, names)
    assign(model, values)
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=f"torchvision {args.model}")
    say(f"{args.model} with {num_classes} classes: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}")


def _convert_caffe(args: argparse.Namespace, out: Path) -> None:
    from safetensors.numpy import save

    from keras_rcnn.convert import read_caffe_weights

    if args.class_names is not None:
        raise ValueError("--class-names is for torchvision's detectors; weights of Caffe become no preset")
    values = read_caffe_weights(args.model, args.weights)
    path = out / "weights.safetensors"
    write(path, save({name: value.astype(args.dtype, copy=False) for name, value in values.items()}))
    say(caffe_usage(args.model, path, values))
