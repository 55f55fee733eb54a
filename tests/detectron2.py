"""Detectron2's golden files; tests that need them skip where they are absent."""

import importlib.util
import json

import numpy as np
import pytest

from tests.shared import SHARED

DETECTRON2 = SHARED / "golden" / "detectron2"
needs_detectron2 = pytest.mark.skipif(
    not DETECTRON2.is_dir(), reason=f"Detectron2's golden files are not at {DETECTRON2}"
)
# what this package has none of yet, by a part of the config's name
OUT_OF_SCOPE = ("retinanet", "panoptic", "regnet", "Detectron1-Comparisons/keypoint", "dconv", "/rpn_")


def golden(name):
    """One golden .npz as a dict, or .json."""
    if name.endswith(".json"):
        try:
            return json.loads((DETECTRON2 / name).read_text())
        except json.JSONDecodeError:
            return _told_from_files(name.removesuffix(".json"))
    with np.load(DETECTRON2 / name) as file:
        return {key: file[key] for key in file.files}


def _told_from_files(name):
    """What the LSJ model's .json would say, which was cut off while it was written: no training, and as
    noise what the other models with masks have at most."""
    files = [path.stem.split("__")[1] for path in DETECTRON2.glob(f"{name}__*.npz")]
    photos = [case for case in files if case not in ("weights", "batch2")]
    cases = {case: {"image": f"images/{case}.png", "vs_float64": {"max_mask_prob_err": 1.8e-3}} for case in photos}
    both = ["images/astronaut_tall.png", "images/coffee_small.png"]
    return {"settings": {"overrides": {}}, "cases": {**cases, "batch2": {"images": both}}}


def golden_state(name):
    """The golden weights of a model: {Detectron2's name: array}."""
    spec = importlib.util.spec_from_file_location("detectron2_weights", DETECTRON2 / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(DETECTRON2 / f"{name}__weights.npz")


def configs():
    """The configs of the zoo that convert: {config file: what `manifests/all_configs.json` says of it}."""
    if not DETECTRON2.is_dir():
        return {}
    every = json.loads((DETECTRON2 / "manifests" / "all_configs.json").read_text())
    return {path: facts for path, facts in every.items() if not any(part in f"/{path}" for part in OUT_OF_SCOPE)}
