"""tools/benchmark.py at tiny sizes without a peer: what its JSON holds; what is missing is no crash. No speeds."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rcnn.convert import convert_torchvision
from keras_rcnn.torchvision_detectors import TORCHVISION_MODELS
from tests.shared import golden_state, needs_golden

TOOLS = Path(__file__).resolve().parents[1] / "tools"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it starts its own processes"),
]
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
QUICK = ["--rounds", "1", "--calls", "1"]
SMALL = ["--model", "fasterrcnn_mobilenet_v3_large_320_fpn"]


@pytest.fixture
def bench(monkeypatch):
    """Modules of tools/bench by their names."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return lambda name: importlib.import_module(f"bench.{name}")


def run(tmp_path, *arguments, status=0):
    """`(JSON, what was printed)`."""
    path = tmp_path / "figures.json"
    command = [sys.executable, str(TOOLS / "benchmark.py"), *map(str, arguments), "--json", str(path)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(path.read_text()), done.stdout


def assert_rows(answer, parts):
    """Every side has figures of each part, and counts of memory and work that can be right."""
    assert answer["sides"] and answer["machine"]["cores"] >= 1
    for row in answer["sides"].values():
        for part in parts:
            assert row[f"{part}_wall"] > 0 and row[f"{part}_cpu"] >= 0
        assert row["images_a_second"] > 0 and row["first_call"] > 0
        assert 50 < row["import_mb"] <= row["peak_mb"]
        assert row["flops"] > 1e8 and row["rate"] > 1e8 and row["share"] > 0
        assert row["parameters"] > 1e6


@pytest.mark.slow
def test_infer(tmp_path):
    answer, printed = run(tmp_path, "infer", *SMALL, "--size", 96, 128, *QUICK, "--peer", "/nowhere/python")
    assert_rows(answer, ["photos", "graph"])
    (row,) = answer["sides"].values()
    assert row["input"][0] == 1 and row["input"][3] == 3 and row["answer"]["found"] > 0
    assert row["compiled"] is False  # what "auto" is on TensorFlow
    assert set(answer["unavailable"]) >= {"torchvision eager", "torchvision compile"}
    assert "not available: /nowhere/python: No such file or directory" in printed


@pytest.mark.slow
def test_train(tmp_path):
    settings = ["--size", 64, 96, "--batch", 2, "--precision", "float32", "mixed_bfloat16"]
    answer, _ = run(tmp_path, "train", *SMALL, *settings, *QUICK)
    assert_rows(answer, ["step"])
    assert len(answer["sides"]) == 2 and not answer["unavailable"]
    for row in answer["sides"].values():
        assert np.isfinite(row["answer"]["loss"]) and row["input"] == [row["batch"], 64, 96, 3]


def test_ops(tmp_path):
    tiny = ["--boxes", 40, 300, "--regions", 30, "--classes", 7, "--channels", 4, "--size", 128, 160]
    answer, printed = run(tmp_path, "ops", *tiny, *QUICK)
    assert list(answer["cases"]) == [
        "nms of 40 boxes",
        "nms of 300 boxes",
        "rpn nms of 5 x 30",
        "decoder nms of 7 x 30",
        "roi_align",
        "roi_align with gradient",
    ]
    assert answer["compared_with"] == "TensorFlow's own"
    sides = {"TensorFlow's own", "XLA, TensorFlow", "XLA, JAX"} - set(answer["unavailable"])
    assert all(set(rows) == sides for rows in answer["cases"].values()) and len(sides) >= 2
    for differences in answer["differences"].values():
        for case, one in differences.items():
            if case.startswith("roi"):
                assert one < 1e-3
            else:
                assert one["kept"] == one["expected"] > 0 and one["differ"] == 0
    assert "the same" in printed


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
def test_sizes(tmp_path, backend):
    answer, printed = run(tmp_path, "sizes", "--backend", backend, "--count", 5, "--every", 2, "--threads", 0)
    (row,) = answer["backends"].values()
    assert row["photos"] == row["sizes"] == 5 and row["compiled"] is True
    assert row["compilations"] == row["shapes"] < 5 and row["compilations_in_all"] >= row["compilations"]
    assert list(row["memory"]) == ["0", "2", "4"] and 0 <= row["added"] <= row["padded"]
    assert f"compilations of the detector: {row['compilations']}" in printed


def test_paste(tmp_path):
    answer, _ = run(tmp_path, "paste", "--masks", 3, "--size", 90, 120, *QUICK)
    assert answer["sides"]["keras_rcnn"]["found"] > 100


@needs_jax
@pytest.mark.slow
def test_the_side_on_jax_does_not_import_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('tensorflow is not to be imported')\n")
    code = "import keras_rcnn, sys; assert 'tensorflow' not in sys.modules, sorted(sys.modules)"
    path = os.pathsep.join([str(tmp_path), str(TOOLS.parent)])
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    settings = ["--size", 96, 128, "--jit", "yes", "--backend"]
    command = [sys.executable, str(TOOLS / "benchmark.py"), "infer", *SMALL, *map(str, settings), "jax", "tensorflow"]
    done = subprocess.run([*command, *QUICK], capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "tensorflow jit=yes float32: not available: ImportError: tensorflow is not to be imported" in done.stdout
    assert "keras_rcnn jax float32  " in done.stdout


# === Parts ===


@pytest.mark.parametrize("model", TORCHVISION_MODELS)
def test_seeded_weights_are_whole_checkpoints(bench, model):
    """The converter refuses what is missing, left over or misshapen within a layer."""
    weights = bench("weights").seeded_weights(model)
    converted = convert_torchvision(model, weights)
    assert all(np.isfinite(value).all() for value in converted.values())
    again = bench("weights").seeded_weights(model)
    np.testing.assert_array_equal(weights["rpn.head.cls_logits.weight"], again["rpn.head.cls_logits.weight"])


@needs_golden
@pytest.mark.parametrize("model", ["maskrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_seeded_weights_have_torchvisions_names_and_shapes(bench, model):
    expected = {name: value.shape for name, value in golden_state(model).items()}
    assert {name: value.shape for name, value in bench("weights").seeded_weights(model).items()} == expected


def test_operations_are_counted(bench):
    """By hand, of a detector whose every layer is known: 2 * places * kernel."""
    from tests.models.tiny import batch, tiny_detector

    model = tiny_detector()
    x, y = batch()
    model(x)
    sides, channels, before, counted = (128, 160), (16, 24, 32, 48, 64), 3, 0
    maps = []
    for c in channels:
        sides = tuple(side // 2 for side in sides)
        counted += 9 * before * c * sides[0] * sides[1]
        maps.append(sides)
        before = c
    for (height, width), c in zip(maps[1:], channels[1:]):
        counted += (c * 32 + 9 * 32 * 32) * height * width  # the pyramid
    top = tuple(-(-side // 2) for side in maps[-1])
    for height, width in (*maps[1:], top):
        counted += (9 * 32 * 32 + 32 * 3 + 32 * 12) * height * width  # the RPN: three shapes
    forward = counted + 50 * (25 * 32 * 64 + 64 * 3 + 64 * 8)
    assert bench("ours").counted_flops(model, x) == 2 * 2 * forward  # of two images
    forward = counted + 32 * (25 * 32 * 64 + 64 * 3 + 64 * 8)
    stem = 9 * 3 * 16 * 64 * 80
    assert bench("ours").counted_flops(model, {**x, **y}, training=True) == 2 * 2 * (3 * forward - stem)


def test_no_two_photos_have_the_same_size(bench):
    sizes = [photo.shape for photo in bench("sizes").resized(None, 12)]
    assert len(set(sizes)) == 12 and min(min(size[:2]) for size in sizes) > 16
    assert sizes == [photo.shape for photo in bench("sizes").resized(None, 12)]
