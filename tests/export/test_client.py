"""The client against a small server with TF Serving's own messages: a served detector answers as the detector."""

import dataclasses
import json
import socket

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.cli import main
from keras_rcnn.data import Dataset, ImageError
from keras_rcnn.evaluation import evaluate
from keras_rcnn.export.client import ServedDetector, ServingError
from tests.export.detectors import encoded, photos, proposals
from tests.models.test_fast_rcnn import around
from tests.models.test_mask_rcnn import with_masks
from tests.models.tiny import shapes

pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")

from tests.export.serving_twin import Served, serving


@pytest.fixture(scope="module")
def served(exported):
    """Scheme -> (model, its address), and Fast R-CNN's beside it."""
    masks = serving("shapes", {1: exported("mask")[2], 3: exported("mask")[2]})
    with masks as masks, serving("fast", {1: exported("fast")[2]}) as fast:
        both = zip(("grpc", "http"), masks, fast)
        yield {scheme: (f"{one}/shapes", f"{other}/fast") for scheme, one, other in both}


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_served_detector_answers_as_the_detector(exported, served, tmp_path, scheme):
    model, served_model = exported("mask")[0], ServedDetector(served[scheme][0])
    exif = Image.Exif()
    exif[0x0112] = 8
    turned, plain = tmp_path / "turned.jpg", tmp_path / "plain.tif"
    turned.write_bytes(encoded(photos()[0], "JPEG", exif=exif))
    plain.write_bytes(encoded(photos()[1], "TIFF"))
    images = [turned, plain, photos()[2]]
    for image, found in zip(images, served_model.detect(images, score=0.4)):
        expected = model.detect(image, score=0.4)
        assert len(expected["scores"]) > 3
        assert found["names"] == expected["names"]
        assert np.array_equal(found["labels"], expected["labels"])
        assert np.abs(found["boxes"] - expected["boxes"]).max() < 1e-4 * 256
        assert np.abs(found["scores"] - expected["scores"]).max() < 1e-4
        assert found["masks"].dtype == bool and np.mean(found["masks"] != expected["masks"]) < 1e-3
    alone = served_model.detect(turned, masks=False)
    assert "masks" not in alone and alone["boxes"].dtype == np.float32
    assert {one["size"][0] for one in served_model.detect(turned, masks="rle")["masks"]} <= {256}


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_proposals_are_sent_along(exported, served, scheme):
    model, served_model = exported("fast")[0], ServedDetector(served[scheme][1])
    given = [proposals(one) for one in photos()]
    for expected, found in zip(
        model.detect(photos(), score=0.4, proposals=given), served_model.detect(photos(), score=0.4, proposals=given)
    ):
        assert found["names"] == expected["names"] and len(found["names"])
        assert np.abs(found["boxes"] - expected["boxes"]).max() < 1e-4 * 256


def same_metrics(found, expected):
    """NaN where the other has it, and elsewhere the same but for what a rounding does to ties."""
    assert set(found) == set(expected)
    for key, values in expected.items():
        for name, value in values.items():
            assert found[key][name] == pytest.approx(value, abs=2e-3, nan_ok=True), (key, name)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("kind", ["mask", "fast"])
@pytest.mark.parametrize("metadata", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_served_detector_is_evaluated_as_the_detector(exported, scheme, kind, metadata):
    """Its classes are known by their names alone, here in another order than the data set's."""
    model, data = exported(kind)[0], with_masks(shapes(6))
    data = Dataset(
        [dataclasses.replace(record, labels=1 - record.labels) for record in data],
        ["Bärchen", "square"],
        name="swapped",
    )
    given = around(data) if kind == "fast" else None
    expected = evaluate(model, data, proposals=given, progress=False)
    assert ("segm" in expected) == (kind == "mask") and expected["bbox"]["AR100"] > 0
    with serving("one", {1: exported(kind)[2]}, metadata) as addresses:
        client = ServedDetector(f"{addresses[scheme == 'http']}/one")
        same_metrics(evaluate(client, data, proposals=given, progress=False), expected)
        same_metrics(evaluate(client, data, proposals=given, batch_size=4, progress=False), expected)
        voc = evaluate(model, data, metric="voc07", proposals=given, progress=False)
        same_metrics(evaluate(client, data, metric="voc07", proposals=given, progress=False), voc)
        if kind == "mask" and metadata:
            with pytest.raises(ValueError, match="ServedDetector finds its proposals itself"):
                evaluate(client, data, proposals=around(data), progress=False)
        strangers = Dataset(list(data), ["fig", "date"])
        with pytest.raises(ValueError, match="The model has found 'Bärchen', 'square'; the dataset has 'fig', 'date'"):
            evaluate(client, strangers, proposals=given, progress=False)


def test_selective_search_looks_for_a_served_detector_that_tells(exported):
    model, data = exported("fast")[0], shapes(2)
    data.class_names = list(model.class_names)
    expected = evaluate(model, data, progress=False)
    with serving("fast", {1: exported("fast")[2]}) as (_, rest):
        same_metrics(evaluate(ServedDetector(f"{rest}/fast"), data, progress=False), expected)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_what_the_server_says_is_said(served, tmp_path, scheme):
    address = served[scheme][0]
    good = {"image_bytes": [encoded(photos()[2])]}
    assert ServedDetector(f"{address}/3").predict(good)["boxes"].shape == (1, 100, 4)
    with pytest.raises(ServingError, match="shapes/2: .*not found"):
        ServedDetector(f"{address}/2").predict(good)
    with pytest.raises(ServingError, match="JPEG or PNG"):
        ServedDetector(address).predict({"image_bytes": [b"no image"]})
    with pytest.raises(ServingError, match="signature key wrong"):
        ServedDetector(address).predict(good, signature="wrong")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match="text.jpg"):
        ServedDetector(address).detect(tmp_path / "text.jpg")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_no_server(scheme):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(ServingError, match=f"127.0.0.1:{port}"):
        ServedDetector(f"{scheme}://127.0.0.1:{port}/shapes", timeout=5).detect(photos()[2])


@pytest.mark.parametrize(
    "url",
    [
        "shapes",
        "http://localhost:8501",
        "ftp://localhost/a",
        "ftp://h:21/a",
        "file://h:80/a",
        "http://h:x/a",
        "grpc://h/a/b",
    ],
)
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match="http://HOST:8501/NAME"):
        ServedDetector(url)


def test_settings_that_make_no_sense():
    for change, message in (
        ({"timeout": 0}, "timeout is a number of seconds over 0, not 0"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "9"}, "timeout"),
        ({"max_answer": 0}, "max_answer is a whole number of at least 1, bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            ServedDetector("http://host/a", **change)
    nobody = ServedDetector("http://127.0.0.1:9/a")  # nothing is sent
    for change, message in (
        ({"score": float("nan")}, "score is a number from 0 to 1"),
        ({"batch_size": 0}, "batch_size is a whole number"),
        ({"masks": "foo"}, "masks is one of"),
        ({"proposals": [np.ones((4, 5))] * 3}, r"proposals of image 1 of 3"),
        ({"proposals": [[[1, 2, 30, 40]]]}, "Proposals for 1 images, but there are 3"),
    ):
        with pytest.raises(ValueError, match=message):
            nobody.detect(photos(), **change)
    assert nobody.detect([]) == []


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_what_the_server_tells_of_the_model(exported, served, scheme):
    masks, fast = (ServedDetector(one) for one in served[scheme])
    assert (masks.has_masks, masks.wants_proposals) == (True, False)
    assert (fast.has_masks, fast.wants_proposals) == (False, True)
    with pytest.raises(ServingError, match="the model wants proposals: detect.*The server says"):
        fast.detect(photos()[0])
    with pytest.raises(ServingError, match="finds its proposals itself: leave proposals out. The server says"):
        masks.detect(photos()[0], proposals=proposals(photos()[0]))
    with serving("shapes", {1: exported("mask")[2]}, metadata=False) as addresses:
        silent = ServedDetector(f"{addresses[scheme == 'http']}/shapes")
        assert (silent.has_masks, silent.wants_proposals) == (None, None)
        with pytest.raises(ServingError, match="Expects"):
            silent.detect(photos()[0], proposals=proposals(photos()[0]))
        silent.detect(photos()[0])
        assert (silent.has_masks, silent.wants_proposals) == (True, False)  # it has been seen


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("kind", ["mask", "fast"])
def test_photos_together_are_as_photos_alone(exported, scheme, kind):
    counted = Served("many", {1: exported(kind)[2]})
    given = [proposals(one)[: 60 - 20 * i] for i, one in enumerate(photos())] if kind == "fast" else None
    with serving("many", counted) as addresses:
        model = ServedDetector(f"{addresses[scheme == 'http']}/many")
        alone = model.detect(photos(), score=0.3, proposals=given)
        together = model.detect(photos(), score=0.3, batch_size=2, proposals=given)
    assert counted.requests == 3 + 2
    for a, b in zip(alone, together, strict=True):
        assert a["names"] == b["names"] and len(a["names"]) and set(a) == set(b)
        for key in set(a) - {"names"}:
            np.testing.assert_allclose(a[key], b[key], atol=1e-3)


def test_default_ports():
    assert ServedDetector("http://host/a").address == "host:8501"
    assert ServedDetector("grpc://[::1]/a/2").address == "[::1]:8500"


def test_the_command_asks_a_server(served, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(photos()[0]))
    out = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "boxes.json"), "--score", "0.4"]
    assert main(["detect", str(photo), "--server", served["grpc"][0], *out]) == 0
    assert "picture:" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "boxes.json").read_text())
    assert len(row["masks"]) == len(row["boxes"]) > 3 and isinstance(row["masks"][0]["counts"], str)
    assert main(["detect", str(photo), "--server", served["grpc"][0], "--preset", "nuclei_mrcnn"]) == 2
    assert "--preset is not for --server" in capsys.readouterr().err
