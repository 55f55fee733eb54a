"""Detectors that XLA compiles, on a CPU: the answers are those of the uncompiled ones. A GPU is listed, not there."""

import keras
import numpy as np
import pytest

from keras_rcnn import layers
from keras_rcnn.data import Preprocessor
from keras_rcnn.evaluation import evaluate
from tests.export.detectors import detector, photos, proposals
from tests.models.test_fast_rcnn import around
from tests.models.test_mask_rcnn import with_masks
from tests.models.tiny import shapes, tiny_detector

KINDS = ["mask", "fast", "rcnn"]  # what Faster R-CNN has, Mask R-CNN has, too
tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles everything")
pytestmark = tensorflow_only


def in_order(kind):
    """A detector whose training samples the first in index order: its losses do not hang on random numbers."""
    model = detector(kind)
    config = model.get_config()
    for part in ("rpn_targets", "box_targets"):
        if part in config:
            config[part]["config"]["shuffle"] = False
    if kind == "fast":
        # RoIPool gives many regions one score, which TensorFlow's own NMS does not rank; it has a test of its own
        pool = layers.RoIAlign(5, model.parts["box_pool"].strides, canonical_size=56, name="box_pool")
        config["box_pool"] = keras.saving.serialize_keras_object(pool)
    twin = type(model).from_config(config)
    twin.set_weights(model.get_weights())
    return twin


def pair(kind):
    """The same detector uncompiled and compiled."""
    models = in_order(kind), in_order(kind)
    for model, jit in zip(models, (False, True), strict=True):
        model.compile(keras.optimizers.SGD(1e-3), jit_compile=jit)
        assert model.jit_compile is jit
    return models


def training_data(kind):
    data = shapes(4)
    data = with_masks(data) if kind == "mask" else data
    data.class_names = detector(kind).class_names
    return data, {"proposals": around(data)} if kind in ("fast", "rcnn") else {}


def assert_same(found, expected):
    assert len(expected["scores"]) > 3
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.02)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    if "masks" in expected:
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_detect_predict_and_evaluate(kind):
    plain, compiled = pair(kind)
    given = proposals(photos()[0]) if plain.wants_proposals else None
    answers = [one.detect(photos()[0], score=0.0, masks="crops", proposals=given) for one in (plain, compiled)]
    assert_same(*answers[::-1])
    data, more = training_data(kind)
    x, _ = data.batches(plain.preprocessor, batch_size=2, masks=kind == "mask", **more)[0]
    outputs = [one.predict(x, verbose=0) for one in (plain, compiled)]
    for i in range(2):
        assert_same(*({key: value[i] for key, value in one.items()} for one in outputs[::-1]))
    results = [evaluate(one, data, progress=False, **more)["bbox"] for one in (plain, compiled)]
    assert results[0] == pytest.approx(results[1], abs=1e-3, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_keras_evaluate(kind):
    """`model.fit` and Keras's own `model.evaluate`, which means the losses.

    What rounds in another way before the updates of an epoch is more after them: the first epoch's losses are held to
    1e-4, the later ones' to thirty times that.
    """
    data, more = training_data(kind)
    histories, losses = [], []
    for model in pair(kind):
        batches = data.batches(model.preprocessor, batch_size=2, masks=kind == "mask", **more)
        histories.append(model.fit(batches, epochs=2, verbose=0).history)
        losses.append(model.evaluate(batches, verbose=0, return_dict=True))
    for one, other in (histories, losses):
        assert one.keys() == other.keys() and len(one) > 1
        for name in one:
            values, expected = np.atleast_1d(one[name]), np.atleast_1d(other[name])
            first = 1 if one is histories[0] else 0
            np.testing.assert_allclose(values[:first], expected[:first], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(values[first:], expected[first:], rtol=3e-3, atol=1e-6)


def test_the_value_can_be_changed_at_any_time():
    model = detector("faster")
    photo = photos()[0]
    expected = model.detect(photo, score=0.0)
    plain = model.predict_function
    model.jit_compile = True
    assert_same(model.detect(photo, score=0.0), expected)
    assert model.predict_function is not plain


# === How often ===


def test_two_hundred_photos_of_two_hundred_sizes_in_eight_shapes(monkeypatch):
    model = detector("faster")
    model.preprocessor = Preprocessor(320, 640)
    rng = np.random.default_rng(0)
    photos = [np.zeros((*rng.integers(20, 300, 2), 3), np.uint8) for _ in range(200)]
    seen = []

    def predict_on_batch(x):
        seen.append(x["images"].shape)
        batch = len(x["images"])
        return {"boxes": np.zeros((batch, 5, 4)), "scores": np.zeros((batch, 5)), "labels": np.full((batch, 5), -1)}

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    model.detect(photos)
    exact, seen[:] = set(seen), []
    model.jit_compile = True
    model.detect(photos)
    assert len(set(seen)) <= 8 < len(exact)
    seen.clear()
    assert len(model.detect(photos[:10], batch_size=4)) == 10
    assert [shape[0] for shape in seen] == [4, 4, 4]  # the last two among them


# === A GPU is listed ===


class Subclass(type(tiny_detector())):
    """A detector of somebody's own."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_auto_asks_for_no_kernel_that_is_missing(kind, listed_gpu):
    model = detector(kind)
    given = proposals(photos()[0]) if model.wants_proposals else None
    assert len(model.detect(photos()[0], score=0.0, proposals=given)["scores"])
    assert model.jit_compile is False
    data, more = training_data(kind)
    model.compile(keras.optimizers.SGD(1e-3))
    assert model.jit_compile is False
    batches = data.batches(model.preprocessor, batch_size=2, masks=kind == "mask", **more)
    assert np.isfinite(model.fit(batches, verbose=0).history["loss"]).all()
    assert model.predict(batches, verbose=0)["boxes"].shape[0] == 4


def test_nor_in_a_subclass_or_a_nested_model(listed_gpu):
    model = Subclass.from_config(detector("faster").get_config())
    assert model.jit_compile is False
    outer = keras.Sequential([model])
    assert outer.jit_compile is False
    x = model.preprocessor.batch([photos()[0]])
    assert outer.predict_on_batch(x)["boxes"].shape == (1, 100, 4)
    inputs = {one.name: one for one in model.inputs}
    inner = keras.Model(inputs, {"scores": model(inputs)["scores"]})
    assert inner.jit_compile is False and inner.predict_on_batch(x)["scores"].shape == (1, 100)


def test_a_function_of_the_users_own_around_a_detector_is_compiled_with_kernels_that_xla_has(listed_gpu):
    import tensorflow as tf

    model = detector("mask")
    x = model.preprocessor.batch([photos()[0]])
    expected = {key: np.asarray(value) for key, value in model(x).items()}
    found = tf.function(lambda x: model(x), jit_compile=True)(x)
    assert_same({k: np.asarray(v)[0] for k, v in found.items()}, {k: v[0] for k, v in expected.items()})


def test_layers_that_cannot_be_compiled_still_say_so():
    model = detector("faster")
    model.parts["box_head"].supports_jit = False
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.jit_compile = True
    assert model.jit_compile is False
