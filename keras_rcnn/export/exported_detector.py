"""An exported model where a detector is wanted: in `keras_rcnn.evaluate`, `keras-rcnn detect` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.data.images import read_image
from keras_rcnn.data.paste import pasted
from keras_rcnn.data.request import DEFAULT_SCORE, check_request
from keras_rcnn.export.litert_detector import LiteRTDetector
from keras_rcnn.export.openvino_detector import MODEL, OpenVINODetector
from keras_rcnn.interfaces import FilePath, MaskForm

if TYPE_CHECKING:
    import numpy as np

_LITERT = ".tflite"


def is_export(path: FilePath) -> bool:
    """Whether this is what `ExportedDetector` takes: a `.tflite` file, or a folder with OpenVINO's model."""
    path = Path(path)
    return (path.suffix == _LITERT and path.is_file()) or (path / MODEL).is_file()


class ExportedDetector:
    """A `.tflite` file, or a folder with OpenVINO's model, as a `keras_rcnn.interfaces.BatchDetector`.

    Args:
        path: what `keras-rcnn export --format litert`, or `openvino`, has written.
        threads: int; None leaves it to the runtime.

    Attributes:
        class_names: list of str.
        has_masks: bool.
        wants_proposals: bool.
    """

    def __init__(self, path: FilePath, threads: int | None = None) -> None:
        path = Path(path)
        is_litert = path.suffix == _LITERT
        self.detector = LiteRTDetector(path, threads=threads) if is_litert else OpenVINODetector(path, threads=threads)
        self.class_names = self.detector.class_names
        self.has_masks = "masks" in self.detector.outputs
        self.wants_proposals = "proposals" in self.detector.settings

    def detect(
        self,
        images: Any,
        score: float | None = None,
        batch_size: int | None = None,
        masks: MaskForm = True,
        *,
        proposals: Any = None,
    ) -> Any:
        """As `Detector.detect`, one image after another; `score` None is 0.5."""
        score = DEFAULT_SCORE if score is None else score
        finder = None if self.wants_proposals else "The exported model"
        checked, boxes = check_request(
            images, score=score, batch_size=batch_size, masks=masks, proposals=proposals, finder=finder
        )
        given = boxes or [None] * len(checked)
        results = [self._one(read_image(image), score, masks, own) for image, own in zip(checked, given, strict=True)]
        return results if isinstance(images, (list, tuple)) else results[0]

    def _one(self, photo: np.ndarray, score: float, masks: MaskForm, proposals: np.ndarray | None) -> Any:
        detections: Any = self.detector.detect(photo, score, proposals)
        if self.has_masks:
            crops = detections.pop("masks")
            if masks:
                rule = self.detector.settings.get("paste", "torchvision")
                detections["masks"] = pasted(crops, detections["boxes"], photo.shape[:2], masks, rule)
        return detections
