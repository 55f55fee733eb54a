"""A functional Keras model of any kind as a backbone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_rcnn
from keras_rcnn import backbones
from keras_rcnn.models import FasterRCNN

ANY = (None, None, 3)
MOBILENET = {
    "C2": "block_3_expand_relu",
    "C3": "block_6_expand_relu",
    "C4": "block_13_expand_relu",
    "C5": "out_relu",
}


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """A functional model by inheritance, as KerasHub's backbones are."""

    def __init__(self, width=4, **kwargs):
        inputs = x = keras.Input(ANY)
        for level in range(1, 6):
            x = layers.Conv2D(width, 3, 2, "same", name=f"conv{level}")(x)
            x = layers.BatchNormalization(name=f"bn{level}")(x)
            x = layers.ReLU(name=f"level{level}")(x)
        super().__init__(inputs, layers.Conv2D(7, 1, name="top")(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}


def own(**settings):
    maps = {f"C{i}": f"level{i}" for i in (2, 3, 4, 5)}
    return backbones.from_features(Own(name="own"), maps, **settings)


def test_maps_are_the_layers_outputs():
    model = keras.applications.MobileNetV2(include_top=False, input_shape=ANY, weights=None, alpha=0.35)
    backbone = backbones.from_features(model, MOBILENET, mean=[0.5] * 3, std=[0.5] * 3)
    assert backbone.strides == {"C2": 4, "C3": 8, "C4": 16, "C5": 32}
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    x = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    maps = backbone(x)
    for key, layer in MOBILENET.items():
        wanted = keras.Model(model.input, model.get_layer(layer).output)(x)
        np.testing.assert_allclose(maps[key], wanted, atol=1e-6)
        assert backbone.channels[key] == wanted.shape[-1]


def test_channels_the_other_way_round():
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    keras.utils.set_random_seed(0)
    rgb = own()
    keras.utils.set_random_seed(0)
    np.testing.assert_allclose(own(bgr=True)(x[..., ::-1])["C5"], rgb(x)["C5"], atol=1e-6)


def trained(backbone):
    return {weight.path for weight in backbone.trainable_weights}


def test_freezing_and_batch_normalisation():
    backbone = own(freeze_at=3)
    backbone.trainable = True
    assert trained(backbone) == {f"conv{i}/{part}" for i in (4, 5) for part in ("kernel", "bias")}
    backbone = own(norm="batch", freeze_at=2)
    outer = keras.Model(backbone.input, backbone(backbone.input)["C5"])
    outer.trainable = True
    assert {path.split("/")[0] for path in trained(backbone)} == {
        f"{part}{i}" for i in (3, 4, 5) for part in ("conv", "bn")
    }
    before = ops.convert_to_numpy(backbone.get_layer("own").get_layer("bn2").moving_mean)
    outer.compile("sgd", "mse", jit_compile=False)
    outer.fit(np.ones((2, 64, 64, 3)), np.ones((2, 2, 2, 4)), verbose=0)
    np.testing.assert_array_equal(backbone.get_layer("own").get_layer("bn2").moving_mean, before)
    assert np.abs(backbone.get_layer("own").get_layer("bn5").moving_mean).max() > 0


@pytest.mark.parametrize("bgr", [False, True])
def test_a_detector_of_it_is_a_preset(tmp_path, bgr):
    backbone = own(mean=[0.1, 0.2, 0.3], std=[0.5] * 3, bgr=bgr, freeze_at=2)
    model = FasterRCNN(backbone, 2, neck=keras_rcnn.layers.FPN(8), box_head=keras_rcnn.layers.BoxHead((8,)))
    assert model.preprocessor.mean == (0.1, 0.2, 0.3)
    keras_rcnn.save_preset(model, tmp_path / "preset")
    again = keras_rcnn.from_preset(tmp_path / "preset")
    assert again.parts["backbone"].freeze_at == 2
    assert trained(again.parts["backbone"]) == trained(backbone)
    photo = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    theirs, ours = again.detect(photo, score=0.0), model.detect(photo, score=0.0)
    np.testing.assert_array_equal(theirs["boxes"], ours["boxes"])


def test_what_is_no_backbone():
    with pytest.raises(ValueError, match="functional Keras model"):
        backbones.from_features(object(), {})
    model = Own()
    with pytest.raises(ValueError, match="no layer level9; its layers are input"):
        backbones.from_features(model, {"C2": "level9"})
    with pytest.raises(ValueError, match='"C2" to "C5"'):
        backbones.from_features(model, {"P2": "level2"})
    fixed = keras.applications.MobileNetV2(include_top=False, input_shape=(96, 96, 3), weights=None, alpha=0.35)
    with pytest.raises(ValueError, match=r"input_shape=\(None, None, 3\)"):
        backbones.from_features(fixed, MOBILENET)
