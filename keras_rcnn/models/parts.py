"""A detector's arguments: which are parts of it, and whether they fit each other."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_rcnn.data.preprocess import Preprocessor


def check_fit(parts: Mapping[str, Any]) -> None:
    """Refuses parts that do not fit each other, and that a graph of unknown sizes would not find out.

    Args:
        parts: dict, a detector's arguments by name.

    Raises:
        ValueError: what does not fit, and what would.
    """
    check_canvas(parts)
    anchors, rpn_head, neck = (parts.get(key) for key in ("anchors", "rpn_head", "neck"))
    counts = [getattr(part, "num_anchors", None) for part in (anchors, rpn_head)]
    if None not in counts and counts[0] != counts[1]:
        raise ValueError(
            f"anchors gives {counts[0]} anchors a cell, and rpn_head is for {counts[1]}: make it "
            "RPNHead(anchors.num_anchors)."
        )
    if neck is None or not hasattr(neck, "roi_levels"):
        return
    pools = {key: parts.get(key) for key in ("box_pool", "mask_pool")}
    pools["keypoint_branch's pool"] = getattr(parts.get("keypoint_branch"), "pool", None)
    for key, pool in pools.items():
        strides = getattr(pool, "strides", None)
        if strides is not None and len(strides) > neck.roi_levels():
            raise ValueError(
                f"{key} pools from {len(strides)} levels, of strides {list(strides)[:8]}; the neck has "
                f"{neck.roi_levels()} for it."
            )


def check_canvas(parts: Mapping[str, Any]) -> None:
    """Refuses parts that expect images on another canvas than the preprocessor puts them on.

    Args:
        parts: dict, a detector's arguments by name.

    Raises:
        ValueError: it names the part and both canvases.
    """
    given = getattr(parts.get("preprocessor"), "canvas", None)
    for key in ("proposals", "decoder"):
        wanted = getattr(parts.get(key), "canvas", None)
        if parts.get(key) is not None and wanted != given:
            raise ValueError(
                f"{key} is for images on the canvas {wanted!r}, and the preprocessor's is {given!r} (None: images in "
                "the upper left): a detector that pads otherwise is built anew, with its weights."
            )


def own_arguments(detector: type) -> set[str]:
    """The names of a class's own arguments."""
    parameters = list(inspect.signature(detector.__init__).parameters.values())[1:]  # without self
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return {parameter.name for parameter in parameters if parameter.kind not in several}


def is_part(value: Any) -> bool:
    """Whether an argument of a detector is a layer or the preprocessor."""
    return isinstance(value, (keras.layers.Layer, Preprocessor))


def is_serialised(value: Any) -> bool:
    """Whether a value is what Keras makes of an object in a config."""
    return isinstance(value, dict) and "class_name" in value and "config" in value


def serialised(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's parts for its config; one that serves twice, as C4's `box_pool` and `mask_pool` do, is its first
    argument's name the second time, since two copies would have weights of their own."""
    config, first = {}, {}
    for key, part in parts.items():
        same = first.setdefault(id(part), key)
        config[key] = keras.saving.serialize_keras_object(part) if same == key else same
    return config


def with_doubles(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with parts, in which names of other arguments are replaced by these; the way back of `serialised`."""
    return {
        key: config[value] if key.endswith("_pool") and isinstance(value, str) and is_part(config.get(value)) else value
        for key, value in config.items()
    }
