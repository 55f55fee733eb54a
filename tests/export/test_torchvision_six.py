"""torchvision's six detectors as SavedModel, LiteRT and ONNX files: exported, checked, loaded again and run.

Smaller than torchvision's: see `torchvision_six.detector`. At full size it takes half an hour on two cores, or more:

    KERAS_RCNN_ALL_EXPORTS=1 KERAS_RCNN_FULL_SIZE=1 pytest -m slow tests/export/test_torchvision_six.py
"""

import os

import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.data import read_image
from keras_rcnn.export import parity
from tests.export import torchvision_six
from tests.shared import needs_golden

pytestmark = [needs_golden, pytest.mark.slow]

SMALL = not os.environ.get("KERAS_RCNN_FULL_SIZE")
FORMATS = ("saved_model", "litert", "onnx")
CASES = [(name, format) for name in torchvision_six.ALL for format in FORMATS]
# an hour of CI has room for this one
IN_CI = [(torchvision_six.MOBILENET, "litert")]
CASES = [
    pytest.param(
        *case,
        marks=pytest.mark.skipif(
            case not in IN_CI and not os.environ.get("KERAS_RCNN_ALL_EXPORTS"), reason="KERAS_RCNN_ALL_EXPORTS=1"
        ),
    )
    for case in CASES
]

_made = {}


def detector(name):
    """The detector of the latest name: six at once would be gigabytes."""
    if name not in _made:
        _made.clear()
        _made[name] = torchvision_six.detector(name, SMALL)
    return _made[name]


def loaded(path, format):
    """An export as a program has it: a function of a photo, uint8 [h, w, 3]."""
    if format == "saved_model":
        import tensorflow as tf

        run = tf.saved_model.load(str(path)).signatures["images"]
        return lambda photo: {key: value[0].numpy() for key, value in run(images=photo[None]).items()}
    if format == "litert":
        from keras_rcnn.export.litert_detector import LiteRTDetector

        model = LiteRTDetector(path)
        return lambda photo: model.detect(photo, 0.0)
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_outputs()]
    return lambda photo: {key: value[0] for key, value in zip(names, session.run(None, {"image": photo[None]}))}


@pytest.mark.parametrize(("name", "format"), CASES)
def test_exported_checked_and_run(name, format, tmp_path, record_property):
    pytest.importorskip({"litert": "ai_edge_litert", "onnx": "tf2onnx"}.get(format, "tensorflow"))
    model = detector(name)
    result = keras_rcnn.export_model(model, tmp_path / "exported", format, photos=torchvision_six.photos())
    rows = result["parity"]
    record_property("parity", parity.table(rows))  # for --junit-xml
    assert all(row["ok"] for row in rows)
    first = rows[:: len(rows) // len(torchvision_six.PHOTOS)]
    assert sum(row["detections"] for row in first) >= 48 and all(row["detections"] > 5 for row in first)
    assert all((row["mask"] is not None) == name.startswith("mask") for row in rows)
    run = loaded(result["path"], format)
    for photo, row in zip(torchvision_six.photos(), first):
        found = run(read_image(photo))
        count = np.sum(found["labels"] >= 0)
        assert np.isfinite(found["boxes"]).all()
        # a LiteRT file's program resizes to whole 0..255 first, which the check leaves out
        assert abs(count - row["detections"]) <= 1 if format != "litert" else count > 5
