"""A page that shows what a detector does with a photo, step by step: `keras-rcnn app`.

The stages and their pictures need NumPy and what is installed anyway; the page needs Gradio, the extra `app`, which
nothing here imports before it is used.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

__all__ = ["create_page"]

MAX_PIXELS = 25_000_000  # of a photo, unless told otherwise


def create_page(models: Mapping[str, Detector], max_pixels: int = MAX_PIXELS) -> Any:
    """An ASGI application with the page: `uvicorn.run(page, port=7860)`, or another ASGI server.

    Nothing is sent anywhere and nothing is fetched: Gradio's telemetry is off, and the fonts are the system's.

    Args:
        models: dict, the name on the page -> a detector.
        max_pixels: int, width times height of a photo.

    Returns:
        A `fastapi.FastAPI`.

    Raises:
        ImportError: the extra `app` is not installed.
        ValueError: no detector, or one that has other steps than the four papers'.

    Example:

    >>> page = keras_rcnn.app.create_page({"nuclei": keras_rcnn.from_preset("nuclei_mrcnn")})
    """
    require_extra()
    from keras_rcnn.app.page import build_page
    from keras_rcnn.app.viewer import Viewer

    return build_page(Viewer(models, max_pixels))


def require_extra() -> None:
    """Raises an ImportError that says how to install what the page needs, if it is not there."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, and later
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The app needs Gradio: pip install 'keras-rcnn-zoo[app]' ({error})") from error
