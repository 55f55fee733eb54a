"""What is to be done, told apart from what another command would do: the model, its options, the photos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_SAID = {
    "model": "another model, or other weights",
    "photos_sha256": "other photos",
    "coco_sha256": "another --coco file",
}


def differences(job: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """What is not the same in two jobs, in words; "" if nothing is."""
    words = []
    for key, value in job.items():
        then = before.get(key)
        if value != then:
            words.append(_SAID.get(key, f"{key} {_shown(then)} then, {_shown(value)} now"))
    return ", ".join(words)


def _shown(value: Any) -> str:
    return "the default" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def fingerprint(model: Any) -> str:
    """A SHA-256 of all that a detector's answers depend on: settings, weights, thresholds; the same in every process.

    Args:
        model: a Keras model; or an object around one or a server, whose plain attributes count.
    """
    digest = hashlib.sha256()
    _add(model, digest)
    return digest.hexdigest()


def _add(model: Any, digest: Any) -> None:
    digest.update(type(model).__name__.encode())
    if hasattr(model, "get_config") and hasattr(model, "weights"):
        import keras

        config = _without_names(keras.saving.serialize_keras_object(model))
        policies = [layer.dtype_policy.name for layer in model._flatten_layers()]
        told = [config, policies, getattr(model, "thresholds", None)]
        digest.update(json.dumps(told, sort_keys=True, default=str).encode())
        for weight in model.weights:
            digest.update(np.ascontiguousarray(np.asarray(weight)).tobytes())
        return
    plain = {
        key: value
        for key, value in vars(model).items()
        if not key.startswith("_") and isinstance(value, (str, int, float, tuple, type(None)))
    }
    digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    if hasattr(model, "model"):
        _add(model.model, digest)


def _without_names(config: Any) -> Any:
    """A config without the names that Keras counts up in a process, as conv2d_3, and ids that are counted, too."""
    if isinstance(config, dict):
        left_out = ("name", "build_config", "shared_object_id")
        return {key: _without_names(value) for key, value in config.items() if key not in left_out}
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    return config
