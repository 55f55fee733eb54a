"""The queue: photos of several requests in one batch, room for so many, an end to waiting, no failure for another's."""

import threading
import time

import pytest

from tests.serve.service import running
from tests.serve.stub import Stub, grey


def later(service, answers, key, path, body):
    """Asks in a thread, which is started."""

    def ask():
        answers[key] = service.ask("POST", path, body)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held_up(service, stub, photos):
    """One photo is with the model, which is held up, and these wait -> (threads, answers)."""
    stub.free.clear()
    answers = {}
    threads = [later(service, answers, "first", "/detect/stub", grey(200))]
    assert stub.begun.acquire(timeout=20)
    for i, photo in enumerate(photos):
        threads.append(later(service, answers, i, "/detect/stub", photo))
    queue = service.service.queues["stub"]
    wait_for(lambda: queue.waiting == len(photos) and all(job.ready for job in queue._waiting))
    return threads, answers


def test_requests_share_batches_and_get_their_own_answers():
    stub = Stub()
    with running({"stub": stub}, max_batch=4) as service:
        values = [130 + 10 * i for i in range(6)]
        threads, answers = held_up(service, stub, [grey(value) for value in values])
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert stub.batches == [1, 4, 2]
        for i, value in enumerate(values):
            assert answers[i][0] == 200 and answers[i][1]["scores"] == pytest.approx([value / 255], abs=1e-6)
        assert 'keras_rcnn_batch_photos_bucket{le="2.0",model="stub"} 2.0' in service.get("/metrics")[1]


def test_photos_that_would_be_padded_share_none():
    stub = Stub()
    with running({"stub": stub}, max_batch=4) as service:
        sizes = [(32, 32), (32, 64), (32, 32), (64, 32), (32, 64), (31, 32)]
        threads, answers = held_up(service, stub, [grey(150, *size) for size in sizes])
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert sorted(stub.batches) == [1, 1, 2, 3]
        assert all(status == 200 for status, *_ in answers.values())


def test_photos_of_one_request_are_a_batch():
    import base64

    stub = Stub()
    with running({"stub": stub}, max_batch=4, max_wait_ms=2000) as service:
        row = {"b64": base64.b64encode(grey(150)).decode()}
        started = time.monotonic()
        assert service.post("/v1/models/stub:predict", {"instances": [row] * 4})[0] == 200
        assert stub.batches == [4]
        assert service.post("/detect", grey(150))[0] == 200  # alone, it waits for nobody
        assert time.monotonic() - started < 2


def test_beyond_the_queue_is_429():
    stub = Stub()
    with running({"stub": stub, "other": Stub()}, max_batch=2, queue=4, max_images=4) as service:
        threads, answers = held_up(service, stub, [grey(150)] * 4)
        assert "keras_rcnn_waiting_photos" in service.get("/metrics")[1]
        status, answer, headers = service.ask("POST", "/detect/stub", grey(150))
        assert status == 429 and int(headers["Retry-After"]) >= 1 and "4 photos wait for stub" in answer["error"]
        assert service.post("/detect/other", grey(150))[0] == 200  # the other model has a queue of its own
        assert service.get("/readyz")[0] == 200
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert len(answers) == 5 and all(status == 200 for status, *_ in answers.values())
        assert service.post("/detect/stub", grey(150))[0] == 200
        assert 'keras_rcnn_refused_total{reason="queue_full"} 1.0' in service.get("/metrics")[1]


def test_waiting_ends_and_what_nobody_waits_for_is_not_run():
    stub = Stub()
    with running({"stub": stub}, timeout=1.0) as service:
        threads, answers = held_up(service, stub, [grey(150)] * 3)
        for thread in threads:
            thread.join(20)
        for status, answer, headers in answers.values():
            assert status == 503 and headers["Retry-After"] == "1" and "within 1 s" in answer["error"]
        stub.free.set()
        assert service.service.queues["stub"].waiting == 0
        assert service.post("/detect/stub", grey(150))[0] == 200
        assert stub.batches == [1, 1]


def test_a_photo_that_fails_fails_alone():
    stub = Stub()
    with running({"stub": stub}, max_batch=4) as service:
        threads, answers = held_up(service, stub, [grey(150), grey(0), grey(160)])
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert stub.batches == [1, 3, 1, 1, 1]
        assert [answers[i][0] for i in range(3)] == [200, 500, 200]
        assert answers[1][2]["X-Request-ID"] in answers[1][1]["error"] and "black" not in answers[1][1]["error"]
        assert service.get("/healthz")[0] == 200


def test_large_bodies_are_bounded_together():
    """Four times the limit of one are held at once."""
    stub = Stub()
    photo = grey(150) + bytes(900_000)
    with running({"stub": stub}, max_body=10**6, queue=32) as service:
        threads, answers = held_up(service, stub, [photo] * 4)
        status, answer, headers = service.ask("POST", "/detect/stub", photo)
        assert status == 429 and headers["Retry-After"] == "1" and "large requests" in answer["error"]
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert all(status == 200 for status, *_ in answers.values())
        wait_for(lambda: service.service.bodies.held == 0)


def test_a_service_that_ends_answers_what_it_has():
    stub = Stub()
    with running({"stub": stub}, max_batch=2, drain=1.0) as service:
        threads, answers = held_up(service, stub, [grey(150)] * 3)
        service.server.should_exit = True
        wait_for(lambda: service.service.draining)
        status, answer, headers = service.ask("GET", "/readyz")
        assert status == 503 and answer["draining"] and headers["Connection"] == "close"
        assert service.get("/healthz")[0] == 200
        wait_for(lambda: not service.server.servers[0].is_serving())
        stub.free.set()
        for thread in threads:
            thread.join(20)
        assert len(answers) == 4 and all(status == 200 for status, *_ in answers.values())
        with pytest.raises(ConnectionRefusedError):
            service.get("/healthz")
