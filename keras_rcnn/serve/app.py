"""The service as an ASGI application: addresses, and what each of them does with a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from keras_rcnn.serve import kserve, openapi, plain, tensorflow_serving
from keras_rcnn.serve.bodies import Bodies
from keras_rcnn.serve.gate import Gate
from keras_rcnn.serve.metrics import Metrics
from keras_rcnn.serve.model import VERSION, Found, Photo, ServedModel
from keras_rcnn.serve.photos import check_content_type
from keras_rcnn.serve.queue import PhotoQueue
from keras_rcnn.serve.refusal import Refusal, shown
from keras_rcnn.serve.settings import ServeSettings

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def build_app(models: Mapping[str, Detector], settings: ServeSettings, token: str | None) -> Starlette:
    """What `keras_rcnn.serve.create_app` returns."""
    service = Service(models, settings)
    app = Starlette(
        routes=service.routes(),
        middleware=[Middleware(Gate, service=service, token=token)],
        exception_handlers={Refusal: _refused, HTTPException: _http_error, ClientDisconnect: _gone},
        lifespan=service.lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


class Service:
    """Models, their queues and the threads around them.

    Args:
        models: dict, name -> detector.
        settings: `ServeSettings`.

    Attributes:
        draining: whether the service is about to end: it answers, but is not ready for more.
    """

    def __init__(self, models: Mapping[str, Detector], settings: ServeSettings) -> None:
        if not models:
            raise ValueError("A service needs at least one model.")
        for name in models:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a model: letters, digits and . _ - only, at most 100.")
        self.settings, self.metrics, self.draining = settings, Metrics(), False
        self.bodies = Bodies(settings.max_body, settings.timeout)
        self._readers = ThreadPoolExecutor(settings.workers, "photos")
        self._searcher = ThreadPoolExecutor(1, "selective-search")
        self.queues = {
            name: PhotoQueue(
                ServedModel(name, detector, settings.max_pixels, settings.max_batch),
                settings,
                self._readers,
                self._searcher,
                self.metrics,
            )
            for name, detector in models.items()
        }
        for name, queue in self.queues.items():
            self.metrics.waiting.labels(name).set_function(partial(getattr, queue, "waiting"))

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Starts and stops the queues, within an ASGI server."""
        for queue in self.queues.values():
            queue.start()
        try:
            yield
        finally:
            for queue in self.queues.values():
                await queue.stop()
            for threads in (self._readers, self._searcher):
                threads.shutdown(wait=True, cancel_futures=True)

    def routes(self) -> list[Route]:
        """All addresses."""
        routes = [Route(path, self.live) for path in ("/healthz", "/v2/health/live")]
        routes += [Route(path, self.ready) for path in ("/readyz", "/v2/health/ready")]
        routes += [Route("/metrics", self.metrics_text), Route("/openapi.json", self.openapi)]
        routes += [Route(path, self.page) for path in ("/", "/docs")]
        routes += [Route(path, self.detect, methods=["POST"]) for path in ("/detect", "/detect/{name}")]
        for version in ("", "/versions/{version}"):
            model = "/v1/models/{name}" + version
            routes += [
                Route(f"{model}:predict", self.predict, methods=["POST"]),
                Route(f"{model}/metadata", self.metadata),
                Route(model, self.status),
            ]
            model = "/v2/models/{name}" + version
            routes += [
                Route(f"{model}/infer", self.infer, methods=["POST"]),
                Route(f"{model}/ready", self.model_ready),
                Route(model, self.model_metadata),
            ]
        return [*routes, Route("/v2", self.server_metadata), Route("/v1/models", self.names)]

    # === Photos in, detections out ===

    async def detect(self, request: Request) -> Response:
        """`POST /detect/NAME`: the body is a photo."""
        names = list(self.queues)
        if "name" not in request.path_params and len(names) > 1:
            raise Refusal(404, f"There are several models: POST /detect/NAME, one of {', '.join(names)}.", "not_found")
        queue = self._queue(request.path_params.get("name", names[0]))
        score, masks = plain.options_of(_query(request))
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("multipart/"):
            raise Refusal(415, "A form is not read: send the photo as the body, curl --data-binary @photo.jpg.")
        queue.check_room()
        body = await self.bodies.read(request)
        if not body:
            raise Refusal(400, "There is no body: send the bytes of a photo, curl --data-binary @photo.jpg.")
        check_content_type(body, content_type)
        return await self._answered(
            queue, [Photo(body)], lambda found: plain.answer(found[0], score, masks, queue.model)
        )

    async def predict(self, request: Request) -> Response:
        """TF Serving's `POST /v1/models/NAME:predict`."""
        queue = self._tensorflow(request)
        queue.check_room()
        body = await self.bodies.read(request)
        photos, rows = await self._in_thread(tensorflow_serving.photos_of, body, queue.model, self.settings.max_images)
        del body
        return await self._answered(queue, photos, lambda found: tensorflow_serving.answer(found, rows, queue.model))

    async def infer(self, request: Request) -> Response:
        """KServe's `POST /v2/models/NAME/infer`."""
        queue = self._kserve(request)
        queue.check_room()
        body, length = await self.bodies.read(request), request.headers.get("inference-header-content-length")
        photos, document = await self._in_thread(kserve.photos_of, body, length, queue.model, self.settings.max_images)
        del body
        return await self._answered(queue, photos, lambda found: kserve.answer(found, document, queue.model))

    async def _answered(
        self, queue: PhotoQueue, photos: Sequence[Photo], answer: Callable[[list[Found]], dict[str, Any]]
    ) -> Response:
        try:
            async with asyncio.timeout(self.settings.timeout):
                found = await queue.ask(photos)
                content = await self._in_thread(lambda: json.dumps(answer(found), allow_nan=False).encode())
        except TimeoutError as error:
            message = f"No answer within {self.settings.timeout:g} s: come again, or with fewer photos."
            raise Refusal(503, message, "timeout", retry_after=1) from error
        return Response(content, media_type="application/json")

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *args)

    # === What there is ===

    def _queue(self, name: str) -> PhotoQueue:
        if name not in self.queues:
            message = f"Servable not found for request: Latest({shown(name)}); there are {', '.join(self.queues)}"
            raise Refusal(404, message, "not_found")
        return self.queues[name]

    def _tensorflow(self, request: Request) -> PhotoQueue:
        queue = self._queue(request.path_params["name"])
        tensorflow_serving.check_version(request.path_params.get("version"), queue.model.name)
        return queue

    _kserve = _tensorflow

    async def status(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        if request.path_params["name"].endswith(":predict"):
            raise HTTPException(405, headers={"Allow": "POST"})
        self._tensorflow(request)
        return JSONResponse(tensorflow_serving.status())

    async def metadata(self, request: Request) -> Response:
        """`GET /v1/models/NAME/metadata`."""
        return JSONResponse(tensorflow_serving.metadata(self._tensorflow(request).model))

    async def names(self, request: Request) -> Response:
        """`GET /v1/models`, which TF Serving has not."""
        return JSONResponse({"models": list(self.queues)})

    async def server_metadata(self, request: Request) -> Response:
        """`GET /v2`."""
        return JSONResponse({"name": "keras_rcnn", "version": openapi.version(), "extensions": ["binary_tensor_data"]})

    async def model_metadata(self, request: Request) -> Response:
        """`GET /v2/models/NAME`."""
        return JSONResponse(kserve.metadata(self._kserve(request).model))

    async def model_ready(self, request: Request) -> Response:
        """`GET /v2/models/NAME/ready`."""
        queue = self._kserve(request)
        ready = queue.alive and not self.draining
        return JSONResponse({"name": queue.model.name, "ready": ready}, 200 if ready else 503)

    # === The service itself ===

    async def live(self, request: Request) -> Response:
        """`GET /healthz`: the process answers, and its models' threads are there."""
        alive = all(queue.alive for queue in self.queues.values())
        return JSONResponse({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: it may be sent requests."""
        ready = not self.draining and all(queue.alive for queue in self.queues.values())
        return JSONResponse({"ready": ready, "draining": self.draining}, 200 if ready else 503)

    async def metrics_text(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        return JSONResponse(openapi.document(self.settings, VERSION))

    async def page(self, request: Request) -> Response:
        """`GET /docs`."""
        document = openapi.document(self.settings, VERSION)
        safe = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(openapi.page(document), headers=safe)


def _query(request: Request) -> dict[str, str]:
    items = request.query_params.multi_items()
    if len(items) != len(dict(items)):
        raise Refusal(400, "An option is there twice.")
    return dict(items)


# === Errors, all of them {"error": ...} as TF Serving has it ===


def _refused(request: Request, error: Any) -> Response:
    request.scope["refused"] = error.reason
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse({"error": error.message}, error.status, headers)


def _http_error(request: Request, error: Any) -> Response:
    request.scope["refused"] = "not_found" if error.status_code == 404 else "method"
    where = f"{shown(request.method)} {shown(request.url.path)}"
    said = {404: f"There is no {where}; GET /docs says what there is.", 405: f"{where}: another method is wanted."}
    return JSONResponse({"error": said.get(error.status_code, error.detail)}, error.status_code, error.headers)


def _gone(request: Request, error: Any) -> Response:
    request.scope["refused"] = "gone"
    return JSONResponse({"error": "The client has gone before the end of its request."}, 400)
