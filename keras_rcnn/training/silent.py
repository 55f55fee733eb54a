"""Units of the backbone that have fallen silent: their output is the same whatever the photo shows.

A rate that is too high drives a ReLU's input below 0 for good, and its weights are never trained again. The detector
may still learn, on what is left of its backbone.
"""

import logging
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.data import Dataset

logger = logging.getLogger(__name__)

PHOTOS = 8
RISE = 0.15  # of the share of all units, since the training began, from which on it is said
_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)


def silent_units(backbone: Backbone, inputs: Iterable[np.ndarray]) -> dict[str, Any]:
    """The share of a backbone's units that do not respond to photos: channels after an activation with one value.

    Args:
        backbone: `Backbone`.
        inputs: batches of a `Preprocessor`, float32 `[b, h, w, 3]`; a few photos will do.

    Returns:
        dict: `"share"`, of all units, and `"worst"`, `{"layer": name, "share": of its units}`. Empty for a backbone
        without activation layers.

    Example:

    >>> x = model.preprocessor.batch([keras_rcnn.data.read_image("street.jpg")])
    >>> silent_units(model.parts["backbone"], [x["images"]])["share"]
    0.04
    """
    body = backbone.body()
    layers = [layer for layer in body.layers if isinstance(layer, _ACTIVATIONS)]
    layers = [layer for layer in layers if len(layer.output.shape) == 4]
    if not layers:
        return {}
    extremes = [(ops.min(layer.output, axis=(0, 1, 2)), ops.max(layer.output, axis=(0, 1, 2))) for layer in layers]
    probe, lowest, highest = keras.Model(body.input, extremes), None, None
    for images in inputs:
        pairs = probe(images, training=False)
        low = [np.asarray(ops.convert_to_numpy(ops.cast(pair[0], "float32"))) for pair in pairs]
        high = [np.asarray(ops.convert_to_numpy(ops.cast(pair[1], "float32"))) for pair in pairs]
        lowest = low if lowest is None else list(map(np.minimum, lowest, low))
        highest = high if highest is None else list(map(np.maximum, highest, high))
    if lowest is None or highest is None:
        return {}
    silent = [high - low <= 1e-6 * np.maximum(np.abs(high), 1e-6) for low, high in zip(lowest, highest, strict=True)]
    worst = max(range(len(silent)), key=lambda i: silent[i].mean())
    return {
        "share": float(np.concatenate(silent).mean()),
        "worst": {"layer": layers[worst].name, "share": float(silent[worst].mean())},
    }


class SilentUnits(keras.callbacks.Callback):
    """Measures `silent_units` before the training and after each of its epochs, and warns once when many fall silent.

    Args:
        dataset: `Dataset`, of which a few photos are looked at.
        every: int, epochs between two looks.

    Attributes:
        last: what `silent_units` found last.
    """

    def __init__(self, dataset: Dataset, every: int = 1) -> None:
        super().__init__()
        places = np.linspace(0, len(dataset) - 1, min(PHOTOS, len(dataset))).round().astype(int)
        self.records = [dataset[int(place)] for place in places]
        self.every = every
        self.last: dict[str, Any] = {}
        self._first, self._told = 0.0, False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.last = self._measured()
        self._first = self.last.get("share", 0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every or not self.last:
            return
        self.last = self._measured()
        share, worst = self.last["share"], self.last["worst"]
        if logs is not None:
            logs["silent_units"] = share
        if share - self._first > RISE and not self._told:
            self._told = True
            logger.warning(
                "%.0f %% of the backbone's units respond to no photo any more (%.0f %% when the training began), "
                "%.0f %% of %s: the learning rate is too high for it. Lower learning_rate or backbone_lr_multiplier, "
                "or set backbone_norm='batch'.",
                100 * share, 100 * self._first, 100 * worst["share"], worst["layer"],
            )  # fmt: skip

    def _measured(self) -> dict[str, Any]:
        preprocessor, backbone = self.model.preprocessor, self.model.parts["backbone"]
        if not isinstance(backbone, Backbone):
            return {}
        compiled = bool(getattr(self.model, "jit_compile", False))  # then of few sizes
        batches = (preprocessor.batch([record.read()], compiled=compiled)["images"] for record in self.records)
        return silent_units(backbone, batches)
