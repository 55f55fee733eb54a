"""`keras-rcnn convert matterport`: an `.h5` file of Matterport's Mask_RCNN -> a preset folder."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_rcnn.cli.arguments import add_changes, add_conversion, changes_of, names
from keras_rcnn.cli.output import check_out, say

HELP = "an .h5 file of Mask_RCNN -> a preset folder"
DESCRIPTION = (
    "An .h5 file of Matterport's Mask_RCNN, or of one of its forks, becomes a preset folder. Classes, backbone and "
    "widths are read from the file; sizes, MEAN_PIXEL, anchor scales and thresholds are not in it: if yours are not "
    "those of Matterport's Config, say so by --set."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    add_conversion(parser, ".h5, such as mask_rcnn_shapes_0030.h5")
    parser.add_argument(
        "--classes",
        type=names,
        metavar="A,B,C",
        help="names, without the background; default: COCO's for 80 classes, else numbers",
    )
    add_changes(parser, "a setting of your Config, e.g. IMAGE_MAX_DIM=512 or 'RPN_ANCHOR_SCALES=[8, 16, 32, 64, 128]'")


def run(args: argparse.Namespace) -> None:
    """Matterport's weights -> a preset folder."""
    out = Path(args.out)
    check_out(out, args)
    from keras_rcnn.convert import assign, convert_matterport, matterport_facts, read_keras_h5
    from keras_rcnn.matterport_detectors import FIXED, NOT_USED, matterport_detector
    from keras_rcnn.presets import save_preset

    layers = read_keras_h5(args.weights)
    values = convert_matterport(layers)
    settings = settings_of(matterport_facts(layers), changes_of(args.set), args.weights)
    class_names = class_names_of(settings["NUM_CLASSES"] - 1, args.classes, args.weights)
    model = matterport_detector(settings, class_names)
    assign(model, values)
    source = f"Matterport's Mask_RCNN, {Path(args.weights).name}"
    save_preset(model, out, dtype=args.dtype, name=out.resolve().name, source=source)
    unused = [name for name in settings if name in FIXED or name in NOT_USED]
    said = f"Not used, as it makes no detector: {', '.join(unused)}\n" if unused else ""
    say(
        f"{settings['BACKBONE']} with {len(class_names)} classes ({', '.join(class_names[:8])}"
        f"{', ...' if len(class_names) > 8 else ''}): {out}\n{said}Try it: keras-rcnn detect PHOTO --preset {out}"
    )


def settings_of(facts: Mapping[str, Any], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What the file says and what the user says, if these agree.

    Raises:
        ValueError: it names the setting and both values.
    """
    settings = dict(given)
    for name, value in facts.items():
        if name == "num_ratios":
            ratios = settings.get("RPN_ANCHOR_RATIOS", (0.5, 1, 2))
            if not isinstance(ratios, (list, tuple)) or len(ratios) != value:
                raise ValueError(
                    f"{path} is of {value} RPN_ANCHOR_RATIOS, not {ratios!r}: --set RPN_ANCHOR_RATIOS=[...] gives yours"
                )
        elif settings.setdefault(name, value) != value:
            raise ValueError(f"{path} is of {name}={value}, not {settings[name]!r}: leave that setting out")
    return settings


def class_names_of(count: int, given: Sequence[str] | None, path: str) -> list[str]:
    """The names given, COCO's for 80 classes, or else numbers.

    Raises:
        ValueError: if there are more or fewer than the file has classes.
    """
    from keras_rcnn.convert.coco_names import COCO_NAMES

    coco = [name for name in COCO_NAMES if name != "N/A"]
    if given is None:
        return coco if count == len(coco) else [str(i) for i in range(count)]
    if len(given) != count:
        raise ValueError(f"--classes has {len(given)} names; {path} has {count} classes and the background")
    return list(given)
