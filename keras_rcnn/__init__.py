"""The R-CNN family of object detectors as a Keras 3 model zoo."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_rcnn.registered import register

if TYPE_CHECKING:
    from keras_rcnn import (
        app,
        backbones,
        bulk,
        convert,
        data,
        evaluation,
        export,
        interfaces,
        layers,
        models,
        ops,
        presets,
        serve,
        survey,
        training,
        visualize,
    )
    from keras_rcnn.data import load_coco, load_csv, load_voc
    from keras_rcnn.evaluation import evaluate
    from keras_rcnn.export import export_model
    from keras_rcnn.hub_push import push_preset
    from keras_rcnn.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN
    from keras_rcnn.presets import from_preset, list_presets, save_preset
    from keras_rcnn.training.train import train
    from keras_rcnn.visualize import draw

__version__ = "0.1.0"
__all__ = [
    "RCNN",
    "FastRCNN",
    "FasterRCNN",
    "MaskRCNN",
    "app",
    "backbones",
    "bulk",
    "convert",
    "data",
    "draw",
    "evaluate",
    "evaluation",
    "export",
    "export_model",
    "from_preset",
    "interfaces",
    "layers",
    "list_presets",
    "load_coco",
    "load_csv",
    "load_voc",
    "models",
    "ops",
    "presets",
    "push_preset",
    "save_preset",
    "serve",
    "survey",
    "train",
    "training",
    "visualize",
]

# name -> the module that it comes from; the other public names are modules
_HOMES = {
    "FastRCNN": "models",
    "FasterRCNN": "models",
    "MaskRCNN": "models",
    "RCNN": "models",
    "draw": "visualize",
    "evaluate": "evaluation",
    "export_model": "export",
    "from_preset": "presets",
    "list_presets": "presets",
    "load_coco": "data",
    "load_csv": "data",
    "load_voc": "data",
    "push_preset": "hub_push",
    "save_preset": "presets",
    "train": "training.train",
}

register()


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `import keras_rcnn` itself imports no other package."""
    if name not in __all__:
        raise AttributeError(f"module 'keras_rcnn' has no attribute {name!r}")
    module = importlib.import_module(f"keras_rcnn.{_HOMES.get(name, name)}")
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
