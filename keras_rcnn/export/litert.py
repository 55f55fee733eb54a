"""A detector as a LiteRT (TFLite) model for phones and small computers, of LiteRT's own operators alone."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.preprocess import Preprocessor, scale_boxes
from keras_rcnn.data.proposals import selective_search
from keras_rcnn.data.reading import spread
from keras_rcnn.data.request import check_whole
from keras_rcnn.export import equal_scores, graph, parity
from keras_rcnn.export.litert_detector import LABELS, SETTINGS, LiteRTDetector, fit, padded
from keras_rcnn.export.litert_metadata import with_metadata
from keras_rcnn.export.target import ExportError, new_path
from keras_rcnn.files import aside
from keras_rcnn.interfaces import Detections, FilePath, Tensor
from keras_rcnn.ops.backend import kernels_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.models import Detector

# gives the model's inputs for one photo after another
Examples = Callable[[], Iterator[dict[str, np.ndarray]]]

# precision -> how far it may be from `detect` on the photos of the check. Below float32 proposals change places, so
# that some objects get another box, and weak ones come and go: scores from 0.5 count, and a share may be others
_EIGHT_BITS = parity.Tolerance(box=0.03, score=0.3, mask=0.7, missing=0.25, off=0.25, least=0.5, multiple=0)
TOLERANCES = {
    "float32": equal_scores.FLOAT32,
    "float16": parity.Tolerance(box=0.01, score=0.05, mask=0.2, missing=0.1, off=0.1, least=0.5, multiple=0),
    "dynamic": _EIGHT_BITS,
    "int8": _EIGHT_BITS,
}
# photos that the ranges of int8 are taken from; each takes seconds
CALIBRATION = 50
_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
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
    if precision not in TOLERANCES:
        raise ExportError(f"precision is one of {', '.join(map(repr, TOLERANCES))}, not {precision!r}.")
    if (calibrate is not None) != (precision == "int8"):
        needs = "precision='int8' needs calibrate=, a folder of photos like those to come"
        raise ExportError(f"{needs}." if calibrate is None else f"{needs}; {precision!r} has no use for it.")
    try:
        check_whole("max_proposals", max_proposals)
    except ValueError as error:
        raise ExportError(str(error)) from error
    path = new_path(path)
    preprocessor = fixed_preprocessor(model, size)
    settings = {
        "size": list(preprocessor.fixed_size or ()),
        "min_size": preprocessor.min_size,
        "max_size": preprocessor.max_size,
        "precision": precision,
    }
    if preprocessor.resize != "torchvision":
        settings["resize"] = preprocessor.resize
    if model.wants_proposals:
        settings["proposals"] = max_proposals
    examples = None if calibrate is None else _examples(Path(calibrate), settings)
    content = _convert(model, preprocessor, settings, precision, examples)
    files = {
        LABELS: "".join(f"{' '.join(name.split())}\n" for name in model.class_names).encode(),
        SETTINGS: json.dumps({**settings, "model": type(model).__name__, "name": model.name}).encode(),
    }
    about = f"{type(model).__name__} of keras_rcnn, {precision}; {SETTINGS} says how large photos have to be"
    content = with_metadata(content, model.name, about, _TENSORS, files, (LABELS, "labels"))
    rows = _check(content, model, photos, proposals, settings)
    try:
        with aside(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}.") from error
    return {"path": path, "size": preprocessor.fixed_size, "bytes": len(content), "parity": rows}


def fixed_preprocessor(model: Detector, size: int | Sequence[int] | None = None) -> Preprocessor:
    """The model's preprocessor with a `fixed_size`.

    Raises:
        ExportError: for a size that it cannot have.
    """
    own = model.preprocessor
    if isinstance(own, MatterportPreprocessor):
        raise ExportError(
            "A detector of Matterport's wants photos in the middle of its input, where the programs around a LiteRT "
            "model do not put them: format='saved_model' has all of it in the graph."
        )
    if size is None:
        side = -(-own.min_size // own.size_divisor) * own.size_divisor
        size = own.fixed_size or (side, side)
    size = (size,) if isinstance(size, int) else tuple(size)
    size = size * 2 if len(size) == 1 else size
    try:
        return own.replace(fixed_size=size)
    except ValueError as error:
        raise ExportError(f"size={size} cannot be the model's input: {error}.") from error


# === The graph ===


def _convert(
    model: Detector, preprocessor: Preprocessor, settings: dict[str, Any], precision: str, examples: Examples | None
) -> bytes:
    """The model's graph as the bytes of a TFLite file."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    height, width = settings["size"]
    inputs = {
        "image": tf.TensorSpec((1, height, width, 3), tf.uint8, name="image"),
        "size": tf.TensorSpec((2,), tf.int32, name="size"),
    }
    if "proposals" in settings:
        inputs["proposals"] = tf.TensorSpec((1, settings["proposals"], 4), tf.float32, name="proposals")

    def detect(image: Tensor, size: Tensor, proposals: Tensor | None = None) -> dict[str, Tensor]:
        pixels = graph.normalise(preprocessor, image)
        rows, columns = tf.range(height) < size[0], tf.range(width) < size[1]
        inside = tf.reshape(rows, [1, height, 1, 1]) & tf.reshape(columns, [1, 1, width, 1])
        x = {"images": tf.where(inside, pixels, 0.0), "image_sizes": tf.reshape(tf.cast(size, tf.float32), [1, 2])}
        if proposals is not None:
            x["proposals"] = proposals
        return dict(model(x, training=False))

    with kernels_for("litert"), tempfile.TemporaryDirectory() as folder:
        # a SavedModel for the signature's names; weights that are variables in it the converter would leave such
        frozen = convert_variables_to_constants_v2(tf.function(detect, autograph=False).get_concrete_function(**inputs))
        module: Any = tf.Module()
        module.detect = tf.function(lambda **inputs: _named(model, frozen(**inputs)), autograph=False)
        tf.saved_model.save(module, folder, {"serving_default": module.detect.get_concrete_function(**inputs)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        # none of TensorFlow's own: no phone has them
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision == "int8":
            return _int8(converter, model, examples)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _named(model: Detector, outputs: Any) -> dict[str, Tensor]:
    """A frozen graph's results, which come by name or in the order of the names -> by name."""
    return outputs if isinstance(outputs, dict) else dict(zip(sorted(model.output), outputs, strict=True))


# === 8 bits ===


def _int8(converter: Any, model: Detector, examples: Examples | None) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
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
    inside, last = _layers(model)
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


def _layers(model: Detector) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of the names of results in the layers that are quantised, and in those among them that are not."""
    parts = model.parts

    def scope(*names: str) -> str:
        return "/" + "/".join(rf"{re.escape(name)}(_\d+)?" for name in names) + "/"

    quantised = [
        scope(parts[key].name) for key in ("backbone", "neck", "rpn_head", "box_head", "mask_head") if key in parts
    ]
    kept = [scope(parts["box_predictor"].name)]
    if "cascade" in parts:
        quantised += [scope(head.name) for head in parts["cascade"].heads]
        kept += [scope(predictor.name) for predictor in parts["cascade"].predictors]
    if "rpn_head" in parts:
        kept += [scope(parts["rpn_head"].name, head) for head in ("objectness", "deltas")]
    if "mask_head" in parts:
        kept.append(scope(parts["mask_head"].name, "logits"))
    if "keypoint_branch" in parts:
        branch = parts["keypoint_branch"]
        quantised.append(scope(branch.name, branch.head.name))
        kept.append(scope(branch.name, branch.head.name, "logits"))
    return re.compile("|".join(quantised)), re.compile("|".join(kept))


def _examples(folder: Path, settings: dict[str, Any]) -> Examples:
    """The representative data set of a folder: a function whose results are the model's inputs."""
    if not folder.is_dir():
        raise ExportError(f"calibrate={str(folder)!r} is no folder.")
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if not photos:
        raise ExportError(f"calibrate={str(folder)!r} has no images in it ({', '.join(sorted(_ENDINGS))}).")
    chosen = spread(photos, CALIBRATION)

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for path in chosen:
            photo = read_image(path)
            image, size = fit(photo, settings)
            x = {"image": image[None], "size": size}
            if "proposals" in settings:
                boxes = scale_boxes(selective_search(photo), photo.shape[:2], size)
                x["proposals"] = padded(boxes[: settings["proposals"]], settings["proposals"])[None]
            yield x

    return examples


# === Proof ===


class _AsItIs(Preprocessor):
    """Photos are not resized."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


def _check(
    content: bytes,
    model: Detector,
    photos: parity.Photos | None,
    proposals: Sequence[ArrayLike] | None,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """The parity with `detect` on photos as they are in the model's input."""
    inputs, fitted = [], None if proposals is None else []
    for i, (name, photo) in enumerate(parity.named_photos(photos)):
        photo = read_image(photo)
        image, size = fit(photo, settings)
        inputs.append((name, np.ascontiguousarray(image[: size[0], : size[1]])))
        if proposals is not None:
            fitted.append(scale_boxes(proposals[i], photo.shape[:2], size))
    preprocessor = _AsItIs(**{**model.preprocessor.get_config(), "fixed_size": settings["size"]})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(content)
        detector = LiteRTDetector(file)

        def run(photo: np.ndarray, proposals: np.ndarray | None) -> Detections:
            size = photo.shape[:2]
            image = np.zeros((*settings["size"], 3), np.uint8)
            image[: size[0], : size[1]] = photo
            return detector.detect_fitted(image, np.array(size, np.int32), 0.0, proposals)

        tolerance = TOLERANCES[settings["precision"]]
        return equal_scores.check(run, model, inputs, proposals=fitted, tolerance=tolerance, preprocessor=preprocessor)
