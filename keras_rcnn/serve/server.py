"""uvicorn around the application: an end to slow headers, errors as JSON, and a stop that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import math
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_rcnn.serve.settings import ServeSettings

logger = logging.getLogger("keras_rcnn.serve")

# seconds for a request's header, or for what comes of a body that nobody reads any more
HEADER_SECONDS = 10.0
# for a client to take an answer
WRITE_SECONDS = 60.0
MAX_CONNECTIONS = 800
_KEEP_ALIVE = 15


class Protocol(H11Protocol):
    """HTTP/1.1 by h11, for clients that are slow or do not speak it."""

    header_seconds, write_seconds = HEADER_SECONDS, WRITE_SECONDS
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """It says something."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._unwatch()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It does not read what it is sent."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is answered in JSON, too."""
        self._end(400, f"{msg.rstrip('.')}: not HTTP/1.1, or a header of more than 16 kB.")

    def _watch(self) -> None:
        header = self.conn.their_state is h11.IDLE
        unread = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if not (header or unread):
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.their_state is h11.IDLE:
            self._end(408, f"No whole header within {self.header_seconds:g} s.")
        else:
            self.transport.close()

    def _end(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun
            events = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server for `create_app`'s application.

    On SIGTERM it is no longer ready (`/readyz`), but goes on for `drain` seconds, with `Connection: close` in every
    answer; then it takes no more connections, answers what it has, and ends.

    Args:
        app: what `create_app` returned.
        settings: `ServeSettings`.
        drain: float, seconds.
    """

    def __init__(self, app: Starlette, settings: ServeSettings, drain: float = 0.5) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(2 * settings.timeout) + 5,
        )
        super().__init__(config)
        self.service, self.drain = app.state.service, drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends as said above."""
        logger.info("stopping", extra={"fields": {"drain": self.drain}})
        self.service.draining = True
        end = asyncio.get_running_loop().time() + self.drain
        while asyncio.get_running_loop().time() < end and not self.force_exit:
            await asyncio.sleep(0.05)
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.1)  # whoever was let in just now says what it wants
        await super().shutdown(sockets)
        logger.info("stopped")


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, before anybody waits for models.

    Raises:
        OSError: the address is taken or not this machine's; the message has it.
    """
    family, kind, protocol, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port}: {error.strerror or error}; name another by --host and --port") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a bound socket as a browser takes it, `http://127.0.0.1:8501`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    places = [str(one[4][0]).partition("%")[0] for one in _addresses(host, 0)]
    return all(ipaddress.ip_address(place).is_loopback for place in places)


def _addresses(host: str, port: int) -> Sequence[Any]:
    try:
        return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise OSError(f"--host {host!r} --port {port}: no such address ({error})") from error


def run(app: Starlette, settings: ServeSettings, listener: socket.socket, drain: float = 0.5) -> None:
    """Serves until SIGTERM or Ctrl-C, which ends it as `Server` says."""
    server, before = Server(app, settings, drain), None
    main = threading.current_thread() is threading.main_thread()
    if main:  # uvicorn raises the signal again when all is done, which would end the process with an error
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        server.run(sockets=[listener])
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
