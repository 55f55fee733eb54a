"""HTTP requests that are over in time, with answers that are no longer than they may be."""

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

# of what a server says of an error
_MAX_ERROR = 2**16


class TooLongError(OSError):
    """An answer that is longer than it may be."""


def fetch(
    address: str, body: bytes | None = None, *, timeout: float, most: int, token: str | None = None
) -> tuple[int, str, bytes]:
    """Sends a request; a redirection is not followed.

    Args:
        address: http or https.
        body: bytes of json to POST; None for a GET.
        timeout: float, seconds for all of it once there is a connection, and for the connection.
        most: int, bytes of the answer.
        token: str that is sent as `Authorization: Bearer TOKEN`; None: none.

    Returns:
        `(status, reason, content)`: int, str, bytes. Of a status from 300 on the content is cut off at 64 kB.

    Raises:
        OSError, http.client.HTTPException, ValueError: no such server, or no HTTP. `TimeoutError` if it takes longer,
            `TooLongError` if there is more.
    """
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, body, headers)
    sockets, over = [], threading.Event()

    def end() -> None:  # a server that sends a byte now and then would never run into the socket's own timeout
        over.set()
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, end)
    timer.daemon = True
    timer.start()
    try:
        response = _exchange(request, sockets, timeout, most)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if over.is_set():
            raise TimeoutError(f"not over after {timeout:g} seconds") from error
        raise
    finally:
        timer.cancel()
    if over.is_set():  # what came may be a part
        raise TimeoutError(f"not over after {timeout:g} seconds")
    return response


def _exchange(
    request: urllib.request.Request, sockets: list[socket.socket], timeout: float, most: int
) -> tuple[int, str, bytes]:
    try:
        with _opener(sockets).open(request, timeout=timeout) as response:
            return response.status, response.reason, _read(response, most)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.reason), error.read(_MAX_ERROR)


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    parts, length = [], 0
    while part := response.read1(2**16):
        length += len(part)
        if length > most:
            raise TooLongError(f"longer than {most} bytes")
        parts.append(part)
    return b"".join(parts)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(sockets: list[socket.socket]) -> urllib.request.OpenerDirector:
    """urllib's, with its proxies, that notes the sockets which it opens."""

    class Noted(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class Connection(Noted, http.client.HTTPConnection):
        pass

    class SecureConnection(Noted, http.client.HTTPSConnection):
        pass

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req)

    class Https(urllib.request.HTTPSHandler):
        _context: Any  # which typeshed does not know

        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(SecureConnection, req, context=self._context)

    return urllib.request.build_opener(Http, Https, _NoRedirection)
