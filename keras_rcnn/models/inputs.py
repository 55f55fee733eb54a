"""The symbolic inputs of the detectors' graphs."""

from typing import Any

import keras


def image_inputs() -> dict[str, Any]:
    """The symbolic inputs that every detector has."""
    return {
        "images": keras.Input((None, None, 3), name="images", dtype="float32"),
        "image_sizes": keras.Input((2,), name="image_sizes", dtype="float32"),
    }


def proposal_inputs() -> dict[str, Any]:
    """The further input of a detector that is told where to look: P is the padded number of proposals."""
    return {"proposals": keras.Input((None, 4), name="proposals", dtype="float32")}


def target_inputs() -> dict[str, Any]:
    """The symbolic targets that every detector has: G is the padded number of objects."""
    return {
        "boxes": keras.Input((None, 4), name="boxes", dtype="float32"),
        "labels": keras.Input((None,), name="labels", dtype="int32"),
    }


def keypoint_inputs(count: int) -> dict[str, Any]:
    """The further target of a detector with keypoints: x, y and visibility of each object's K keypoints."""
    return {"keypoints": keras.Input((None, count, 3), name="keypoints", dtype="float32")}


def mask_inputs() -> dict[str, Any]:
    """The further targets of a detector with masks: each object's mask [H, W] and where in the image it lies."""
    return {
        "masks": keras.Input((None, None, None), name="masks", dtype="uint8"),
        "mask_frames": keras.Input((None, 4), name="mask_frames", dtype="float32"),
    }
