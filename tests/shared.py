"""The folder of golden files and data beside the project; tests that need it skip where it is absent."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("KERAS_RCNN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
needs_golden = pytest.mark.skipif(
    not (SHARED / "golden").is_dir(), reason=f"torchvision's golden files are not at {SHARED / 'golden'}"
)
# an hour of CI has room for a few whole models on whole photos, say; the others are run by
# KERAS_RCNN_ALL_TESTS=1 pytest -m slow
gated = pytest.mark.skipif(not os.environ.get("KERAS_RCNN_ALL_TESTS"), reason="KERAS_RCNN_ALL_TESTS=1")
needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"the data sets are not at {SHARED / 'data'}")


def whole_model(*values, in_ci):
    """A slow case of a parametrised test, which CI runs if `in_ci`."""
    marks = [pytest.mark.slow] if in_ci else [pytest.mark.slow, gated]
    return pytest.param(*values, marks=marks, id="-".join(map(str, values)))


def golden(name):
    """One golden .npz as a dict, or .json."""
    path = SHARED / "golden" / "torchvision" / name
    if name.endswith(".json"):
        return json.loads(path.read_text())
    with np.load(path) as f:
        return {key: f[key] for key in f.files}


def golden_module(name):
    """A module of the golden folder, which is no package: `weights`."""
    spec = importlib.util.spec_from_file_location(f"golden_{name}", SHARED / "golden" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_state(model):
    """The golden weights of a model: {PyTorch's name: array}."""
    return golden_module("weights").load(SHARED / "golden" / "torchvision" / f"{model}__weights.npz")
