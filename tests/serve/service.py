"""A service in this process, in a thread of its own, on a free port of this machine; and plain HTTP to it."""

import contextlib
import http.client
import json
import threading
import time

from keras_rcnn.serve import ServeSettings, create_app
from keras_rcnn.serve.server import Server, bound


class Running:
    """`port`, `service` with its queues and metrics, and requests to it."""

    def __init__(self, server, port):
        self.server, self.port, self.service = server, port, server.service
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """-> (status, what the JSON says, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = answer.headers.get("Content-Type") == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode(), answer.headers

    def post(self, path, body, **headers):
        """-> (status, what the JSON says)."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, body, headers)[:2]

    def get(self, path):
        """-> (status, what the JSON says)."""
        return self.ask("GET", path)[:2]


@contextlib.contextmanager
def running(models, token=None, drain=0.0, protocol=None, **settings):
    """Serves detectors by name."""
    settings = ServeSettings(**{"timeout": 60, "workers": 2, **settings})
    app = create_app(models, settings, token=token)
    listener = bound("127.0.0.1", 0)
    server = Server(app, settings, drain)
    if protocol:
        server.config.http = protocol
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield Running(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
