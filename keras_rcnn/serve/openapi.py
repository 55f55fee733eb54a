"""What the service offers, as OpenAPI and as a small page."""

import html
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from keras_rcnn.serve.settings import ServeSettings

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "description": "the model"}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
_SCORE = {"name": "score", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1}}
_MASKS = {"name": "masks", "in": "query", "schema": {"type": "string", "enum": ["rle", "crops", "none"]}}
_FILE = {"type": "string", "format": "binary"}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_ERRORS = {
    "400": "the request is not as it should be",
    "401": "a token is wanted",
    "404": "no such model or version",
    "408": "the body did not arrive in time",
    "413": "too many bytes, pixels, photos or values",
    "415": "a body of another kind",
    "429": "the queue is full; Retry-After says when to come again",
    "503": "no answer in time, or about to end",
}
_DETECTIONS = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "height": {"type": "integer"},
        "width": {"type": "integer"},
        "boxes": {"type": "array", "items": _NUMBERS, "description": "x1, y1, x2, y2 in pixels of the photo"},
        "scores": _NUMBERS,
        "labels": {"type": "array", "items": {"type": "integer"}},
        "names": {"type": "array", "items": {"type": "string"}},
        "masks": {"type": "array", "items": {"type": "object"}, "description": "COCO RLE: size and counts"},
        "keypoints": {"type": "array", "items": {"type": "array", "items": _NUMBERS}},
    },
}
_PREDICT = {
    "type": "object",
    "properties": {"signature_name": {"type": "string"}, "inputs": {}, "instances": {"type": "array", "items": {}}},
    "example": {"inputs": {"image_bytes": [{"b64": "..."}]}},
}
_INFER = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "inputs": {"type": "array", "items": {"type": "object"}}},
    "example": {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": ["..."]}]},
}


def version() -> str:
    """The package's, as it was installed."""
    try:
        return importlib.metadata.version("keras-rcnn-zoo")
    except importlib.metadata.PackageNotFoundError:  # a checkout on Python's path
        return "unknown"


def document(settings: ServeSettings, model_version: int) -> dict[str, Any]:
    """The service's OpenAPI 3.1 document; it names no model."""
    paths: dict[str, Any] = {}

    def add(path: str, method: str, what: str, body: Any = None, answer: Any = None, query: Any = ()) -> None:
        parameters = [one for one in (_NAME, _VERSION) if f"{{{one['name']}}}" in path] + list(query)
        made: dict[str, Any] = {"summary": what, "parameters": parameters, "responses": _responses(answer, body)}
        if body is not None:
            made["requestBody"] = {"required": True, "content": body}
        paths.setdefault(path, {})[method] = made

    photo = {"image/*": {"schema": _FILE}, "application/octet-stream": {"schema": _FILE}}
    add("/detect", "post", "What the only model finds in a photo", photo, _DETECTIONS, (_SCORE, _MASKS))
    add("/detect/{name}", "post", "What a model finds in a photo", photo, _DETECTIONS, (_SCORE, _MASKS))
    for between in ("", "/versions/{version}"):
        model = "/v1/models/{name}" + between
        add(f"{model}:predict", "post", "TF Serving: predict", {"application/json": {"schema": _PREDICT}})
        add(model, "get", "TF Serving: status")
        add(f"{model}/metadata", "get", "TF Serving: signatures")
        model = "/v2/models/{name}" + between
        add(f"{model}/infer", "post", "KServe v2: infer", {"application/json": {"schema": _INFER}})
        add(model, "get", "KServe v2: inputs and outputs")
        add(f"{model}/ready", "get", "KServe v2: whether a model is ready")
    for path, what in (
        ("/v1/models", "The names of the models"),
        ("/v2", "KServe v2: the server"),
        ("/v2/health/live", "KServe v2: whether the process lives"),
        ("/v2/health/ready", "KServe v2: whether it may be sent requests"),
        ("/healthz", "Whether the process lives"),
        ("/readyz", "Whether it may be sent requests"),
        ("/metrics", "Prometheus's metrics"),
    ):
        add(path, "get", what)
    limits = (
        f"A body has at most {settings.max_body:,} bytes, a request {settings.max_images} photos, a photo "
        f"{settings.max_pixels:,} px; {settings.queue} photos wait for a model, and an answer comes within "
        f"{settings.timeout:g} s. The models' version is {model_version}."
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "keras_rcnn", "version": version(), "description": limits},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _responses(answer: Any, body: Any) -> dict[str, Any]:
    good = {"description": "the answer", "content": {"application/json": {"schema": answer or {"type": "object"}}}}
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    codes = _ERRORS if body else {key: _ERRORS[key] for key in ("401", "404", "503")}
    bad = {
        code: {"description": what, "content": {"application/json": {"schema": error}}} for code, what in codes.items()
    }
    return {"200": good, **bad}


def page(document: Mapping[str, Any]) -> str:
    """The document as a page without scripts."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td><td>{html.escape(one['summary'])}</td></tr>"
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    )
    info = document["info"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>keras_rcnn</title>
<style>body{{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}}
td{{padding:.2rem .8rem .2rem 0;vertical-align:top}}</style></head>
<body><h1>keras_rcnn {html.escape(info["version"])}</h1>
<p>{html.escape(info["description"])}</p>
<pre>curl --data-binary @photo.jpg http://localhost:8501/detect</pre>
<table>{rows}</table>
<p><a href="openapi.json">openapi.json</a></p></body></html>
"""
