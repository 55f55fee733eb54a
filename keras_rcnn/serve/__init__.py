"""Detectors behind HTTP: TF Serving's REST API, the KServe v2 protocol and a plain `POST /detect`, in one process.

The framework (Starlette, uvicorn) and the metrics are the extra `serve`; nothing here imports them before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_rcnn.serve.settings import ServeSettings

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

__all__ = ["ServeSettings", "create_app"]


def create_app(
    models: Mapping[str, Detector], settings: ServeSettings | None = None, *, token: str | None = None
) -> Any:
    """An ASGI application that serves detectors: `uvicorn.run(app, port=8501)`, or another ASGI server.

    `keras-rcnn serve` runs it with an end to slow headers and a stop that loses no request.

    Args:
        models: dict, the name in the addresses -> a detector.
        settings: `ServeSettings`: batches, the queue and the limits of a request; None: the defaults.
        token: str that a client sends as `Authorization: Bearer TOKEN`; None: anyone may ask.

    Returns:
        A `starlette.applications.Starlette`.

    Raises:
        ImportError: the extra `serve` is not installed.
        ValueError: no model, or a name that cannot stand in an address.

    Example:

    >>> app = keras_rcnn.serve.create_app({"nuclei": keras_rcnn.from_preset("nuclei_mrcnn")}, token="long and secret")
    """
    require_extra()
    from keras_rcnn.serve.app import build_app

    return build_app(models, settings or ServeSettings(), token)


def require_extra() -> None:
    """Raises an ImportError that says how to install what the service needs, if it is not there."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"A service needs Starlette, uvicorn and prometheus_client: pip install 'keras-rcnn-zoo[serve]' ({error})"
        ) from error
