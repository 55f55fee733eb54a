"""A detector as a LiteRT (TFLite) model for phones and small computers, of LiteRT's own operators alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.export import parity
from keras_rcnn.export.fixed_input import (
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
from keras_rcnn.export.litert_detector import LABELS, SETTINGS, LiteRTDetector
from keras_rcnn.export.litert_metadata import with_metadata
from keras_rcnn.export.target import ExportError, new_path
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath, Tensor
from keras_rcnn.ops.backend import kernels_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.models import Detector

_TENSORS = {
    "image": "RGB photo, 0 to 255, at the upper left of the input; what is in the rest does not matter",
    "size": "height and width of the photo in the input, px",
    "proposals": "regions that may be objects, x1, y1, x2, y2 in px of the input; zeros are padding",
    "boxes": "x1, y1, x2, y2 in px of the input, the best first",
    "scores": "0 to 1; 0 is padding",
    "labels": "class, a line of labels.txt counted from 0; -1 is padding",
    "masks": "probability of the object's pixels, stretched over its box",
    "keypoints": "x, y in px of the input, and score, of each keypoint of the object",
}


def export_litert(
    model: Detector,
    path: FilePath,
    *,
    photos: parity.Photos | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    precision: Literal["float32", "float16", "dynamic", "int8"] = "float32",
    calibrate: FilePath | None = None,
    size: int | Sequence[int] | None = None,
    max_proposals: int = 1000,
) -> dict[str, Any]:
    """Writes a `.tflite` file with everything but the photo's resizing in it: normalisation, network, decoding, NMS.

    It takes one photo, resized to fit into the fixed input, and has a signature with names:

    - `image`: uint8 [1, H, W, 3], RGB, the photo at the upper left, anything in the rest.
    - `size`: int32 [2], height and width in px of the photo there.
    - `proposals`: float32 [1, P, 4], of Fast R-CNN and R-CNN, in px of the input, padded with zeros.

    It returns `boxes` float32 [1, D, 4] in px of the input, `scores` [1, D], `labels` int32 [1, D], -1 for padding, and
    with masks `masks` [1, D, 28, 28], probabilities in the boxes, with keypoints `keypoints` [1, D, K, 3] in px of the
    input. The file has TFLite metadata, with `labels.txt` and
    `detector.json`; `keras_rcnn/export/litert_detector.py` is a program, and an example, of what is around the model,
    without Keras and TensorFlow.

    Args:
        model: a detector.
        path: the file.
        photos: list of paths or arrays for the check; None: crops of the demo's photo.
        proposals: of a detector that wants proposals, for each photo [P, 4] in its px; None: selective search.
        precision: `"float32"`; `"float16"` for the weights, half the file; `"dynamic"`, weights of 8 bits, activations
            quantised as they come; `"int8"`: weights and activations of backbone, pyramid and heads in 8 bits, for
            which `calibrate` is needed. Of the latter the last layers (objectness, box deltas, class and mask logits),
            RoIAlign, decoding and NMS stay float32: with 256 levels they would lose the order of proposals and the
            corners of boxes.
        calibrate: a folder of photos like those to come; `CALIBRATION` of them are used.
        size: int, or (height, width), of the input in px, multiples of the preprocessor's `size_divisor`. None: its
            `fixed_size`, or a square of `min_size`. Photos keep their proportions, and are made smaller if need be.
        max_proposals: int P.

    Returns:
        A dict: `path`, `size`, `bytes`, and `parity`, the rows of `parity.check`: with `detect` on the photo as it is
        in the input.

    Raises:
        ExportError: for a path that exists or cannot be written, an unknown precision, a size that the detector cannot
            have, or a calibration folder without images.
        ParityError: if the model does not answer as `detect` does.
    """
    check_options(TOLERANCES, precision, calibrate, max_proposals)
    path = new_path(path)
    preprocessor = fixed_preprocessor(model, size)
    settings = settings_of(model, preprocessor, precision, max_proposals)
    inputs = None if calibrate is None else examples(Path(calibrate), settings)
    content = _convert(model, preprocessor, settings, inputs)
    about = f"{type(model).__name__} of keras_rcnn, {precision}; {SETTINGS} says how large photos have to be"
    content = with_metadata(content, model.name, about, _TENSORS, files_of(model, settings), (LABELS, "labels"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(content)
        rows = check_fitted(LiteRTDetector(file), model, photos, proposals, TOLERANCES[precision])
    try:
        with aside(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}.") from error
    return {"path": path, "size": preprocessor.fixed_size, "bytes": len(content), "parity": rows}


# === The graph ===


def _convert(model: Detector, preprocessor: Preprocessor, settings: dict[str, Any], inputs: Examples | None) -> bytes:
    """The model's graph as the bytes of a TFLite file."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    detect, specs = graph_of(model, preprocessor, settings)
    with kernels_for("litert"), tempfile.TemporaryDirectory() as folder:
        # a SavedModel for the signature's names; weights that are variables in it the converter would leave such
        frozen = convert_variables_to_constants_v2(tf.function(detect, autograph=False).get_concrete_function(**specs))
        module: Any = tf.Module()
        module.detect = tf.function(lambda **inputs: _named(model, frozen(**inputs)), autograph=False)
        tf.saved_model.save(module, folder, {"serving_default": module.detect.get_concrete_function(**specs)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        # none of TensorFlow's own: no phone has them
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if inputs is not None:
            return _int8(converter, model, inputs)
        if settings["precision"] != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if settings["precision"] == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _named(model: Detector, outputs: Any) -> dict[str, Tensor]:
    """A frozen graph's results, which come by name or in the order of the names -> by name."""
    return outputs if isinstance(outputs, dict) else dict(zip(sorted(model.output), outputs, strict=True))


# === 8 bits ===


def _int8(converter: Any, model: Detector, inputs: Examples) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = inputs
    # first with ranges alone: then it is known what the results are called that stay float32
    converter._experimental_calibrate_only = True
    content, names, operators = _ranges_of_the_network(converter.convert(), model)
    # by name alone, operators of two results such as top-k would be quantised all the same
    return mlir_quantize(content, denylisted_nodes=names, denylisted_ops=operators)


def _ranges_of_the_network(content: bytes, model: Detector) -> tuple[bytes, list[str], list[str]]:
    """A calibrated file -> one that knows the ranges in backbone, neck and heads alone, without their last layers; the
    names of all other results, and the kinds of operators that are not in there."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    file = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    graph = file.subgraphs[0]
    inside, last = layers(model)
    of_code = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    ranges, inner, others, names = set(), set(), set(), []
    for node in graph.operators:
        code = file.operatorCodes[node.opcodeIndex]
        operator = of_code[max(code.builtinCode, code.deprecatedBuiltinCode)]
        results = [graph.tensors[i].name.decode() for i in node.outputs]
        if all(inside.search(name) and not last.search(name) for name in results):
            inner.add(operator)
            ranges.update(node.inputs, node.outputs)
        else:
            others.add(operator)
            names += results
    for i, tensor in enumerate(graph.tensors):
        if i not in ranges:
            tensor.quantization = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file)), names, sorted(others - inner)
