"""Cascade R-CNN exports as the other detectors do: each file answers as `detect`."""

import pytest

import keras_rcnn
from tests.export.detectors import detector, photos

# the kind of export, what its file ends in, and what has to be installed
KINDS = {
    "saved_model": ("", "tensorflow", {}),
    "litert": (".tflite", "ai_edge_litert.interpreter", {"size": (128, 160)}),
    "onnx": (".onnx", "tf2onnx", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_detect(kind, tmp_path):
    ending, needed, options = KINDS[kind]
    pytest.importorskip(needed)
    result = keras_rcnn.export_model(detector("cascade"), tmp_path / f"model{ending}", kind, photos=photos(), **options)
    assert all(row["ok"] and row["detections"] > 3 for row in result["parity"])


@pytest.mark.slow
def test_the_stages_are_quantised(tmp_path):
    """All three heads' layers are int8, and no predictor's."""
    pytest.importorskip("ai_edge_litert.interpreter")
    from keras_rcnn.export.fixed_input import layers

    quantised, kept = layers(detector("cascade"))
    for suffix in ("", "_1", "_2"):
        assert quantised.search(f"a/box_head{suffix}/fc_0/MatMul") and kept.search(f"a/box_predictor{suffix}/logits/x")
