"""The page in a process of its own, as the command starts it: its numbers by Gradio's client, its looks by Chromium."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.presets import from_preset, zoo_folder

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the app is tested where its extra is: pip install -e '.[app]'")

ROOT = Path(__file__).resolve().parents[2]
PHOTO = zoo_folder() / "demo" / "fluorescence.png"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
COMMAND = "import sys\nfrom keras_rcnn.cli import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "GRADIO_TEMP_DIR": str(folder)}
    arguments = ["app", "nuclei_mrcnn", "nuclei_frcnn", "--port", "0", "--max-pixels", "1000000"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=environment,
            text=True,
        )
    line = process.stdout.readline()
    found = re.search(r"http://127.0.0.1:\d+/", line)
    assert found, line + (folder / "log").read_text()
    yield found[0]
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    process.stdout.close()
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="module")
def client(address):
    gradio_client = pytest.importorskip("gradio_client")
    return gradio_client.Client(address, verbose=False)


def ask(client, path=PHOTO, name="nuclei_mrcnn", score=0.5, iou=0.5, rpn_iou=0.7, proposals=600, level=1, region=1):
    from gradio_client import handle_file

    photo = handle_file(str(path)) if path else None
    return client.predict(name, photo, score, iou, rpn_iou, proposals, level, region, api_name="/stages")


def test_the_numbers_are_those_of_detect(client, name="nuclei_mrcnn"):
    numbers = ask(client, name=name, score=0.7)[-1]
    expected = from_preset(name).detect(PHOTO, score=0.7, masks=False)
    assert [one["name"] for one in numbers["detections"]] == expected["names"] and expected["names"]
    np.testing.assert_allclose([one["score"] for one in numbers["detections"]], expected["scores"], atol=1e-4)
    np.testing.assert_allclose([one["box"] for one in numbers["detections"]], expected["boxes"], atol=0.02)
    few = ask(client, name=name, proposals=9)[-1]
    assert few["proposals"] == 9 and len(few["detections"]) <= 9


def test_bad_uploads_are_told_on_the_page(client, tmp_path):
    from gradio_client.exceptions import AppError

    text, large = tmp_path / "notes.png", tmp_path / "large.png"
    text.write_text("no photo")
    Image.new("RGB", (1001, 1000)).save(large)
    for path, message in (
        (text, "no photo that can be read"),
        (large, "more than the limit of 1,000,000"),
        (None, "Choose"),
    ):
        with pytest.raises(AppError, match=message):
            ask(client, path)


def test_the_four_papers(client):
    from gradio_client import handle_file

    told = client.predict(handle_file(str(PHOTO)), api_name="/papers")
    words = [one for one in told if isinstance(one, str)]
    for said in ("Shown by nuclei_frcnn.", "Shown by nuclei_mrcnn.", "No R-CNN is among the presets", "104 detections"):
        assert any(said in one for one in words), said


def test_the_page_asks_no_other_server(address):
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    loaded = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"(https?://[^\"]+)\"", page)
    assert [one for one in loaded if not one.startswith(address)] == []
    assert "fonts.googleapis.com/css" not in page
    with urllib.request.urlopen(f"{address}theme.css") as answer:
        assert "http" not in answer.read().decode().replace("http://www.w3.org", "")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_it_is_drawn_in_chromium(address, tmp_path):
    shot = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += [f"--screenshot={shot}", "--window-size=1200,2400", "--virtual-time-budget=20000", address]
    subprocess.run([CHROMIUM, *options], check=True, timeout=120, capture_output=True)
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert picture.shape == (2400, 1200, 3)
    # the page itself is grey and blue, but for two examples; red, yellow and green are the stages'
    warm = (picture.max(-1) - picture.min(-1) > 80) & (picture.argmax(-1) < 2)
    assert warm[:600].sum() < 4000 and all(warm[top : top + 450].sum() > 1000 for top in (650, 1100, 1550, 1950))
