"""What every request passes: a token, an id, one line in the log, the metrics, and an answer for what went wrong."""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keras_rcnn.serve.refusal import shown

if TYPE_CHECKING:
    from keras_rcnn.serve.app import Service

logger = logging.getLogger("keras_rcnn.serve")

# what probes and people ask for without a token; it says nothing of the models
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json")
_QUIET = ("live", "ready", "metrics_text")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """ASGI middleware around all addresses.

    Args:
        app: what answers.
        service: `Service`.
        token: str, or None.
    """

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self.app, self.service, self._token = app, service, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, metrics = time.monotonic(), self.service.metrics
        headers, sent = Headers(scope=scope), {"status": 0, "bytes": 0}
        given = headers.get("x-request-id", "")
        name = given if _ID.fullmatch(given) else uuid.uuid4().hex

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = name
                answer["X-Content-Type-Options"] = "nosniff"
                if self.service.draining:  # so that a client asks another next time
                    answer["Connection"] = "close"
            sent["bytes"] += len(message.get("body", b""))
            await send(message)

        metrics.open.inc()
        try:
            if self._allows(scope, headers):
                await self.app(scope, receive, told)
            else:
                scope["refused"] = "token"
                error = {"error": "A token is wanted: Authorization: Bearer TOKEN."}
                await JSONResponse(error, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, told)
        except Exception:
            logger.exception("failed", extra={"fields": {"request_id": name, "path": shown(scope["path"])}})
            if not sent["status"]:
                error = {"error": f"The service has failed; its log says more, under {name}."}
                await JSONResponse(error, 500)(scope, receive, told)
        finally:
            metrics.open.dec()
            self.service.bodies.release(Request(scope))
            seconds, endpoint = time.monotonic() - started, getattr(scope.get("endpoint"), "__name__", "none")
            metrics.request(endpoint, sent["status"], seconds)
            if "refused" in scope:
                metrics.refused(scope["refused"])
            level = logging.DEBUG if endpoint in _QUIET and sent["status"] == 200 else logging.INFO
            logger.log(level, "request", extra={"fields": _fields(scope, sent, seconds, name)})

    def _allows(self, scope: Scope, headers: Headers) -> bool:
        if self._token is None or scope["path"] in OPEN:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token.encode())
        return kind.lower() == "bearer" and same


def _fields(scope: Scope, sent: dict[str, int], seconds: float, name: str) -> dict[str, Any]:
    client = scope.get("client")
    fields = {
        "request_id": name,
        "client": client[0] if client else None,
        "method": shown(scope["method"]),
        "path": shown(scope["path"]),
        "status": sent["status"],
        "ms": round(1000 * seconds, 1),
        "bytes": sent["bytes"],
    }
    return {**fields, "refused": scope["refused"]} if "refused" in scope else fields
