"""A detector as a SavedModel in the folders that TF Serving wants."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.preprocess import scale_boxes
from keras_rcnn.data.proposals import selective_search
from keras_rcnn.data.request import check_score
from keras_rcnn.export import graph, parity
from keras_rcnn.export.target import ExportError, new_folder, new_path
from keras_rcnn.interfaces import FilePath, Photo, Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.models import Detector

MASKS = ("crops", "pasted")
CONFIG, COMPOSE = "models.config", "compose.yaml"
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
CLASS_NAMES = "class_names.txt"


def export_saved_model(
    model: Detector,
    path: FilePath,
    *,
    photos: parity.Photos | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    masks: Literal["crops", "pasted"] = "crops",
    score: float | None = None,
) -> dict[str, Any]:
    """Writes `PATH/1/`, or the next number, with three signatures:

    - `serving_default`: `image_bytes`, strings [B], the bytes of JPEG or PNG files, of any sizes. Photos run one after
      another, so that an answer does not depend on what else is in the request. A JPEG's EXIF orientation is heeded. Of
      bytes that are no picture the whole request is an INVALID_ARGUMENT error, which says so.
    - `images`: `images`, uint8 [B, H, W, 3], RGB, of one size, run together.
    - `features`: `images`, float32 [B, H, W, 3], and `image_sizes`, float32 [B, 2], as `Preprocessor.batch` returns
      them; boxes are in px of these images.

    Each wants `proposals`, float32 [B, P, 4], as well if the detector does: in px of the photos, padded with zeros.
    Each returns `boxes` [B, D, 4], in the first two in px of the photos, `scores` [B, D], `labels` int32 [B, D], -1
    for padding, and `names`, strings [B, D]; with keypoints also `keypoints`, float32 [B, D, K, 3]: x, y, score. With
    masks there is `masks`, float32 [B, D, 28, 28], as cropped to the boxes; with `masks="pasted"` the first two have
    uint8 [B, N, H, W] instead: N is the most detections of a photo in the request, H and W the largest photo's. That is
    N MB a megapixel (an error from 2 GB), and in REST's JSON several times that: for single photos and gRPC.

    Beside it lie `models.config` and `compose.yaml` for TF Serving in Docker; in the version's folder the class names
    as an asset, and requests that warm the server up.

    Args:
        model: a detector.
        path: the folder of the model, NAME; made if need be. What is in it already must be such versions.
        photos: list of paths or arrays for the check; None: crops of the demo's photo.
        proposals: of a detector that wants proposals, for each photo [P, 4] in its px; None: selective search.
        masks: `"crops"` or `"pasted"`.
        score: float; detections below it become padding in the first two signatures. None: all that the decoder
            shows, with pasted masks 0.5.

    Returns:
        A dict: `path`, the version's folder, and `parity`, the rows of `parity.check`.

    Raises:
        ExportError: for a path that cannot be written or holds something else, or masks of a detector without.
        ParityError: if the SavedModel does not answer as `detect` does.
    """
    import tensorflow as tf

    if masks not in MASKS:
        raise ExportError(f"masks is one of {', '.join(map(repr, MASKS))}, not {masks!r}.")
    if masks == "pasted" and not model.has_masks:
        raise ExportError(f"masks='pasted', but {type(model).__name__} predicts none.")
    if score is None:
        score = 0.5 if masks == "pasted" else 0.0
    try:
        check_score(score)
    except ValueError as error:
        raise ExportError(str(error)) from error
    path = Path(path).expanduser()
    version = next_version(path)
    # the first version comes with its folder; a later one appears in it at once
    first = version == 1
    target = path if first else path / str(version)
    with new_folder(target) as aside:
        folder = aside / str(version) if first else aside
        samples = _samples(photos, proposals, model)
        module, signatures = _module(tf, model, masks, score)
        _save(tf, module, signatures, model.class_names, folder)
        rows = _check(tf, folder, model, samples, masks, score)
        name = path.absolute().name
        _write_warmup(tf, folder / WARMUP, name, model, samples[0])
        if first:
            (aside / CONFIG).write_text(models_config(name), encoding="utf-8")
            (aside / COMPOSE).write_text(compose(name), encoding="utf-8")
    return {"path": path / str(version), "parity": rows}


def next_version(path: Path) -> int:
    """The number of the version that `path` gets next, from 1.

    Raises:
        ExportError: if there is something else, or it cannot be written.
    """
    if not path.is_dir():
        new_path(path)
        return 1
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    versions = [int(name) for name in names if name.isdecimal() and (path / name / "saved_model.pb").is_file()]
    others = sorted(names - {str(version) for version in versions} - {CONFIG, COMPOSE})
    if others or (names and not versions):
        listed = ", ".join((others or sorted(names))[:4])
        raise ExportError(
            f"{path} exists, and what is in it ({listed}) is no exported model's versions: name another "
            "path, or remove it first."
        )
    version = max(versions, default=0) + 1
    new_path(path / str(version))
    return version


# === The graph ===


def _module(
    tf: ModuleType, model: Detector, masks: Literal["crops", "pasted"], score: float
) -> tuple[Any, dict[str, Any]]:
    """A tf.Module with the variables that the signatures read, and the three of them by name."""
    wants = model.wants_proposals
    inputs = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs}

    def network(inputs: dict[str, Tensor]) -> Any:
        if wants:
            boxes = inputs["proposals"]
            if hasattr(model.parts["box_pool"], "cells"):
                boxes = graph.without_doubles(boxes, model.parts["box_pool"].strides[0])
            # a request may have none, but a pool needs one
            boxes = tf.pad(boxes, [[0, 0], [0, tf.maximum(1 - tf.shape(boxes)[1], 0)], [0, 0]])
            inputs = {**inputs, "proposals": boxes}
        return model(inputs, training=False)

    network = _function(tf, network, [inputs])  # traced once and not for each signature
    extra = [tf.TensorSpec((None, None, 4), tf.float32, name="proposals")] if wants else []

    def detect(pixels: Tensor, proposals: Tensor | None) -> dict[str, Tensor]:
        return graph.detect(network, model.preprocessor, pixels, proposals, score)

    def finish(outputs: Mapping[str, Tensor], sizes: Tensor) -> dict[str, Tensor]:
        if masks == "pasted":
            boxes, labels = outputs["boxes"], outputs["labels"]
            pasted = graph.paste(outputs["masks"], boxes, labels, sizes, model.preprocessor)
            outputs = {**outputs, "masks": pasted}
        return {**outputs, "names": graph.names(model.class_names, outputs["labels"])}

    def detect_photo(pixels: Tensor, proposals: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        outputs = detect(pixels[None], None if proposals is None else proposals[None])
        return {key: value[0] for key, value in outputs.items()}, tf.shape(pixels)[:2]

    photo_outputs = {key: tf.TensorSpec(value.shape[1:], value.dtype) for key, value in model.output.items()}

    def from_bytes(image_bytes: Tensor, *proposals: Tensor) -> dict[str, Tensor]:
        outputs, sizes = tf.map_fn(
            lambda each: detect_photo(graph.decode(each[0]), each[1] if wants else None),
            (image_bytes, *proposals),
            parallel_iterations=1,
            fn_output_signature=(photo_outputs, tf.TensorSpec((2,), tf.int32)),
        )
        return finish(outputs, sizes)

    def from_pixels(images: Tensor, *proposals: Tensor) -> dict[str, Tensor]:
        outputs = detect(images, proposals[0] if wants else None)
        sizes = tf.tile(tf.shape(images)[None, 1:3], [tf.shape(images)[0], 1])
        return finish(outputs, sizes)

    def from_features(images: Tensor, image_sizes: Tensor, *proposals: Tensor) -> dict[str, Tensor]:
        boxes = {"proposals": proposals[0]} if wants else {}
        outputs = network({"images": images, "image_sizes": image_sizes, **boxes})
        return {**outputs, "names": graph.names(model.class_names, outputs["labels"])}

    bytes_spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
    pixels_spec = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    images_spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    sizes_spec = tf.TensorSpec((None, 2), tf.float32, name="image_sizes")
    signatures = {
        "serving_default": _function(tf, from_bytes, [bytes_spec, *extra]),
        "images": _function(tf, from_pixels, [pixels_spec, *extra]),
        "features": _function(tf, from_features, [images_spec, sizes_spec, *extra]),
    }
    signatures = {name: function.get_concrete_function() for name, function in signatures.items()}
    # what the graphs read, without the optimizer's and the metrics'
    read = {id(variable) for function in signatures.values() for variable in function.graph.variables}
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables if id(variable.value) in read]
    return module, signatures


def _function(tf: ModuleType, function: Callable[..., Any], specs: Sequence[Any]) -> Any:
    return tf.function(function, input_signature=specs, autograph=False)


def _save(tf: ModuleType, module: Any, signatures: Mapping[str, Any], class_names: Sequence[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / CLASS_NAMES
        file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        module.class_names = tf.saved_model.Asset(str(file))
        logger, level = tf.get_logger(), tf.get_logger().level
        logger.setLevel("WARNING")  # where the assets are is no news
        try:
            tf.saved_model.save(module, str(folder), signatures=signatures)
        except tf.errors.OpError as error:  # how TensorFlow says that a disk is full
            raise ExportError(f"{folder.parent} could not be written: {error.message}.") from error
        finally:
            logger.setLevel(level)


# === The check ===


def _samples(
    photos: parity.Photos | None, proposals: Sequence[ArrayLike] | None, model: Detector
) -> list[dict[str, Any]]:
    """A list of dicts, one for each photo of the check: `name`, `image`, `contents` (bytes to send), `proposals`."""
    samples = []
    for i, (name, photo) in enumerate(parity.named_photos(photos)):
        image = read_image(photo)
        boxes = None
        if model.wants_proposals:
            boxes = np.array(selective_search(image) if proposals is None else proposals[i], np.float32).reshape(-1, 4)
        samples.append({"name": name, "image": image, "contents": contents_of(photo, image), "proposals": boxes})
    return samples


def contents_of(photo: Photo, image: np.ndarray) -> bytes:
    """The bytes to send for a photo: a JPEG or PNG file's own, else a PNG of its pixels."""
    from PIL import Image

    if isinstance(photo, (str, os.PathLike)):
        photo = Path(photo).read_bytes()
    if isinstance(photo, bytes) and photo.startswith((graph.JPEG, graph.PNG)):
        # the graph turns a JPEG by its EXIF tag, but no PNG
        turned = photo.startswith(graph.PNG) and Image.open(io.BytesIO(photo)).getexif().get(0x0112, 1) > 1
        if not turned:
            return photo
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _check(
    tf: ModuleType,
    folder: Path,
    model: Detector,
    samples: Sequence[Mapping[str, Any]],
    masks: Literal["crops", "pasted"],
    score: float,
) -> list[dict[str, Any]]:
    """Every signature of the SavedModel that was written, against `detect`."""
    signatures = tf.saved_model.load(str(folder)).signatures
    contents = {id(sample["image"]): sample["contents"] for sample in samples}

    def call(name: str, proposals: np.ndarray | None, **inputs: Any) -> dict[str, np.ndarray]:
        if proposals is not None:
            inputs["proposals"] = tf.constant(proposals[None])
        outputs = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value[0].numpy() for key, value in outputs.items()}

    def from_bytes(image: np.ndarray, proposals: np.ndarray | None) -> dict[str, np.ndarray]:
        content = contents.get(id(image)) or contents_of(image, image)
        return call("serving_default", proposals, image_bytes=[content])

    def from_pixels(image: np.ndarray, proposals: np.ndarray | None) -> dict[str, np.ndarray]:
        return call("images", proposals, images=image[None])

    def from_features(image: np.ndarray, proposals: np.ndarray | None) -> dict[str, np.ndarray]:
        x = model.preprocessor.batch([image])
        old, new = image.shape[:2], x["image_sizes"][0]
        detections = call("features", None if proposals is None else scale_boxes(proposals, old, new), **x)
        if masks == "pasted":
            del detections["masks"]
        detections["labels"] = np.where(detections["scores"] >= score, detections["labels"], -1)
        if "keypoints" in detections:
            detections["keypoints"] = model.preprocessor.restore_points(detections["keypoints"], old, new)
        return {**detections, "boxes": model.preprocessor.restore(detections["boxes"], old, new)}

    return parity.check(
        {"serving_default": from_bytes, "images": from_pixels, "features": from_features},
        model,
        [(sample["name"], sample["image"]) for sample in samples],
        proposals=[sample["proposals"] for sample in samples],
        masks=True if masks == "pasted" else "crops",
        score=score,
    )


# === For TF Serving ===


def _write_warmup(tf: ModuleType, path: Path, name: str, model: Detector, sample: Mapping[str, Any]) -> None:
    """One request for each signature, as a TFRecord of PredictionLog messages."""
    preprocessor = model.preprocessor
    height, width = preprocessor.fixed_size or (2 * preprocessor.size_divisor,) * 2
    requests = {
        "serving_default": {"image_bytes": tf.constant([sample["contents"]])},
        "images": {"images": tf.constant(sample["image"][None])},
        "features": {
            "images": tf.zeros((1, height, width, 3)),
            "image_sizes": tf.constant([[height, width]], tf.float32),
        },
    }
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests.items():
            if sample["proposals"] is not None:
                boxes = (
                    np.array([[0, 0, width, height]], np.float32) if signature == "features" else sample["proposals"]
                )
                inputs["proposals"] = tf.constant(boxes[None])
            file.write(_prediction_log(tf, name, signature, inputs))


def _prediction_log(tf: ModuleType, name: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """A serialised `PredictionLog` of `tensorflow_serving.apis`, which this package need not be there for."""
    request = _field(1, _field(1, name.encode()) + _field(3, signature.encode()))  # its ModelSpec
    for key, value in inputs.items():
        tensor = tf.make_tensor_proto(value.numpy()).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))  # PredictionLog.predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """A field of protocol buffers' wire format that has a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def models_config(name: str) -> str:
    """TF Serving's `--model_config_file` for a model that is mounted at `/models/NAME`."""
    return f"""model_config_list {{
  config {{
    name: {json.dumps(name)}
    base_path: {json.dumps(f"/models/{name}")}
    model_platform: "tensorflow"
  }}
}}
"""


def compose(name: str) -> str:
    """A Docker Compose file that serves the folder which it lies in."""
    return f"""# docker compose up: gRPC on port 8500, REST on 8501. A new version in this folder is loaded by itself.
services:
  serving:
    image: tensorflow/serving
    command:
      - --model_config_file=/models/{name}/{CONFIG}
    ports:
      - "8500:8500"
      - "8501:8501"
    volumes:
      - {json.dumps(f".:/models/{name}:ro")}
    restart: unless-stopped
"""
