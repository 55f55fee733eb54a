"""What a preset is, in a few figures and words: for lists and for its card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# where weights come from: the converters of `published`, and this package
ORIGINS = ("keras_rcnn", "torchvision", "detectron2", "matterport")
TASKS = ("boxes", "masks", "keypoints")
WANT_PROPOSALS = ("RCNN", "FastRCNN")


def summary(folder: Path, record: Mapping[str, Any], local: bool, own: bool) -> dict[str, Any]:
    """What there is to say of a preset.

    Args:
        folder: pathlib.Path of the preset.
        record: dict, its `preset.json`, with a detector that has a config.
        local: whether it loads without a network.
        own: whether its folder's name is enough to load it.

    Returns:
        A dict: what `record` has besides the detector, and

        - `task`: `"boxes"`, `"boxes and masks"`, ...; `wants_proposals`, whether `detect` has to be given boxes;
        - `origin`: one of `ORIGINS`;
        - `num_classes`, `class_names` (None if they have none), `min_size` and `max_size` of its photos' sides, px;
        - `AP` and `AP50` of boxes, `mask_AP`, `keypoint_AP`: 0 to 1, or None; `dataset`, which they were measured on;
        - `size`, bytes of the weights file; `url`, or None; `local`; `folder`, or None for one of this package's.
    """
    metrics, weights, detector = record.get("metrics") or {}, record.get("weights") or {}, record["detector"]
    scores = {task: metrics.get(task) or {} for task in ("bbox", "segm", "keypoints")}
    config = detector["config"]
    sizes = (config.get("preprocessor") or {}).get("config") or {}
    return {
        "name": folder.name,
        **{key: value for key, value in record.items() if key != "detector"},
        "weights": weights,
        "task": _task(detector),
        "wants_proposals": detector.get("class_name") in WANT_PROPOSALS,
        "origin": weights.get("converter") or "keras_rcnn",
        "num_classes": config["num_classes"],
        "class_names": config.get("class_names"),
        "min_size": sizes.get("min_size"),
        "max_size": sizes.get("max_size"),
        "AP": scores["bbox"].get("AP"),
        "AP50": scores["bbox"].get("AP50"),
        "mask_AP": scores["segm"].get("AP"),
        "keypoint_AP": scores["keypoints"].get("AP"),
        "dataset": metrics.get("dataset"),
        "size": weights.get("size"),
        "url": weights.get("url"),
        "local": local,
        "folder": None if own else str(folder),
    }


def _task(detector: Mapping[str, Any]) -> str:
    gives = ["boxes"]
    if detector.get("class_name") == "MaskRCNN":
        gives.append("masks")
    if detector["config"].get("keypoint_branch"):
        gives.append("keypoints")
    return " and ".join(filter(None, [", ".join(gives[:-1]), gives[-1]]))


def chosen(
    presets: Iterable[Mapping[str, Any]],
    task: str | None = None,
    min_ap: float | None = None,
    max_bytes: float | None = None,
    license: str | None = None,
    origin: str | None = None,
    local: bool = False,
) -> list[Mapping[str, Any]]:
    """Those presets that are asked for.

    Args:
        presets: of `list_presets`.
        task: `"boxes"` (and nothing else), `"masks"` or `"keypoints"`.
        min_ap: the least AP of boxes, or of masks if only theirs is known; 0 to 1.
        max_bytes: of the weights file.
        license: part of the licence's name, in capitals or not.
        origin: one of `ORIGINS`.
        local: whether to leave out what is not here yet.

    Returns:
        A list, by origin, then task, then AP.
    """

    def suits(preset: Mapping[str, Any]) -> bool:
        return (
            (task is None or (preset["task"] == task if task == "boxes" else task in preset["task"]))
            and (min_ap is None or _ap(preset) >= min_ap)
            and (max_bytes is None or (preset["size"] or 0) <= max_bytes)
            and (license is None or license.casefold() in str(preset.get("license") or "").casefold())
            and (origin is None or preset["origin"] == origin)
            and (preset["local"] or not local)
        )

    def order(preset: Mapping[str, Any]) -> tuple[int, int, float, str]:
        known = preset["origin"] in ORIGINS
        place = ORIGINS.index(preset["origin"]) if known else len(ORIGINS)
        return place, len(preset["task"]), _ap(preset), preset["name"]

    return sorted(filter(suits, presets), key=order)


def _ap(preset: Mapping[str, Any]) -> float:
    """Of boxes, or of masks, or below all others."""
    known = [preset[key] for key in ("AP", "mask_AP", "keypoint_AP") if preset[key] is not None]
    return known[0] if known else -1.0
