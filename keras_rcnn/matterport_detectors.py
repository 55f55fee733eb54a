"""Matterport's Mask_RCNN, assembled from this package's parts, with the settings of its `Config` by their names."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras_rcnn import layers
from keras_rcnn.backbones import MatterportResNet
from keras_rcnn.data import MatterportPreprocessor
from keras_rcnn.models import MaskRCNN

# Config's settings that make a detector, with its defaults
SETTINGS: dict[str, Any] = {
    "BACKBONE": "resnet101",
    "NUM_CLASSES": 81,
    "TOP_DOWN_PYRAMID_SIZE": 256,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0,
    "MEAN_PIXEL": (123.7, 116.8, 103.9),
    "RPN_ANCHOR_SCALES": (32, 64, 128, 256, 512),
    "RPN_ANCHOR_RATIOS": (0.5, 1, 2),
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "TRAIN_ROIS_PER_IMAGE": 200,
    "ROI_POSITIVE_RATIO": 0.33,
    "POOL_SIZE": 7,
    "MASK_POOL_SIZE": 14,
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
}
# those that have no other value here
FIXED: dict[str, Any] = {
    "BACKBONE_STRIDES": (4, 8, 16, 32, 64),
    "RPN_BBOX_STD_DEV": (0.1, 0.1, 0.2, 0.2),
    "BBOX_STD_DEV": (0.1, 0.1, 0.2, 0.2),
    "IMAGE_CHANNEL_COUNT": 3,
    "USE_RPN_ROIS": True,
    "TRAIN_BN": False,
    "COMPUTE_BACKBONE_SHAPE": None,
}
# those that say how Matterport trains, or follow from others: accepted, so that a whole Config may be given
NOT_USED = (
    "NAME",
    "GPU_COUNT",
    "IMAGES_PER_GPU",
    "BATCH_SIZE",
    "STEPS_PER_EPOCH",
    "VALIDATION_STEPS",
    "IMAGE_SHAPE",
    "IMAGE_META_SIZE",
    "USE_MINI_MASK",
    "MINI_MASK_SHAPE",
    "MASK_SHAPE",
    "MAX_GT_INSTANCES",
    "LEARNING_RATE",
    "LEARNING_MOMENTUM",
    "WEIGHT_DECAY",
    "LOSS_WEIGHTS",
    "GRADIENT_CLIP_NORM",
)
DEPTHS: dict[str, Literal[50, 101]] = {"resnet50": 50, "resnet101": 101}


class SettingsError(ValueError):
    """A setting that Matterport's Config has not, or a value that it cannot have."""


def matterport_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """All of `SETTINGS`, those given in the place of the defaults.

    Args:
        given: dict, a name of Matterport's `Config` -> its value.

    Returns:
        A dict with the keys of `SETTINGS`.

    Raises:
        SettingsError: for a name that Config has not, or a value of another kind; the message says what there is.

    Example:

    >>> matterport_settings({"IMAGE_MIN_DIM": 400, "IMAGE_MAX_DIM": 512})["IMAGE_MAX_DIM"]
    512
    """
    settings = dict(SETTINGS)
    for name, value in given.items():
        if name in SETTINGS:
            settings[name] = _checked(name, value)
        elif name in FIXED:
            if _plain(value) != _plain(FIXED[name]):
                raise SettingsError(f"{name} is {FIXED[name]!r} here, and cannot be {value!r}.")
        elif name not in NOT_USED:
            raise SettingsError(
                f"Matterport's Config has no {name}. What makes a detector: {', '.join(SETTINGS)}. Not used: "
                f"{', '.join((*FIXED, *NOT_USED))}."
            )
    if settings["BACKBONE"] not in DEPTHS:
        raise SettingsError(f"BACKBONE is one of {', '.join(DEPTHS)}, not {settings['BACKBONE']!r}.")
    if settings["IMAGE_RESIZE_MODE"] == "crop":
        raise SettingsError(
            "IMAGE_RESIZE_MODE 'crop' is for Matterport's training alone: its samples detect with 'pad64', or 'square'."
        )
    if len(settings["RPN_ANCHOR_SCALES"]) != 5:
        raise SettingsError(f"RPN_ANCHOR_SCALES are five, one a level, not {settings['RPN_ANCHOR_SCALES']!r}.")
    return settings


def matterport_detector(
    settings: Mapping[str, Any] | None = None, class_names: Sequence[str] | None = None, name: str = "mask_rcnn"
) -> MaskRCNN:
    """The detector that weights of Matterport's Mask_RCNN fit, randomly initialised.

    Args:
        settings: dict of what differs from Matterport's `Config`, by its names: see `SETTINGS`. `NUM_CLASSES` counts
            the background, as it does there.
        class_names: list of names, without background.
        name: of the model.

    Returns:
        A `MaskRCNN`.

    Raises:
        SettingsError: as `matterport_settings`, or for what the detector's parts refuse.

    Example:

    >>> model = matterport_detector({"NUM_CLASSES": 2, "BACKBONE": "resnet50"}, ["nucleus"])
    >>> assign(model, convert_matterport(read_keras_h5("mask_rcnn_nucleus.h5")))
    """
    chosen = matterport_settings(settings or {})
    try:
        return MaskRCNN(**_parts(chosen), class_names=class_names, name=name)
    except ValueError as error:
        raise SettingsError(f"No detector can be made of these settings: {error}") from error


def _parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `MaskRCNN`."""
    preprocessor = MatterportPreprocessor(
        min_size=settings["IMAGE_MIN_DIM"] or 1,  # 0 and None: not made larger
        max_size=settings["IMAGE_MAX_DIM"],
        mode=settings["IMAGE_RESIZE_MODE"],
        min_scale=settings["IMAGE_MIN_SCALE"] or 0,
        mean_pixel=settings["MEAN_PIXEL"],
    )
    num_classes, canvas, stride = settings["NUM_CLASSES"] - 1, preprocessor.canvas, settings["RPN_ANCHOR_STRIDE"]
    anchors = layers.MatterportAnchors(
        settings["RPN_ANCHOR_SCALES"], settings["RPN_ANCHOR_RATIOS"], anchor_stride=stride
    )
    box_targets = layers.MatterportBoxTargets(
        num_classes, settings["TRAIN_ROIS_PER_IMAGE"], settings["ROI_POSITIVE_RATIO"]
    )
    mask_pool = settings["MASK_POOL_SIZE"]
    return {
        "backbone": MatterportResNet(DEPTHS[settings["BACKBONE"]]),
        "num_classes": num_classes,
        "preprocessor": preprocessor,
        "neck": layers.FPN(settings["TOP_DOWN_PYRAMID_SIZE"]),
        "anchors": anchors,
        "rpn_head": layers.MatterportRPNHead(anchors.num_anchors, anchor_stride=stride),
        "proposals": layers.MatterportProposals(
            canvas,
            (settings["PRE_NMS_LIMIT"],) * 2,
            (settings["POST_NMS_ROIS_TRAINING"], settings["POST_NMS_ROIS_INFERENCE"]),
            settings["RPN_NMS_THRESHOLD"],
        ),
        "rpn_targets": layers.MatterportRPNTargets(settings["RPN_TRAIN_ANCHORS_PER_IMAGE"]),
        "rpn_loss": layers.MatterportRPNLoss(),
        "box_targets": box_targets,
        "box_pool": layers.MatterportRoIAlign(settings["POOL_SIZE"], name="box_pool"),
        "box_head": layers.MatterportBoxHead((settings["FPN_CLASSIF_FC_LAYERS_SIZE"],) * 2),
        "box_loss": layers.MatterportBoxLoss(),
        "decoder": layers.MatterportDecoder(
            canvas,
            settings["DETECTION_MIN_CONFIDENCE"],
            settings["DETECTION_NMS_THRESHOLD"],
            settings["DETECTION_MAX_INSTANCES"],
        ),
        "mask_targets": layers.MatterportMaskTargets(num_classes, box_targets.most_positive, 2 * mask_pool),
        "mask_pool": layers.MatterportRoIAlign(mask_pool, name="mask_pool"),
        "mask_head": layers.MatterportMaskHead(num_classes),
        "mask_loss": layers.MatterportMaskLoss(),
    }


def _checked(name: str, value: Any) -> Any:
    """A value of the kind that the default has."""
    default = SETTINGS[name]
    value = _plain(value)
    if name in ("IMAGE_MIN_DIM", "IMAGE_MIN_SCALE") and value is None:  # Config: no limit
        return 0
    if isinstance(default, str):
        good, kind = isinstance(value, str), "a text"
    elif isinstance(default, tuple):
        good, kind = isinstance(value, tuple) and len(value) > 0 and all(map(_is_number, value)), "a list of numbers"
    elif isinstance(default, float) or name == "IMAGE_MIN_SCALE":
        good, kind = _is_number(value) and value >= 0, "a number from 0"
        if name == "ROI_POSITIVE_RATIO":
            good, kind = good and 0 < value <= 1, "a number above 0 up to 1"
    else:
        least = 0 if name == "IMAGE_MIN_DIM" else 2 if name == "NUM_CLASSES" else 1
        good, kind = isinstance(value, int) and not isinstance(value, bool) and value >= least, "a whole number"
        kind = f"{kind} from {least}"
    if not good:
        raise SettingsError(f"{name} is {kind}, such as {default!r}, not {value!r}.")
    return value


def _plain(value: Any) -> Any:
    """A list or array as a tuple of Python's numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
