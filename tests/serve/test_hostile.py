"""Every malformed request is a 4xx with a reason, never a 5xx, and the service goes on."""

import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest

from tests.export.detectors import encoded, photos
from tests.serve.hostile import bodies, raw_requests
from tests.serve.service import running


def refused(service, count, seed):
    """Sends bodies; what is damaged at random may be good, but is never an error of the service."""
    good = 0
    for name, path, body, headers in bodies(count, seed):
        status, answer = service.post(path, body, **headers)
        if status == 200 and name.startswith("damaged"):
            good += 1
            continue
        assert 400 <= status < 500, (name, status, answer)
        assert 10 < len(answer["error"]) < 1000 and answer["error"].isprintable(), (name, answer)
        assert "KERAS_RCNN" not in answer["error"] and "Traceback" not in answer["error"]
    return good


def test_malformed_bodies(service, detectors):
    assert refused(service, 300, 1) < 120
    expected = detectors["mask"].detect(photos()[0], score=0.3)
    answer = service.post("/detect/mask?score=0.3", encoded(photos()[0]))[1]
    assert answer["names"] == expected["names"]


@pytest.mark.slow  # shapes that TensorFlow has not met
def test_photos_that_hardly_are_any(service):
    for height, width in ((1, 1), (1, 3000), (3000, 1), (2, 2)):
        content = encoded(np.full((height, width, 3), 90, np.uint8))
        for model in ("mask", "fast"):
            status, answer = service.post(f"/detect/{model}", content)
            assert status == 200 and (answer["height"], answer["width"]) == (height, width), answer


@pytest.mark.slow  # a minute
def test_a_thousand_malformed_bodies_and_the_memory_is_flat(service):
    def memory():
        text = service.get("/metrics")[1]
        return float(text.partition("\nprocess_resident_memory_bytes ")[2].split()[0]) / 2**20

    refused(service, 300, 2)
    before = memory()
    good = refused(service, 1000, 3)
    assert good < 300 and memory() - before < 250


def answer_to(service, request, timeout=20):
    """The first line of what comes back, and the JSON behind it; what is no HTTP may be taken for two requests."""
    with socket.create_connection(("127.0.0.1", service.port), timeout) as connection:
        try:
            connection.sendall(request)
            parts = [connection.recv(65536)]
            while parts[-1] and b"}" not in parts[-1]:
                parts.append(connection.recv(65536))
        except ConnectionError:
            return b"", None
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], json.JSONDecoder().raw_decode(body.decode())[0] if body else None


@pytest.mark.parametrize(("name", "request_bytes"), [*raw_requests()], ids=[one[0] for one in raw_requests()])
def test_header_tricks(service, name, request_bytes):
    line, answer = answer_to(service, request_bytes)
    if line:
        assert line.split()[1].startswith(b"4") and answer["error"], (line, answer)
    assert service.get("/healthz")[0] == 200


def test_a_client_that_goes_is_forgotten(service):
    start = b"POST /detect/mask HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port), 10) as connection:
            connection.sendall(start + bytes(1000))
    deadline = time.monotonic() + 10
    while "keras_rcnn_open_requests 1.0" not in service.get("/metrics")[1]:  # this one
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert service.service.bodies.held == 0


@pytest.fixture(scope="module")
def impatient(detectors):
    """A service that waits a second, for headers too."""
    from keras_rcnn.serve.server import Protocol

    quick = type("Quick", (Protocol,), {"header_seconds": 1.0})
    with running({"mask": detectors["mask"]}, timeout=1.0, protocol=quick, max_body=2**20) as service:
        yield service


def test_slow_senders(impatient):
    """Of headers and of bodies; others are answered meanwhile."""
    head = b"POST /detect/mask HTTP/1.1\r\nHost: x\r\n"
    starts = {b"": 408, head: 408, head + b"Content-Length: 9000\r\n\r\n": 408, b"GET /hea": 408}
    found = {}

    def drip(start):
        with socket.create_connection(("127.0.0.1", impatient.port), 20) as connection:
            connection.sendall(start)
            for _ in range(8):
                time.sleep(0.25)
                try:
                    connection.sendall(b"a")
                except ConnectionError:
                    break
            found[start] = connection.recv(65536)

    threads = [threading.Thread(target=drip, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    assert impatient.get("/healthz")[0] == 200
    for thread in threads:
        thread.join()
    assert {start: int(answer.split()[1]) for start, answer in found.items()} == starts


def test_an_endless_body_is_cut_off(impatient):
    connection = http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=30)
    ended = False

    def endless():
        while not ended:
            yield bytes(65536)

    try:
        connection.request("POST", "/detect/mask", endless(), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    except ConnectionError:
        pass
    else:
        pytest.fail("it was read to its end, which it has not")
    finally:
        ended = True
        connection.close()
    assert impatient.get("/healthz")[0] == 200
