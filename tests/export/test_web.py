"""The web page: its runtime from npm, its masks beside NumPy's, and, in Chromium, its answers beside detect's."""

import functools
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

import keras_rcnn
from keras_rcnn.data import MatterportPreprocessor, Preprocessor
from keras_rcnn.export import ExportError, web, web_runtime
from keras_rcnn.ops.boxes import iou
from keras_rcnn.presets import zoo_folder
from tests.export.chromium import Chromium, browser
from tests.export.detectors import detector, encoded, photos
from tests.shared import gated

PAGE = Path(web.__file__).parent / "web_page"
PHOTO = zoo_folder() / "demo" / "fluorescence.png"


# === The runtime ===


def package(name="onnxruntime-web", version="1.2.3", leave_out=()):
    """Files of a package, by their names in it."""
    files = {"package.json": json.dumps({"name": name, "version": version}).encode()}
    files |= {f"dist/{file}": file.encode() for file in (web_runtime.MODULE, web_runtime.WASM)}
    return {key: value for key, value in files.items() if key not in leave_out}


def tarball(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def registry(server, monkeypatch, tmp_path):
    """npm's registry with a package that the pins are of, and an empty cache."""
    server.content = tarball(package(version=web_runtime.VERSION))
    digest = b64encode(hashlib.sha512(server.content).digest()).decode()
    monkeypatch.setattr(web_runtime, "INTEGRITY", f"sha512-{digest}")
    monkeypatch.setattr(web_runtime, "BYTES", len(server.content))
    monkeypatch.setenv("npm_config_registry", server.url.rpartition("/")[0] + "/npm/")
    monkeypatch.setenv("KERAS_RCNN_HOME", str(tmp_path / "home"))
    for name in ("KERAS_RCNN_OFFLINE", "KERAS_RCNN_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return server


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "home" / "downloads").glob("*"))


def test_the_runtime_is_had_once(registry, tmp_path, monkeypatch):
    first = web_runtime.read_runtime()
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    assert web_runtime.read_runtime() == first and registry.requests == 1
    assert first.folder == f"onnxruntime-web-{web_runtime.VERSION}"
    assert first.files[web_runtime.WASM] == web_runtime.WASM.encode()
    assert first.files["LICENSE"].startswith(b"MIT License")
    assert kept(tmp_path) == [f"onnxruntime-web-{web_runtime.VERSION}.tgz"]


def test_another_file_is_refused(registry, tmp_path):
    good = registry.content
    registry.content = bytes(len(good))
    with pytest.raises(ExportError, match="has the integrity sha512-.* instead of"):
        web_runtime.read_runtime()
    assert kept(tmp_path) == []
    registry.content = good
    web_runtime.read_runtime()
    (tmp_path / "home" / "downloads" / kept(tmp_path)[0]).write_bytes(b"damaged")
    with pytest.raises(ExportError, match=r"\.tgz has the integrity"):
        web_runtime.read_runtime()


def test_without_network_it_says_where_the_file_goes(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RCNN_OFFLINE", "1")
    with pytest.raises(ExportError, match=r"(?s)KERAS_RCNN_OFFLINE forbids.*home.downloads.onnxruntime-web.*--runtime"):
        web_runtime.read_runtime()
    assert registry.requests == 0


def test_a_runtime_of_ones_own(tmp_path):
    (tmp_path / "own.tgz").write_bytes(tarball(package()))
    folder = tmp_path / "node_modules"
    for name, content in package().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for path in (tmp_path / "own.tgz", folder):
        found = web_runtime.read_runtime(path)
        assert found.folder == "onnxruntime-web-1.2.3" and found.files[web_runtime.MODULE].endswith(b".mjs")
    (tmp_path / "less.tgz").write_bytes(tarball(package(leave_out=[f"dist/{web_runtime.WASM}"])))
    (tmp_path / "other.tgz").write_bytes(tarball(package("left-pad")))
    (tmp_path / "evil.tgz").write_bytes(tarball(package(version="../../up")))
    (tmp_path / "text.tgz").write_text("none")
    for name, reason in (
        ("less.tgz", "as npm has it"),
        ("other.tgz", "is left-pad 1.2.3, and not"),
        ("evil.tgz", "and not onnxruntime-web"),
        ("text.tgz", "as npm has it"),
        ("nowhere", "No such file"),
    ):
        with pytest.raises(ExportError, match=reason):
            web_runtime.read_runtime(tmp_path / name)


def test_no_page_for_a_detector_that_wants_proposals(tmp_path):
    with pytest.raises(ExportError, match="no browser has selective search"):
        web.export_web(SimpleNamespace(wants_proposals=True), tmp_path / "page")
    assert not list(tmp_path.iterdir())


def test_the_page_asks_nobody_else():
    text = "".join(path.read_text() for path in PAGE.iterdir() if path.suffix in (".html", ".js", ".css"))
    assert not [word for word in ("https://", "//cdn", "unsafe-inline", "'unsafe-eval'") if word in text]
    assert "connect-src 'self'" in text and "default-src 'none'" in text
    assert not any(f" on{kind}=" in (PAGE / "index.html").read_text() for kind in ("load", "click", "error"))


# === Masks ===


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "matterport"])
def test_masks_are_laid_over_as_detect_does(rule):
    if shutil.which("node") is None:
        pytest.skip("masks.js runs in node, which is not here")
    rng, height, width, count = np.random.default_rng(3), 90, 120, 40
    masks = rng.uniform(0, 1, (count, 4, 4)).repeat(7, 1).repeat(7, 2).astype("float32")
    masks += rng.uniform(-0.2, 0.2, masks.shape).astype("float32")
    masks = masks.clip(0.001, 1)
    masks[-1] = masks[-1].clip(0.6, 1)
    corner = rng.uniform(-20, 110, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 80, (count, 2))], axis=1)
    boxes = (np.round(boxes) if rule == "matterport" else boxes).astype("float32")
    preprocessor = MatterportPreprocessor() if rule == "matterport" else Preprocessor(paste=rule)
    expected = preprocessor.pasted(masks, boxes, (height, width), True)
    given = {"masks": masks.reshape(count, -1).tolist(), "boxes": boxes.tolist(), "rule": rule}
    code = """
const {masks, boxes, rule} = JSON.parse(require("fs").readFileSync(0));
const photo = {width: 120, height: 90};
console.log(JSON.stringify(masks.map((mask, i) => runLengths(pasted(mask, 28, boxes[i], photo, rule), photo))));
"""
    script = (PAGE / "masks.js").read_text() + code
    ran = subprocess.run(["node", "-e", script], input=json.dumps(given), capture_output=True, text=True, check=True)
    found = np.array([coco.decode(coco.frPyObjects(one, height, width)) for one in json.loads(ran.stdout)], bool)
    assert expected.any((1, 2)).sum() > 25
    # a probability that rounding moves over 0.5 is another pixel
    assert (found != expected).sum() <= 1e-4 * expected.sum()


# === In the browser ===


@pytest.fixture(scope="module")
def runtime():
    """The real one."""
    if browser() is None:
        pytest.skip("there is no Chromium here")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    try:
        return web_runtime.read_runtime()
    except ExportError as error:
        pytest.skip(f"npm's registry has not given the runtime: {str(error).splitlines()[0]}")


@pytest.fixture
def served():
    """Folder -> the address of it on a server as `python -m http.server` is one."""
    running = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def serve(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


READY, DONE = (f"['{word}', 'error'].includes(document.documentElement?.dataset.state)" for word in ("ready", "done"))
FOUND = "document.getElementById('found').textContent"
STATUS = "document.getElementById('status').textContent"


def differences(found, expected):
    """The largest of boxes in px and of scores, and the least IoU of masks; all must have their partner."""
    boxes = np.array(found["boxes"]).reshape(-1, 4)
    assert len(boxes) == len(expected["boxes"])
    same = np.array(expected["names"])[:, None] == np.array(found["names"])
    best = (np.asarray(iou(expected["boxes"], boxes.astype("float32"))) * same).argmax(1)
    assert sorted(best) == list(range(len(best)))
    box = np.abs(boxes[best] - expected["boxes"]).max()
    score = np.abs(np.array(found["scores"])[best] - expected["scores"]).max()
    if "masks" not in expected:
        return box, score, 1.0
    size = found["height"], found["width"]
    masks = np.array([coco.decode(coco.frPyObjects(found["masks"][i], *size)) for i in best], bool)
    both, either = (masks & expected["masks"]).sum((1, 2)), (masks | expected["masks"]).sum((1, 2))
    return box, score, (both / np.maximum(either, 1)).min()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["nuclei_mrcnn", pytest.param("nuclei_frcnn", marks=gated)])
def test_the_zoo_in_chromium(preset, runtime, served, tmp_path):
    model, page = keras_rcnn.from_preset(preset), tmp_path / "page"
    result = keras_rcnn.export_model(model, page, "web", photos=[PHOTO])
    assert result["parity"][0]["ok"] and result["bytes"] > 40e6
    assert (page / runtime.folder / "LICENSE").is_file()
    shutil.copy(PHOTO, page / "photo.png")
    address = served(page)
    with Chromium(tmp_path / "profile") as chromium:
        chromium.open(f"{address}/index.html?photo=photo.png&score=0.1")
        chromium.wait(DONE, 600)
        found = json.loads(chromium.value(FOUND))
        assert chromium.errors() == []
        assert all(one.startswith((f"{address}/", "blob:", "data:,")) for one in chromium.addresses())
    expected = model.detect(PHOTO, score=0.1)
    assert len(expected["boxes"]) > 80
    box, score, mask = differences(found, expected)
    assert box < 1 and score < 1e-3 and mask >= 0.99


@pytest.mark.slow
def test_files_the_camera_and_the_disk(runtime, tmp_path):
    """A page of keypoints' detector, opened as a file; a chosen JPEG that EXIF turns; the camera; another origin."""
    model, page = detector("keypoints"), tmp_path / "page"
    keras_rcnn.export_model(model, page, "web", photos=photos()[:1], from_disk=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encoded(photos()[0], "JPEG", exif=exif, quality=95))
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with Chromium(tmp_path / "profile", *flags) as chromium:
        chromium.open(f"{page.as_uri()}/index.html?score=0.3")
        chromium.wait(READY, 600)
        assert chromium.value(STATUS) == "Ready."
        chromium.give_file("#file", tmp_path / "turned.jpg")
        chromium.wait(DONE, 600)
        found = json.loads(chromium.value(FOUND))
        expected = model.detect(tmp_path / "turned.jpg", score=0.3)
        box, score, _ = differences(found, expected)
        assert box < 1 and score < 1e-3 and np.shape(found["keypoints"]) == expected["keypoints"].shape
        chromium.value("element('camera').click()")
        chromium.wait("shown.name == 'camera' && document.documentElement?.dataset.state == 'done'", 600)
        chromium.value("element('camera').click()")
        assert chromium.value("stream === undefined")
        stopped = "fetch('http://127.0.0.1:9/').then(() => 'went', error => error.name)"
        assert chromium.value(stopped) == "TypeError"
        assert any("Content Security Policy" in one for one in chromium.errors())


@pytest.mark.slow
def test_opened_as_a_file_it_says_what_to_do(tmp_path):
    if browser() is None:
        pytest.skip("there is no Chromium here")
    page = tmp_path / "page"
    shutil.copytree(PAGE, page)
    with Chromium(tmp_path / "profile") as chromium:
        chromium.open(f"{page.as_uri()}/index.html")
        chromium.wait(DONE, 60)
        assert "python -m http.server" in chromium.value(STATUS) and "--from-disk" in chromium.value(STATUS)
