"""`keras-rcnn convert detectron2`: a model of Detectron2's zoo, or one trained with it -> a preset folder."""

import argparse
from pathlib import Path

from keras_rcnn.cli.arguments import add_changes, add_conversion, changes_of, names
from keras_rcnn.cli.output import check_out, say

HELP = "a model of its zoo, or one trained with it -> a preset folder"
DESCRIPTION = (
    "The weights of one of Detectron2's detectors become a preset folder. The model is named by its config's file; "
    "what your own config changed, --set says by the keys that it has there."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("--model", required=True, metavar="NAME", help="its config's, e.g. mask_rcnn_R_50_FPN_1x")
    add_conversion(parser, ".pkl or .pth, such as model_final_f10217.pkl")
    parser.add_argument(
        "--classes",
        "--class-names",
        type=names,
        metavar="A,B,C",
        help="default: those of the data set that it was trained on, else numbers",
    )
    add_changes(parser, "what your own config changed, e.g. INPUT.MIN_SIZE_TEST=600")


def run(args: argparse.Namespace) -> None:
    """Detectron2's weights -> a preset folder."""
    out = Path(args.out)
    check_out(out, args)
    from keras_rcnn.convert import assign, convert_detectron2, detectron2_config, read_detectron2_file
    from keras_rcnn.convert.detectron2_names import detectron2_class_names
    from keras_rcnn.detectron2_detectors import detectron2_detector
    from keras_rcnn.presets import save_preset

    overrides = changes_of(args.set)
    detectron2_config(args.model, overrides)  # before the file is read
    values = convert_detectron2(args.model, read_detectron2_file(args.weights), overrides)
    num_classes = values["box_predictor/logits/bias"].shape[0] - 1
    wanted = overrides.get("MODEL.ROI_HEADS.NUM_CLASSES", num_classes)
    if wanted != num_classes:
        raise ValueError(f"MODEL.ROI_HEADS.NUM_CLASSES is {wanted}; the weights in {args.weights} have {num_classes}")
    class_names = args.classes or detectron2_class_names(args.model, num_classes)
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"--classes has {len(class_names)} names; the weights in {args.weights} have {num_classes}")
    model = detectron2_detector(args.model, num_classes, class_names, **overrides)
    assign(model, values)
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=f"Detectron2 {args.model}")
    proposals = " --proposals FILE" if model.wants_proposals else ""
    say(f"{args.model} with {num_classes} classes: {out}\nTry it: keras-rcnn detect PHOTO --preset {out}{proposals}")
