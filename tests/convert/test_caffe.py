"""Caffe's files and weights as ours: the file's three forms, layouts, the published R-CNNs' heads, and refusals."""

import json

import numpy as np
import pytest
from keras import ops

from keras_rcnn import cli, layers
from keras_rcnn.backbones import VGG16, ZF, CaffeNet
from keras_rcnn.convert import (
    CAFFE_MEAN,
    ConversionError,
    WeightsFileError,
    assign,
    convert_caffe,
    read_caffe_weights,
    read_caffemodel,
)
from keras_rcnn.convert.caffe import _between_anchors, _caffe_anchors, _our_anchors
from keras_rcnn.data import Preprocessor
from keras_rcnn.ops import anchors as anchor_ops
from keras_rcnn.ops import deltas as delta_ops
from tests.convert import caffe_twin, caffe_writer

MODELS = list(caffe_writer.CONVS)
every = pytest.mark.parametrize("model", MODELS)


def small(model, **changes):
    """Blobs of a narrow net with every head that is published."""
    return caffe_writer.random_blobs(model, **{"units": 5, "classes": 4, "anchors": 9, "width": 16, **changes})


def tiny():
    rng = np.random.default_rng(0)
    return {
        "conv": [rng.normal(size=(4, 3, 2, 5)).astype(np.float32), np.arange(4, dtype=np.float32)],
        "fc": [rng.normal(size=(6, 300)).astype(np.float32), np.zeros(6, np.float32)],
    }


# === Files ===


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("form", ["new", "v1", "v0"])
def test_every_form_of_the_file(form, double, packed, tmp_path):
    path = caffe_writer.write_caffemodel(tmp_path / "a.caffemodel", tiny(), form=form, packed=packed, double=double)
    found = read_caffemodel(path)
    assert list(found) == ["conv", "fc"]
    for name, arrays in tiny().items():
        for ours, theirs in zip(found[name], arrays, strict=True):
            assert ours.dtype == np.float32
            assert ours.shape == (theirs.shape if form == "new" else (1,) * (4 - theirs.ndim) + theirs.shape)
            np.testing.assert_array_equal(ours.ravel(), theirs.ravel())
            ours += 1  # no view of the file


def test_a_bare_list_of_numbers_and_an_empty_one(tmp_path):
    lone = caffe_writer.field(5, np.arange(3, dtype="<f4").tobytes()) + caffe_writer.field(5, 3.0)
    empty = caffe_writer.field(7, caffe_writer.field(1, b"\x00"))
    layer = caffe_writer.field(1, "a") + caffe_writer.field(7, lone) + caffe_writer.field(7, empty)
    (tmp_path / "a.caffemodel").write_bytes(caffe_writer.field(100, layer))
    first, second = read_caffemodel(tmp_path / "a.caffemodel")["a"]
    np.testing.assert_array_equal(first, [0, 1, 2, 3])
    assert second.shape == (0,)


@pytest.mark.parametrize("form", ["new", "v1", "v0"])
def test_a_truncated_file_is_refused_wherever_it_ends(form, tmp_path):
    blobs = {name: [array[:2] for array in arrays] for name, arrays in tiny().items()}
    whole, path = caffe_writer.network({"fc": blobs["fc"]}, form=form), tmp_path / "cut.caffemodel"
    last = len(whole) - len(caffe_writer.network({}, form=form)) + 30  # at the latest, the layer after it is cut
    for length in [*range(1, 60), *range(60, last, 97)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ConversionError, match=r"cut\.caffemodel") as error:
            read_caffemodel(path)
        assert len(str(error.value)) < 400


def test_damaged_files_are_refused_or_read(tmp_path):
    """Whatever a byte is changed to: never another exception, and no memory that the file does not have."""
    rng, path = np.random.default_rng(0), tmp_path / "a.caffemodel"
    for form in ("new", "v1", "v0"):
        whole = caffe_writer.network({"conv": tiny()["conv"]}, form=form)
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.integers(1, 4)):
                damaged[rng.integers(min(len(whole), 120))] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                blobs = read_caffemodel(path)
            except ConversionError:
                continue
            assert sum(array.nbytes for arrays in blobs.values() for array in arrays) <= len(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b'name: "VGG16"\nlayer {\n', "prototxt, which describes a network"),
        (b"\x89HDF\r\n\x1a\n and so on", "Caffe's HDF5 form"),
        (bytes(100), "truncated, or no .caffemodel: there is no field at byte 0"),
        (b"\xff" * 100, "there is no number at byte 0"),
        (caffe_writer.field(1, "a network"), "no layers with weights"),
        (caffe_writer.network({"a": []}), "no layers with weights"),
        (caffe_writer.network(tiny()) * 2, "two layers named 'conv'"),
    ],
)
def test_what_is_no_caffemodel(content, message, tmp_path):
    (tmp_path / "what.caffemodel").write_bytes(content)
    with pytest.raises(ConversionError, match=r"what\.caffemodel.*" + message):
        read_caffemodel(tmp_path / "what.caffemodel")


def test_other_files(tmp_path):
    path = tmp_path / "noise.caffemodel"
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(1000))
        with pytest.raises(ConversionError, match=r"noise\.caffemodel"):
            read_caffemodel(path)
    np.savez(path.with_suffix(".npz"), a=np.zeros(30))
    with pytest.raises(ConversionError, match=r"noise\.npz"):
        read_caffemodel(path.with_suffix(".npz"))
    with pytest.raises(ConversionError, match="is a folder"):
        read_caffemodel(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.caffemodel"):
        read_caffemodel(tmp_path / "none.caffemodel")


@pytest.mark.parametrize(
    ("shape", "numbers", "message"),
    [
        ([2, 3], 5, r"blob 0 of the layer 'a' has the shape \[2, 3\], and 5 numbers"),
        ([2**60, 2**60], 1, "and 1 numbers"),
    ],
)
def test_shapes_that_do_not_fit(shape, numbers, message, tmp_path):
    dims = b"".join(map(caffe_writer.varint, shape))
    blob = caffe_writer.field(7, caffe_writer.field(1, dims)) + caffe_writer.field(5, bytes(4 * numbers))
    (tmp_path / "a").write_bytes(caffe_writer.field(100, caffe_writer.field(1, "a") + caffe_writer.field(7, blob)))
    with pytest.raises(ConversionError, match=message):
        read_caffemodel(tmp_path / "a")


def test_half_a_number(tmp_path):
    blob = caffe_writer.field(5, bytes(7))
    (tmp_path / "a").write_bytes(caffe_writer.field(100, caffe_writer.field(1, "a") + caffe_writer.field(7, blob)))
    with pytest.raises(ConversionError, match="7 bytes of numbers"):
        read_caffemodel(tmp_path / "a")


# === Weights ===


@every
def test_every_blob_arrives(model):
    blobs = small(model)
    before = {name: [array.copy() for array in arrays] for name, arrays in blobs.items()}
    ours = convert_caffe(model, blobs)
    assert len(ours) == 2 * len(blobs)
    assert {value.dtype for value in ours.values()} == {np.dtype("float32")}
    sizes = {name: sum(array.size for array in arrays) for name, arrays in blobs.items()}
    lost = sizes["bbox_pred"] // 4 + sizes["rpn_cls_score"] // 2
    assert sum(value.size for value in ours.values()) == sum(sizes.values()) - lost
    for name, arrays in before.items():
        for a, b in zip(arrays, blobs[name], strict=True):
            np.testing.assert_array_equal(a, b)
    backbone = convert_caffe(model, blobs, heads=False)
    assert set(backbone) == {path for path in ours if path.startswith("conv")}


@every
def test_forms_of_the_file_make_no_difference(model, tmp_path):
    blobs = small(model)
    new = convert_caffe(model, read_caffemodel(caffe_writer.write_caffemodel(tmp_path / "new", blobs)))
    old = convert_caffe(model, read_caffemodel(caffe_writer.write_caffemodel(tmp_path / "old", blobs, form="v1")))
    assert set(new) == set(old)
    for path, value in new.items():
        np.testing.assert_array_equal(value, old[path])


def test_convolutions():
    blobs = small("vgg16")
    ours = convert_caffe("vgg16", blobs)
    theirs = blobs["conv1_1"][0]
    np.testing.assert_array_equal(ours["conv1_1/kernel"][2, 0, 0], theirs[:, 2, 2, 0])  # their third channel is red
    np.testing.assert_array_equal(ours["conv1_1/kernel"][2, 0, 2], theirs[:, 0, 2, 0])
    np.testing.assert_array_equal(ours["conv3_2/kernel"][1, 2, 4, 5], blobs["conv3_2"][0][5, 4, 1, 2])
    np.testing.assert_array_equal(ours["rpn_head/conv_0/kernel"][1, 2, 4, 5], blobs["rpn_conv/3x3"][0][5, 4, 1, 2])


@pytest.mark.parametrize(("model", "side", "scale"), [("vgg16", 7, 1.0), ("caffenet", 6, 1.0), ("zf", 6, 0.5)])
def test_head(model, side, scale):
    """fc6, fc7 and the class scores of pooled cells, in Caffe and in our layers."""
    blobs = small(model, units=8)
    channels = blobs["conv5_3" if model == "vgg16" else "conv5"][0].shape[0]
    pooled = np.random.default_rng(1).uniform(0, 3, (2, channels, side, side))
    values = convert_caffe(model, blobs, box_weights=(1, 1, 1, 1))
    head, predictor = layers.BoxHead((8, 8), dropout=0.5), layers.BoxPredictor(3)
    x = np.moveaxis(pooled, 1, -1)[None].astype(np.float32)
    predictor(head(x))
    for layer in (head, predictor):
        assign(layer, {path: value for path, value in values.items() if path.startswith(f"{layer.name}/")})
    logits, deltas = predictor(head(x))
    for i, region in enumerate(pooled):
        theirs = caffe_twin.head(blobs, region, scale)
        if scale != 1:  # ours are not scaled down, the layers that follow are
            np.testing.assert_allclose(head(x)[0, i] * scale, theirs, rtol=1e-4, atol=1e-4)
        scores = blobs["cls_score"][0] @ theirs + blobs["cls_score"][1]
        np.testing.assert_allclose(logits[0, i], np.roll(scores, -1), rtol=1e-4, atol=1e-4)
        boxes = (blobs["bbox_pred"][0] @ theirs + blobs["bbox_pred"][1]).reshape(-1, 4)
        np.testing.assert_allclose(deltas[0, i], boxes[1:], rtol=1e-4, atol=1e-4)


def test_deltas_are_for_the_detectors_weights():
    blobs = small("zf")
    raw = convert_caffe("zf", blobs, box_weights=(1, 1, 1, 1))
    default = convert_caffe("zf", blobs)
    weights = layers.DetectionDecoder().get_config()["weights"]
    for part in ("kernel", "bias"):
        path = f"box_predictor/deltas/{part}"
        np.testing.assert_allclose(default[path], raw[path] * np.tile(weights, 3), rtol=1e-6)


@pytest.mark.parametrize("sizes", [(128, 256, 512), (64, 128, 256, 512)])
def test_anchors(sizes):
    theirs = caffe_twin.anchors(sizes)
    np.testing.assert_array_equal(_caffe_anchors(sizes), theirs + [0, 0, 1, 1])
    np.testing.assert_array_equal(_our_anchors(sizes), anchor_ops.cell_anchors(sizes, (0.5, 1.0, 2.0)))
    if len(sizes) == 3:  # as generate_anchors.py lists them, less Matlab's 1
        listed = [[-84, -40, 99, 55], [-120, -120, 135, 135], [-168, -344, 183, 359]]
        np.testing.assert_array_equal(theirs[[0, 4, 8]], listed)
    deltas = np.random.default_rng(0).normal(0, 0.3, (len(theirs), 4))
    factor, offset = _between_anchors(_caffe_anchors(sizes), _our_anchors(sizes))
    ours = (deltas.ravel() * factor + offset).reshape(-1, 4).astype(np.float32)
    boxes = delta_ops.decode(ops.convert_to_tensor(ours), ops.convert_to_tensor(_our_anchors(sizes).astype(np.float32)))
    np.testing.assert_allclose(boxes, caffe_twin.decode(theirs, deltas), atol=2e-3)


def test_rpn():
    """Scores and proposals of one cell."""
    blobs = small("zf", rpn_channels=16)
    values = {path: value for path, value in convert_caffe("zf", blobs).items() if path.startswith("rpn_head/")}
    head = layers.RPNHead(9)
    x = np.random.default_rng(2).uniform(0, 2, (1, 3, 3, 16)).astype(np.float32)
    head([x])
    assign(head, values)
    (logits,), (deltas,) = head([x])
    hidden = caffe_twin.relu(caffe_twin.conv(np.moveaxis(x[0], -1, 0), blobs["rpn_conv/3x3"], pad=1))
    scores = caffe_twin.conv(hidden, blobs["rpn_cls_score"]).reshape(2, 9, 3, 3)
    foreground = np.exp(scores[1]) / np.exp(scores).sum(0)
    ours = ops.convert_to_numpy(ops.sigmoid(logits)).reshape(3, 3, 9)
    np.testing.assert_allclose(np.moveaxis(ours, -1, 0), foreground, atol=1e-5)
    theirs = caffe_twin.conv(hidden, blobs["rpn_bbox_pred"])[:, 0, 0].reshape(9, 4)
    cell = ops.convert_to_tensor(anchor_ops.cell_anchors((128, 256, 512), (0.5, 1.0, 2.0)))
    boxes = delta_ops.decode(deltas[0, :9], cell)
    np.testing.assert_allclose(boxes, caffe_twin.decode(caffe_twin.anchors(), theirs), rtol=1e-4, atol=1e-2)


def test_imagenet_weights_and_the_rpn_alone():
    ours = convert_caffe("caffenet", caffe_writer.random_blobs("caffenet", units=5, width=16))  # with fc8
    assert {path.split("/")[0] for path in ours if not path.startswith("conv")} == {"box_head"}
    ours = convert_caffe("zf", caffe_writer.random_blobs("zf", anchors=9, width=16))
    assert {path.split("/")[0] for path in ours if not path.startswith("conv")} == {"rpn_head"}
    blobs = caffe_writer.random_blobs("zf", units=5, anchors=12, width=16)
    ours, told = convert_caffe("zf", blobs), convert_caffe("zf", blobs, anchor_sizes=(64, 128, 256, 512))
    assert ours["rpn_head/objectness/bias"].shape == (12,)
    np.testing.assert_array_equal(ours["rpn_head/deltas/bias"], told["rpn_head/deltas/bias"])
    other = convert_caffe("zf", blobs, anchor_sizes=(32, 64, 128, 256))
    assert not np.array_equal(ours["rpn_head/deltas/bias"], other["rpn_head/deltas/bias"])


def test_mean_is_py_faster_rcnns():
    image = np.zeros((4, 5, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    preprocessor = Preprocessor(4, 5, [m / 255 for m in CAFFE_MEAN], [1 / 255] * 3)
    bgr = preprocessor(image)[..., ::-1]
    np.testing.assert_allclose(bgr[0, 0], [30 - 102.9801, 20 - 115.9465, 10 - 122.7717], rtol=1e-5)


# === Refusals ===


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blobs: blobs.pop("conv4"), r"not the weights of zf: 2 missing: conv4\.weight, conv4\.bias"),
        (lambda blobs: blobs.pop("fc7"), r"2 missing: fc7\.weight"),
        (lambda blobs: blobs.pop("bbox_pred"), r"2 missing: bbox_pred\.weight"),
        (lambda blobs: blobs.pop("rpn_cls_score"), r"2 missing: rpn_cls_score\.weight"),
        (lambda blobs: blobs.update(fc6_L=blobs["fc6"]), r"2 left over: fc6_L\.weight"),
        (lambda blobs: blobs["conv2"].pop(), "conv2 has 1 blobs; a kernel and a bias"),
        (lambda blobs: blobs["conv1"][0].fill(np.nan), r"conv1\.weight holds NaN"),
        (lambda blobs: blobs.update(conv1=blobs["conv2"]), r"conv1\.weight has the unexpected shape .*BGR"),
        (lambda blobs: blobs.update(fc6=blobs["fc7"]), r"fc6\.weight has the unexpected shape \(5, 5\)"),
        (lambda blobs: blobs.update(bbox_pred=blobs["cls_score"]), "4 class logits and 4 box deltas"),
        (lambda blobs: blobs.update(rpn_cls_score=blobs["rpn_bbox_pred"]), "36 scores and 36 deltas .* `anchor_sizes`"),
    ],
)
def test_bad_blobs(change, message):
    blobs = small("zf")
    change(blobs)
    with pytest.raises(ConversionError, match=message):
        convert_caffe("zf", blobs)


def test_other_models():
    with pytest.raises(ConversionError, match="'resnet' is none of .*vgg16, caffenet, zf"):
        convert_caffe("resnet", {})
    with pytest.raises(ConversionError, match=r"They look like those of zf\.$"):
        convert_caffe("vgg16", small("zf"))
    with pytest.raises(ConversionError, match=r"They look like those of caffenet\.$"):
        convert_caffe("vgg16", small("caffenet"))
    with pytest.raises(ConversionError, match=r"They look like those of vgg16\.$"):
        convert_caffe("caffenet", small("vgg16"))
    with pytest.raises(ConversionError, match=r"conv1\.weight has the unexpected shape .*11 x 11 cells"):
        convert_caffe("caffenet", small("zf"))


# === The command, and detectors ===


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """ZF's Faster R-CNN of 4 classes with a narrow head: its blobs, its .caffemodel, and the folder of the command."""
    folder = tmp_path_factory.mktemp("caffe")
    blobs = caffe_writer.random_blobs("zf", units=6, classes=5, anchors=9)
    path = caffe_writer.write_caffemodel(folder / "zf.caffemodel", blobs)
    arguments = ["convert", "caffe", "--model", "zf", "--weights", str(path), "--out", str(folder / "out")]
    assert cli.main(arguments) == 0
    return blobs, path, folder / "out", arguments


def test_command_writes_what_converts(converted):
    blobs, path, out, _ = converted
    assert [file.name for file in out.iterdir()] == ["weights.safetensors"]
    content = (out / "weights.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["box_head/fc_0/kernel"]["shape"] == [9216, 6]
    ours, expected = read_caffe_weights("zf", out / "weights.safetensors"), convert_caffe("zf", blobs)
    assert set(ours) == set(expected)
    for name, value in read_caffe_weights("zf", path).items():
        np.testing.assert_array_equal(value, expected[name])
        np.testing.assert_array_equal(ours[name], expected[name])


def test_backbone_reads_either_file(converted):
    blobs, path, out, _ = converted
    for file in (path, out / "weights.safetensors"):
        values = {w.path: w.numpy() for w in ZF(weights=file).weights}
        expected = convert_caffe("zf", blobs, heads=False)
        assert set(values) == set(expected)
        assert all(np.array_equal(values[name], expected[name]) for name in values)


def test_command_says_how_to_use_it(converted, tmp_path, capsys):
    """The Python that it prints runs, and gives Caffe's objectness."""
    blobs, _, _, arguments = converted
    assert cli.main([*arguments[:-1], str(tmp_path / "again")]) == 0
    printed = capsys.readouterr().out
    first, code = printed.split("\n", 1)
    assert first.startswith("The weights of ZF, box_head, box_predictor, rpn_head: ")
    names = {}
    exec(code, names)  # noqa: S102
    model = names["model"]
    assert type(model).__name__ == "FasterRCNN"
    images = np.random.default_rng(0).uniform(-100, 100, (1, 64, 96, 3)).astype(np.float32)
    features = caffe_twin.zf(blobs, np.moveaxis(images[0], -1, 0)[::-1].astype(np.float64))["C4"]
    hidden = caffe_twin.relu(caffe_twin.conv(features, blobs["rpn_conv/3x3"], pad=1))
    scores = caffe_twin.conv(hidden, blobs["rpn_cls_score"])
    maps = model.get_layer("zf")(images)
    (logits,), _ = model.get_layer("rpn_head")([maps["C4"]])
    ours = np.moveaxis(ops.convert_to_numpy(logits).reshape(*scores.shape[1:], 9), -1, 0)
    np.testing.assert_allclose(ours, scores[9:] - scores[:9], atol=2e-3 * np.abs(scores).max())
    predictor = {w.path: w.numpy() for w in model.get_layer("box_predictor").weights}
    np.testing.assert_array_equal(predictor["box_predictor/logits/bias"], np.roll(blobs["cls_score"][1], -1))


def test_command_with_the_backbones_head_alone(tmp_path, capsys):
    blobs = caffe_writer.random_blobs("caffenet", units=3)
    path = caffe_writer.write_caffemodel(tmp_path / "net.caffemodel", blobs, form="v1")
    out = tmp_path / "out"
    arguments = ["convert", "caffe", "--model", "caffenet", "--weights", str(path), "--out", str(out)]
    assert cli.main([*arguments, "--dtype", "float16"]) == 0
    names = {}
    exec(capsys.readouterr().out.split("\n", 1)[1], names)  # noqa: S102
    model = names["model"]
    assert type(model).__name__ == "FastRCNN"
    expected = convert_caffe("caffenet", blobs)["box_head/fc_0/kernel"]
    np.testing.assert_allclose(model.get_layer("box_head").weights[0].numpy(), expected, rtol=1e-3, atol=1e-6)
    for more, message in (
        ([], "not empty"),
        (["--overwrite", "--model", "vgg16"], "They look like those of caffenet"),
    ):
        assert cli.main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):  # they become no preset
        cli.main([*arguments, "--overwrite", "--class-names", "a,b"])
    assert "--class-names" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-5000])
    assert cli.main([*arguments, "--overwrite"]) == 2
    assert "net.caffemodel is truncated" in capsys.readouterr().err
    (out / "weights.safetensors").write_bytes((out / "weights.safetensors").read_bytes()[:-5000])
    with pytest.raises((WeightsFileError, ConversionError), match=r"weights\.safetensors"):
        CaffeNet(weights=out / "weights.safetensors")


def test_vgg16s_paths():
    """Of the widths that VGG16 has, but for fc6 and fc7, which would take half a gigabyte."""
    blobs = caffe_writer.random_blobs("vgg16", units=4)
    values = convert_caffe("vgg16", blobs)
    model = VGG16()
    assign(model, {path: value for path, value in values.items() if path.startswith("conv")})
    head = layers.BoxHead((4, 4))
    head(np.zeros((1, 1, 7, 7, 512), np.float32))
    assign(head, {path: value for path, value in values.items() if path.startswith("box_head/")})
