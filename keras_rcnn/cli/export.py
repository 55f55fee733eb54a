"""`keras-rcnn export`: a preset -> a model for another runtime, checked against `detect`."""

import argparse

from keras_rcnn.cli.arguments import add_preset
from keras_rcnn.cli.output import say
from keras_rcnn.cli.photos import photo_files

CHECKED = 16  # photos at most that an export is checked on

HELP = "a model for TF Serving, LiteRT, ONNX, OpenVINO or a browser"
DESCRIPTION = "Writes a preset for another runtime and checks, on photos, that it answers as detect does."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_preset(parser)
    parser.add_argument("--format", choices=("saved_model", "litert", "onnx", "openvino", "web"), default="saved_model")
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="of saved_model a folder, which gets PATH/1; of openvino and web a folder; or a file",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "dynamic", "int8"),
        help="of litert and openvino (which has no dynamic)",
    )
    parser.add_argument("--calibrate", "--calibration", metavar="DIR", help="photos like those to come, for int8")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PX",
        help="of litert's and openvino's input: a side, or height and width",
    )
    parser.add_argument(
        "--masks", choices=("crops", "pasted"), help="of saved_model: 28 x 28 (crops), or of the photo's size"
    )
    parser.add_argument(
        "--score", type=float, metavar="S", help="of saved_model: leave out detections below this score"
    )
    parser.add_argument("--runtime", metavar="PATH", help="of web: npm's onnxruntime-web, .tgz or folder")
    parser.add_argument(
        "--from-disk", action="store_true", default=None, help="of web: a page that works without a server, too"
    )
    parser.add_argument("--check", metavar="DIR", help=f"photos to check it on, at most {CHECKED}; default: the demo's")


def run(args: argparse.Namespace) -> None:
    """A preset -> a model for another runtime, checked against `detect`."""
    from keras_rcnn.data.reading import spread
    from keras_rcnn.export import export_model
    from keras_rcnn.export.parity import table
    from keras_rcnn.export.target import new_path
    from keras_rcnn.presets import from_preset

    if args.format != "saved_model":
        new_path(args.out)  # before anybody waits for the model
    keys = ("precision", "calibrate", "size", "masks", "score", "runtime", "from_disk")
    options = {key: getattr(args, key) for key in keys}
    options = {key: value for key, value in options.items() if value is not None}
    photos = None if args.check is None else photo_files(args.check)
    if photos and len(photos) > CHECKED:
        say(f"Checked on {CHECKED} of the {len(photos)} photos in {args.check}.")
        photos = spread(photos, CHECKED)
    result = export_model(from_preset(args.preset), args.out, args.format, photos=photos, **options)
    say(f"{table(result['parity'])}\n\nChecked against detect. Exported: {result['path']}")
