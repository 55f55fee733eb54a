"""ONNX exports in onnxruntime: photos of any size, proposals, class names, errors."""

import importlib.util
import json

import pytest

import keras_rcnn
from keras_rcnn.export import ExportError
from tests.export.detectors import NAMES, detector, photos, proposals
from tests.shared import gated

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")


def export(kind, path):
    model = detector(kind)
    given = [proposals(one) for one in photos()] if model.wants_proposals else None
    return model, keras_rcnn.export_model(model, path, "onnx", photos=photos(), proposals=given)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask", "fast", "rcnn", "keypoints"])
def test_answers_as_detect(kind, tmp_path):
    model, result = export(kind, tmp_path / "model.onnx")
    assert [row["ok"] for row in result["parity"]] == [True] * 3
    assert all(row["detections"] > 3 for row in result["parity"])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = {one.name: (one.type, len(one.shape)) for one in session.get_inputs()}
    expected = {"image": ("tensor(uint8)", 4)}
    if model.wants_proposals:
        expected["proposals"] = ("tensor(float)", 3)
    assert inputs == expected
    assert sorted(one.name for one in session.get_outputs()) == sorted(model.output)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == NAMES


@pytest.mark.slow
@gated  # the docs' command exports it, and checks it
def test_the_zoo(tmp_path):
    result = keras_rcnn.export_model(keras_rcnn.from_preset("nuclei_mrcnn"), tmp_path / "model.onnx", "onnx")
    assert all(row["ok"] and row["detections"] > 50 for row in result["parity"])


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tf2onnx" else find(name))
    with pytest.raises(ExportError, match=r"needs tf2onnx: pip install 'keras-rcnn-zoo\[onnx\]'"):
        keras_rcnn.export_model(detector("faster"), tmp_path / "model.onnx", "onnx")


def test_an_existing_file_stays(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(ExportError, match="model.onnx exists"):
        keras_rcnn.export_model(detector("faster"), tmp_path / "model.onnx", "onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"
