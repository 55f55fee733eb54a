"""Photos through an exported LiteRT (TFLite) model: a file of its own, for numpy and ai-edge-litert alone.

Copy it to where there is no keras_rcnn; with Pillow there, it is a program too:

    python litert_detector.py nuclei.tflite photo.jpg --score 0.5
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # not needed where this file is copied to
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from keras_rcnn.interfaces import Detections

# associated files of the model: what is called how, and what a photo has to look like
LABELS, SETTINGS = "labels.txt", "detector.json"


class LiteRTDetector:
    """An exported model, and what belongs around it: a photo is fitted into the model's input, boxes come back.

    Args:
        path: the `.tflite` file.
        threads: int; None leaves it to LiteRT.

    Attributes:
        class_names: list of str, from the file's metadata.
        settings: dict from the same: `size` of the input (height, width), `min_size` and `max_size`, the rule of a
            photo's size in it, `resize` if that is `"detectron2"`, by Pillow, `paste` if masks are laid onto the photo
            by that rule, `precision`, and of a detector that wants such how many `proposals`.
        outputs: list of str, their names.

    Example:

    >>> LiteRTDetector("nuclei.tflite").detect(np.asarray(Image.open("photo.png").convert("RGB")), score=0.5)["boxes"]
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.settings, self.class_names = read_metadata(path)
        self.interpreter = _interpreter_class()(model_path=str(path), num_threads=threads)
        self.run = self.interpreter.get_signature_runner()
        self.outputs = sorted(self.run.get_output_details())

    def detect(self, photo: np.ndarray, score: float = 0.5, proposals: ArrayLike | None = None) -> Detections:
        """Finds the objects in a photo of any size.

        Args:
            photo: uint8 [h, w, 3], RGB.
            score: float; only detections with at least this score are returned.
            proposals: [P, 4] xyxy in px of the photo, of a model that wants such.

        Returns:
            A dict, best first: `boxes` float32 [n, 4] xyxy in px of the photo, `scores` [n], `labels` int32 [n],
            `names`, a list, and with masks `masks`, float32 [n, 28, 28], probabilities in each box, with
            keypoints `keypoints`, float32 [n, K, 3]: x, y in px of the photo and score.

        Raises:
            ValueError: for a score or proposals that are not as above, or proposals of a model that wants none.
        """
        self._check(score, proposals)
        image, size = fit(photo, self.settings)
        # x and y of the input for one of the photo
        height, width = photo.shape[:2]
        scale = np.array([size[1], size[0]] * 2, np.float32) / np.array([width, height] * 2, np.float32)
        if proposals is not None:
            proposals = np.reshape(np.asarray(proposals), (-1, 4)) * scale
        detections = self.detect_fitted(image, size, score, proposals)
        if "keypoints" in detections:
            detections["keypoints"] = detections["keypoints"] / np.array([*scale[:2], 1], np.float32)
        return {**detections, "boxes": detections["boxes"] / scale}

    def _check(self, score: float, proposals: ArrayLike | None) -> None:
        if isinstance(score, str) or score is None or not 0 <= score <= 1:
            raise ValueError(f"score is a number from 0 to 1, not {score!r}.")
        if proposals is None:
            return
        if "proposals" not in self.settings:
            raise ValueError("The model finds its proposals itself: leave proposals out.")
        boxes = np.asarray(proposals)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu"):
            raise ValueError(f"proposals are numbers [P, 4], not {boxes.dtype} of shape {boxes.shape}.")
        if boxes.size and not np.isfinite(boxes).all():
            raise ValueError("proposals are finite numbers [P, 4], not NaN or infinite.")

    def detect_fitted(
        self, image: np.ndarray, size: np.ndarray, score: float = 0.5, proposals: ArrayLike | None = None
    ) -> Detections:
        """`detect` on what `fit` returns: `proposals` are, and boxes come, in px of the input."""
        inputs = {"image": image[None], "size": size}
        if "proposals" in self.settings:
            inputs["proposals"] = padded(proposals, self.settings["proposals"])[None]
        outputs = {key: value[0] for key, value in self.run(**inputs).items()}
        keep = (outputs["labels"] >= 0) & (outputs["scores"] >= score)
        detections: Any = {key: value[keep] for key, value in outputs.items()}
        detections["names"] = [self.class_names[label] for label in detections["labels"]]
        return detections


def read_metadata(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """`(settings, class_names)` of an exported file.

    Raises:
        ValueError: for a file without them.
    """
    try:
        with zipfile.ZipFile(path) as files:
            return metadata_of(path, lambda name: files.read(name) if name in files.namelist() else None)
    except zipfile.BadZipFile as error:
        raise _not_ours(path, SETTINGS) from error


def metadata_of(path: str | Path, content: Callable[[str], bytes | None]) -> tuple[dict[str, Any], list[str]]:
    """`(settings, class_names)` of an export at `path`, whose files `content` reads by name: None for none.

    Raises:
        ValueError: for one without them.
    """
    settings, labels = content(SETTINGS), content(LABELS)
    if settings is None or labels is None:
        raise _not_ours(path, SETTINGS if settings is None else LABELS)
    return json.loads(settings), labels.decode().splitlines()


def _not_ours(path: str | Path, missing: str) -> ValueError:
    return ValueError(f"{path} has no {missing} in it: it was not written by keras_rcnn.export.")


def fit(photo: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Resizes a photo into the model's input.

    Args:
        photo: uint8 [h, w, 3].
        settings: dict with `size`, `min_size` and `max_size`, and `resize`, `"detectron2"` for Pillow's way.

    Raises:
        ValueError: for an array of another shape, or without pixels.

    Returns:
        `(image, size)`: uint8 [H, W, 3] with the photo at its upper left, and int32 [2], height and width there.
    """
    if np.ndim(photo) != 3 or photo.shape[2] != 3 or not photo.size:
        raise ValueError(f"A photo is [height, width, 3] with at least one pixel, not {np.shape(photo)}.")
    height, width = photo.shape[:2]
    size = fitted_size(height, width, settings)
    image = np.zeros((*settings["size"], 3), np.uint8)
    image[: size[0], : size[1]] = _resize_pillow(photo, size) if _is_pillow(settings) else _resize(photo, size)
    return image, np.array(size, np.int32)


def fitted_size(height: int, width: int, settings: dict[str, Any]) -> tuple[int, ...]:
    """(height, width) of a photo in the model's input."""
    limits = settings["size"]
    if _is_pillow(settings):
        return _pillow_size(height, width, settings)
    scale = min(settings["min_size"] / min(height, width), settings["max_size"] / max(height, width))
    scale = min(scale, limits[0] / height, limits[1] / width)
    return tuple(min(max(int(side * scale), 1), limit) for side, limit in zip((height, width), limits))


def _is_pillow(settings: dict[str, Any]) -> bool:
    return settings.get("resize") == "detectron2"


def _pillow_size(height: int, width: int, settings: dict[str, Any]) -> tuple[int, ...]:
    """Detectron2's rule: each side is rounded half up."""
    scale = settings["min_size"] / min(height, width)
    sides = height * scale, width * scale
    shrink = min(1.0, settings["max_size"] / max(sides))
    shrink *= min(1.0, *(limit / (side * shrink) for side, limit in zip(sides, settings["size"])))
    return tuple(max(int(side * shrink + 0.5), 1) for side in sides)


def _resize_pillow(photo: np.ndarray, size: Sequence[int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _resize(photo: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Bilinear, half-pixel centres, no antialias, as in the training."""
    image = photo.astype(np.float32)
    for axis, n in enumerate(size):
        old = image.shape[axis]
        source = np.clip((np.arange(n) + 0.5) * (old / n) - 0.5, 0, old - 1).astype(np.float32)
        low = source.astype(np.intp)
        weight = (source - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - weight) + image.take(np.minimum(low + 1, old - 1), axis) * weight
    return np.rint(image)


def padded(boxes: Any, count: int) -> np.ndarray:
    """Proposals [P, 4], padded with zeros to float32 [count, 4]."""
    if boxes is None or len(boxes) > count:
        number = "none" if boxes is None else len(boxes)
        raise ValueError(f"The model wants proposals, at most {count}; there are {number}.")
    return np.concatenate([boxes, np.zeros((count - len(boxes), 4))]).astype(np.float32)


def _interpreter_class() -> type[Any]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter  # the same, in the process that exports

        return Interpreter
    return Interpreter


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the detections of photos to stdout, a line of json each."""
    import argparse

    from PIL import Image, ImageOps

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--score", type=float, default=0.5)
    options = parser.parse_args(arguments)
    detector = LiteRTDetector(options.model)
    for path in options.photos:
        with Image.open(path) as file:
            photo = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        detections = detector.detect(photo, options.score)
        detections.pop("masks", None)
        plain = {
            key: value if isinstance(value, list) else np.asarray(value).tolist() for key, value in detections.items()
        }
        sys.stdout.write(json.dumps({"photo": str(path), **plain}) + "\n")


if __name__ == "__main__":
    main()
