"""A detector of one's own: a subclass of ours, with arguments of its own, is saved and loaded as ours are."""

import json

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn import layers
from keras_rcnn.data import Preprocessor
from keras_rcnn.layers.base import Float32Layer
from keras_rcnn.models import FasterRCNN
from keras_rcnn.models.detector import Detector
from keras_rcnn.models.inputs import image_inputs, proposal_inputs, target_inputs
from keras_rcnn.preset_file import PresetError
from tests.models.tiny import TinyBackbone, batch, tiny_detector


@keras.saving.register_keras_serializable("a_user")
class Noted(FasterRCNN):
    """Passes what it does not know on."""

    def __init__(self, *args, note="", **kwargs):
        super().__init__(*args, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


@keras.saving.register_keras_serializable("a_user")
class Plain(FasterRCNN):
    """Changes what a detector does, not how it is made."""

    def detect(self, images, score=0.9, **kwargs):
        return super().detect(images, score=score, **kwargs)


@keras.saving.register_keras_serializable("a_user")
class Fixed(FasterRCNN):
    """Has a constructor in its own words."""

    def __init__(self, backbone, num_classes, width=16, name="fixed", **parts):
        head = parts.pop("box_head", None) or keras_rcnn.layers.BoxHead((width,))
        super().__init__(backbone, num_classes, box_head=head, name=name, **parts)
        self.width = width

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("a_user")
class Titled(Noted):
    """A subclass of a subclass, with an argument that has no default, and one of several values."""

    def __init__(self, backbone, num_classes, title, scales=(1, 2), **kwargs):
        super().__init__(backbone, num_classes, **kwargs)
        self.title, self.scales = title, tuple(scales)

    def get_config(self):
        return {**super().get_config(), "title": self.title, "scales": self.scales}


@keras.saving.register_keras_serializable("a_user")
class Own(Detector):
    """None of the papers': it classifies given regions of one map, whose name is among its arguments."""

    def __init__(self, backbone, num_classes, *, level="C3", preprocessor=None, class_names=None, name="own"):
        neck = layers.SingleLevel(level)
        box_pool = layers.RoIAlign(5, neck.strides(backbone.strides), name="box_pool")
        box_head, box_predictor = layers.BoxHead((16,)), layers.BoxPredictor(num_classes)
        preprocessor = preprocessor or Preprocessor(64, 96)
        config = self.arguments(locals())
        inputs, targets = {**image_inputs(), **proposal_inputs()}, target_inputs()
        features, regions = neck(backbone(inputs["images"])), inputs["proposals"]
        logits, deltas = box_predictor(box_head(box_pool(features, regions)))
        detections = layers.DetectionDecoder()(logits, deltas, regions, inputs["image_sizes"])
        sampled = layers.BoxTargets(num_classes, count=16)(regions, targets["boxes"], targets["labels"])
        losses = layers.BoxLoss()(*box_predictor(box_head(box_pool(features, sampled["boxes"]))), sampled)
        super().__init__(inputs=inputs, targets=targets, detections=detections, losses=losses, config=config, name=name)


class Forgetful(FasterRCNN):
    def __init__(self, *args, extra=1, **kwargs):
        super().__init__(*args, **kwargs)


def build(detector, **own):
    """A small one with random weights."""
    base = tiny_detector(class_names=["square", "bar"])
    fitted = ("backbone", "box_head", "box_predictor")  # built for a head of another width
    parts = {key: part for key, part in base.parts.items() if key not in fitted}
    head = {} if detector is Fixed else {"box_head": keras_rcnn.layers.BoxHead((64,))}
    return detector(base.parts["backbone"], 2, class_names=["square", "bar"], **parts, **head, **own)


def from_config(model, folder):
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def keras_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def preset(model, folder):
    return keras_rcnn.from_preset(keras_rcnn.save_preset(model, folder / "preset"))


@pytest.fixture(scope="module")
def noted():
    return build(Noted, note="of figs")


@pytest.mark.parametrize("way", [from_config, keras_file, preset])
def test_a_subclass_comes_back_as_it_was(noted, way, tmp_path):
    copy = way(noted, tmp_path)
    assert type(copy) is Noted and copy.note == "of figs" and copy.class_names == ["square", "bar"]
    photo = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    expected, answer = (model.detect(photo, score=0.0) for model in (noted, copy))
    assert len(answer["boxes"]) > 0
    np.testing.assert_allclose(answer["boxes"], expected["boxes"], atol=1e-4)
    np.testing.assert_allclose(answer["scores"], expected["scores"], atol=1e-6)


def test_without_a_constructor_there_is_nothing_to_write():
    copy = Plain.from_config(build(Plain).get_config())
    assert type(copy) is Plain and copy.name == "faster_rcnn"


def test_a_constructor_in_its_own_words(tmp_path):
    model = preset(build(Fixed, width=24), tmp_path)
    assert type(model) is Fixed and model.width == 24 and model.name == "fixed"
    assert model.parts["box_head"].units == (24,)


def test_an_argument_that_would_be_lost_is_named():
    with pytest.raises(NotImplementedError, match=r"Forgetful has arguments that .* not be saved: extra\."):
        build(Forgetful).get_config()


def test_parts_are_layers_and_the_preprocessor(noted):
    kinds = (keras.layers.Layer, Float32Layer, keras_rcnn.data.Preprocessor)
    assert all(isinstance(part, kinds) for part in noted.parts.values())
    assert {"backbone", "box_head", "preprocessor"} < set(noted.parts)


def test_a_subclass_of_a_subclass(tmp_path):
    copy = preset(build(Titled, title="a title", scales=(3, 4), note="of figs"), tmp_path)
    assert type(copy) is Titled and (copy.title, copy.scales, copy.note) == ("a title", (3, 4), "of figs")


def test_other_classes_keep_its_arguments(noted, tmp_path):
    folder = keras_rcnn.save_preset(noted, tmp_path / "noted")
    three = keras_rcnn.from_preset(folder, class_names=["bar", "cross", "square"])
    assert type(three) is Noted and three.note == "of figs" and three.num_classes == 3


def test_a_detector_that_is_none_of_the_papers(tmp_path):
    model = Own(TinyBackbone(), 2, level="C4")
    assert set(model.parts) == {"backbone", "preprocessor"} and model.get_config()["level"] == "C4"
    copy = preset(model, tmp_path)
    assert copy.get_config() == model.get_config()
    x, _ = batch(1, (64, 96))
    x["proposals"] = np.float32([[[8, 8, 40, 40], [20, 10, 90, 60]]])
    expected, answer = (keras.ops.convert_to_numpy(one(x)["boxes"]) for one in (model, copy))
    np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_a_class_that_is_not_registered_is_refused_before_it_is_saved(tmp_path):
    class Nameless(FasterRCNN):
        pass

    with pytest.raises(PresetError, match="^Nameless: .*register_keras_serializable"):
        keras_rcnn.save_preset(build(Nameless), tmp_path / "nameless")
    assert not (tmp_path / "nameless").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("class_names", ["a", {}], "a list of"),
        ("num_classes", "two", "a whole number"),
        ("note", float("inf"), "a finite number"),
    ],
)
def test_a_preset_of_a_users_class_is_checked_too(noted, key, value, words, tmp_path):
    file = keras_rcnn.save_preset(noted, tmp_path / "noted") / "preset.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["detector"]["config"][key] = value
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(PresetError, match=f"detector.config.{key} is .*{words}"):
        keras_rcnn.from_preset(file.parent)
