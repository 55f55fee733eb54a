"""Detectron2's detectors, assembled from this package's parts with the settings of Detectron2's configs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import keras
import numpy as np

from keras_rcnn import layers
from keras_rcnn.backbones import ResNet, ResNetRegions
from keras_rcnn.convert.detectron2_settings import detectron2_config
from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.models import Detector, FasterRCNN, FastRCNN, MaskRCNN

BACKBONE_NORMS: dict[str, Literal["frozen", "batch", "group"]] = {
    "FrozenBN": "frozen",
    "BN": "batch",
    "SyncBN": "batch",
    "GN": "group",
}
NORMS: dict[str, Literal["batch", "group"] | None] = {"": None, "BN": "batch", "SyncBN": "batch", "GN": "group"}
AnyNorm = TypeVar("AnyNorm", bound=str | None)
MAPS = {"res4": "C4", "res5": "C5"}
# Detectron2 drops boxes without an area, and no others
SMALLEST = float(np.finfo(np.float32).tiny)


def detectron2_detector(
    name: str, num_classes: int | None = None, class_names: Sequence[str] | None = None, **overrides: Any
) -> Detector:
    """The detector that `convert_detectron2(name, ...)`'s weights fit, randomly initialised.

    Args:
        name: of the model's config file in Detectron2, such as `"mask_rcnn_R_50_FPN_1x"`; see
            `keras_rcnn.convert.detectron2_config`.
        num_classes: int, background not counted. None: the config's.
        class_names: list of names.
        **overrides: what somebody's own config changed, by Detectron2's keys.

    Returns:
        A `FasterRCNN`, `MaskRCNN` or `FastRCNN`.

    Raises:
        ConversionError: for a name or a key that is not known.

    Example:

    >>> detectron2_detector("faster_rcnn_R_50_FPN_3x", 2, **{"MODEL.RPN.POST_NMS_TOPK_TEST": 300})
    """
    config = detectron2_config(name, overrides)
    classes = config["MODEL.ROI_HEADS.NUM_CLASSES"] if num_classes is None else num_classes
    backbone, neck = _backbone(config), _neck(config)
    strides = neck.strides(backbone.strides)
    parts: dict[str, Any] = {
        "neck": neck,
        **_box_parts(config, classes, strides[: neck.roi_levels()]),
        "preprocessor": _preprocessor(config),
        "class_names": class_names,
        "name": name.rpartition("/")[2].removesuffix(".yaml").removesuffix(".py"),
    }
    if config["MODEL.LOAD_PROPOSALS"]:
        return FastRCNN(backbone, classes, proposals=layers.GivenProposals(clip=True, most=(2000, 1000)), **parts)
    parts.update(_rpn_parts(config, strides))
    if config["MODEL.KEYPOINT_ON"]:
        parts["keypoint_branch"] = _keypoint_branch(config, strides[: neck.roi_levels()])
    if not config["MODEL.MASK_ON"]:
        return FasterRCNN(backbone, classes, **parts)
    return MaskRCNN(backbone, classes, **parts, **_mask_parts(config, classes, parts, strides[: neck.roi_levels()]))


def _resnet(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `ResNet` and `ResNetRegions` have in common."""
    return {
        "depth": config["MODEL.RESNETS.DEPTH"],
        "norm": _norm(config, "MODEL.RESNETS.NORM", BACKBONE_NORMS),
        "groups": config["MODEL.RESNETS.NUM_GROUPS"],
        "width_per_group": config["MODEL.RESNETS.WIDTH_PER_GROUP"],
        "stride_in_1x1": config["MODEL.RESNETS.STRIDE_IN_1X1"],
    }


def _norm(config: Mapping[str, Any], key: str, known: Mapping[str, AnyNorm]) -> AnyNorm:
    if config[key] not in known:
        raise ConversionError(f"{key} is one of {', '.join(map(repr, known))}, not {config[key]!r}.")
    return known[config[key]]


def _backbone(config: Mapping[str, Any]) -> ResNet:
    return ResNet(
        **_resnet(config),
        freeze_at=config["MODEL.BACKBONE.FREEZE_AT"],
        dilated=config["MODEL.RESNETS.RES5_DILATION"] == 2,
        last="C4" if _is_c4(config) else "C5",
    )


def _is_c4(config: Mapping[str, Any]) -> bool:
    return config["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeads"


def _neck(config: Mapping[str, Any]) -> layers.FPN | layers.SingleLevel:
    first = config["MODEL.ROI_HEADS.IN_FEATURES"][0]
    if first in MAPS:
        return layers.SingleLevel(MAPS[first])
    return layers.FPN(norm=_norm(config, "MODEL.FPN.NORM", NORMS))


def _preprocessor(config: Mapping[str, Any]) -> Preprocessor:
    """Mean and std are in the order of the channels there, and RGB here."""
    order = -1 if config["INPUT.FORMAT"] == "BGR" else 1
    return Preprocessor(
        config["INPUT.MIN_SIZE_TEST"],
        config["INPUT.MAX_SIZE_TEST"],
        mean=[value / 255 for value in config["MODEL.PIXEL_MEAN"][::order]],
        std=[value / 255 for value in config["MODEL.PIXEL_STD"][::order]],
        size_divisor=1 if config["MODEL.ROI_HEADS.IN_FEATURES"][0] in MAPS else 32,
        resize="detectron2",
        channels="bgr" if order == -1 else "rgb",
        paste="detectron2",
    )


def _rpn_parts(config: Mapping[str, Any], strides: Sequence[int]) -> dict[str, keras.layers.Layer]:
    (ratios, *others) = config["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]
    if any(other != ratios for other in others):
        raise ConversionError("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS are the same on every level here.")
    sizes = config["MODEL.ANCHOR_GENERATOR.SIZES"]
    anchors = layers.AnchorGenerator(sizes, ratios, rounded=False, strides=strides, order="sizes")
    background, foreground = config["MODEL.RPN.IOU_THRESHOLDS"]
    count = config["MODEL.RPN.BATCH_SIZE_PER_IMAGE"]
    return {
        "anchors": anchors,
        "rpn_head": layers.RPNHead(anchors.num_anchors, convs=len(config["MODEL.RPN.CONV_DIMS"])),
        "proposals": layers.Proposals(
            (config["MODEL.RPN.PRE_NMS_TOPK_TRAIN"], config["MODEL.RPN.PRE_NMS_TOPK_TEST"]),
            (config["MODEL.RPN.POST_NMS_TOPK_TRAIN"], config["MODEL.RPN.POST_NMS_TOPK_TEST"]),
            iou_threshold=config["MODEL.RPN.NMS_THRESH"],
            min_size=SMALLEST,
            ranked_by="logits",
        ),
        # as torchvision, a ground-truth box that overlaps nothing claims every anchor of IoU 0
        "rpn_targets": layers.RPNTargets(
            foreground, background, count, config["MODEL.RPN.POSITIVE_FRACTION"], guard=False
        ),
        "rpn_loss": layers.RPNLoss(config["MODEL.RPN.SMOOTH_L1_BETA"], "fixed", count=count),
    }


def _box_parts(config: Mapping[str, Any], classes: int, strides: Sequence[int]) -> dict[str, keras.layers.Layer]:
    (threshold,) = config["MODEL.ROI_HEADS.IOU_THRESHOLDS"]
    cascade = _cascade(config)
    weights = config["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]
    pool: keras.layers.Layer = _pool(config, "MODEL.ROI_BOX_HEAD", "box_pool", strides)
    head: keras.layers.Layer
    if _is_c4(config):
        pool, head = ResNetRegions(pool, **_resnet(config)), layers.RegionMean()
    else:
        convs = (256,) * config["MODEL.ROI_BOX_HEAD.NUM_CONV"]
        norm = _norm(config, "MODEL.ROI_BOX_HEAD.NORM", NORMS)
        head = layers.BoxHead((1024,) * config["MODEL.ROI_BOX_HEAD.NUM_FC"], convs, norm)
    return {
        "box_targets": layers.BoxTargets(
            classes,
            config["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
            config["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
            foreground=threshold,
            background=(0.0, threshold),
            add_truth=config["MODEL.ROI_HEADS.PROPOSAL_APPEND_GT"],
            weights=weights,
        ),
        "box_pool": pool,
        "box_head": head,
        "box_predictor": layers.BoxPredictor(classes, config["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"]),
        "box_loss": layers.BoxLoss(config["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"], weights=weights),
        "cascade": cascade,
        "decoder": layers.DetectionDecoder(
            config["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
            config["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
            config["TEST.DETECTIONS_PER_IMAGE"],
            min_size=SMALLEST,
            weights=weights,
        ),
    }


def _cascade(config: Mapping[str, Any]) -> layers.Cascade | None:
    """The stages after the first, which has the settings of a box head without a cascade."""
    if config["MODEL.ROI_HEADS.NAME"] != "CascadeROIHeads":
        return None
    ious, weights = (config[f"MODEL.ROI_BOX_CASCADE_HEAD.{key}"] for key in ("IOUS", "BBOX_REG_WEIGHTS"))
    first = config["MODEL.ROI_HEADS.IOU_THRESHOLDS"][0], config["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]
    if (ious[0], weights[0]) != first:
        raise ConversionError(
            f"MODEL.ROI_BOX_CASCADE_HEAD begins with the IoU {ious[0]} and the weights {weights[0]}; "
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS and MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS are {first[0]} and {first[1]}."
        )
    return layers.Cascade(ious[1:], weights[1:])


def _pool(config: Mapping[str, Any], head: str, name: str, strides: Sequence[int]) -> layers.RoIAlign:
    return layers.RoIAlign(
        config[f"{head}.POOLER_RESOLUTION"],
        strides,
        samples=config[f"{head}.POOLER_SAMPLING_RATIO"],
        aligned=config[f"{head}.POOLER_TYPE"] == "ROIAlignV2",
        level_rule="detectron2",
        name=name,
    )


def _mask_parts(
    config: Mapping[str, Any], classes: int, parts: Mapping[str, Any], strides: Sequence[int]
) -> dict[str, keras.layers.Layer]:
    norm = _norm(config, "MODEL.ROI_MASK_HEAD.NORM", NORMS)
    convs, pool = (256,) * config["MODEL.ROI_MASK_HEAD.NUM_CONV"], parts["box_pool"]
    size = config["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"]
    if _is_c4(config):  # masks come from the 7 x 7 cells of the shared stage
        convs, size = (), config["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] // 2
    else:
        pool = _pool(config, "MODEL.ROI_MASK_HEAD", "mask_pool", strides)
    agnostic = config["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"]
    return {
        "mask_targets": layers.MaskTargets(classes, parts["box_targets"].most_positive, 2 * size, binary=True),
        "mask_pool": pool,
        "mask_head": layers.MaskHead(classes, convs, norm=norm, class_agnostic=agnostic),
    }


def _keypoint_branch(config: Mapping[str, Any], strides: Sequence[int]) -> layers.KeypointBranch:
    head = layers.KeypointHead(
        config["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"], config["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"]
    )
    return layers.KeypointBranch(head, _pool(config, "MODEL.ROI_KEYPOINT_HEAD", "keypoint_pool", strides))
