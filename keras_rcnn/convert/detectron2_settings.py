"""What the configs of Detectron2's model zoo say, as far as it matters here: its defaults, and what a name changes.

A model is named by its config file, `mask_rcnn_R_50_FPN_1x`, with or without the folder and the ending. Two files of
the zoo share a name with others, and want their folder: `LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x` and
`new_baselines/...`'s are told apart by theirs. Keys are Detectron2's own, so that what somebody's own config changed
can be given as it stands there.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from keras_rcnn.convert.errors import ConversionError

MSRA_STD, PYTORCH_STD = (1.0, 1.0, 1.0), (57.375, 57.12, 58.395)
# Base-RCNN-FPN.yaml over Detectron2's defaults; MODEL.FAMILY and the like stand for the names of classes there
DEFAULTS: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "MODEL.PIXEL_MEAN": (103.53, 116.28, 123.675),
    "MODEL.PIXEL_STD": MSRA_STD,
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ("p2", "p3", "p4", "p5"),
    "MODEL.FPN.NORM": "",
    "MODEL.ANCHOR_GENERATOR.SIZES": ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ((0.5, 1.0, 2.0),),
    "MODEL.RPN.CONV_DIMS": (-1,),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.IOU_THRESHOLDS": (0.3, 0.7),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": (0.5,),
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0.5, 0.6, 0.7),
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    ),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (512,) * 8,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 17,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
_ONE_LEVEL = {
    "MODEL.ANCHOR_GENERATOR.SIZES": ((32.0, 64.0, 128.0, 256.0, 512.0),),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
}


def _normed(norm: str) -> dict[str, Any]:
    heads = {f"MODEL.{part}.NORM": norm for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")}
    return {**heads, "MODEL.ROI_BOX_HEAD.NUM_CONV": 4, "MODEL.ROI_BOX_HEAD.NUM_FC": 1}


# what a name's parts change, one rule after another: a pattern for folder/name, and the settings
RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"mask_rcnn", {"MODEL.MASK_ON": True}),
    (
        r"keypoint_rcnn",
        {
            "MODEL.KEYPOINT_ON": True,
            "MODEL.ROI_HEADS.NUM_CLASSES": 1,
            "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
        },
    ),
    (r"/fast_rcnn", {"MODEL.LOAD_PROPOSALS": True}),
    (
        r"/cascade_",
        {
            "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
        },
    ),
    (r"_R_101_", {"MODEL.RESNETS.DEPTH": 101}),
    (
        r"_X_101_32x8d_",
        {
            "MODEL.RESNETS.DEPTH": 101,
            "MODEL.RESNETS.NUM_GROUPS": 32,
            "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
            "MODEL.RESNETS.STRIDE_IN_1X1": False,
            "MODEL.PIXEL_STD": PYTORCH_STD,
        },
    ),
    (
        r"_C4",
        {
            **_ONE_LEVEL,
            "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
            "MODEL.ROI_HEADS.IN_FEATURES": ("res4",),
            "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
        },
    ),
    (
        r"_DC5",
        {**_ONE_LEVEL, "MODEL.RESNETS.RES5_DILATION": 2, "MODEL.ROI_HEADS.IN_FEATURES": ("res5",)},
    ),
    (r"_gn$", {**_normed("GN"), "MODEL.RESNETS.STRIDE_IN_1X1": False}),
    (r"_syncbn$", _normed("SyncBN")),
    (r"/scratch_", {"MODEL.BACKBONE.FREEZE_AT": 0}),
    (r"/scratch_.*_9x_", {"MODEL.PIXEL_STD": PYTORCH_STD, "MODEL.RESNETS.STRIDE_IN_1X1": False}),
    (r"_LSJ$", {**_normed("SyncBN"), "MODEL.RPN.CONV_DIMS": (-1, -1), "MODEL.BACKBONE.FREEZE_AT": 0}),
    (
        r"^LVIS|/lvis_",
        {
            "MODEL.ROI_HEADS.NUM_CLASSES": 1230,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0001,
            "TEST.DETECTIONS_PER_IMAGE": 300,
        },
    ),
    (
        r"^Cityscapes|FPN$",
        {"MODEL.ROI_HEADS.NUM_CLASSES": 8, "INPUT.MIN_SIZE_TEST": 1024, "INPUT.MAX_SIZE_TEST": 2048},
    ),
    (r"^PascalVOC|C4$", {"MODEL.ROI_HEADS.NUM_CLASSES": 20}),
    (
        r"_noaug_",
        {
            "MODEL.RPN.SMOOTH_L1_BETA": 0.1111,
            "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0,
            "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
            "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
            "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
            "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
        },
    ),
)
_BODY, _LARGE = r"(R_50|R_101)_(C4|DC5|FPN)", r"(R_50|R_101|X_101_32x8d)_FPN"
# the names that there are
GRAMMAR = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(faster|mask)_rcnn_{_BODY}_(1x|3x)",
        rf"(faster|mask)_rcnn_{_LARGE}_(1x|3x)",
        rf"keypoint_rcnn_{_LARGE}_(1x|3x)",
        rf"fast_rcnn_{_BODY.replace('C4|DC5|FPN', 'FPN')}_(1x|3x)",
        r"mask_rcnn_R_50_FPN_3x_(gn|syncbn)",
        r"scratch_mask_rcnn_R_50_FPN_(3x_gn|9x_gn|9x_syncbn)",
        r"mask_rcnn_(R_50|R_101)_FPN_(100|200|400|50)ep_LSJ",
        r"cascade_mask_rcnn_R_50_FPN_(1x|3x)",
        rf"lvis_mask_rcnn_{_LARGE}_1x",
        r"mask_rcnn_R_50_FPN",
        r"(voc_)?faster_rcnn_R_50_C4",
        r"(faster|mask)_rcnn_R_50_FPN_noaug_1x",
    )
)
EXAMPLES = (
    "faster_rcnn_R_50_FPN_1x",
    "mask_rcnn_X_101_32x8d_FPN_3x",
    "mask_rcnn_R_101_C4_3x",
    "keypoint_rcnn_R_50_FPN_3x",
    "faster_rcnn_R_50_DC5_1x",
    "fast_rcnn_R_50_FPN_1x",
    "mask_rcnn_R_50_FPN_3x_gn",
    "mask_rcnn_R_50_FPN_400ep_LSJ",
    "cascade_mask_rcnn_R_50_FPN_3x",
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    "Cityscapes/mask_rcnn_R_50_FPN",
    "PascalVOC-Detection/faster_rcnn_R_50_C4",
)


def detectron2_config(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a model of Detectron2's zoo.

    Args:
        name: its config file's, such as `"mask_rcnn_R_50_FPN_1x"` or `"Cityscapes/mask_rcnn_R_50_FPN.yaml"`.
        overrides: dict, a key of `DEFAULTS` -> another value, as somebody's own config has it.

    Returns:
        A dict, a key of `DEFAULTS` -> its value.

    Raises:
        ConversionError: for a name or a key that is not known, or a value of another kind than the key's.

    Example:

    >>> detectron2_config("mask_rcnn_R_50_C4_3x")["MODEL.RPN.PRE_NMS_TOPK_TEST"]
    6000
    """
    path = re.sub(r"\.(yaml|py)$", "", name)
    folder, _, stem = path.rpartition("/")
    # of those with Detectron's older RoIAlign only the ones without augmentation are known
    older = folder == "Detectron1-Comparisons" and "_noaug_" not in stem
    if older or not any(pattern.fullmatch(stem) for pattern in GRAMMAR):
        raise ConversionError(
            f"{name!r} is no config of Detectron2's zoo that converts; such are {', '.join(EXAMPLES)}. Its "
            "panoptic, RetinaNet, RegNet and RPN-only models do not, nor those with deformable convolutions "
            "(..._dconv_..., the cascade on X-152 too)."
        )
    config = dict(DEFAULTS)
    for pattern, changes in RULES:
        if re.search(pattern, f"{folder}/{stem}"):
            config.update(changes)
    for key, value in (overrides or {}).items():
        if key not in DEFAULTS:
            raise ConversionError(
                f"{key!r} is no key that matters to a converted model; these are {', '.join(DEFAULTS)}."
            )
        config[key] = _checked(key, value, DEFAULTS[key])
    return config


def _checked(key: str, value: Any, default: Any) -> Any:
    """A value of the kind of the key's default: a number, a text, or a tuple of such."""
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)) and value:
            return tuple(_checked(key, one, default[0]) for one in value)
    elif isinstance(default, (bool, str)):
        if isinstance(value, type(default)):
            return value
    elif _is_number(value) and value == type(default)(value):
        return type(default)(value)
    raise ConversionError(f"{key} is something like {default!r}, not {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
