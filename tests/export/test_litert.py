"""LiteRT exports: builtin operators, metadata, precisions, a process without TensorFlow, errors."""

import json
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import keras_rcnn
from keras_rcnn.export import ExportError, ParityError, Tolerance, litert, litert_detector
from keras_rcnn.export.litert_detector import LiteRTDetector
from tests.export.detectors import NAMES, detector, encoded, photos, proposals
from tests.shared import gated

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="the extra litert is not installed")


def export(kind, path, **options):
    model = detector(kind)
    given = [proposals(one) for one in photos()] if model.wants_proposals else None
    if given:
        options["max_proposals"] = 64
    return model, keras_rcnn.export_model(model, path, "litert", photos=photos(), proposals=given, **options)


@pytest.fixture(scope="module")
def mask(tmp_path_factory):
    """(model, answer) of a Mask R-CNN."""
    return export("mask", tmp_path_factory.mktemp("litert") / "mask.tflite", size=(128, 160))


def operators(path):
    """(operator, name and dtype of its result) of each node, before any delegate."""
    builtin = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    loaded = interpreter.Interpreter(str(path), experimental_op_resolver_type=builtin)
    tensors = {one["index"]: one for one in loaded.get_tensor_details()}
    nodes = [(one["op_name"], tensors[one["outputs"][0]]) for one in loaded._get_ops_details()]
    return [(kind, result["name"], np.dtype(result["dtype"])) for kind, result in nodes]


def folder_of_photos(path):
    path.mkdir()
    for i, photo in enumerate(photos()):
        (path / f"{i}.png").write_bytes(encoded(photo))
    return path


# === Parity and form ===


def test_mask_rcnn_answers_as_detect(mask):
    _, result = mask
    rows = result["parity"]
    assert [row["ok"] for row in rows] == [True] * 3 and all(row["detections"] > 3 for row in rows)
    assert result["size"] == (128, 160) and result["bytes"] == result["path"].stat().st_size


def test_operators_are_litert_own(mask):
    found = {kind for kind, _, _ in operators(mask[1]["path"])}
    assert {"NON_MAX_SUPPRESSION_V4", "TOPK_V2", "GATHER"} <= found
    assert not [kind for kind in found if kind.startswith("Flex") or kind in ("CUSTOM", "WHILE")]


def test_signature(mask):
    runner = LiteRTDetector(mask[1]["path"]).run
    inputs = {
        key: (tuple(one["shape"]), np.dtype(one["dtype"]).name) for key, one in runner.get_input_details().items()
    }
    assert inputs == {"image": ((1, 128, 160, 3), "uint8"), "size": ((2,), "int32")}
    most = mask[0].parts["decoder"].max_detections
    shapes = {key: tuple(one["shape"][:2]) for key, one in runner.get_output_details().items()}
    assert shapes == dict.fromkeys(("boxes", "scores", "labels", "masks"), (1, most))


def test_what_lies_beside_the_photo_does_not_matter(mask):
    model = LiteRTDetector(mask[1]["path"])
    image, size = litert_detector.fit(photos()[1], model.settings)
    assert size[1] < 160
    other = image.copy()
    other[:, size[1] :] = 255
    one, two = (model.detect_fitted(each, size, 0.0) for each in (image, other))
    np.testing.assert_array_equal(one["boxes"], two["boxes"])


def test_photos_of_any_size_answer_nearly_as_detect(mask):
    """Resized to whole 0..255 first, as a phone does, so not to 1e-4."""
    model, result = mask
    own = model.preprocessor
    model.preprocessor = own.replace(fixed_size=(128, 160))
    expected = model.detect(photos()[0], 0.0, masks=False)
    model.preprocessor = own
    exported = LiteRTDetector(result["path"])
    found = exported.detect(photos()[0], 0.0)
    best = slice(0, 3)
    np.testing.assert_allclose(found["boxes"][best], expected["boxes"][best], atol=2.0)
    assert found["names"][best] == expected["names"][best]
    for score in (float("nan"), 2, -1, "0.5", None):
        with pytest.raises(ValueError, match="score is a number from 0 to 1"):
            exported.detect(photos()[0], score)
    with pytest.raises(ValueError, match="leave proposals out"):
        exported.detect(photos()[0], proposals=proposals(photos()[0]))


@pytest.mark.parametrize("shape", [(0, 10, 3), (10, 0, 3), (10, 10), (10, 10, 4)])
def test_what_is_no_photo_is_refused(mask, shape):
    with pytest.raises(ValueError, match="at least one pixel"):
        LiteRTDetector(mask[1]["path"]).detect(np.zeros(shape, np.uint8))


def test_means_of_large_maps_keep_their_bits():
    """LiteRT adds up one number after another: of a flat map of 100 x 100 at once a mean would be off by 1e-4."""
    import keras
    import tensorflow as tf

    from keras_rcnn.backbones import mobilenet_v3

    nothing = SimpleNamespace(dtype=None, conv=lambda x, *_, **__: x, activate=lambda x, *_: x)  # gates are the means
    inputs = keras.Input((100, 100, 16), batch_size=1)
    model = keras.Model(inputs, mobilenet_v3._squeeze_excite(nothing, inputs, "se"))
    x = np.float32(np.full((1, 100, 100, 16), 0.1) * np.arange(1, 17))
    run = interpreter.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    (found,) = run.get_signature_runner()(**{run.get_signature_list()["serving_default"]["inputs"][0]: x}).values()
    for output in (found, model(x)):
        np.testing.assert_allclose(output, np.float64(x) ** 2, rtol=5e-6)


# === Metadata ===


def test_labels_and_settings_are_in_the_file(mask):
    path = mask[1]["path"]
    settings, names = litert_detector.read_metadata(path)
    assert names == NAMES and settings["size"] == [128, 160] and settings["precision"] == "float32"
    with zipfile.ZipFile(path) as files:
        assert files.testzip() is None and files.namelist() == ["labels.txt", "detector.json"]


def test_metadata_names_the_tensors(mask):
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(mask[1]["path"]))
    (entry,) = [one for one in model.metadata if one.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    for text in (b"labels.txt", b"detector.json", b"image", b"boxes", b"MaskRCNN of keras_rcnn", b"x1, y1, x2, y2"):
        assert text in data


def test_a_file_of_others_is_refused(tmp_path):
    (tmp_path / "other.tflite").write_bytes(b"TFL3" * 9)
    with pytest.raises(ValueError, match=r"other.tflite has no detector.json"):
        litert_detector.read_metadata(tmp_path / "other.tflite")


# === Elsewhere ===

WITHOUT = """
import runpy, sys
for module in ("tensorflow", "keras", "keras_rcnn", "jax"):
    sys.modules[module] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_runs_without_tensorflow_and_keras(mask, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(photos()[0]).save(photo)
    command = [sys.executable, "-c", WITHOUT, litert_detector.__file__, mask[1]["path"], photo, "--score", "0.3"]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = LiteRTDetector(mask[1]["path"]).detect(photos()[0], 0.3)
    assert found["names"] == expected["names"] and len(found["names"]) > 0
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)


# === Precisions ===


@pytest.mark.slow
def test_int8_keeps_geometry_and_last_layers_float(tmp_path):
    calibrate = folder_of_photos(tmp_path / "photos")
    _, result = export("faster", tmp_path / "int8.tflite", precision="int8", calibrate=calibrate, size=128)
    nodes = operators(result["path"])
    quantised = [name for kind, name, dtype in nodes if dtype == np.int8 and kind not in ("QUANTIZE", "DEQUANTIZE")]
    for part in ("tiny", "fpn", "rpn_head", "box_head"):
        assert any(f"/{part}" in name for name in quantised), part
    for part in ("proposals", "box_pool", "detections", "box_predictor", "objectness", "rpn_head_1/deltas"):
        assert not any(f"/{part}" in name for name in quantised), part


@pytest.mark.slow
def test_precisions_shrink_the_file(tmp_path):
    sizes = {}
    for precision in ("float32", "float16", "dynamic"):
        _, result = export("faster", tmp_path / f"{precision}.tflite", precision=precision, size=128)
        sizes[precision] = result["bytes"]
    assert sizes["dynamic"] < sizes["float16"] < sizes["float32"]


@pytest.mark.slow
def test_keypoints_come_back_to_the_photo(tmp_path):
    _, result = export("keypoints", tmp_path / "model.tflite", size=128)
    assert all(row["ok"] for row in result["parity"])
    found = LiteRTDetector(result["path"]).detect(photos()[0], 0.0)
    low, high = found["boxes"][:, None, :2] - 1, found["boxes"][:, None, 2:] + 1
    assert found["keypoints"].shape == (len(found["boxes"]), 5, 3) and len(found["boxes"])
    assert ((found["keypoints"][..., :2] >= low) & (found["keypoints"][..., :2] <= high)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fast", "rcnn"])
def test_proposals_are_an_input(kind, tmp_path):
    _, result = export(kind, tmp_path / "model.tflite", size=128)
    assert all(row["ok"] for row in result["parity"])
    found = LiteRTDetector(result["path"]).detect(photos()[0], 0.0, proposals(photos()[0]))
    assert len(found["boxes"])
    with pytest.raises(ValueError, match="at most 64; there are 100"):
        LiteRTDetector(result["path"]).detect(photos()[0], 0.0, proposals(photos()[0], 100))
    for boxes in (np.ones((4, 5)), [["a"] * 4], [[1, 2, 30, float("nan")]]):
        with pytest.raises(ValueError, match=r"numbers \[P, 4\], not"):
            LiteRTDetector(result["path"]).detect(photos()[0], 0.0, boxes)


@pytest.mark.slow
def test_the_zoo(tmp_path):
    result = keras_rcnn.export_model(keras_rcnn.from_preset("nuclei_mrcnn"), tmp_path / "model.tflite", "litert")
    assert all(row["ok"] and row["detections"] > 50 for row in result["parity"])


@pytest.mark.slow
@gated  # the docs' command exports it with int8
def test_the_zoo_in_eight_bits(tmp_path):
    model = keras_rcnn.from_preset("nuclei_mrcnn")
    result = keras_rcnn.export_model(model, tmp_path / "model.tflite", "litert", precision="dynamic")
    assert all(row["ok"] and row["detections"] > 10 for row in result["parity"])


# === Bad input ===


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "int4"}, "precision is one of 'float32', .* not 'int4'"),
        ({"precision": "int8"}, "needs calibrate="),
        ({"calibrate": "."}, "'float32' has no use for it"),
        ({"size": 100}, r"size=\(100, 100\) cannot be .* \(128, 128\)"),
        ({"size": (0, 64)}, "cannot be"),
        ({"precision": "int8", "calibrate": "nowhere"}, "is no folder"),
        ({"precision": "int8", "calibrate": "empty"}, "has no images in it"),
    ],
)
def test_bad_options(options, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo")
    with pytest.raises(ExportError, match=reason):
        keras_rcnn.export_model(detector("faster"), "model.tflite", "litert", **options)
    assert [one.name for one in tmp_path.iterdir()] == ["empty"]


def test_an_existing_file_stays(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"mine")
    with pytest.raises(ExportError, match="model.tflite exists"):
        keras_rcnn.export_model(detector("faster"), path, "litert")
    assert path.read_bytes() == b"mine"


def test_a_failed_check_leaves_nothing(mask, tmp_path, monkeypatch):
    model, result = mask
    content = result["path"].read_bytes()
    monkeypatch.setitem(litert.TOLERANCES, "float32", Tolerance(box=-1.0, multiple=0))
    monkeypatch.setattr(litert, "_convert", lambda *_: content)
    monkeypatch.setattr(litert, "with_metadata", lambda content, *_: content)
    with pytest.raises(ParityError, match="FAILED"):
        keras_rcnn.export_model(model, tmp_path / "new" / "a.tflite", "litert", photos=photos()[:1], size=(128, 160))
    assert not list(tmp_path.iterdir())
