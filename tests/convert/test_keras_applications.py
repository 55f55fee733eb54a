"""The first files of keras.applications: ours gives on RGB what theirs gives on BGR."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.backbones import VGG16, MatterportResNet
from keras_rcnn.convert import ConversionError, assign, convert_keras_applications
from tests.convert.matterport_layers import random_layers
from tests.convert.test_keras_file import write


def test_vgg16_is_that_of_keras(tmp_path):
    theirs = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 96, 3))
    layers = {
        layer.name: {f"{layer.name}/{weight.name}:0": weight.numpy() for weight in layer.weights}
        for layer in theirs.layers
        if layer.weights
    }
    path = write(tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", layers)
    ours = VGG16(weights=path)
    images = np.random.default_rng(0).normal(0, 50, (1, 64, 96, 3)).astype(np.float32)
    expected = keras.Model(theirs.inputs, theirs.get_layer("block5_conv3").output)(images[..., ::-1])
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours(images)["C4"]), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-4
    )


def test_vgg16s_fully_connected_layers_are_the_box_head():
    rng = np.random.default_rng(0)
    layers = {}
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convs + 1):
            layers[f"block{block}_conv{i}"] = {"kernel": rng.random((3, 3, 3, 2)), "bias": rng.random(2)}
    for name in ("fc1", "fc2", "predictions"):
        layers[name] = {"kernel": rng.random((5, 5)), "bias": rng.random(5)}
    values = convert_keras_applications("vgg16", layers)
    np.testing.assert_allclose(values["box_head/fc_1/kernel"], layers["fc2"]["kernel"], rtol=1e-6)
    assert not any("box_head" in path for path in convert_keras_applications("vgg16", layers, heads=False))
    del layers["block3_conv2"]
    with pytest.raises(ConversionError, match=r"2 missing: block3_conv2/kernel"):
        convert_keras_applications("vgg16", layers)


def test_resnet50():
    layers = {name: own for name, own in random_layers().items() if name.startswith(("conv1", "bn", "res"))}
    layers["fc1000"] = {"kernel": np.ones((4, 4), np.float32), "bias": np.ones(4, np.float32)}
    values = convert_keras_applications("resnet50", layers)
    model = MatterportResNet(50)
    assign(model, values)
    stem = next(weight for weight in model.weights if weight.path == "stem_conv/kernel")
    np.testing.assert_array_equal(ops.convert_to_numpy(stem), layers["conv1"]["kernel"][:, :, ::-1])


def test_other_files_are_named():
    with pytest.raises(ConversionError, match=r"from_features"):
        convert_keras_applications("resnet50", {"conv1_conv": {"kernel": np.ones((7, 7, 3, 64), np.float32)}})
    with pytest.raises(ConversionError, match="resnet50, vgg16"):
        convert_keras_applications("xception", {})
    with pytest.raises(ValueError, match="not of 101"):
        MatterportResNet(101, weights="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5")
