"""What the page shows, without the page: views, the four papers, and photos that are none."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from keras_rcnn import cli
from keras_rcnn.app.papers import WORDS, papers
from keras_rcnn.app.pictures import SIDE, Canvas, objectness_picture
from keras_rcnn.app.stages import Level, own_settings
from keras_rcnn.app.viewer import Viewer
from keras_rcnn.data import ImageError, read_image
from tests.export.detectors import detector, photos


@pytest.fixture(scope="module")
def viewer():
    return Viewer({kind: detector(kind) for kind in ("mask", "rcnn", "fast")}, max_pixels=20_000)


def encoded(image, kind="PNG", **more):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **more)
    return file.getvalue()


@pytest.mark.slow
def test_a_view_has_the_stages_numbers_and_pictures(viewer):
    photo = photos()[2]
    for name, model in viewer.models.items():
        view = viewer.view(name, photo, own_settings(model), level=2, region=3)
        found = viewer.run(name, photo).stages(own_settings(model)).detections
        assert [one["name"] for one in view.numbers["detections"]] == found["names"]
        boxes = [one["box"] for one in view.numbers["detections"]]
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), found["boxes"], atol=1e-3)
        assert sum(view.scores.values()) == pytest.approx(1, abs=1e-5) or name == "rcnn"
        assert (view.anchors is None) == (view.objectness is None) == model.wants_proposals
        for picture in (view.candidates, view.proposals, view.region, view.sampling, view.detections):
            assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.ptp(picture) > 20
        assert max(view.detections.shape) == SIDE
        assert f"**{name}**" in view.summary and "120 x 90 px" in view.summary


@pytest.mark.slow
def test_runs_are_kept_and_the_oldest_goes(viewer):
    photo = photos()[2]
    run = viewer.run("mask", photo)
    assert viewer.run("mask", photo.copy()) is run
    for shade in range(4):
        viewer.run("mask", np.full((40, 50, 3), shade, np.uint8))
    assert viewer.run("mask", photo) is not run


def test_a_heat_map_is_bright_where_an_anchor_is_likely():
    objectness = np.zeros((4, 8, 3), np.float32)
    objectness[1, 6, 2] = 1
    y, x = np.mgrid[:4, :8] * 16
    anchors = np.float32(np.stack([x - 9, y - 5, x + 9, y + 5], -1))[:, :, None].repeat(3, 2)
    level = Level("P4", 16, anchors, objectness)
    heat = objectness_picture(Canvas(np.zeros((64, 128, 3), np.uint8)), level).sum(-1)
    rows, columns = np.nonzero(heat > heat.max() / 2)
    scale = SIDE / 128
    # the anchor's centre is at (96, 16), so its pixels are half a cell around it
    assert (rows.min() / scale, (rows.max() + 1) / scale) == pytest.approx((8, 24), abs=0.2)
    assert (columns.min() / scale, (columns.max() + 1) / scale) == pytest.approx((88, 104), abs=0.2)


@pytest.mark.slow
def test_the_four_papers(viewer):
    told = papers(viewer, photos()[2])
    assert [paper.title for paper in told] == list(WORDS)
    for paper, source in zip(told, ("rcnn", "fast", None, "mask")):
        expected = f"Shown by {source}." if source else "No Faster R-CNN is among the presets: the RPN is that of mask."
        assert paper.text.endswith(expected)
        assert len(paper.pictures) >= 2
    alone = papers(Viewer({"faster": detector("faster")}), photos()[2])
    assert "the map is that of faster" in alone[1].text and "RoIPool" in alone[1].pictures[0][1]
    assert alone[3].pictures == [] and "its masks are missing" in alone[3].text


def test_bad_uploads_are_told_in_words(tmp_path):
    viewer, photo = Viewer({"faster": detector("faster")}, max_pixels=20_000), photos()[2]
    for content, message in (
        (b"<html>", "no photo that can be read: take a JPEG, PNG"),
        (encoded(photo)[:-900], "The photo cannot be read"),
        (
            encoded(np.zeros((200, 101, 3), np.uint8)),
            r"101 x 200 px, more than the limit of 20,000: make it smaller, or",
        ),
    ):
        path = tmp_path / "upload.png"
        path.write_bytes(content)
        with pytest.raises(ImageError, match=message):
            viewer.read(path)
    with pytest.raises(ImageError, match="Choose a photo first"):
        viewer.read(None)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(photo, "JPEG", exif=exif, quality=95))
    turned = viewer.read(path)
    assert turned.shape == (120, 90, 3)
    np.testing.assert_array_equal(turned, read_image(path))
    assert np.abs(turned.astype(int) - np.rot90(photo, -1)).mean() < 8


def test_the_command_says_what_is_wrong(capsys):
    with pytest.raises(ValueError, match="needs a detector"):
        Viewer({})
    pytest.importorskip("gradio", reason="pip install -e '.[app]'")
    assert cli.main(["app", "nuclei_mrcnn", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 lets others use the page, which has no password" in capsys.readouterr().err


@pytest.mark.slow
def test_detectors_with_other_steps_are_refused():
    with pytest.raises(ValueError, match="c3 is a Cascade R-CNN: the app shows detectors with one box head"):
        Viewer({"c3": detector("cascade")})


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["app"]) == 2
    assert "pip install 'keras-rcnn-zoo[app]'" in capsys.readouterr().err
