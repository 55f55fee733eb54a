"""Answers that are not those of a detector: whatever a server says, it ends in detections or a `ServingError`."""

import contextlib
import copy
import http.server
import json
import math
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from keras_rcnn.cli import main
from keras_rcnn.export.client import ServedDetector, ServingError
from tests.export.detectors import encoded
from tests.memory import at_most

NAN, INF = math.nan, math.inf
PHOTO = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
SECONDS = 60
MEGABYTES = 2048


def good(count=3, padding=2, masks="crops"):
    """A detector's answer on `PHOTO`."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1).round(2)
    answer = {
        "boxes": [[*boxes.tolist(), *[[0.0] * 4] * padding]],
        "scores": [[*np.linspace(0.9, 0.6, count).round(3).tolist(), *[0.0] * padding]],
        "labels": [[*(i % 2 for i in range(count)), *[-1] * padding]],
        "names": [[*(("fig", "Bärchen")[i % 2] for i in range(count)), *[""] * padding]],
    }
    if masks == "crops":
        answer["masks"] = rng.random((1, count + padding, 4, 4)).round(2).tolist()
    elif masks == "pasted":
        answer["masks"] = rng.integers(0, 2, (1, count, 90, 120)).tolist()
    return answer


def body(answer):
    return json.dumps({"outputs": answer}).encode()


class Anyone(http.server.BaseHTTPRequestHandler):
    """A server that says what it is told to: `server.say` is bytes, or a function that writes all of the answer."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        say = self.server.say
        with contextlib.suppress(OSError):  # who does not want to hear more hangs up
            if callable(say):
                say(self)
            else:
                self.answer(200, say)

    def do_GET(self):
        with contextlib.suppress(OSError):
            self.answer(200, self.server.metadata)

    def answer(self, code, content):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anyone)
    one.daemon_threads, one.block_on_close = True, False
    one.asked, one.metadata = 0, b"{}"
    threading.Thread(target=one.serve_forever, daemon=True).start()
    one.url = f"http://127.0.0.1:{one.server_port}/fruit"
    yield one
    one.shutdown()
    one.server_close()


def ask(server, say, timeout=20, photo=PHOTO, **settings):
    server.say = say
    model = ServedDetector(server.url, timeout=timeout, **settings)
    started = time.monotonic()
    try:
        with at_most(MEGABYTES):
            return model.detect(photo)
    finally:
        assert time.monotonic() - started < SECONDS


def refused(server, say, match=None, **settings):
    """The message, of one line, with the address."""
    with pytest.raises(ServingError, match=match) as error:
        ask(server, say, **settings)
    text = str(error.value)
    assert server.url in text and text.isprintable() and len(text) < 1200
    return text


# === Right answers ===


@pytest.mark.parametrize("masks", ["crops", "pasted", None])
def test_a_right_answer(server, masks):
    answer = good(masks=masks)
    found = ask(server, body(answer))
    np.testing.assert_allclose(found["boxes"], np.float32(answer["boxes"][0][:3]))
    np.testing.assert_allclose(found["scores"], np.float32(answer["scores"][0][:3]))
    assert found["labels"].tolist() == [0, 1, 0] and found["names"] == ["fig", "Bärchen", "fig"]
    assert [found[key].dtype for key in ("boxes", "scores", "labels")] == ["float32", "float32", "int32"]
    if masks:
        assert found["masks"].shape == (3, 90, 120) and found["masks"].dtype == bool
    if masks == "pasted":
        np.testing.assert_array_equal(found["masks"], np.array(answer["masks"][0], bool))
    assert ("masks" in found) == (masks is not None)


@pytest.mark.parametrize("masks", ["crops", "pasted", None])
@pytest.mark.parametrize("padding", [0, 4])
def test_nothing_found_is_an_answer(server, masks, padding):
    """json has no shape for what is empty: [1, 0, 4] is [[]]."""
    found = ask(server, body(good(0, padding, masks)))
    assert found["boxes"].shape == (0, 4) and found["names"] == [] and found["labels"].dtype == np.int32
    assert len(found["scores"]) == 0 and len(found.get("masks", ())) == 0


def test_whole_numbers_where_others_may_be(server):
    answer = good(2)
    answer["boxes"][0][:2] = [[1, 2, 30, 40], [0, 0, 120, 90]]
    answer["scores"][0][:2] = [1, 1]
    answer["masks"] = np.ones((1, 4, 4, 4), int).tolist()
    found = ask(server, body(answer))
    assert found["boxes"].tolist() == [[1, 2, 30, 40], [0, 0, 120, 90]] and found["masks"][1].mean() > 0.8


# === Wrong ones ===

NONSENSE = (None, "text", [], {}, [[]], [[[]]], 7, NAN, True, [["a"]], [[1, 2], [3]], {"a": 1}, [[None]], [[10**30]])


def _replaced(rng, answer):
    answer[rng.choice(list(answer))] = NONSENSE[rng.integers(len(NONSENSE))]


def _missing(rng, answer):
    del answer[rng.choice(["boxes", "scores", "labels", "names"])]


def _shorter(rng, answer):
    key = rng.choice(["boxes", "scores", "labels", "names"])
    answer[key][0] = answer[key][0][: int(rng.integers(0, 5))]


def _longer(rng, answer):
    key = rng.choice(list(answer))
    answer[key][0] = answer[key][0] * int(rng.integers(2, 5))


def _more_photos(rng, answer):
    key = rng.choice(list(answer))
    answer[key] = answer[key] * int(rng.integers(2, 4))


def _nested(rng, answer):
    key = rng.choice(list(answer))
    answer[key] = [answer[key]] if rng.integers(2) else answer[key][0]


def _bad_element(rng, answer):
    """Of the three detections: NaN, inf, out of range, out of the photo, or no number."""
    key = rng.choice(["boxes", "scores", "masks"])
    i = int(rng.integers(3))
    value = (NAN, INF, -INF, 1e9, -1e9, 1e300, "1", None, [1], {})[rng.integers(10)]
    if key == "boxes":
        answer[key][0][i][int(rng.integers(4))] = value
    elif key == "scores":
        answer[key][0][i] = value
    else:
        answer[key][0][i][int(rng.integers(4))][int(rng.integers(4))] = value


def _bad_label(rng, answer):
    answer["labels"][0][int(rng.integers(3))] = (0.5, NAN, "0", None, 2**40, 2**70, True, [0])[rng.integers(8)]


def _bad_name(rng, answer):
    answer["names"][0][int(rng.integers(3))] = (0, None, NAN, ["fig"], {}, True)[rng.integers(6)]


def _turned_box(rng, answer):
    box = answer["boxes"][0][int(rng.integers(3))]
    box[0], box[2] = box[2], box[0]


def _other_masks(rng, answer):
    shape = [(1, 5, 4, 3), (1, 3, 4, 4), (1, 5, 90, 120), (2, 5, 4, 4), (1, 5, 4), (1, 5, 0, 0)][rng.integers(6)]
    answer["masks"] = rng.random(shape).tolist()


MUTATIONS = [
    _replaced,
    _missing,
    _shorter,
    _longer,
    _more_photos,
    _nested,
    _bad_element,
    _bad_label,
    _bad_name,
    _turned_box,
    _other_masks,
]


@pytest.mark.parametrize("seed", range(110))
def test_a_malformed_answer(server, seed):
    rng = np.random.default_rng(seed)
    answer = good()
    MUTATIONS[seed % len(MUTATIONS)](rng, answer)
    refused(server, body(answer), "not the answer of a detector: ")


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes(server, seed):
    """Of a right answer some bytes are others, or missing: an error, or what is well-formed still."""
    rng = np.random.default_rng(seed)
    content = bytearray(body(good(masks=None)))
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(content)))
        content[at] = int(rng.integers(256))
    if rng.integers(3) == 0:
        del content[int(rng.integers(len(content))) :]
    try:
        found = ask(server, bytes(content))
    except ServingError as error:
        assert server.url in str(error) and str(error).isprintable()
    else:
        count = len(found["boxes"])
        assert found["boxes"].shape == (count, 4) and np.isfinite(found["boxes"]).all()
        assert len(found["scores"]) == len(found["labels"]) == len(found["names"]) == count
        assert ((found["scores"] >= 0.5) & (found["scores"] <= 1)).all() and (found["labels"] >= 0).all()
        assert all(isinstance(name, str) for name in found["names"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no answer of TF Serving"),
        (b"<html>It works!</html>", "no answer of TF Serving"),
        (b"\xff\xfe\x00\xd8", "no answer of TF Serving"),
        (b"[1, 2]", "json without a table of outputs: a list"),
        (b"null", "json without a table of outputs: None"),
        (b"{}", "json without a table of outputs"),
        (b'{"outputs": [[1, 2]]}', "json without a table of outputs"),
        (b'{"outputs": {}}', "it has no boxes, scores, labels, names, but nothing"),
        (b'{"outputs": {"y": [[1.0]]}}', "it has no boxes, scores, labels, names, but y"),
        (b'{"outputs": {"boxes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "nested too deep"),
        (b'{"outputs": {"boxes": ' + b"[" * 90 + b"]" * 90 + b"}}", "boxes"),
        (b'{"outputs": {"boxes": ' + b"9" * 100_000 + b"}}", "no answer of TF Serving"),
        (b'{"error": "\\u001b[2J is no error"}', "json without a table"),
    ],
)
def test_other_documents(server, content, message):
    refused(server, content, message)


def test_a_long_name_does_not_make_all_of_them_long(server):
    """NumPy's texts are all as long as the longest: 4 MB for each of 2,000 names would be 32 GB."""
    answer = {
        "boxes": [[[1, 2, 30, 40]] * 2000],
        "scores": [[0.9] * 2000],
        "labels": [[0] * 2000],
        "names": [["x" * 2**22, *["fig"] * 1999]],
    }
    assert len(ask(server, body(answer))["names"][0]) == 2**22


# === Over HTTP ===


def whole(content):
    return lambda handler: handler.wfile.write(content)


def endless(start, part, pause=0.0, most=2**33):
    """Writes on and on, until the other side hangs up."""

    def say(handler):
        handler.wfile.write(start)
        written = 0
        while written < most:
            handler.wfile.write(part)
            written += len(part)
            time.sleep(pause)

    return say


OK = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    "say",
    [
        whole(b""),
        whole(b"\r\n"),
        whole(b"SSH-2.0-OpenSSH_9.6\r\n"),
        whole(b"HTTP/1.1 abc what\r\n\r\n"),
        whole(b"HTTP/1.1 -1 \x1b[2J\r\n\r\n"),
        whole(OK + b"a: b\r\n" * 500 + b"\r\n{}"),
        whole(OK + b"a: " + b"b" * 100_000 + b"\r\n\r\n{}"),
        whole(OK + b"Content-Length: -5\r\n\r\n{}"),
        whole(OK + b"Content-Length: x\r\n\r\n{}"),
        whole(OK + b"Content-Length: 1000000000000\r\n\r\n{}"),
        whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
        whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n{}"),
        whole(b"HTTP/1.1 204 No Content\r\n\r\n"),
        whole(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"),
        whole(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"),
        whole(b"HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
        whole(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n\r\n"),
        whole(b"HTTP/1.1 404 Not \x9b2J Found\r\n\r\n"),
        whole(b'HTTP/1.1 400 Bad\r\n\r\n{"error": "\\u001b]0;owned\\u0007 ' + b"x" * 5000 + b'"}'),
        whole(b'HTTP/1.1 500 Bad\r\n\r\n{"error": {"a": [1]}}'),
        whole(b"HTTP/1.1 500 Bad\r\n\r\n" + b"[" * 60_000),
    ],
    ids=range(21),
)
def test_what_is_no_http_or_no_success(server, say):
    refused(server, say)


def test_a_redirection_is_not_followed(server):
    """It could lead to a file of this machine, or another server."""
    before = server.asked
    location = f"Location: {server.url}\r\n".encode()
    text = refused(server, whole(b"HTTP/1.1 302 Found\r\n" + location + b"\r\n"), "302 Found")
    assert server.asked == before + 1 and urlsplit(server.url).path in text


@pytest.mark.parametrize(
    "start", [OK + b"\r\n", OK + b"\r\n{", b"HTTP/1.1 500 Error\r\n\r\n"], ids=["blanks", "json", "error"]
)
def test_an_endless_answer_ends(server, start):
    message = "500 Error" if b"500" in start else "longer than 8 MB; max_answer= is this limit"
    refused(server, endless(start, b" " * 2**20), message, max_answer=2**23)


def test_an_answer_as_long_as_the_limit(server):
    content = body(good())
    assert len(ask(server, content, max_answer=len(content))["names"]) == 3
    refused(server, content, f"longer than {len(content) - 1} bytes", max_answer=len(content) - 1)


@pytest.mark.parametrize(
    ("start", "part"),
    [(b"", b"H"), (OK, b"a: b\r\n"), (OK + b"\r\n", b" "), (b"HTTP/1.1 500 Error\r\n\r\n", b" "), (OK + b"\r\n", b"")],
    ids=["status", "headers", "body", "error", "silence"],
)
def test_an_answer_that_drips_ends_in_time(server, start, part):
    started = time.monotonic()
    refused(server, endless(start, part, pause=0.1, most=1000), "after 1 seconds|timed out", timeout=1)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{}", b"[]", b"null", b'{"metadata": []}', b'{"metadata": {"signature_def": {"a": 1}}}', b"[" * 9999],
)
def test_metadata_that_says_nothing(server, metadata):
    server.metadata = metadata
    try:
        model = ServedDetector(server.url)
        assert (model.has_masks, model.wants_proposals) == (None, None)
    finally:
        server.metadata = b"{}"


# === gRPC ===


def test_tensors_that_are_none():
    tf = pytest.importorskip("tensorflow")
    model = ServedDetector("grpc://host/fruit")
    proto = tf.make_tensor_proto(np.zeros((1, 3, 4), np.float32))
    assert model._tensor(tf, "boxes", proto).shape == (1, 3, 4)
    spoilt = []
    for change in (
        lambda one: setattr(one.tensor_shape.dim[1], "size", 10**10),  # 12 numbers, said to be 160 GB
        lambda one: setattr(one.tensor_shape.dim[1], "size", -1),
        lambda one: setattr(one.tensor_shape.dim[1], "size", 7),
        lambda one: setattr(one, "tensor_content", b"12345"),
        lambda one: setattr(one, "dtype", 0),
        lambda one: setattr(one, "dtype", 20),
        lambda one: setattr(one.tensor_shape, "unknown_rank", True),
    ):
        one = copy.deepcopy(proto)
        change(one)
        spoilt.append(one)
    few = tf.make_tensor_proto(0.5)  # one number that fills any shape
    few.tensor_shape.dim.add().size = 2**40
    for one in (*spoilt, few):
        with pytest.raises(ServingError, match="grpc://host/fruit: not the answer of a detector: boxes"):
            model._tensor(tf, "boxes", one)


def test_a_server_that_answers_other_tensors():
    pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")
    from concurrent import futures

    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Predict(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            answer = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predict(), server)
    url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}/fruit"
    server.start()
    try:
        right = {key: np.array(value) for key, value in good().items()}
        right["names"] = np.char.encode(right["names"], "utf-8").astype(object)
        for key in ("boxes", "scores", "masks"):
            right[key] = right[key].astype(np.float32)
        outputs = right
        assert ServedDetector(url).detect(PHOTO)["names"] == ["fig", "Bärchen", "fig"]
        assert ServedDetector(url).has_masks is None  # which this one does not tell
        for wrong in (
            {},
            {**right, "boxes": right["boxes"] * np.float32(NAN)},
            {**right, "boxes": right["boxes"][:, :2]},
            {**right, "boxes": right["names"]},
            {**right, "names": right["scores"]},
            {**right, "labels": right["scores"]},
            {**right, "masks": right["names"]},
        ):
            outputs = wrong
            with pytest.raises(ServingError, match=f"{url}: not the answer of a detector"):
                ServedDetector(url).detect(PHOTO)
        outputs = {**right, "more": np.zeros(2**20, np.float32)}
        with pytest.raises(ServingError, match=r"longer than 1 MB .*max_answer= is this limit"):
            ServedDetector(url, max_answer=2**20).detect(PHOTO)
    finally:
        server.stop(None).wait()


# === On a terminal ===


def test_escapes_in_names_do_not_reach_the_terminal(server, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(PHOTO))
    evil = "fig\x1b[2J\x1b]0;owned\x07\x9b31m\u202egif\nnext\r"
    answer = good(masks=None)
    answer["names"][0][0] = evil
    server.say = body(answer)
    out, table = tmp_path / "out", tmp_path / "boxes.json"
    assert main(["detect", str(photo), "--server", server.url, "--out", str(out), "--json", str(table)]) == 0
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert all(line.isprintable() for line in lines)
    assert r"fig\x1b[2J\x1b]0;owned\x07\x9b31m\u202egif\nnext\r" in captured.out
    assert json.loads(table.read_text())[0]["names"][0] == evil  # programs get what there is
    server.say = lambda handler: handler.answer(400, json.dumps({"error": f"no {evil}"}).encode())
    assert main(["detect", str(photo), "--server", server.url, "--out", str(out)]) == 2
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())
