"""A detector for other runtimes, SavedModel, LiteRT, ONNX, OpenVINO, a browser: each proven equal to `detect`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from keras_rcnn.export.parity import ParityError, Tolerance
from keras_rcnn.export.target import ExportError
from keras_rcnn.renamed import keep_former_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from keras_rcnn.interfaces import FilePath, Photo
    from keras_rcnn.models import Detector

__all__ = ["ExportError", "ParityError", "Tolerance", "export_model"]

# format -> module and function
_FORMATS = {
    "saved_model": ("saved_model", "export_saved_model"),
    "litert": ("litert", "export_litert"),
    "onnx": ("onnx", "export_onnx"),
    "openvino": ("openvino", "export_openvino"),
    "web": ("web", "export_web"),
}


def export_model(
    model: Detector,
    path: FilePath,
    format: Literal["saved_model", "litert", "onnx", "openvino", "web"] = "saved_model",
    *,
    photos: Sequence[Photo] | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes a detector for another runtime, with preprocessing, decoding and NMS in its graph.

    It ends with a check on photos: the exported model must answer as `model.detect` does, to 1e-4 of the photo's side
    and of a score; a model that amplifies float32's rounding more than that, to a few times what rounding alone does to
    its answers (see `Tolerance`). If it does not, the export fails and nothing is left of it.

    Args:
        model: a detector.
        path: where to: of `"saved_model"` a folder, which gets a folder for the version, `PATH/1`; of `"openvino"` and
            `"web"` a folder, of the others a file. Nothing that exists is replaced.
        format: `"saved_model"`, `"litert"`, `"onnx"`, `"openvino"` or `"web"`, a page that detects in the browser.
        photos: list of paths or arrays for the check; None: crops of the demo's photo.
        proposals: of a detector that wants proposals, for each of the photos [P, 4] in its px; None: selective search.
            Another detector refuses them.
        **options: of the format: see `export_saved_model`, `export_litert`, `export_onnx`, `export_openvino` and
            `export_web`.

    Returns:
        A dict: `path`, what was written, and `parity`, a row for each photo of the check (see `parity.check`).

    Raises:
        ExportError: for an unknown format or option, a path that exists or cannot be written.
        ParityError: if the exported model does not answer as `detect` does.

    Example:

    >>> model = keras_rcnn.from_preset("nuclei_mrcnn")
    >>> keras_rcnn.export_model(model, "served/nuclei")["path"]
    PosixPath('served/nuclei/1')
    """
    if format not in _FORMATS:
        raise ExportError(f"format is one of {', '.join(map(repr, _FORMATS))}, not {format!r}.")
    _check_model(model)
    proposals = _check_proposals(model, photos, proposals)
    module, name = _FORMATS[format]
    function = getattr(importlib.import_module(f"keras_rcnn.export.{module}"), name)
    known = [parameter for parameter in inspect.signature(function).parameters if parameter not in ("model", "path")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ExportError(f"The format {format!r} has no option {', '.join(unknown)}; it has {', '.join(known)}.")
    return function(model, path, photos=photos, proposals=proposals, **options)


def _check_proposals(
    model: Detector, photos: Sequence[Photo] | None, proposals: Sequence[ArrayLike] | None
) -> list[np.ndarray] | None:
    """The proposals for the check's photos as a list of float32 [P, 4], or None."""
    from keras_rcnn.data.request import check_request

    if proposals is None:
        return None
    if photos is None:
        raise ExportError("proposals are those of the photos of the check: give photos, too.")
    try:
        finder = None if model.wants_proposals else type(model).__name__
        return check_request(list(photos), score=0.0, proposals=list(proposals), finder=finder)[1]
    except ValueError as error:
        raise ExportError(str(error)) from error


def _check_model(model: Any) -> None:
    import keras

    if not all(hasattr(model, attribute) for attribute in ("preprocessor", "detect", "wants_proposals")):
        raise ExportError(f"A detector is exported, such as from_preset returns, not a {type(model).__name__}.")
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Exports are made by TensorFlow, and Keras runs on {keras.backend.backend()}: save_preset the model, and "
            "export the folder in a process with KERAS_BACKEND=tensorflow."
        )


keep_former_name(__name__, "export", "export_model")
