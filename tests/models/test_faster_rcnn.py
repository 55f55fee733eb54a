"""Faster R-CNN as a Keras model: training, saving, precision."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn import layers
from keras_rcnn.evaluation import evaluate
from keras_rcnn.models import FasterRCNN
from keras_rcnn.ops import boxes
from tests.models.tiny import TinyBackbone, batch, shapes, tiny_detector


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def losses_of(model, x, y, training=True):
    return {k: np.asarray(v) for k, v in model.training_graph({**x, **y}, training=training).items()}


@pytest.mark.parametrize("form", [pytest.param("p7", marks=pytest.mark.slow), "single"])
def test_forms_train_and_detect(form):
    neck = {"p7": layers.FPN(16, top="convs"), "single": layers.SingleLevel("C4")}[form]
    changes = {"anchors": None} if form == "single" else {}
    model = tiny_detector(neck=neck, **changes)
    if form == "single":
        assert model.parts["anchors"].num_anchors == 9
    x, y = batch()
    out = model.predict_on_batch(x)
    assert out["boxes"].shape == (2, 100, 4)
    assert out["labels"].dtype == "int32"
    model.compile(keras.optimizers.SGD(0.01))
    first = model.train_on_batch(x, y, return_dict=True)
    assert set(first) == {"loss", "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert np.isfinite(list(first.values())).all()
    assert first["loss"] == pytest.approx(sum(v for k, v in first.items() if k != "loss"), rel=1e-5)
    evaluated = model.test_on_batch(x, y, return_dict=True)
    assert set(evaluated) == set(first)


def test_backbone_runs_once_a_step():
    calls = []

    class Counting(TinyBackbone):
        def call(self, *args, **kwargs):
            calls.append(1)
            return super().call(*args, **kwargs)

    parts = tiny_detector().parts
    model = FasterRCNN(Counting(), 2, **{k: parts[k] for k in ("neck", "anchors", "proposals", "box_pool", "box_head")})
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=keras.backend.backend() == "tensorflow")
    x, y = batch()
    calls.clear()
    model.train_on_batch(x, y)
    assert len(calls) == 1


def test_every_weight_is_in_the_inference_graph():
    model = tiny_detector()
    inference = {id(w) for layer in model.layers if layer is not model.training_graph for w in layer.weights}
    assert {id(w) for w in model.training_graph.weights} <= inference
    paths = [w.path for w in model.weights]
    assert len(set(paths)) == len(paths)


def test_save_and_load(tmp_path):
    model = tiny_detector()
    x, y = batch()
    model.compile(keras.optimizers.SGD(0.05))
    model.train_on_batch(x, y)
    before = model.predict_on_batch(x)
    model.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras", compile=False)
    model.save_weights(tmp_path / "m.weights.h5")
    fresh = tiny_detector()
    fresh.load_weights(tmp_path / "m.weights.h5")
    for other in (loaded, fresh):
        after = other.predict_on_batch(x)
        for key in before:
            np.testing.assert_allclose(after[key], before[key], atol=1e-5)


def test_config_survives_json():
    model = tiny_detector(class_names=["a", "b"])
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert [w.path for w in rebuilt.weights] == [w.path for w in model.weights]
    assert [w.shape for w in rebuilt.weights] == [w.shape for w in model.weights]
    assert rebuilt.class_names == ["a", "b"]
    again = json.loads(json.dumps(keras.saving.serialize_keras_object(rebuilt)))
    assert again == config


def test_nothing_to_find_trains_without_nan():
    model = tiny_detector()
    x, y = batch()
    y["labels"][:] = -1
    y["boxes"][:] = 0
    losses = losses_of(model, x, y)
    assert all(np.isfinite(v).all() for v in losses.values())
    assert losses["loss_rpn_box_reg"].sum() == losses["loss_box_reg"].sum() == 0


def test_no_proposals():
    """Objectness below every threshold: no detection, and training goes on with the ground truth."""
    model = tiny_detector(proposals=layers.Proposals((200, 100), (100, 50), score_threshold=2.0))
    x, y = batch()
    out = model.predict_on_batch(x)
    assert (out["labels"] == -1).all()
    assert (out["boxes"] == 0).all()
    assert all(np.isfinite(v).all() for v in losses_of(model, x, y).values())


def test_paper_normalisation():
    """The review article's loss: 1 / N_cls sum L_cls + lambda / N_box sum p* L_reg, per image (Faster R-CNN, eq. 1)."""
    rng = np.random.default_rng(0)
    logits, deltas = rng.standard_normal((2, 30)).astype("f"), rng.standard_normal((2, 30, 4)).astype("f")
    targets = rng.standard_normal((2, 30, 4)).astype("f")
    labels = rng.integers(-1, 2, (2, 30)).astype("int32")
    out = layers.RPNLoss(normalisation="paper")([logits], [deltas], labels, targets, num_anchors=3)
    for i in range(2):
        cls = box = 0.0
        for a in range(30):
            if labels[i, a] >= 0:
                p = 1 / (1 + np.exp(-logits[i, a]))
                cls -= np.log(p if labels[i, a] else 1 - p)
            if labels[i, a] == 1:
                for e in np.abs(deltas[i, a] - targets[i, a]):
                    box += 4.5 * e * e if e < 1 / 9 else e - 0.5 / 9
        assert float(out["loss_objectness"][i]) == pytest.approx(cls / (labels[i] >= 0).sum(), rel=1e-5)
        assert float(out["loss_rpn_box_reg"][i]) == pytest.approx(10 * box / 10, rel=1e-5)


def test_classes_that_disagree_are_refused_before_training():
    data = shapes(2)
    model = tiny_detector(num_classes=3)
    model.compile(keras.optimizers.SGD(0.01))
    with pytest.raises(ValueError, match=r"2 classes \[square, bar\].*num_classes=3"):
        model.fit(data.batches(model.preprocessor), verbose=0)
    named = tiny_detector(class_names=["bar", "square"])
    named.compile(keras.optimizers.SGD(0.01))
    with pytest.raises(ValueError, match=r"the same in another.*from_preset\(..., class_names=dataset.class_names\)"):
        named.fit(data.batches(named.preprocessor), verbose=0)
    named.class_names = ["bar", "fig"]
    with pytest.raises(ValueError, match="in this order.*other names of the same classes, set model.class_names"):
        named.fit(data.batches(named.preprocessor), verbose=0)
    with pytest.raises(ValueError, match="class names"):
        tiny_detector(num_classes=3, class_names=["a"])


@pytest.mark.slow
def test_overfits_eight_images():
    data = shapes(8)
    model = tiny_detector()
    batches = data.batches(model.preprocessor, batch_size=4, shuffle=True, cache=True)
    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0))
    history = model.fit(batches, epochs=80, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert model.class_names == ["square", "bar"]
    result = evaluate(model, data, progress=False)
    assert result["bbox"]["AP50"] > 0.9
    found = model.detect(data[0].image, score=0.5)
    assert set(found) == {"boxes", "scores", "labels", "names"}
    assert boxes.iou(found["boxes"][:1], data[0].boxes)[0, 0] > 0.6
    assert found["names"][0] == data.class_names[data[0].labels[0]]


@pytest.mark.slow
def test_mixed_bfloat16():
    """Geometry stays float32; the losses agree with float32's within bfloat16's rounding."""
    x, y = batch()
    reference = losses_of(tiny_detector(shuffle=False), x, y)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        model = tiny_detector(shuffle=False)
        out = model.predict_on_batch(x)
        mixed = losses_of(model, x, y)
        model.compile(keras.optimizers.SGD(0.01))
        assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["loss"])
    finally:
        keras.config.set_dtype_policy("float32")
    assert out["boxes"].dtype == np.float32
    features = model.parts["neck"](model.parts["backbone"](x["images"]))
    assert features[0].dtype == "bfloat16"
    assert ops.convert_to_numpy(model.parts["anchors"](features, x["images"])[0]).dtype == np.float32
    for key, value in reference.items():
        np.testing.assert_allclose(mixed[key].mean(), value.mean(), rtol=0.1, atol=0.02)


@keras.saving.register_keras_serializable("tests")
class Weighted(FasterRCNN):
    """A user's own, with an argument of its own."""

    def __init__(self, *args, box_weight=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_weights["loss_box_reg"] = self.box_weight = box_weight

    def get_config(self):
        return {**super().get_config(), "box_weight": self.box_weight}


def test_a_detector_can_be_subclassed():
    model = Weighted(TinyBackbone(), 2, neck=layers.FPN(32), class_names=["square", "bar"], box_weight=3.0)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is Weighted and again.box_weight == 3.0 and again.class_names == ["square", "bar"]
    again.set_weights(model.get_weights())
    x, _ = batch()
    np.testing.assert_allclose(again.predict_on_batch(x)["boxes"], model.predict_on_batch(x)["boxes"], atol=1e-4)


def test_parts_that_do_not_fit_are_refused_at_once():
    with pytest.raises(ValueError, match=r"gives 2 anchors a cell, and rpn_head is for 3"):
        anchors = layers.AnchorGenerator([[4 * 2**i] for i in range(2, 7)], (1.0, 2.0))
        tiny_detector(anchors=anchors, rpn_head=layers.RPNHead(3))
    with pytest.raises(ValueError, match="box_pool pools from 5 levels.*the neck has 4 for it"):
        tiny_detector(box_pool=layers.RoIAlign(7, (4, 8, 16, 32, 64), name="box_pool"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's graphs")
def test_the_training_step_is_traced_once(monkeypatch):
    model, traced = tiny_detector(), []
    model.compile("adam", jit_compile=False)
    step = model.train_step
    monkeypatch.setattr(model, "train_step", lambda data: traced.append(data) or step(data))
    model.fit(shapes(2).batches(model.preprocessor, batch_size=2), epochs=2, verbose=0)
    assert len(traced) == 1
