"""Builds the detector of a preset, which may come from a stranger: no weight takes memory before it is known that all
of them are those of the weights file.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.preset_builders import build_named
from keras_rcnn.preset_file import PACKAGE, PresetError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_rcnn.classes import Change
    from keras_rcnn.interfaces import Tensor
    from keras_rcnn.models.detector import Detector


def build_detector(
    detector: dict[str, Any],
    path: Path,
    values: Mapping[str, np.ndarray],
    weights_path: Path,
    change: Change | None = None,
) -> Detector:
    """Builds a detector and gives it the weights of a file.

    No initial values are made for what the file has: with JAX, whose random numbers are compiled shape by shape, these
    took half a minute.

    Args:
        detector: dict, a serialised detector that `preset_file` has checked, or what `preset_builders.outline` made.
        path: of the `preset.json`, for messages.
        values: dict, name -> array, the weights file.
        weights_path: of that file, for messages.
        change: `keras_rcnn.classes.Change` if the detector is for other classes than the file.

    Returns:
        A `Detector`.

    Raises:
        PresetError: if the detector cannot be built, or the file has the weights of another.
    """
    import keras

    for room in ("backbones", "layers", "models"):  # what Keras looks up by name has to be there
        importlib.import_module(f"keras_rcnn.{room}")
    _check_registered(detector, path, "detector")
    with _unallocated():
        try:
            named = "builder" in detector
            model = build_named(detector) if named else keras.saving.deserialize_keras_object(detector, safe_mode=True)
        except Exception as error:  # whatever a constructor objects to
            reason = str(error).split("Exception encountered: ")[-1]  # Keras quotes the whole config before it
            reason = f"{reason[:2000]} ..." if len(reason) > 2000 else reason or type(error).__name__
            raise PresetError(
                f"{path}: its detector cannot be built: {reason}\nIs it from a newer version of keras_rcnn, or with "
                "parts of your own that are not imported?"
            ) from error
        from keras_rcnn.models.detector import Detector

        if not isinstance(model, Detector):
            raise PresetError(f"{path}: its detector cannot be built: {detector['class_name']} is no detector.")
        _compare(model, {name: value.shape for name, value in values.items()}, weights_path, change)
        fitted = set() if change is None else change.fitted(model)
        for weight in model.weights:
            if weight.path not in fitted:
                weight._initializer = _given(values[weight.path])
    weights = {weight.path: weight for weight in model.weights}
    new_values = {} if change is None else change.values(model, values)
    for name, value in new_values.items():
        weights[name].assign(value)
    return model


def _given(value: np.ndarray) -> keras.initializers.Initializer:
    """An initialiser that is a value."""
    import keras

    class Given(keras.initializers.Initializer):
        def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
            return keras.ops.convert_to_tensor(value, dtype)

    return Given()


def _check_registered(value: Any, path: Path, place: str) -> None:
    """Keras would look for a class that is not registered in modules of the config's choosing."""
    import keras

    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _check_registered(part, path, f"{place}.{key}")
    registered = value.get("registered_name") if isinstance(value, dict) and "class_name" in value else None
    if isinstance(registered, str) and ">" in registered and keras.saving.get_registered_object(registered) is None:
        where = "a newer version of keras_rcnn" if registered.startswith(PACKAGE) else "a part of somebody's own"
        raise PresetError(
            f"{path}: its detector cannot be built: there is no {registered} ({place}). Is it from {where}? Import the "
            "module that registers it, or update keras_rcnn."
        )


@contextlib.contextmanager
def _unallocated() -> Iterator[None]:
    """Weights that are made in the block have shapes but no values, which they get when it ends well."""
    import keras
    from keras.src.backend.common import global_state

    waiting = "uninitialized_variables"
    before = global_state.get_global_attribute(waiting) or []
    global_state.set_global_attribute(waiting, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    except BaseException:
        global_state.set_global_attribute(waiting, before)  # or the next model would give values to this one's weights
        raise
    global_state.set_global_attribute(waiting, [*before, *(global_state.get_global_attribute(waiting) or [])])
    with keras.StatelessScope():
        pass  # gives values to all that wait


def _compare(model: Detector, shapes: Mapping[str, Sequence[int]], weights_path: Path, change: Change | None) -> None:
    from keras_rcnn.convert import ConversionError, compare

    if change is not None:
        shapes = change.shapes(model, shapes)
    try:
        compare(model, shapes)
    except ConversionError as error:
        raise PresetError(f"{weights_path} holds the weights of another model: {error}") from error
