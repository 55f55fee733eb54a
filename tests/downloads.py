"""A web server on this machine with one file, which misbehaves in every way that a download has to stand."""

import contextlib
import http.server
import re
import threading
import time

import pytest


class Server:
    """Serves `content` at `url`; what is set on it changes how."""

    def __init__(self):
        self.content, self.status, self.requests = b"", 200, 0
        self.claims = None  # the Content-Length that it gives; "" for none
        self.etag = None
        self.headers = {}
        self.cut = None  # bytes of the body after which it hangs up
        self.endless = False
        self.pause = 0  # seconds before the body
        self.ranges = []  # what was asked for
        self.location = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.running.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.running.server_address[1]}/weights.pth"

    def answer(self, handler):
        self.requests += 1
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        start, status = 0, self.status
        if asked and self.etag and handler.headers.get("If-Range") == self.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            status = 206 if start < len(self.content) else 416
        body = self.content[start:]
        handler.send_response(status)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        claims = str(len(body)) if self.claims is None else self.claims
        for key, value in {"Content-Length": claims, "ETag": self.etag, "Location": self.location}.items():
            if value:
                handler.send_header(key, value)
        for key, value in self.headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        time.sleep(self.pause)
        with contextlib.suppress(OSError):
            handler.wfile.write(body[: self.cut])
            while self.endless:
                handler.wfile.write(bytes(2**16))


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.running.shutdown()
    running.running.server_close()
