"""A detector as an ONNX model: a photo of any size in, boxes in its pixels out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_rcnn.export import equal_scores, graph
from keras_rcnn.export.target import ExportError, new_path
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath, Tensor
from keras_rcnn.ops.backend import kernels_for

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf
    from numpy.typing import ArrayLike

    from keras_rcnn.export import parity
    from keras_rcnn.models import Detector

OPSET = 17
# of the file's metadata
CLASS_NAMES = "class_names"


def export_onnx(
    model: Detector,
    path: FilePath,
    *,
    photos: parity.Photos | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    opset: int = OPSET,
) -> dict[str, Any]:
    """Writes an `.onnx` file with everything in it: resizing, normalisation, network, decoding, NMS.

    Inputs are `image`, uint8 [1, H, W, 3], RGB, of any size, and of Fast R-CNN and R-CNN `proposals`, float32
    [1, P, 4] in px of the photo, any number. Outputs are `boxes` float32 [1, D, 4] in px of the photo, `scores` [1, D],
    `labels` int32 [1, D], -1 for padding, with masks `masks` float32 [1, D, 28, 28], probabilities in the boxes, and
    with keypoints `keypoints` float32 [1, D, K, 3], x, y in px of the photo and score. The class names are a list in
    json, `class_names`, in the file's metadata.

    Args:
        model: a detector.
        path: the file.
        photos: list of paths or arrays for the check in onnxruntime; None: crops of the demo's photo.
        proposals: of a detector that wants proposals, for each photo [P, 4] in its px; None: selective search.
        opset: int, of ONNX's operators.

    Returns:
        A dict: `path`, `bytes`, and `parity`, the rows of `parity.check`.

    Raises:
        ExportError: for a path that exists or cannot be written, or where the packages of the extra `onnx` are missing.
        ParityError: if onnxruntime does not answer as `detect` does.

    Example:

    >>> keras_rcnn.export_model(model, "nuclei.onnx", "onnx")
    >>> session = onnxruntime.InferenceSession("nuclei.onnx")
    >>> boxes, labels, scores = session.run(["boxes", "labels", "scores"], {"image": photo[None]})
    >>> json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    """
    check_packages("ONNX")
    path = new_path(path)
    content, rows = checked_content(model, photos, proposals, opset)
    try:
        with aside(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}.") from error
    return {"path": path, "bytes": len(content), "parity": rows}


def check_packages(format: str) -> None:
    """Refuses to begin where the packages of the extra `onnx` are missing."""
    missing = [package for package in ("tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"{format} needs {', '.join(missing)}: pip install 'keras-rcnn-zoo[onnx]'.")


def checked_content(
    model: Detector, photos: parity.Photos | None, proposals: Sequence[ArrayLike] | None, opset: int = OPSET
) -> tuple[bytes, list[dict[str, Any]]]:
    """`(content, rows)`: the bytes of the ONNX file, and the rows of the check that it has passed."""
    content = _convert(model, opset)
    return content, equal_scores.check(_runner(content), model, photos, proposals=proposals)


def _convert(model: Detector, opset: int) -> bytes:
    """The bytes of the ONNX file."""
    import tensorflow as tf

    inputs = [tf.TensorSpec((1, None, None, 3), tf.uint8, name="image")]
    if model.wants_proposals:
        inputs.append(tf.TensorSpec((1, None, 4), tf.float32, name="proposals"))

    def network(x: Mapping[str, Tensor], training: bool = False) -> Any:
        # one photo is known to be one
        return model({key: tf.ensure_shape(value, [1, *value.shape[1:]]) for key, value in x.items()}, training=False)

    def detect(image: Tensor, proposals: Tensor | None = None) -> dict[str, Tensor]:
        return graph.detect(network, model.preprocessor, image, proposals)

    proto = as_onnx(detect, inputs, opset)
    entry = proto.metadata_props.add()
    entry.key, entry.value = CLASS_NAMES, json.dumps(model.class_names)
    return proto.SerializeToString()


def as_onnx(function: Callable[..., dict[str, Tensor]], inputs: Sequence[tf.TensorSpec], opset: int = OPSET) -> Any:
    """A function of tensors, in the order of `inputs`, as an `onnx.ModelProto`."""
    import tensorflow as tf
    import tf2onnx

    with kernels_for("onnx"):
        traced = tf.function(function, input_signature=inputs, autograph=False)
        return tf2onnx.convert.from_function(traced, input_signature=inputs, opset=opset)[0]


def _runner(content: bytes) -> parity.Run:
    """The file in onnxruntime as the function that `parity.check` wants."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(photo: np.ndarray, proposals: np.ndarray | None) -> dict[str, np.ndarray]:
        inputs = {"image": photo[None]}
        if proposals is not None:
            inputs["proposals"] = proposals[None]
        return {name: value[0] for name, value in zip(names, session.run(None, inputs), strict=True)}

    return run
