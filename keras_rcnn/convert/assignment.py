"""Puts converted arrays into a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_rcnn.convert.errors import ConversionError


def assign(model: Any, values: Mapping[str, np.ndarray]) -> None:
    """Sets every weight of a model, by path.

    Args:
        model: a built keras model or layer.
        values: dict, `variable.path` -> array, as the `convert_...` functions return it.

    Raises:
        ConversionError: if a weight has no value, a value no weight, or a shape differs; nothing is set then.
    """
    compare(model, {path: value.shape for path, value in values.items()})
    weights = {weight.path: weight for weight in model.weights}
    for path, value in values.items():
        weights[path].assign(value)


def compare(model: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Whether arrays of these names and shapes are a model's weights.

    Args:
        model: a keras model or layer with weights, which need not have values.
        shapes: dict, `variable.path` -> tuple of int.

    Raises:
        ConversionError: as `assign`.
    """
    weights = {weight.path: weight for weight in model.weights}
    if len(weights) != len(model.weights):
        raise ConversionError(f"{model.name}: several weights share a path, so values cannot be told apart.")
    _report(model, "has weights without a value", [path for path in weights if path not in shapes])
    _report(model, "has no weights named", [path for path in shapes if path not in weights])
    _report(
        model,
        "has other shapes",
        [
            f"{path} {tuple(weights[path].shape)} (given {tuple(shape)})"
            for path, shape in shapes.items()
            if tuple(weights[path].shape) != tuple(shape)
        ],
    )


def _report(model: Any, problem: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        raise ConversionError(f"{model.name} {problem}: {', '.join(names[:6])}{more}.")
