"""Who may ask, what the log says, and what the command refuses before anything is loaded."""

import io
import json
import sys

import pytest

from keras_rcnn.cli import main
from keras_rcnn.export.client import ServedDetector, ServingError
from keras_rcnn.serve import ServeSettings, create_app
from keras_rcnn.serve.gate import OPEN
from keras_rcnn.serve.logs import json_log
from keras_rcnn.serve.server import bound, is_loopback
from tests.serve.service import running
from tests.serve.stub import Stub, grey

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded():
    with running({"stub": Stub()}, token=TOKEN) as service:
        yield service


def test_a_token_is_wanted(guarded):
    for given in (None, TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \xfc"):
        headers = {} if given is None else {"Authorization": given}
        status, answer, answered = guarded.ask("POST", "/detect", grey(150), headers)
        assert status == 401 and answered["WWW-Authenticate"] == "Bearer" and "Bearer TOKEN" in answer["error"]
    for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        assert guarded.ask("POST", "/detect", grey(150), {"Authorization": good})[0] == 200
    for path in ("/metrics", "/v1/models", "/v1/models/stub", "/v2/models/stub", "/nowhere"):
        assert guarded.get(path)[0] == 401
    for path in OPEN:
        status, answer = guarded.get(path)
        assert status == 200 and "stub" not in str(answer)


def test_the_client_has_a_token(guarded):
    url = f"{guarded.url}/stub"
    assert ServedDetector(url, token=TOKEN).predict({"image_bytes": [grey(150)]})["scores"].shape == (1, 2)
    with pytest.raises(ServingError, match="401 A token is wanted"):
        ServedDetector(url).predict({"image_bytes": [grey(150)]})
    for token, address in (("a b", url), ("", url), ("secret", "grpc://localhost:8500/stub")):
        with pytest.raises(ValueError, match="token is a text without spaces, for http"):
            ServedDetector(address, token=token)


def test_requests_are_logged_as_json(guarded):
    stream = io.StringIO()
    guarded.get("/healthz")  # what was asked before is in the log by now
    with json_log(stream):
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "mine-7"}
        assert guarded.ask("POST", "/detect", grey(150), headers)[2]["X-Request-ID"] == "mine-7"
        guarded.ask("GET", "/%1b%5b2J%0a", None, {"X-Request-ID": "\x1b[2J"})
        guarded.get("/healthz")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["path"], line["status"]) for line in lines] == [("/detect", 200), ("/\\x1b[2J\\n", 401)]
    assert lines[0]["request_id"] == "mine-7" and lines[0]["ms"] > 0 and lines[0]["client"] == "127.0.0.1"
    assert len(lines[1]["request_id"]) == 32 and lines[1]["refused"] == "token"
    assert TOKEN not in stream.getvalue()


def test_what_is_bound_to_where():
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("127.8.8.8")
    assert not is_loopback("0.0.0.0") and not is_loopback("")
    with bound("127.0.0.1", 0) as listener, pytest.raises(OSError, match=r"127.0.0.1:\d+: .*--port"):
        listener.listen()
        bound("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(OSError, match="no such address"):
        bound("no.such.host.invalid", 80)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["runs/mine", "--host", "0.0.0.0"], "--token-file FILE or KERAS_RCNN_TOKEN, or --insecure"),
        (["runs/mine", "other/mine"], "Two models are called mine: name one of them, as in other="),
        (["a=runs/mine", "a=runs/masks"], "Two models are called a"),
        (["runs/mine", "--token-file", "short"], "8 to 500"),
        (["runs/mine", "--token-file", "missing"], "missing: No such file"),
        (["runs/mine", "--max-wait-ms", "-1"], "max_wait_ms"),
        (["runs/mine", "--queue", "2", "--max-images", "3"], "never find room"),
        (["runs/mine", "--drain", "nan"], "drain"),
        (["no_preset"], "There is no preset 'no_preset'"),
    ],
)
def test_what_the_command_refuses(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_RCNN_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret\n")
    assert main(["serve", "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_ports_are_numbers(capsys):
    for port in ("x", "-1", "65536", "1e3"):
        with pytest.raises(SystemExit):
            main(["serve", "nuclei_mrcnn", "--port", port])
        assert "is not a port" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "nuclei_mrcnn"]) == 2
    assert "pip install 'keras-rcnn-zoo[serve]'" in capsys.readouterr().err


def test_what_an_application_refuses():
    with pytest.raises(ValueError, match="at least one model"):
        create_app({})
    for name in ("", "a/b", "a:predict", "../x", "-a", "a b", "a" * 101):
        with pytest.raises(ValueError, match="no name for a model"):
            create_app({name: Stub()})
    for settings in (
        {"max_batch": 0},
        {"queue": 1.5},
        {"timeout": 0},
        {"max_wait_ms": float("nan")},
        {"workers": True},
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            ServeSettings(**settings)
