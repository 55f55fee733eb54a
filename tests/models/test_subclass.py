"""A detector of one's own: a subclass of ours, with arguments of its own, is saved and loaded as ours are."""

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.layers.base import Float32Layer
from keras_rcnn.models import FasterRCNN
from tests.models.tiny import tiny_detector


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
