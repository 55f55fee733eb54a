"""The presets of Detectron2's and Matterport's published models: a folder in `zoo/` for every row of a table.

`detectron2.csv` has Detectron2's MODEL_ZOO.md: config, file, number of values in its tensors, published AP in percent,
and the SHA-256 where it is known (`keras-rcnn presets --pins` prints what a machine has seen). A row becomes a preset
as soon as `detectron2_config` knows its config: run `python tools/refresh_zoo.py` then.
"""

import csv
import hashlib
from pathlib import Path

from keras_rcnn.convert import ConversionError, detectron2_config

TABLE = Path(__file__).with_name("detectron2.csv")
ADDRESS = "https://dl.fbaipublicfiles.com/detectron2/"
PAGE = "https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md"
# a config's folder -> before the preset's name, what it was trained on, what its AP was measured on
DATA = {
    "LVISv0.5-InstanceSegmentation": ("lvis_", "LVIS", "LVIS v0.5 val"),
    "Cityscapes": ("cityscapes_", "Cityscapes", "Cityscapes val"),
    "PascalVOC-Detection": ("voc_", "VOC", "VOC2007 test, COCO AP"),
}
FAMILIES = {"rpn": "RPN", "fast": "Fast R-CNN", "faster": "Faster R-CNN", "mask": "Mask R-CNN"}
FAMILIES |= {"keypoint": "Keypoint R-CNN", "cascade_mask": "Cascade Mask R-CNN", "scratch_mask": "Mask R-CNN"}
BODIES = {"R_50": "ResNet-50", "R_101": "ResNet-101", "X_101_32x8d": "ResNeXt-101 32x8d", "X_152_32x8d": "ResNeXt-152"}
NECKS = {"FPN": " + FPN", "C4": " C4", "DC5": " DC5"}
OTHER = {"gn": "GroupNorm", "syncbn": "SyncBN", "LSJ": "large-scale jitter", "noaug": "no augmentation"}
MATTERPORT = {
    "name": "matterport_mask_rcnn_coco",
    "title": "COCO: Mask R-CNN, ResNet-101 + FPN, Matterport's",
    "license": "MIT",
    "source": "Matterport's Mask_RCNN 2.0, https://github.com/matterport/Mask_RCNN",
    "notes": "The licence is that of its repository; the release states none of its own. AP was measured with "
    "DETECTION_MIN_CONFIDENCE = 0; here it is 0.7, as in Matterport's Config.",
    "metrics": {
        "bbox": {"AP": 0.347, "AP50": 0.544, "AP75": 0.377},
        "dataset": "COCO 2014 minival, published by Matterport",
    },
    "weights": {
        "url": "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
        "file": "mask_rcnn_coco.h5",
        "size": 257557808,
        "md5_prefix": "e98aaff6f99e307b5e2a8a3ff741a518",
        "converter": "matterport",
        "model": "coco",
    },
}


def rows():
    """The table's rows whose configs can be built, as dicts."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if _is_known(row["config"])]


def records():
    """What the `preset.json` of every row says, without what building its detector tells."""
    return [*map(detectron2_record, rows()), MATTERPORT | {"detector": {"builder": "matterport", "model": "coco"}}]


def detectron2_record(row):
    """What the `preset.json` of a row of the table says."""
    stem, (folder, _, name) = row["config"].rpartition(".")[0], row["config"].rpartition(".")[0].rpartition("/")
    prefix, data, measured = DATA.get(folder, ("", "COCO", "COCO val2017"))
    file = row["file"].rpartition("/")[2]
    percent = {"bbox": (row["box_ap"], row["box_ap50"]), "segm": (row["mask_ap"],), "keypoints": (row["keypoint_ap"],)}
    metrics = {
        task: {key: round(float(value) / 100, 3) for key, value in zip(("AP", "AP50"), values) if value}
        for task, values in percent.items()
        if values[0]
    }
    known = {"sha256_prefix": row["sha256"]} if row["sha256"] else {}
    return {
        "name": prefix + name,
        "title": f"{data}: {title(name)}",
        "license": "CC BY-SA 3.0",
        "source": f"Detectron2's model zoo, {PAGE}",
        "metrics": {**metrics, "dataset": f"{measured}, published by Detectron2"} if metrics else {},
        "weights": {
            "url": f"{ADDRESS}{stem}/{row['file']}",
            "file": file,
            "size": 4 * int(row["values"]),
            **known,
            "md5_prefix": file.rpartition(".")[0].rpartition("_")[2],
            "converter": "detectron2",
            "model": row["config"],
        },
        "detector": {"builder": "detectron2", "model": row["config"]},
    }


def title(name):
    """`"Mask R-CNN, ResNet-50 + FPN, 3x"` of `"mask_rcnn_R_50_FPN_3x"`."""
    family, _, rest = name.partition("_" if name.startswith("rpn_") else "_rcnn_")
    body = next(body for body in BODIES if rest.startswith(body))
    neck, *more = rest.removeprefix(f"{body}_").split("_")
    words = [OTHER.get(word, word.replace("ep", " epochs")) for word in more]
    scratch = ["from scratch"] if family == "scratch_mask" else []
    return ", ".join([FAMILIES[family], BODIES[body] + NECKS[neck], *words, *scratch])


def completed(record):
    """A record with what only its detector tells: its class, and a hash of its weights' names and shapes."""
    import keras

    from keras_rcnn.preset_builders import build_named, outline

    with keras.StatelessScope(initialize_variables=False):  # no values
        model = build_named(outline(record["detector"]))
    facts = {"class_name": type(model).__name__, "names_and_shapes": names_and_shapes(model.weights)}
    return record | {"detector": record["detector"] | facts}


def names_and_shapes(weights):
    """16 digits that change if a weight is renamed, reshaped or moved, which makes what people have cached useless."""
    lines = "\n".join(f"{weight.path} {list(weight.shape)}" for weight in weights)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _is_known(config):
    try:
        detectron2_config(config)
    except ConversionError:
        return False
    return True
