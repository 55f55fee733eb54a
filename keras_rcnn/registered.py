"""The classes that Keras finds in a saved model by name, before the module that defines them is imported.

`keras.saving.load_model` looks classes up in Keras's registry and imports nothing of this package itself. So
`import keras_rcnn` puts a stand-in there for every class, which imports the class when it is needed. If Keras is not
imported yet, that waits until it is: this package does not import Keras for it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# module -> the classes that it registers as "keras_rcnn>NAME"
REGISTERED = {
    "backbones": (
        "CaffeNet", "ConvNeXt", "EfficientNetLite0", "Features", "FrozenBatchNormalization", "MatterportResNet",
        "MobileNetV3Large", "ResNet", "ResNetRegions", "VGG16", "ZF",
    ),
    "backbones.caffe": ("LocalResponseNormalization",),
    "backbones.convnext": ("LayerScale",),
    "backbones.grouped": ("GroupedConv2D",),
    "data": ("MatterportPreprocessor", "Preprocessor"),
    "layers": (
        "AnchorGenerator", "BoxHead", "BoxLoss", "BoxPredictor", "BoxRegressors", "BoxTargets", "Cascade",
        "ClassLoss", "ClassPredictor", "DetectionDecoder", "FPN", "FixedBatchNormalization", "GivenProposals",
        "KeypointBranch", "KeypointHead",
        "MaskDecoder", "MaskHead", "MaskLoss", "MaskTargets", "MatterportAnchors", "MatterportBoxHead",
        "MatterportBoxLoss", "MatterportBoxTargets", "MatterportDecoder", "MatterportMaskHead", "MatterportMaskLoss",
        "MatterportMaskTargets", "MatterportProposals", "MatterportRPNHead", "MatterportRPNLoss",
        "MatterportRPNTargets", "MatterportRoIAlign", "Proposals", "RPNHead", "RPNLoss", "RPNTargets", "RegionCNN",
        "RegionMean", "RegionSVMs", "RegionWarp", "RoIAlign", "RoIPool", "ScoreDecoder", "SingleLevel",
    ),
    "layers.norms": ("GroupNorm",),
    "models": ("FastRCNN", "FasterRCNN", "MaskRCNN", "RCNN"),
    "models.rpn": ("RPN",),
    "training": ("WarmupCosine", "WarmupMultiStep"),
}  # fmt: skip


class StandIn:
    """Takes a class's place in Keras's registry, until the class itself is registered there."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    @property
    def from_config(self) -> Callable[..., Any]:
        """The class's own; asking for it imports the class."""
        return getattr(importlib.import_module(f"keras_rcnn.{self.module}"), self.name).from_config


class AfterKeras:
    """A finder of `sys.meta_path` that calls a function as soon as Keras has been imported."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(self._exec, spec.loader.exec_module)
        return spec

    def _exec(self, exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
        exec_module(module)
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.function()


def register() -> None:
    """Puts the stand-ins into Keras's registry, now or when Keras is imported."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, AfterKeras(register))
        return
    import keras

    known = keras.saving.get_custom_objects()
    for module, names in REGISTERED.items():
        for name in names:
            known.setdefault(f"keras_rcnn>{name}", StandIn(module, name))
