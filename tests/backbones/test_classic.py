"""VGG16, CaffeNet and ZF: numbers against Caffe's definitions in NumPy, names, freezing, saving, training."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn import layers
from keras_rcnn.backbones import VGG16, ZF, CaffeNet
from keras_rcnn.backbones.caffe import CaffeParts, LocalResponseNormalization
from keras_rcnn.backbones.grouped import GroupedConv2D
from keras_rcnn.convert import ConversionError, assign, convert_caffe
from tests.convert import caffe_twin, caffe_writer

CHANNELS = {
    "vgg16": {"C2": 256, "C3": 512, "C4": 512, "C5": 512},
    "caffenet": {"C4": 256, "C5": 256},
    "zf": {"C4": 256, "C5": 256},
}
every = pytest.mark.parametrize("backbone", [VGG16, CaffeNet, ZF])


def photo(height, width, seed=0):
    """[1, H, W, 3], of the range that these networks take."""
    return np.random.default_rng(seed).uniform(-120, 130, (1, height, width, 3)).astype(np.float32)


def as_caffe(x):
    """RGB [1, H, W, 3] -> BGR [3, H, W]."""
    return np.moveaxis(x[0], -1, 0)[::-1].astype(np.float64)


def same_maps(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        out = np.moveaxis(ops.convert_to_numpy(ours[name])[0], -1, 0)
        assert out.shape == value.shape, name
        assert np.abs(value).max() > 0
        assert np.abs(out - value).max() < 2e-5 * np.abs(value).max(), name


# === Numbers ===


def test_vgg16_is_caffes():
    blobs, model = caffe_writer.random_blobs("vgg16"), VGG16()
    assign(model, convert_caffe("vgg16", blobs, heads=False))
    for x in (photo(37, 50), photo(32, 33)):
        same_maps(model(x), caffe_twin.vgg16(blobs, as_caffe(x)))


@pytest.mark.parametrize("padded", [True, False])
def test_caffenet_is_caffes(padded):
    blobs, model = caffe_writer.random_blobs("caffenet"), CaffeNet(padded=padded)
    assign(model, convert_caffe("caffenet", blobs, heads=False))
    for size in ((75, 94), (96, 131), (67, 163)):
        x = photo(*size)
        same_maps(model(x), caffe_twin.caffenet(blobs, as_caffe(x), padded))


def test_zf_is_caffes():
    blobs, model = caffe_writer.random_blobs("zf"), ZF()
    assign(model, convert_caffe("zf", blobs, heads=False))
    for size in ((50, 64), (67, 49)):
        x = photo(*size)
        same_maps(model(x), caffe_twin.zf(blobs, as_caffe(x)))


@pytest.mark.parametrize(("size", "pad"), [(2, 0), (3, 0), (3, 1)])
def test_pooling_is_caffes(size, pad):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, CaffeParts(None).pool(inputs, size, "pool", pad))
    for n in range(size, 12):
        x = np.random.default_rng(n).uniform(0, 1, (1, n, n + 1, 2)).astype(np.float32)
        theirs = caffe_twin.max_pool(np.moveaxis(x[0], -1, 0), size, pad=pad)
        np.testing.assert_array_equal(np.moveaxis(model(x)[0], -1, 0), theirs)


@pytest.mark.parametrize("across", [True, False])
def test_local_response_normalization(across):
    x = np.random.default_rng(0).normal(0, 100, (2, 4, 5, 7)).astype(np.float32)
    layer = LocalResponseNormalization(size=3, alpha=0.01, beta=0.6, across=across)
    twin = caffe_twin.lrn_across if across else caffe_twin.lrn_within
    for ours, image in zip(ops.convert_to_numpy(layer(x)), x, strict=True):
        theirs = twin(np.moveaxis(image, -1, 0).astype(np.float64), 3, 0.01, 0.6)
        np.testing.assert_allclose(np.moveaxis(ours, -1, 0), theirs, rtol=1e-5)
    again = LocalResponseNormalization.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), layer(x))
    with pytest.raises(ValueError, match="odd number, not 4"):
        LocalResponseNormalization(size=4)


def test_local_response_normalization_in_half_precision():
    x = np.full((1, 2, 2, 4), 3e3, np.float32)  # its square overflows float16
    layer = LocalResponseNormalization(dtype="mixed_float16")
    out = layer(ops.cast(x, "float16"))
    assert keras.backend.standardize_dtype(out.dtype) == "float16"
    expected = LocalResponseNormalization()(x)
    np.testing.assert_allclose(ops.convert_to_numpy(out).astype(np.float32), expected, rtol=2e-3)


def test_grouped_convolution_has_conv2ds_kernel():
    x = np.random.default_rng(0).normal(size=(1, 6, 7, 6)).astype(np.float32)
    layer = GroupedConv2D(4, 3, groups=2, padding="same")
    layer.build(x.shape)
    assert layer.kernel.shape == (3, 3, 3, 4)
    kernel, bias = layer.get_weights()
    theirs = caffe_twin.conv(np.moveaxis(x[0], -1, 0), (kernel.transpose(3, 2, 0, 1), bias), pad=1, groups=2)
    np.testing.assert_allclose(np.moveaxis(layer(x)[0], -1, 0), theirs, atol=1e-5)


# === Names and shapes ===


@every
def test_strides_and_channels(backbone):
    model = backbone()
    assert model.channels == CHANNELS[model.name]
    assert model.strides == {name: 2 ** int(name[1]) for name in model.channels}
    for name, value in model(np.zeros((2, 128, 224, 3), np.float32)).items():
        more = int(backbone is not VGG16 and name == "C4")  # as Caffe rounds
        stride = model.strides[name]
        assert value.shape == (2, 128 // stride + more, 224 // stride + more, model.channels[name])
    assert layers.SingleLevel("C4").strides(model.strides) == (16,)


def test_sizes_of_rcnns_regions():
    """What fc6 wants of a warped region."""
    for model, size, cells in ((VGG16(), 224, 7), (CaffeNet(padded=False), 227, 6), (ZF(), 192, 6)):
        shape = model.compute_output_shape((1, size, size, 3))["C5"]
        assert shape == (1, cells, cells, model.channels["C5"])


def test_cells_of_a_padded_net_have_their_centres_at_multiples_of_16():
    """An impulse reaches the cells around its own."""
    for model in (CaffeNet(), ZF()):
        for layer in model.layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                layer.set_weights([np.ones_like(kernel) / kernel[..., 0].size, bias])
        x = np.zeros((1, 480, 480, 3), np.float32)
        x[0, 240, 240] = 1000
        reached = np.flatnonzero(ops.convert_to_numpy(model(x)["C4"])[0, :, 15].any(-1))
        assert (reached[0] + reached[-1]) / 2 == 15


@every
def test_paths_are_caffes_names(backbone):
    model = backbone()
    names = [name for name, *_ in caffe_writer.CONVS[model.name]]
    expected = [f"{name}/{part}" for name in names for part in ("kernel", "bias")]
    assert [w.path for w in model.weights] == expected
    assert [w.path for w in backbone(name="another").weights] == expected


# === Freezing, saving ===


@every
def test_freeze_at(backbone):
    def trained(model):
        return {w.path[:5] for w in model.trainable_weights}

    model = backbone(freeze_at=2)
    assert trained(model) == {"conv3", "conv4", "conv5"}
    outer = keras.Model(model.input, model(model.input))
    outer.trainable = False
    assert not outer.trainable_weights
    outer.trainable = True
    assert trained(model) == trained(outer) == {"conv3", "conv4", "conv5"}
    model.freeze_at = 0
    assert len(trained(model)) == 5
    model.freeze_at = 5
    assert not model.trainable_weights
    with pytest.raises(ValueError, match="freeze_at is 0 .* to 5"):
        model.freeze_at = 6


@every
def test_config(backbone):
    model = backbone(freeze_at=1, dtype="mixed_bfloat16", name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(again) is backbone
    assert again.get_config() == model.get_config()
    assert (model.get_config()["freeze_at"], model.get_config()["weights"]) == (1, None)
    assert again.get_layer("pool1").compute_dtype == "bfloat16"
    if backbone is CaffeNet:
        assert backbone(padded=False).get_config()["padded"] is False


def test_save_and_load(tmp_path):
    model, x = CaffeNet(padded=False), photo(99, 99)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x)["C5"], again(x)["C5"])


@pytest.mark.parametrize("backbone", [CaffeNet, ZF])
def test_mixed_precision(backbone):
    exact, mixed = backbone(), backbone(dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    x = photo(64, 64)
    value, out = exact(x)["C4"], mixed(x)["C4"]
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    out, value = ops.convert_to_numpy(ops.cast(out, "float32")), ops.convert_to_numpy(value)
    assert np.abs(out - value).mean() < 0.05 * np.abs(value).mean()


@pytest.mark.parametrize("backbone", [CaffeNet, ZF])
def test_trains(backbone):
    """Grouped convolutions and normalisation have gradients, on a CPU too."""
    model = backbone(freeze_at=1)
    outer = keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(model(model.input)["C4"]))
    outer.compile(keras.optimizers.Adam(1e-4), "mse", jit_compile=False)
    before = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    x, y = np.repeat(photo(48, 48), 2, axis=0), np.zeros((2, 256), np.float32)
    losses = outer.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    after = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    assert {path for path in before if np.array_equal(before[path], after[path])} == {"conv1/kernel", "conv1/bias"}


# === Weights ===


@pytest.mark.parametrize("backbone", [CaffeNet, ZF])
def test_weights_from_a_caffemodel(backbone, tmp_path):
    kind = backbone().name
    blobs = caffe_writer.random_blobs(kind, units=4, classes=3, anchors=9)
    path = caffe_writer.write_caffemodel(tmp_path / "net.caffemodel", blobs, form="v1")
    model = backbone(weights=path, freeze_at=1)
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0][0, 1], blobs["conv1"][0][:, ::-1, 0, 1].T)
    np.testing.assert_array_equal(model.get_layer("conv5").get_weights()[1], blobs["conv5"][1])
    wrong = ZF if backbone is CaffeNet else CaffeNet
    with pytest.raises(ConversionError, match=r"conv1\.weight has the unexpected shape"):
        wrong(weights=path)


@every
def test_imagenet_weights_that_no_package_has(backbone):
    with pytest.raises(ValueError, match=r"download its \.caffemodel"):
        backbone(weights="imagenet")
