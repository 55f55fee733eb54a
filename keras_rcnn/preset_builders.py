"""Detectors that a preset of this package names instead of describing them part by part.

`"detector": {"builder": "detectron2", "model": "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", ...}` stands for what
`detectron2_detector` makes of that name: forty configs of 8 kB that follow from forty names would be written anew with
every option that a layer gets. Only the package's own presets do so; a stranger's says all, and is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_rcnn.preset_file import PresetError

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

# what differs from Matterport's Config, of the files that Matterport has published
MATTERPORT: dict[str, dict[str, Any]] = {"coco": {"NUM_CLASSES": 81}}


def outline(detector: Mapping[str, Any]) -> dict[str, Any]:
    """What a detector's config is to say before anything is built; it takes no Keras.

    Args:
        detector: dict, the `detector` of a `preset.json`.

    Returns:
        The same if it has a config. Else with a `config` of `num_classes`, `class_names`, `keypoint_branch` (whether
        there is one) and the sizes of a `preprocessor`; `num_classes` and `class_names` may be changed in it.

    Raises:
        PresetError: if there is no such builder.
    """
    if "builder" not in detector:
        return dict(detector)
    if detector["builder"] not in _OUTLINES:
        raise PresetError(f"There is no builder {detector['builder']!r}. Is it from a newer version of keras_rcnn?")
    count, names, keypoints, sizes = _OUTLINES[detector["builder"]](detector["model"])
    preprocessor = {"config": {"min_size": sizes[0], "max_size": sizes[1]}}
    config = {"num_classes": count, "class_names": names, "keypoint_branch": keypoints, "preprocessor": preprocessor}
    return {**detector, "config": config}


def build_named(detector: Mapping[str, Any]) -> Detector:
    """Builds what `outline` outlines.

    Args:
        detector: dict, of `outline`; the classes are those that its config has by now.

    Returns:
        A `Detector`, randomly initialised.
    """
    model, config = detector["model"], detector["config"]
    if detector["builder"] == "detectron2":
        from keras_rcnn.detectron2_detectors import detectron2_detector

        return detectron2_detector(model, config["num_classes"], config["class_names"])
    from keras_rcnn.matterport_detectors import matterport_detector

    settings = {**MATTERPORT[model], "NUM_CLASSES": config["num_classes"] + 1}
    return matterport_detector(settings, config["class_names"], name=f"mask_rcnn_{model}")


# === Number of classes, names, whether keypoints, (shorter side, longer side) ===

Outline = tuple[int, list[str] | None, bool, tuple[int, int]]


def _detectron2(model: str) -> Outline:
    from keras_rcnn.convert.detectron2_names import detectron2_class_names
    from keras_rcnn.convert.detectron2_settings import detectron2_config

    config = detectron2_config(model)
    count = config["MODEL.ROI_HEADS.NUM_CLASSES"]
    sizes = config["INPUT.MIN_SIZE_TEST"], config["INPUT.MAX_SIZE_TEST"]
    return count, detectron2_class_names(model, count), bool(config.get("MODEL.KEYPOINT_ON")), sizes


def _matterport(model: str) -> Outline:
    from keras_rcnn.convert.detectron2_names import DETECTRON2_NAMES

    settings = {"IMAGE_MIN_DIM": 800, "IMAGE_MAX_DIM": 1024, **MATTERPORT[model]}
    names = list(DETECTRON2_NAMES["coco"])
    return settings["NUM_CLASSES"] - 1, names, False, (settings["IMAGE_MIN_DIM"], settings["IMAGE_MAX_DIM"])


_OUTLINES = {"detectron2": _detectron2, "matterport": _matterport}
