"""R-CNN and Fast R-CNN as Keras models, on the pictures that Faster R-CNN is tested on, and the story of the files."""

import ast
import difflib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rcnn import layers, models
from keras_rcnn.data import Dataset, ProposalSet, Record
from keras_rcnn.evaluation import coco_metrics, evaluate
from keras_rcnn.models import RCNN, FastRCNN
from keras_rcnn.presets import from_preset, save_preset
from keras_rcnn.training import fit_box_regressors, fit_svms, stage_detections
from tests.models.tiny import STRIDES, TinyBackbone, shapes, tiny_detector
from tools.pages.family import STEPS, changed_lines


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def around(data, count=40, seed=0):
    """Proposals: each object's box moved and stretched a little, and boxes anywhere."""
    rng = np.random.default_rng(seed)
    found = {}
    for record in data:
        near = np.repeat(record.boxes, 6, axis=0) + rng.uniform(-4, 4, (6 * len(record.boxes), 4))
        corner = rng.uniform(0, 90, (count - len(near), 2))
        boxes = np.concatenate([near, np.concatenate([corner, corner + rng.uniform(10, 38, corner.shape)], 1)])
        found[record.image_id] = np.clip(boxes, 0, 128).astype(np.float32)
    return ProposalSet(found)


def fast_rcnn(num_classes=2, **changes):
    parts = {
        "neck": layers.SingleLevel("C3"),
        "box_targets": layers.BoxTargets(2, count=32, background=(0.0, 0.5), seed=1),
        "box_pool": layers.RoIPool(5, (STRIDES["C3"],), name="box_pool"),
        "box_head": layers.BoxHead((64,)),
        "preprocessor": tiny_detector().preprocessor,
    }
    return FastRCNN(TinyBackbone(), num_classes, **{**parts, **changes})


def rcnn(num_classes=2, **changes):
    parts = {
        "neck": layers.SingleLevel("C4"),
        "box_targets": layers.BoxTargets(2, count=32, seed=1),
        "box_pool": layers.RegionWarp(48, context=4, name="box_pool"),
        "box_head": layers.BoxHead((64,)),
        "preprocessor": tiny_detector().preprocessor,
    }
    return RCNN(TinyBackbone(), num_classes, **{**parts, **changes})


@pytest.mark.parametrize("build", [fast_rcnn, rcnn])
def test_config_survives_json_and_weights_are_in_the_inference_graph(build):
    model = build()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert [w.path for w in rebuilt.weights] == [w.path for w in model.weights]
    assert {w.path for w in model.training_graph.weights} <= {w.path for w in model.weights}
    assert len({w.path for w in model.weights}) == len(model.weights)


@pytest.mark.slow
def test_fast_rcnn_overfits_eight_images():
    data = shapes(8)
    proposals = around(data)
    model = fast_rcnn()
    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0), jit_compile=False)
    batches = data.batches(model.preprocessor, batch_size=4, shuffle=True, cache=True, proposals=proposals)
    model.fit(batches, epochs=60, verbose=0)
    result = evaluate(model, data, proposals=proposals, progress=False)
    assert result["bbox"]["AP50"] > 0.9
    one = model.detect(data[0].image, proposals=proposals[data[0]])
    assert one["names"][0] == data.class_names[data[0].labels[0]]
    with pytest.raises(ValueError, match="Proposals for 1 images"):
        model.detect([data[0].image] * 2, proposals=[proposals[data[0]]])


def test_without_proposals_selective_search_looks():
    found = fast_rcnn().detect(shapes(1)[0].image, score=0.0)
    assert set(found) == {"boxes", "scores", "labels", "names"}


def test_proposals_of_the_same_cells_run_once():
    """Boxes that RoIPool rounds to the same cells (stride 8) have one answer; the first of them is kept."""
    model = fast_rcnn()
    seen = []
    model.predict_on_batch = lambda x: seen.append(x["proposals"]) or type(model).predict_on_batch(model, x)
    image = shapes(1)[0].image
    boxes = np.float32([[9, 9, 40, 40], [64, 64, 100, 100], [10, 7, 39, 41], [9, 9, 40, 48], [64, 64, 100, 100]])
    model.detect(image, score=0.0, proposals=boxes)
    given = seen[0][0]
    np.testing.assert_array_equal(given[:3], boxes[[0, 1, 3]])
    assert not given[3:].any()
    features = np.random.default_rng(0).random((1, 16, 16, 4), np.float32)
    pooled = np.asarray(model.parts["box_pool"]([features], boxes[None]))
    np.testing.assert_array_equal(pooled[0, 0], pooled[0, 2])
    assert (pooled[0, 0] != pooled[0, 3]).any()
    # RoIAlign does not round: all are different but for the last
    seen.clear()
    model = fast_rcnn(box_pool=layers.RoIAlign(5, (STRIDES["C3"],), name="box_pool"))
    model.predict_on_batch = lambda x: seen.append(x["proposals"]) or type(model).predict_on_batch(model, x)
    model.detect(image, score=0.0, proposals=boxes)
    np.testing.assert_array_equal(seen[0][0][:5], boxes)


@pytest.mark.slow
def test_rcnn_stage_by_stage(tmp_path):
    data = shapes(8)
    proposals = around(data)
    model = rcnn()
    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0), jit_compile=False)
    batches = data.batches(model.preprocessor, batch_size=4, shuffle=True, cache=True, proposals=proposals)
    model.fit(batches, epochs=25, verbose=0)
    softmax = evaluate(model, data, proposals=proposals, progress=False)["bbox"]
    assert softmax["AP50"] > 0.8
    history = fit_svms(model, data, proposals, tmp_path, progress=False, retrain_every=60, passes=2)
    assert {row["class"] for row in history} == {"square", "bar"}
    shares = [row["violations"] / row["seen"] for row in history if row["class"] == "square"]
    assert shares[0] == 1 and shares[-1] < 0.5
    svms = evaluate(model, data, proposals=proposals, progress=False)["bbox"]
    assert svms["AP50"] > 0.8
    fitted = fit_box_regressors(model, data, proposals, tmp_path, progress=False)
    assert all(one["pairs"] > 0 and one["regularisation"] == 1000 for one in fitted.values())
    moved = evaluate(model, data, proposals=proposals, progress=False)["bbox"]
    assert moved["AP50"] > 0.8
    assert moved["AP"] > svms["AP"] - 0.02
    # all that was measured above, from one pass
    found = stage_detections(model, data, proposals, progress=False)
    for name, expected in (("softmax", softmax), ("svms", svms), ("svms_boxes", moved)):
        assert coco_metrics(data, found[name])["AP"] == pytest.approx(expected["AP"], abs=1e-6), name
    assert coco_metrics(data, found["softmax_boxes"])["AP"] > softmax["AP"] - 0.02
    # the later stages are weights like the others
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    a, b = (m.detect(data[3].image, proposals=proposals[data[3]], score=0.3) for m in (model, again))
    np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1e-3)
    np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-5)
    again = from_preset(save_preset(model, tmp_path / "preset"))
    b = again.detect(data[3].image, proposals=proposals[data[3]], score=0.3)
    np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-5)


@pytest.mark.slow
def test_images_without_regions_and_classes_without_objects(tmp_path, caplog):
    names = ["square", "bar", "ghost"]
    blank = Record(np.zeros((128, 128, 3), np.uint8), 99, 128, 128, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    data = Dataset([*shapes(4), blank], names, name="pictures")
    proposals = ProposalSet({**around(data[:4]), 99: np.zeros((0, 4))})
    parts = {"box_targets": layers.BoxTargets(3, count=32, seed=1), "class_names": names}
    for model in (fast_rcnn(num_classes=3, **parts), rcnn(num_classes=3, **parts)):
        model.compile(keras.optimizers.AdamW(1e-3), jit_compile=False)
        losses = model.fit(data.batches(model.preprocessor, batch_size=5, proposals=proposals), verbose=0).history
        assert np.isfinite(losses["loss"]).all()
        assert len(model.detect(blank.image, proposals=proposals[99], score=0.0)["boxes"]) == 0
    with caplog.at_level("WARNING"):
        fit_svms(model, data, proposals, tmp_path, progress=False)
    assert "pictures shows no ghost: no SVM, and nothing is detected as such." in caplog.text
    fitted = fit_box_regressors(model, data, proposals, tmp_path, progress=False)
    assert fitted["ghost"] == {"pairs": 0, "regularisation": None}
    found = model.detect(shapes(4)[3].image, proposals=proposals[3], score=0.0)
    assert len(found["boxes"]) and "ghost" not in [n for n, s in zip(found["names"], found["scores"]) if s > 0.01]


# === The story ===


def stripped(name):
    """A model file as Python's own parser sees it: no comments, no docstrings, one statement a line."""
    tree = ast.parse((Path(models.__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.unparse(tree).splitlines()


@pytest.mark.parametrize("pair", list(STEPS))
def test_each_paper_is_a_small_step(pair):
    lines = changed_lines(*pair)
    assert len(lines) <= 40, "\n".join(lines)
    other = [line for line in difflib.ndiff(*map(stripped, pair)) if line[0] in "+-"]
    assert len(other) <= 40, "\n".join(other)
