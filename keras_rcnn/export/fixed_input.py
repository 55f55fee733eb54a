"""A detector with an input of one size, for LiteRT and OpenVINO: one photo, resized to fit into it beforehand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.preprocess import Preprocessor, scale_boxes
from keras_rcnn.data.proposals import selective_search
from keras_rcnn.data.reading import spread
from keras_rcnn.data.request import check_whole
from keras_rcnn.export import equal_scores, graph, parity
from keras_rcnn.export.litert_detector import LABELS, SETTINGS, LiteRTDetector, fit, padded
from keras_rcnn.export.target import ExportError
from keras_rcnn.interfaces import Detections, FilePath, Tensor

if TYPE_CHECKING:
    import tensorflow as tf
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


def check_options(precisions: Collection[str], precision: str, calibrate: FilePath | None, max_proposals: int) -> None:
    """Raises an `ExportError` for a precision that is none of `precisions`, photos for int8 that are missing or not
    needed, or a number of proposals that is none."""
    if precision not in precisions:
        raise ExportError(f"precision is one of {', '.join(map(repr, precisions))}, not {precision!r}.")
    if (calibrate is not None) != (precision == "int8"):
        needs = "precision='int8' needs calibrate=, a folder of photos like those to come"
        raise ExportError(f"{needs}." if calibrate is None else f"{needs}; {precision!r} has no use for it.")
    try:
        check_whole("max_proposals", max_proposals)
    except ValueError as error:
        raise ExportError(str(error)) from error


def fixed_preprocessor(model: Detector, size: int | Sequence[int] | None = None) -> Preprocessor:
    """The model's preprocessor with a `fixed_size`.

    Raises:
        ExportError: for a size that it cannot have.
    """
    own = model.preprocessor
    if isinstance(own, MatterportPreprocessor):
        raise ExportError(
            "A detector of Matterport's wants photos in the middle of its input, where the programs around a LiteRT or "
            "OpenVINO model do not put them: format='saved_model' has all of it in the graph."
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


def settings_of(model: Detector, preprocessor: Preprocessor, precision: str, max_proposals: int) -> dict[str, Any]:
    """The `settings` of a `LiteRTDetector`."""
    settings = {
        "size": list(preprocessor.fixed_size or ()),
        "min_size": preprocessor.min_size,
        "max_size": preprocessor.max_size,
        "precision": precision,
    }
    if preprocessor.resize != "torchvision":
        settings["resize"] = preprocessor.resize
    if preprocessor.paste != "torchvision":
        settings["paste"] = preprocessor.paste
    if model.wants_proposals:
        settings["proposals"] = max_proposals
    return settings


def files_of(model: Detector, settings: dict[str, Any]) -> dict[str, bytes]:
    """Name -> content of the files beside the network, which a `LiteRTDetector` reads."""
    return {
        LABELS: "".join(f"{' '.join(name.split())}\n" for name in model.class_names).encode(),
        SETTINGS: json.dumps({**settings, "model": type(model).__name__, "name": model.name}).encode(),
    }


def graph_of(
    model: Detector, preprocessor: Preprocessor, settings: dict[str, Any]
) -> tuple[Callable[..., dict[str, Tensor]], dict[str, tf.TensorSpec]]:
    """`(function, inputs)`: what is exported, a function of tensors by name, and what they are."""
    import tensorflow as tf

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

    return detect, inputs


# === 8 bits ===


def layers(model: Detector) -> tuple[re.Pattern[str], re.Pattern[str]]:
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


def examples(folder: Path, settings: dict[str, Any]) -> Examples:
    """The representative data set of a folder: a function whose results are the model's inputs."""
    if not folder.is_dir():
        raise ExportError(f"calibrate={str(folder)!r} is no folder.")
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if not photos:
        raise ExportError(f"calibrate={str(folder)!r} has no images in it ({', '.join(sorted(_ENDINGS))}).")
    chosen = spread(photos, CALIBRATION)

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for path in chosen:
            photo = read_image(path)
            image, size = fit(photo, settings)
            x = {"image": image[None], "size": size}
            if "proposals" in settings:
                boxes = scale_boxes(selective_search(photo), photo.shape[:2], size)
                x["proposals"] = padded(boxes[: settings["proposals"]], settings["proposals"])[None]
            yield x

    return inputs


# === Proof ===


class _AsItIs(Preprocessor):
    """Photos are not resized."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        return height, width


def check_fitted(
    detector: LiteRTDetector,
    model: Detector,
    photos: parity.Photos | None,
    proposals: Sequence[ArrayLike] | None,
    tolerance: parity.Tolerance,
) -> list[dict[str, Any]]:
    """The parity of an export with `detect` on photos as they are in its input."""
    settings = detector.settings
    inputs, fitted = [], None if proposals is None else []
    for i, (name, photo) in enumerate(parity.named_photos(photos)):
        photo = read_image(photo)
        image, size = fit(photo, settings)
        inputs.append((name, np.ascontiguousarray(image[: size[0], : size[1]])))
        if fitted is not None and proposals is not None:
            fitted.append(scale_boxes(proposals[i], photo.shape[:2], size))

    def run(photo: np.ndarray, proposals: np.ndarray | None) -> Detections:
        size = photo.shape[:2]
        image = np.zeros((*settings["size"], 3), np.uint8)
        image[: size[0], : size[1]] = photo
        return detector.detect_fitted(image, np.array(size, np.int32), 0.0, proposals)

    preprocessor = _AsItIs(**{**model.preprocessor.get_config(), "fixed_size": settings["size"]})
    return equal_scores.check(run, model, inputs, proposals=fitted, tolerance=tolerance, preprocessor=preprocessor)
