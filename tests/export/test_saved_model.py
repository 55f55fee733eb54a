"""SavedModels: what lies in the folder, what the signatures answer, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_rcnn
from keras_rcnn.data import ImageError
from keras_rcnn.export import ExportError, ParityError, graph, parity, saved_model
from tests.export.detectors import NAMES, detector, encoded, photos, proposals, valid

KINDS = ["faster", "mask", "fast", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rcnn", "keypoints"))]


def same(expected, found, size):
    row = parity.compare(expected, found, size, cut=0.05)
    assert row["ok"] and row["detections"], row


# === The answers ===


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_is_of_every_signature_and_photo(exported, kind):
    _, result, _ = exported(kind)
    rows = result["parity"]
    assert [row["input"] for row in rows] == ["serving_default", "images", "features"] * 3
    assert all(row["ok"] and row["detections"] > 5 and row["box"] < 1e-5 and row["score"] < 1e-4 for row in rows)
    assert all((row["mask"] is not None) == (kind == "mask") for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_photos_of_several_sizes_in_one_request(exported, kind):
    model, _, signatures = exported(kind)
    boxes = [proposals(one)[: 60 - 7 * i] for i, one in enumerate(photos())]
    padded = np.stack([np.pad(one, ((0, 60 - len(one)), (0, 0))) for one in boxes])
    more = {"proposals": tf.constant(padded)} if model.wants_proposals else {}
    contents = [encoded(one, "PNG" if i else "JPEG", quality=95) for i, one in enumerate(photos())]
    outputs = signatures["serving_default"](image_bytes=tf.constant(contents), **more)
    for i, (content, image) in enumerate(zip(contents, photos())):
        expected = model.detect(content, score=0, masks="crops", proposals=boxes[i] if model.wants_proposals else None)
        found = valid(outputs, i)
        same(expected, found, image.shape[:2])
        assert {name.decode() for name in found["names"]} <= set(NAMES)
        assert [name.decode() for name in found["names"]] == [NAMES[label] for label in found["labels"]]
    assert outputs["labels"].dtype == tf.int32 and outputs["boxes"].shape[0] == 3


def test_a_photo_that_its_camera_turned(exported):
    model, _, signatures = exported("faster")
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photos()[0], "JPEG", exif=exif)
    outputs = signatures["serving_default"](image_bytes=tf.constant([content]))
    same(model.detect(content, score=0), valid(outputs), photos()[0].shape[1::-1])


def test_pixels_of_several_photos_run_together(exported):
    model, _, signatures = exported("mask")
    images = np.stack([photos()[0], photos()[0][::-1]])
    outputs = signatures["images"](images=tf.constant(images))
    expected = model.detect(list(images), score=0, batch_size=2, masks="crops")
    for i in range(2):
        same(expected[i], valid(outputs, i), images.shape[1:3])


def test_an_empty_request_has_an_empty_answer(exported):
    outputs = exported("mask")[2]["serving_default"](image_bytes=tf.constant([], tf.string))
    assert outputs["boxes"].shape == (0, 100, 4) and outputs["names"].shape == (0, 100)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(photos()[0], "JPEG")[:3000], b"\x89PNG\r\n\x1a\n\0"])
def test_bytes_that_are_no_picture_are_an_error_of_the_request(exported, content):
    good = encoded(photos()[0])
    function = exported("faster")[2]["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(image_bytes=tf.constant([good, content]))
    assert function(image_bytes=tf.constant([good]))["boxes"].shape[0] == 1  # and goes on answering


@pytest.mark.parametrize("kind", ["fast", pytest.param("rcnn", marks=pytest.mark.slow)])
def test_no_proposals_are_no_detections(exported, kind):
    signatures = exported(kind)[2]
    for boxes in (np.zeros((1, 0, 4), np.float32), np.zeros((1, 3, 4), np.float32)):
        outputs = signatures["images"](images=tf.constant(photos()[0][None]), proposals=tf.constant(boxes))
        assert (outputs["labels"].numpy() == -1).all()


@pytest.mark.slow
def test_pasted_masks(tmp_path):
    model = detector("mask")
    result = keras_rcnn.export_model(model, tmp_path / "served", photos=photos()[2:], masks="pasted", score=0.4)
    assert all(row["mask"] < 0.02 for row in result["parity"] if row["input"] != "features")
    signatures = tf.saved_model.load(str(result["path"])).signatures
    contents = tf.constant([encoded(one) for one in photos()])
    outputs = {key: value.numpy() for key, value in signatures["serving_default"](image_bytes=contents).items()}
    most = (outputs["labels"] >= 0).sum(axis=1).max()
    assert outputs["masks"].shape == (3, most, 236, 256) and outputs["masks"].dtype == np.uint8
    for i, image in enumerate(photos()):
        found, (height, width) = valid(outputs, i), image.shape[:2]
        expected = model.detect(image, score=0.4)
        assert np.mean(found["masks"][:, :height, :width] != expected["masks"]) < 1e-3
        assert not found["masks"][:, height:].any() and not found["masks"][:, :, width:].any()


@pytest.mark.slow
def test_nothing_is_found_and_pasted(tmp_path):
    model = detector("mask")
    path = keras_rcnn.export_model(model, tmp_path / "served", photos=photos()[2:], masks="pasted", score=1.0)["path"]
    signatures = tf.saved_model.load(str(path)).signatures
    pixels = photos()[2]
    answers = [
        signatures["serving_default"](image_bytes=tf.constant([encoded(pixels)] * 2)),
        signatures["images"](images=tf.constant(pixels[None])),
    ]
    for answer, images in zip(answers, (2, 1), strict=True):
        assert (answer["labels"].numpy() == -1).all()
        assert answer["masks"].shape == (images, 0, *pixels.shape[:2])


@pytest.mark.slow
def test_a_model_of_one_input_size(tmp_path):
    model = detector("faster")
    model.preprocessor = model.preprocessor.replace(fixed_size=(128, 160))
    rows = keras_rcnn.export_model(model, tmp_path / "served", photos=photos()[1:2])["parity"]
    assert all(row["ok"] for row in rows)


# === The folder ===


def test_what_tf_serving_finds(exported):
    from google.protobuf import text_format
    from tensorflow_serving.apis import prediction_log_pb2
    from tensorflow_serving.config import model_server_config_pb2

    for kind in ("mask", "fast"):
        _, result, signatures = exported(kind)
        folder = result["path"]
        assert folder.name == "1" and folder.parent.name == "served"
        assert sorted(one.name for one in folder.parent.iterdir()) == ["1", "compose.yaml", "models.config"]
        assert (folder / "assets" / "class_names.txt").read_text(encoding="utf-8").split() == NAMES
        text = (folder.parent / "models.config").read_text()
        (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        assert (config.name, config.base_path, config.model_platform) == ("served", "/models/served", "tensorflow")
        compose = (folder.parent / "compose.yaml").read_text()
        assert '".:/models/served:ro"' in compose and "--model_config_file=/models/served/models.config" in compose
        records = tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests"))
        asked = []
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            asked.append(request.model_spec.signature_name)
            assert request.model_spec.name == "served"
            inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
            outputs = signatures[asked[-1]](**inputs)
            assert asked[-1] == "features" or outputs["labels"].numpy().max() >= 0
        assert asked == ["serving_default", "images", "features"]


# === Refused ===


def test_versions_are_counted_and_nothing_else_is_touched(exported, tmp_path):
    path = tmp_path / "new" / "served"
    assert saved_model.next_version(path) == 1
    (path / "7").mkdir(parents=True)
    with pytest.raises(ExportError, match="served exists, and what is in it"):
        saved_model.next_version(path)
    (path / "7" / "saved_model.pb").touch()
    (path / "models.config").touch()
    assert saved_model.next_version(path) == 8
    (path / "notes.txt").touch()
    with pytest.raises(ExportError, match="notes.txt"):
        saved_model.next_version(path)


@pytest.mark.slow
def test_the_next_version_lies_beside_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "_check", lambda *_: [])
    model = detector("faster")
    paths = [keras_rcnn.export_model(model, tmp_path / "served", photos=photos()[2:])["path"] for _ in range(2)]
    assert [path.name for path in paths] == ["1", "2"]
    assert sorted(one.name for one in (tmp_path / "served").iterdir()) == ["1", "2", "compose.yaml", "models.config"]


def test_a_path_that_is_a_file_or_cannot_be_written(tmp_path):
    model = detector("faster")
    file = tmp_path / "file"
    file.write_text("mine")
    for path, reason in (
        (file, "exists"),
        (file / "served", "is a file"),
        ("/proc/served", "could not be written|no p"),
    ):
        with pytest.raises(ExportError, match=reason):
            keras_rcnn.export_model(model, path, photos=photos()[2:])
    assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]


def test_an_export_that_is_not_the_model_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "scale_boxes", lambda boxes, old, new: boxes * 1.01)
    with pytest.raises(ParityError, match="does not answer as detect does") as caught:
        keras_rcnn.export_model(detector("faster"), tmp_path / "a" / "served", photos=photos()[2:])
    assert "FAILED" in str(caught.value) and not all(row["ok"] for row in caught.value.rows)
    assert list(tmp_path.iterdir()) == []


def test_a_photo_of_the_check_that_is_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match="text.jpg"):
        keras_rcnn.export_model(detector("faster"), tmp_path / "served", photos=[tmp_path / "text.jpg"])
    assert not (tmp_path / "served").exists()


def test_options_that_make_no_sense(tmp_path):
    model, path = detector("faster"), tmp_path / "served"
    for options, reason in (
        ({"format": "coreml"}, "one of 'saved_model'"),
        ({"precision": "int8"}, "no option precision"),
        ({"masks": "pasted"}, "predicts none"),
        ({"masks": "rle"}, "one of 'crops'"),
        ({"score": 2}, "from 0 to 1"),
        ({"score": "0.5"}, "score is a number from 0 to 1"),
        ({"score": float("nan")}, "from 0 to 1"),
        ({"photos": photos(), "proposals": [[[1, 2, 30, 40]]] * 3}, "FasterRCNN finds its proposals itself"),
        ({"format": "onnx", "photos": photos(), "proposals": [[]] * 3}, "FasterRCNN finds its proposals itself"),
        ({"format": "litert", "max_proposals": 0}, "max_proposals is a whole number of at least 1"),
        ({"photos": []}, "at least one photo"),
    ):
        with pytest.raises(ExportError, match=reason):
            keras_rcnn.export_model(model, path, **options)
    model = detector("fast")
    for options, reason in (
        ({"proposals": [[[1, 2, 30, 40]]]}, "give photos, too"),
        ({"photos": photos(), "proposals": [[[1, 2, 30, 40]]]}, "Proposals for 1 images, but there are 3"),
        ({"photos": photos(), "proposals": np.ones((3, 4, 5))}, r"proposals of image 1 of 3.*shape \(4, 5\)"),
    ):
        with pytest.raises(ExportError, match=reason):
            keras_rcnn.export_model(model, path, **options)
    with pytest.raises(ExportError, match="not a Sequential"):
        keras_rcnn.export_model(keras.Sequential(), path)
    assert not path.exists()
