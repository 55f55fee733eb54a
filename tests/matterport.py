"""What Matterport's Mask_RCNN itself computed, of the shared folder, and boxes between its form and ours."""

import importlib.util
import json

import numpy as np

from tests.shared import SHARED

FOLDER = SHARED / "golden" / "matterport"


def numbers(name):
    """One golden .npz as a dict."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def facts(model):
    """A model's json."""
    return json.loads((FOLDER / f"{model}.json").read_text())


def weights_module():
    """The golden folder's `weights.py`, which rebuilds a checkpoint and writes the .h5 file."""
    spec = importlib.util.spec_from_file_location("matterport_weights", FOLDER / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_h5(model, path):
    """The real .h5 of a golden model."""
    module = weights_module()
    layout = json.loads((FOLDER / "layout" / f"{model}.json").read_text())
    module.write_h5(path, module.load(FOLDER / f"{model}__weights.npz"), layout)
    return path


def settings_of(config):
    """A golden model's Config as `matterport_detector` takes it: `crop` is for training alone."""
    crops = config["IMAGE_RESIZE_MODE"] == "crop"
    return {**config, "IMAGE_RESIZE_MODE": "pad64"} if crops else config


def to_pixels(boxes, side):
    """(y1, x1, y2, x2) as shares of (side - 1) -> xyxy in px; zeros stay zeros."""
    boxes = np.asarray(boxes, np.float32)
    height, width = side
    pixels = boxes * np.float32([height - 1, width - 1, height - 1, width - 1]) + np.float32([0, 0, 1, 1])
    return np.where(np.any(boxes != 0, axis=-1, keepdims=True), pixels, 0)[..., [1, 0, 3, 2]].astype(np.float32)


def to_shares(boxes, side):
    """The reverse of `to_pixels`."""
    boxes = np.asarray(boxes, np.float32)
    height, width = side
    shares = (boxes - np.float32([0, 0, 1, 1])) / np.float32([width - 1, height - 1, width - 1, height - 1])
    return np.where(np.any(boxes != 0, axis=-1, keepdims=True), shares, 0)[..., [1, 0, 3, 2]]


def xywh(deltas):
    """(dy, dx, dh, dw) -> (dx, dy, dw, dh)."""
    return np.asarray(deltas, np.float32)[..., [1, 0, 3, 2]]
