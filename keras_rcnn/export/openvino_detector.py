"""Photos through an exported OpenVINO model, with numpy and openvino alone.

Copy it, with `litert_detector.py` beside it, to where there is no keras_rcnn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

try:
    from keras_rcnn.export.litert_detector import LiteRTDetector, metadata_of
except ImportError:  # where the two files have been copied to
    from litert_detector import LiteRTDetector, metadata_of

MODEL = "model.xml"


class OpenVINODetector(LiteRTDetector):
    """An exported model, and what belongs around it: a photo is fitted into the model's input, boxes come back.

    Args:
        path: the folder that `keras-rcnn export --format openvino` has written.
        device: str, OpenVINO's name of it: `"CPU"`, `"GPU"`, `"NPU"` or `"AUTO"`.
        threads: int; None leaves it to OpenVINO.
        precision: str, in which it computes: `"f32"`, as exported; `"bf16"`, on processors that have it, or `"f16"`, on
            graphics, are faster, and their boxes are others.

    Attributes:
        class_names: list of str, from `labels.txt`.
        settings: dict from `detector.json`, as of a `LiteRTDetector`.

    Example:

    >>> detector = OpenVINODetector("nuclei_openvino")
    >>> detector.detect(np.asarray(Image.open("photo.png").convert("RGB")), score=0.5)["boxes"]
    """

    def __init__(
        self, path: str | Path, device: str = "CPU", threads: int | None = None, precision: str = "f32"
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ImportError("OpenVINO's models need openvino: pip install 'keras-rcnn-zoo[openvino]'.") from error
        folder = Path(path)
        if not (folder / MODEL).is_file():
            raise ValueError(f"{path} has no {MODEL} in it: it was not written by keras_rcnn.export.")
        self.settings, self.class_names = metadata_of(
            path, lambda name: (folder / name).read_bytes() if (folder / name).is_file() else None
        )
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self.network = openvino.Core().compile_model(folder / MODEL, device, options)
        self.outputs = [output.get_any_name() for output in self.network.outputs]

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The model's outputs, by name."""
        found = self.network(inputs)
        return {name: found[name] for name in self.outputs}
