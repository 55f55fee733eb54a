"""The service as a process: SIGTERM under load loses nothing, kill -9 leaves nothing behind, its memory stays."""

import collections
import json
import re
import shlex
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from keras_rcnn.presets import save_preset
from tests.export.detectors import detector, encoded, photos
from tests.models.tiny import shapes
from tests.serve.hostile import bodies
from tests.serve.process import ROOT, Clients, started
from tests.standing import write_photos, write_runs

pytestmark = pytest.mark.slow  # processes that import TensorFlow


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder with a preset, and its detector."""
    folder = tmp_path_factory.mktemp("served")
    model = detector("mask")
    save_preset(model, folder / "shapes")
    return folder, model


def test_sigterm_under_load_loses_no_request(preset):
    folder, model = preset
    images = {name: encoded(image) for name, image in zip("abc", photos(), strict=True)}
    expected = {name: model.detect(content)["names"] for name, content in images.items()}
    with started(["shapes", "--drain", "1"], folder) as service:
        everyone = [Clients(service.port, [*images.items()], 6, keep) for keep in (True, False)]
        time.sleep(4)
        service.process.send_signal(signal.SIGTERM)
        assert service.end() == 0
        for clients in everyone:
            clients.end()
            assert clients.lost == []
            assert clients.answers and {status for _, status, _ in clients.answers} == {200}
            for name, _, content in clients.answers:
                assert json.loads(content)["names"] == expected[name]
            assert clients.refused  # it went on asking when the service had ended
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
        counted = collections.Counter(line["event"] for line in lines)
        assert counted["stopping"] == counted["stopped"] == 1
        assert counted["request"] == sum(len(clients.answers) for clients in everyone)


def test_kill_9_and_again(preset):
    folder, _ = preset
    with started(["other=shapes"], folder) as service:
        port = service.port
        assert service.post(encoded(photos()[0]), "/detect/other")[0] == 200
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
    with started(["shapes", "--port", port], folder) as service:  # the same port, at once
        assert service.post(encoded(photos()[0]))[0] == 200
        assert service.end(signal.SIGINT) == 128 + signal.SIGINT


def test_the_memory_stays(preset):
    """Photos of many sizes and malformed bodies, 600 each."""
    folder, _ = preset
    rng = np.random.default_rng(0)

    def some(count, seed):
        for _ in range(count):
            height, width = rng.integers(20, 400, 2)
            assert service.post(encoded(rng.integers(0, 255, (height, width, 3)).astype(np.uint8)))[0] == 200
        for _, path, body, _ in bodies(count, seed):
            assert service.post(body, path.replace("mask", "shapes"))[0] < 500

    with started(["shapes"], folder) as service:
        some(200, 1)
        before = service.resident()
        some(200, 2)
        some(200, 3)
        assert service.resident() - before < 250  # MB: the allocator takes its share of many sizes before it levels off


def commands(program):
    """The page's lines of bash that start with it."""
    page = (ROOT / "docs" / "pages" / "serving.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.S)).replace("\\\n", " ")
    return re.findall(rf"^{program} .*$", blocks, re.M)


def test_there_are_commands():
    assert len(commands("keras-rcnn serve")) > 2 and len(commands("curl")) > 3


def test_the_pages_requests_are_answered(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    write_photos(tmp_path)
    write_runs(tmp_path, shapes(6))
    (tmp_path / "token").write_text("correct-horse-battery")
    with started(["nuclei=runs/masks"], tmp_path) as service:
        for line in commands("curl"):
            line = line.replace("curl ", "curl --silent --fail-with-body ").replace(
                "localhost:8501", f"127.0.0.1:{service.port}"
            )
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False)
            assert done.returncode == 0 and done.stdout, (line, done)


@pytest.mark.parametrize("line", commands("keras-rcnn serve"))
def test_the_commands_of_the_page_run(line, tmp_path):
    """As tests/test_docs.py runs the others: with tiny detectors in the place of trained ones."""
    write_runs(tmp_path, shapes(6))
    (tmp_path / "token").write_text("correct-horse-battery")
    instead = {"0.0.0.0": "127.0.0.1", "nuclei_mrcnn": "runs/masks", "nuclei_frcnn": "runs/mine"}
    words = [word for word in shlex.split(line, comments=True)[2:] if word != "--insecure"]
    for name, folder in instead.items():
        words = [word.replace(name, folder) for word in words]
    with started(words, tmp_path) as service:
        status, content = service.post(encoded(photos()[0]), "/detect/nuclei")
        assert status == (401 if "--token-file" in words else 200), content
        assert service.end() == 0
