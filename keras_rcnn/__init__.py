"""The R-CNN family of object detectors as a Keras 3 model zoo."""

import os
import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "FasterRCNN",
    "backbones",
    "data",
    "draw",
    "evaluate",
    "evaluation",
    "layers",
    "load_coco",
    "load_csv",
    "load_voc",
    "models",
    "ops",
    "training",
]

# Who imports this package gets all of it at once, so that keras.saving.load_model finds the classes. The command
# `keras-rcnn` alone does not wait TensorFlow's seconds before it knows what it is asked.
_COMMAND = os.path.basename((getattr(sys, "argv", None) or [""])[0]) in ("keras-rcnn", "keras-rcnn.exe")

if TYPE_CHECKING or not _COMMAND:
    from keras_rcnn import backbones, data, evaluation, layers, models, ops, training
    from keras_rcnn.data import load_coco, load_csv, load_voc
    from keras_rcnn.evaluation import evaluate
    from keras_rcnn.models import FasterRCNN
    from keras_rcnn.visualize import draw
else:

    def __getattr__(name):
        import importlib

        if name in __all__:
            for home in ("data", "evaluation", "models", "presets", "visualize"):
                value = getattr(importlib.import_module(f"keras_rcnn.{home}"), name, None)
                if value is not None:
                    globals()[name] = value
                    return value
            return importlib.import_module(f"keras_rcnn.{name}")
        raise AttributeError(f"module 'keras_rcnn' has no attribute {name!r}")
