"""A detector as OpenVINO's IR, for Intel's processors and graphics: with the inputs and outputs of LiteRT's."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.export import parity
from keras_rcnn.export.fixed_input import (
    CALIBRATION,
    TOLERANCES,
    Examples,
    check_fitted,
    check_options,
    examples,
    files_of,
    fixed_preprocessor,
    graph_of,
    layers,
    settings_of,
)
from keras_rcnn.export.onnx import as_onnx
from keras_rcnn.export.openvino_detector import MODEL, OpenVINODetector
from keras_rcnn.export.target import ExportError, new_folder, new_path
from keras_rcnn.interfaces import FilePath

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.models import Detector

PRECISIONS = ("float32", "float16", "int8")


def export_openvino(
    model: Detector,
    path: FilePath,
    *,
    photos: parity.Photos | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    precision: Literal["float32", "float16", "int8"] = "float32",
    calibrate: FilePath | None = None,
    size: int | Sequence[int] | None = None,
    max_proposals: int = 1000,
) -> dict[str, Any]:
    """Writes a folder with `model.xml` and `model.bin`, and `labels.txt` and `detector.json`, which a program needs.

    Inputs and outputs are those of `export_litert`, by the same names: a photo, resized to fit into the fixed input,
    and its size there. `keras_rcnn/export/openvino_detector.py` is what is around the model, without Keras and
    TensorFlow; `keras-rcnn detect` and `evaluate` take the folder as a preset.

    Args:
        model: a detector.
        path: the folder.
        photos: list of paths or arrays for the check in OpenVINO; None: crops of the demo's photo.
        proposals: of a detector that wants proposals, for each photo [P, 4] in its px; None: selective search.
        precision: `"float32"`; `"float16"` for the weights, half the file; `"int8"`: weights and activations of
            backbone, pyramid and heads in 8 bits, by NNCF, for which `calibrate` is needed. Of the latter the last
            layers (objectness, box deltas, class and mask logits), RoIAlign, decoding and NMS stay float32.
        calibrate: a folder of photos like those to come; `CALIBRATION` of them are used.
        size: of the input, as in `export_litert`.
        max_proposals: int P.

    Returns:
        A dict: `path`, `size`, `bytes` of both files of the model, and `parity`, the rows of `parity.check`: with
        `detect` on the photo as it is in the input.

    Raises:
        ExportError: for a path that exists or cannot be written, an unknown precision, a size that the detector cannot
            have, a calibration folder without images, or where the packages of the extra `openvino` are missing.
        ParityError: if the model does not answer as `detect` does.

    Example:

    >>> keras_rcnn.export_model(model, "nuclei_openvino", "openvino")
    >>> OpenVINODetector("nuclei_openvino").detect(photo, score=0.5)["boxes"]
    """
    check_options(PRECISIONS, precision, calibrate, max_proposals)
    needed = ["openvino", "tf2onnx", "onnx", *(["nncf"] if precision == "int8" else [])]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"OpenVINO needs {', '.join(missing)}: pip install 'keras-rcnn-zoo[openvino]'.")
    path = new_path(path)
    preprocessor = fixed_preprocessor(model, size)
    settings = settings_of(model, preprocessor, precision, max_proposals)
    inputs = None if calibrate is None else examples(Path(calibrate), settings)
    import openvino

    network = _convert(model, preprocessor, settings)
    if inputs is not None:
        network = _int8(network, model, inputs)
    with new_folder(path) as folder:
        openvino.save_model(network, folder / MODEL, compress_to_fp16=precision == "float16")
        written = sum(file.stat().st_size for file in folder.iterdir())
        for name, content in files_of(model, settings).items():
            (folder / name).write_bytes(content)
        rows = check_fitted(OpenVINODetector(folder), model, photos, proposals, TOLERANCES[precision])
    return {"path": path, "size": preprocessor.fixed_size, "bytes": written, "parity": rows}


def _convert(model: Detector, preprocessor: Preprocessor, settings: dict[str, Any]) -> Any:
    """The graph as an `openvino.Model`, by way of ONNX, which keeps the names of layers."""
    import openvino

    detect, inputs = graph_of(model, preprocessor, settings)
    return openvino.convert_model(io.BytesIO(as_onnx(detect, list(inputs.values())).SerializeToString()))


def _int8(network: Any, model: Detector, inputs: Examples) -> Any:
    """The network with backbone, pyramid and heads in 8 bits, all else as it was."""
    import nncf

    inside, last = layers(model)
    names = [node.get_friendly_name() for node in network.get_ordered_ops()]
    others = [name for name in names if last.search(name) or not inside.search(name)]
    with _silent():
        return nncf.quantize(
            network,
            nncf.Dataset(list(inputs())),
            subset_size=CALIBRATION,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF says a line for each operator, and draws bars of progress."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
