"""The client against a small server with TF Serving's own messages: a served detector answers as the detector."""

import json
import socket

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.cli import main
from keras_rcnn.data import ImageError
from keras_rcnn.export.client import ServedDetector, ServingError
from tests.export.detectors import encoded, photos, proposals

pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")

from tests.export.serving_twin import serving


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
    "url", ["shapes", "http://localhost:8501", "ftp://localhost/a", "http://h:x/a", "grpc://h/a/b"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match="http://HOST:8501/NAME"):
        ServedDetector(url)


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
