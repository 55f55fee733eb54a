"""The R-CNN family of object detectors as a Keras 3 model zoo."""

import os
import sys
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "RCNN",
    "FastRCNN",
    "FasterRCNN",
    "MaskRCNN",
    "backbones",
    "data",
    "draw",
    "evaluate",
    "evaluation",
    "export",
    "from_preset",
    "layers",
    "load_coco",
    "load_csv",
    "load_voc",
    "models",
    "ops",
    "presets",
    "save_preset",
    "training",
]

# Who imports this package gets all of it at once, so that keras.saving.load_model finds the classes. The command
# `keras-rcnn` alone does not wait TensorFlow's seconds before it knows what it is asked.
_COMMAND = os.path.basename((getattr(sys, "argv", None) or [""])[0]) in ("keras-rcnn", "keras-rcnn.exe")

if TYPE_CHECKING or not _COMMAND:
    from keras_rcnn import backbones, data, evaluation, layers, models, ops, training
    from keras_rcnn.data import load_coco, load_csv, load_voc
    from keras_rcnn.evaluation import evaluate
    from keras_rcnn.export import export
    from keras_rcnn.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN
    from keras_rcnn.presets import from_preset, presets, save_preset
    from keras_rcnn.visualize import draw
else:
    _HOMES = {
        "FastRCNN": "models",
        "FasterRCNN": "models",
        "MaskRCNN": "models",
        "RCNN": "models",
        "draw": "visualize",
        "evaluate": "evaluation",
        "export": "export",
        "from_preset": "presets",
        "load_coco": "data",
        "load_csv": "data",
        "load_voc": "data",
        "presets": "presets",
        "save_preset": "presets",
    }

    def __getattr__(name):
        import importlib

        if name not in __all__:
            raise AttributeError(f"module 'keras_rcnn' has no attribute {name!r}")
        room = _HOMES.get(name, name)
        module = importlib.import_module(f"keras_rcnn.{room}")
        # all of a module's names at once: the function `presets` takes the place of the module `presets`
        globals().update({public: vars(module)[public] for public, home in _HOMES.items() if home == room})
        return globals()[name]
