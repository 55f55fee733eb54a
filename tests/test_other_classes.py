"""A preset with other classes: a class of the same name keeps what is its own; whatever else was fitted to the old ones
is new, whatever its shape; the rest is kept.
"""

import json
import re

import keras
import numpy as np
import pytest
from keras import ops
from safetensors.numpy import save_file

from keras_rcnn import layers
from keras_rcnn.layers.base import register
from keras_rcnn.models import FasterRCNN
from keras_rcnn.presets import PresetError, from_preset, save_preset
from tests.models.test_fast_rcnn import fast_rcnn, rcnn
from tests.models.test_mask_rcnn import tiny_mask_rcnn
from tests.models.tiny import shapes, tiny_detector

NAMES = ["square", "bar"]
_LOGITS = [f"box_predictor/{layer}/{kind}" for layer in ("logits", "deltas") for kind in ("kernel", "bias")]
_STAGES = [
    "class_predictor/logits/kernel",
    "class_predictor/logits/bias",
    "svms/kernel",
    "svms/bias",
    "svms/fitted",
    "box_regressors/kernel",
    "box_regressors/bias",
]
# detector -> what is fitted to its classes
FITTED = {
    "rcnn": (rcnn, _STAGES),
    "fast_rcnn": (fast_rcnn, _LOGITS),
    "faster_rcnn": (tiny_detector, _LOGITS),
    "mask_rcnn": (tiny_mask_rcnn, [*_LOGITS, "mask_head/logits/kernel", "mask_head/logits/bias"]),
}


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def trained(model):
    """As if it were: no weight is what a new detector has."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.05, 0.1, weight.shape))
    if "svms" in model.parts:
        model.parts["svms"].fitted.assign(1.0)
    return model


def values_of(model):
    return {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}


def replaced(old, new):
    """The paths of weights that are not the old detector's."""
    theirs, ours = values_of(old), values_of(new)
    kept = {path for path in ours if path in theirs and np.array_equal(ours[path], theirs[path])}
    return sorted(set(ours) - kept)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("names", [["fig", "date"], ["fig"], ["a", "b", "c"]])
def test_what_was_fitted_to_the_classes_is_new(kind, names, tmp_path):
    build, fitted = FITTED[kind]
    old = trained(build(class_names=NAMES))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=names)
    assert replaced(old, new) == sorted(fitted)
    assert new.class_names == names and new.num_classes == len(names)
    # as the initialisers have it: no bias, no SVM
    for path, value in values_of(new).items():
        if path in fitted and not path.endswith("kernel"):
            assert not value.any(), path
    assert replaced(old, from_preset(tmp_path / "old", class_names=NAMES)) == []


SWAPPED = ["bar", "square"]


def said(model):
    """What a detector's parts say of random features; the classes are the last axis."""
    rng, parts = np.random.default_rng(1), model.parts
    vectors = rng.normal(size=(1, 4, parts["box_head"].units[-1])).astype(np.float32)
    answers = parts["box_predictor"](vectors)
    answers = [answers[0], ops.moveaxis(answers[1], 2, 3)] if isinstance(answers, tuple) else [answers]
    if "svms" in parts:
        maps = rng.normal(size=(1, 4, parts["box_regressors"].kernel.shape[0], 1, 1)).astype(np.float32)
        answers += [parts["svms"](vectors, answers[0]), ops.moveaxis(parts["box_regressors"](maps), 2, 3)]
    if model.has_masks:
        channels = parts["mask_head"].convs[0].kernel.shape[2]
        answers.append(parts["mask_head"](rng.normal(size=(1, 4, 6, 6, channels)).astype(np.float32)))
    return [ops.convert_to_numpy(answer) for answer in answers]


@pytest.mark.parametrize("kind", FITTED)
def test_the_same_classes_in_another_order(kind, tmp_path, caplog):
    build, fitted = FITTED[kind]
    old = trained(build(class_names=NAMES))
    save_preset(old, tmp_path / "old")
    new = from_preset(tmp_path / "old", class_names=SWAPPED)
    assert new.class_names == SWAPPED and not caplog.records
    assert replaced(old, new) == sorted(path for path in fitted if not path.endswith("fitted"))
    # whatever a part says of a class, the other's says of it
    for ours, theirs in zip(said(old), said(new), strict=True):
        np.testing.assert_allclose(np.take(ours, [1, 0, *range(2, ours.shape[-1])], axis=-1), theirs, atol=1e-6)
    # and back again
    back = from_preset(save_preset(new, tmp_path / "new"), class_names=NAMES)
    assert replaced(old, back) == []


@pytest.mark.parametrize("kind", FITTED)
def test_classes_of_the_same_name_keep_their_own(kind, tmp_path, caplog):
    build, fitted = FITTED[kind]
    old = trained(build(class_names=NAMES))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["fig", "bar", "date"])
    assert set(replaced(old, new)) == set(fitted)
    theirs, ours = values_of(old), values_of(new)
    for path in fitted:
        if path.endswith("fitted"):  # SVMs of some classes alone would score the others 0.5
            assert ours[path] == 0
            continue
        n = 4 if "deltas" in path or "regressors" in path else 1
        np.testing.assert_array_equal(ours[path][..., n : 2 * n], theirs[path][..., n : 2 * n])
        np.testing.assert_array_equal(ours[path][..., 3 * n :], theirs[path][..., 2 * n :])  # background
        fresh = np.concatenate([ours[path][..., :n], ours[path][..., 2 * n : 3 * n]])
        assert np.abs(fresh).max() < (1.5 if "mask" in path else 0.1)  # as the initialisers have it
    (record,) = caplog.records
    parts = sorted({path.split("/")[0] for path in fitted})
    assert record.getMessage() == (
        f"New, and to be trained: {', '.join(parts)} for fig, date, which old does not have (what belongs to bar is "
        "kept)."
    )


def test_fewer_classes_are_kept_as_they_were(tmp_path, caplog):
    old = trained(rcnn(class_names=NAMES))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["bar"])
    assert not caplog.records and values_of(new)["svms/fitted"] == 1
    np.testing.assert_array_equal(values_of(new)["svms/bias"], values_of(old)["svms/bias"][1:])


def test_names_that_come_twice_and_numbers_as_names(tmp_path, caplog):
    """COCO's published models have ten classes called N/A."""
    old = trained(tiny_detector(5, class_names=["N/A", "cat", "N/A", "dog", "N/A"]))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["dog", "N/A", "N/A", "cat"])
    assert not caplog.records
    bias = [values_of(model)["box_predictor/logits/bias"] for model in (old, new)]
    np.testing.assert_array_equal(bias[1], bias[0][[3, 0, 2, 1, 5]])
    digits = trained(tiny_detector(class_names=["0", "1"]))
    new = from_preset(save_preset(digits, tmp_path / "digits"), class_names=["1", "0"])
    bias = [values_of(model)["box_predictor/logits/bias"] for model in (digits, new)]
    np.testing.assert_array_equal(bias[1], bias[0][[1, 0, 2]])
    assert replaced(digits, from_preset(tmp_path / "digits", class_names=["cat", "dog"])) == []  # it had no names


def test_it_is_said_why_a_part_is_new(tmp_path, caplog):
    old = trained(tiny_detector(class_names=NAMES, box_predictor=Hashed(2, name="own")))
    save_preset(old, tmp_path / "old")
    for settings, said in (
        ({"class_names": ["fig", "date"]}, "own, since none of fig, date is among the classes of old .square, bar.."),
        ({"num_classes": 3}, "own, since without names none of the 3 classes is known to be one of old."),
        ({"class_names": SWAPPED}, "own, which .* belongs to which class .class_columns.."),
    ):
        caplog.clear()
        from_preset(tmp_path / "old", **settings)
        (record,) = caplog.records
        assert re.fullmatch(f"New, and to be trained: {said}", record.getMessage())


def test_a_file_whose_columns_are_not_those_of_the_classes(tmp_path):
    """A stranger's: three columns more than the classes have, and a number for a kernel."""
    old = trained(tiny_detector(class_names=NAMES))
    for shape in ((6,), (), (3, 3)):
        folder = save_preset(old, tmp_path / "old")
        values = {**values_of(old), "box_predictor/logits/bias": np.zeros(shape, np.float32)}
        save_file(values, folder / "weights.safetensors")
        record = json.loads((folder / "preset.json").read_text())
        del record["weights"]["sha256"], record["weights"]["size"]
        (folder / "preset.json").write_text(json.dumps(record))
        for names in (SWAPPED, ["bar"], NAMES, ["bar", "a", "b", "c", "square"]):
            with pytest.raises(PresetError, match="box_predictor/logits/bias"):
                from_preset(folder, class_names=names)


def test_an_rcnn_scores_by_its_softmax_again(tmp_path):
    """SVMs that count as fitted, over a kernel of zeros, would score 0.5 everywhere."""
    old = trained(rcnn(class_names=NAMES))
    for weight in old.parts["backbone"].weights:
        weight.assign(0.3 * weight)  # features of about 1: the softmax of a new predictor is not all background's
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["fig", "date", "plum"])
    image = shapes(1)[0].image
    boxes = np.float32([[9, 9, 40, 40], [64, 64, 100, 100]])
    x = {**new.preprocessor.batch([image]), "proposals": boxes[None]}
    vectors = new.region_features.predict_on_batch(x)["vectors"]
    expected = ops.convert_to_numpy(ops.softmax(new.parts["box_predictor"](vectors), axis=-1))[..., :-1]
    found = new.detect(image, score=0.0, proposals=boxes)
    best = np.sort(expected[expected > new.parts["decoder"].score_threshold])[::-1]
    np.testing.assert_allclose(found["scores"], best, atol=1e-5)
    assert len(best) and np.abs(best - 0.5).min() > 1e-3


@register
class Calibrated(layers.BoxPredictor):
    """A user's: a temperature that is fitted to the classes, and as large whatever their number."""

    def build(self, input_shape):
        super().build(input_shape)
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def call(self, x):
        logits, deltas = super().call(x)
        return logits / self.temperature, deltas


@register
class Hashed(keras.layers.Layer):
    """A user's own: up to 16 classes in matrices of one shape, and a part that is for all and says so."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.shared = keras.layers.Dense(8, name="shared")
        self.codes, self.boxes = keras.layers.Dense(17, name="codes"), keras.layers.Dense(64, name="boxes")

    def build(self, input_shape):
        self.shared.build(input_shape)
        for layer in (self.codes, self.boxes):
            layer.build((*input_shape[:-1], 8))

    @property
    def class_free_weights(self):
        return self.shared.weights

    def call(self, x):
        x, k = self.shared(x), self.num_classes
        boxes = ops.reshape(self.boxes(x), (*ops.shape(x)[:2], 16, 4))
        return self.codes(x)[..., : k + 1], boxes[..., :k, :]

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@register
class EachClass(keras.layers.Layer):
    """A user's own: a layer for each class, and another layer of the package within."""

    def __init__(self, num_classes, boxes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.boxes = num_classes, boxes
        self.each = [keras.layers.Dense(1, name=f"class_{i}") for i in range(num_classes + 1)]

    def build(self, input_shape):
        for layer in (*self.each, self.boxes):
            layer.build(input_shape)

    def call(self, x):
        return ops.concatenate([layer(x) for layer in self.each], axis=-1), self.boxes(x)[1]

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "boxes": keras.saving.serialize_keras_object(self.boxes),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "boxes": keras.saving.deserialize_keras_object(config["boxes"])})


@register
class Wrapped(keras.layers.Layer):
    """A user's own that knows nothing of classes, around a predictor that does."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.before = inner, keras.layers.Dense(8, name="before")

    def build(self, input_shape):
        self.before.build(input_shape)
        self.inner.build((*input_shape[:-1], 8))

    def call(self, x):
        return self.inner(self.before(x))

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inner": keras.saving.deserialize_keras_object(config["inner"])})


OWN = {
    "same shapes by chance": (
        lambda: Hashed(2, name="own"),
        [f"own/{layer}/{kind}" for layer in ("codes", "boxes") for kind in ("kernel", "bias")],
    ),
    "a subclass with one more weight": (
        lambda: Calibrated(2, name="own"),
        [f"own/{layer}/{kind}" for layer in ("logits", "deltas") for kind in ("kernel", "bias")] + ["own/temperature"],
    ),
    "boxes for all classes": (
        lambda: layers.BoxPredictor(2, class_agnostic=True, name="own"),
        ["own/logits/kernel", "own/logits/bias"],
    ),
    "within another layer": (
        lambda: Wrapped(layers.BoxPredictor(2, name="inner"), name="own"),
        [f"own/inner/{layer}/{kind}" for layer in ("logits", "deltas") for kind in ("kernel", "bias")],
    ),
}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("names", [["fig", "date"], pytest.param(["a", "b", "c"], marks=pytest.mark.slow)])
def test_parts_of_the_users_own(kind, names, tmp_path):
    predictor, fitted = OWN[kind]
    old = trained(tiny_detector(class_names=NAMES, box_predictor=predictor()))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=names)
    assert replaced(old, new) == sorted(fitted)
    new.detect(shapes(1)[0].image)


@pytest.mark.parametrize("names", [["fig", "date"], ["fig"], ["a", "b", "c"]])
def test_a_layer_for_each_class(names, tmp_path):
    inner = layers.BoxPredictor(2, name="inner")
    old = trained(tiny_detector(class_names=NAMES, box_predictor=EachClass(2, inner, name="own")))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=names)
    own = {path for path in values_of(new) if path.startswith("own/")}
    assert set(replaced(old, new)) == own and f"own/class_{len(names)}/bias" in own
    new.detect(shapes(1)[0].image)


def test_masks_for_all_classes_and_normalisation_are_kept(tmp_path):
    head = layers.MaskHead(2, convs=(8,), channels=8, norm="batch", class_agnostic=True)
    old = trained(tiny_mask_rcnn(class_names=NAMES, mask_head=head))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["a", "b", "c"])
    assert replaced(old, new) == sorted(_LOGITS)


@register
class ImageNetBackbone(keras.Model):
    """A user's own, with the head that it was trained with: its classes are not the detector's."""

    def __init__(self, num_classes=2, name="own_backbone"):
        x = inputs = keras.Input((None, None, 3), name="images")
        outputs = {}
        for i in range(5):
            x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name=f"own_conv{i}")(x)
            if i:
                outputs[f"C{i + 1}"] = x
        super().__init__(inputs, outputs, name=name)
        self.num_classes, self.strides = num_classes, {f"C{i}": 2**i for i in range(2, 6)}

    def get_config(self):
        return {"num_classes": self.num_classes, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@pytest.mark.parametrize("classes", [2, 1000])
def test_a_backbones_classes_are_its_own(classes, tmp_path):
    head = {"neck": layers.FPN(32), "box_head": layers.BoxHead((64,)), "class_names": NAMES}
    old = trained(FasterRCNN(ImageNetBackbone(classes), 2, **head))
    new = from_preset(save_preset(old, tmp_path / "old"), class_names=["a", "b", "c"])
    assert new.parts["backbone"].num_classes == classes
    assert replaced(old, new) == sorted(_LOGITS)


def test_a_preset_without_names_gets_names(tmp_path):
    path = save_preset(tiny_detector(), tmp_path / "old")
    record = json.loads((path / "preset.json").read_text())
    record["detector"]["config"]["class_names"] = None
    (path / "preset.json").write_text(json.dumps(record))
    assert from_preset(path, class_names=list("abcde")).class_names == list("abcde")
