"""OpenVINO: exports of our own, and ONNX files that it reads as onnxruntime does."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.cli import main
from keras_rcnn.export import ExportError, ParityError, Tolerance
from keras_rcnn.export.exported_detector import ExportedDetector, is_export
from keras_rcnn.export.openvino_detector import OpenVINODetector
from tests.export.detectors import NAMES, detector, encoded, photos, proposals
from tests.models.tiny import shapes

openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("tf2onnx", reason="the extra openvino is not installed")


def export(kind, path, **options):
    model = detector(kind)
    given = [proposals(one) for one in photos()] if model.wants_proposals else None
    if given:
        options["max_proposals"] = 64
    return model, keras_rcnn.export_model(
        model, path, "openvino", photos=photos(), proposals=given, size=128, **options
    )


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    """(model, answer) of a Mask R-CNN."""
    return export("mask", tmp_path_factory.mktemp("openvino") / "mask")


# === Parity and form ===


@pytest.mark.slow
def test_mask_rcnn_answers_as_detect(mask):
    _, result = mask
    rows = result["parity"]
    assert [row["ok"] for row in rows] == [True] * 3 and all(row["detections"] > 3 for row in rows)
    folder = result["path"]
    assert sorted(one.name for one in folder.iterdir()) == ["detector.json", "labels.txt", "model.bin", "model.xml"]
    assert result["bytes"] == sum((folder / f"model.{ending}").stat().st_size for ending in ("xml", "bin"))
    network = openvino.Core().read_model(folder / "model.xml")
    inputs = {one.get_any_name(): (list(one.shape), one.element_type.get_type_name()) for one in network.inputs}
    assert inputs == {"image": ([1, 128, 128, 3], "u8"), "size": ([2], "i32")}
    assert "NonMaxSuppression" in {node.get_type_name() for node in network.get_ops()}


@pytest.mark.slow
def test_it_detects_and_is_evaluated_as_a_preset_is(mask, tmp_path, monkeypatch):
    model, result = mask
    exported = ExportedDetector(result["path"])
    assert is_export(result["path"]) and not is_export(tmp_path)
    assert exported.class_names == NAMES and exported.has_masks and exported.wants_proposals is False
    own = model.preprocessor
    monkeypatch.setattr(model, "preprocessor", own.replace(fixed_size=(128, 128)))
    for photo in photos()[1:]:  # made smaller to whole 0..255, so not to 1e-4
        found, expected = exported.detect(photo, 0.0), model.detect(photo, 0.0)
        np.testing.assert_allclose(found["boxes"][:3], expected["boxes"][:3], atol=2.0)
        assert found["masks"].shape[1:] == photo.shape[:2]
    dataset = shapes(3, classes=NAMES)
    near = [keras_rcnn.evaluate(one, dataset, progress=False)["bbox"]["AP"] for one in (exported, model)]
    assert near[0] == pytest.approx(near[1], abs=0.02)
    (tmp_path / "photo.png").write_bytes(encoded(photos()[0]))
    monkeypatch.chdir(tmp_path)
    assert main(["detect", "photo.png", "--preset", str(result["path"]), "--json", "found.json", "--score", "0.1"]) == 0
    assert (tmp_path / "found.json").is_file()
    assert main(["detect", "photo.png", "--preset", str(result["path"]), "--size", "64"]) == 2


COPIED = """
import sys
for module in ("tensorflow", "keras", "keras_rcnn", "nncf"):
    sys.modules[module] = None  # an import of it fails
import numpy as np
from openvino_detector import OpenVINODetector
found = OpenVINODetector(sys.argv[1]).detect(np.load(sys.argv[2]), 0.0)
np.save(sys.argv[3], found["boxes"])
"""


@pytest.mark.slow
def test_runs_without_tensorflow_and_keras(mask, tmp_path):
    from keras_rcnn.export import litert_detector, openvino_detector

    for module in (litert_detector, openvino_detector):
        shutil.copy(module.__file__, tmp_path)
    np.save(tmp_path / "photo.npy", photos()[0])
    command = [sys.executable, "-c", COPIED, mask[1]["path"], "photo.npy", "boxes.npy"]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = OpenVINODetector(mask[1]["path"]).detect(photos()[0], 0.0)["boxes"]
    np.testing.assert_allclose(np.load(tmp_path / "boxes.npy"), expected, atol=1e-3)


@pytest.mark.slow
def test_a_failed_check_leaves_nothing(mask, tmp_path, monkeypatch):
    from keras_rcnn.export import openvino as module

    model, result = mask
    network = openvino.Core().read_model(result["path"] / "model.xml")
    monkeypatch.setattr(module, "_convert", lambda *_: network)
    monkeypatch.setitem(module.TOLERANCES, "float32", Tolerance(box=-1.0, multiple=0))
    with pytest.raises(ParityError, match="FAILED"):
        keras_rcnn.export_model(model, tmp_path / "new" / "a", "openvino", photos=photos()[:1], size=128)
    assert not list(tmp_path.iterdir())


# === 8 bits ===


@pytest.mark.slow
def test_int8_keeps_geometry_and_last_layers_float(tmp_path):
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    (tmp_path / "photos").mkdir()
    for i, photo in enumerate(photos()):
        (tmp_path / "photos" / f"{i}.png").write_bytes(encoded(photo))
    _, result = export("faster", tmp_path / "int8", precision="int8", calibrate=tmp_path / "photos")
    network = openvino.Core().read_model(result["path"] / "model.xml")
    quantised = [
        target.get_node().get_friendly_name()
        for node in network.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for target in node.output(0).get_target_inputs()
    ]
    for part in ("tiny", "fpn", "rpn_head", "box_head"):
        assert any(f"/{part}" in name for name in quantised), part
    for part in ("proposals", "box_pool", "detections", "box_predictor", "objectness", "rpn_head_1/deltas"):
        assert not any(f"/{part}" in name for name in quantised), part


# === ONNX ===


@pytest.mark.slow
def test_an_onnx_file_is_read_as_onnxruntime_reads_it(tmp_path):
    """OpenVINO 2026 turns a constant divided by a minimum upside down, where a shape follows from it: the photo's."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    path = tmp_path / "model.onnx"
    keras_rcnn.export_model(detector("faster"), path, "onnx", photos=photos()[:1])
    session, core = onnxruntime.InferenceSession(path), openvino.Core()
    network = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [one.name for one in session.get_outputs()]
    for photo in photos()[:2]:
        expected = dict(zip(names, session.run(None, {"image": photo[None]}), strict=True))
        found = network({"image": photo[None]})
        assert np.sum(expected["labels"] >= 0) > 3
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.02)


# === Bad input ===


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "dynamic"}, "precision is one of 'float32', 'float16', 'int8', not 'dynamic'"),
        ({"precision": "int8"}, "needs calibrate="),
        ({"size": 100}, r"size=\(100, 100\) cannot be"),
        ({"precision": "int8", "calibrate": "nowhere"}, "is no folder"),
    ],
)
def test_bad_options(options, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=reason):
        keras_rcnn.export_model(detector("faster"), "model", "openvino", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "openvino" else find(name))
    with pytest.raises(ExportError, match=r"needs openvino: pip install 'keras-rcnn-zoo\[openvino\]'"):
        keras_rcnn.export_model(detector("faster"), tmp_path / "model", "openvino")


def test_a_folder_of_others_stays_and_is_refused(tmp_path):
    with pytest.raises(ExportError, match="exists"):
        keras_rcnn.export_model(detector("faster"), tmp_path, "openvino")
    with pytest.raises(ValueError, match=r"has no model\.xml in it"):
        OpenVINODetector(tmp_path)
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(ValueError, match=r"has no detector\.json in it"):
        OpenVINODetector(tmp_path)
