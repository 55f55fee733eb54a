"""What a `preset.json` may say. It comes from strangers: all of it is checked before anything is built of it.

The rules of the settings stand in `preset_rules.SETTINGS`.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_rcnn.preset_rules import NULL, OBJECT, SETTINGS, UNIT, WEIGHTS_KEYS, Rule, is_number, text

MAX_BYTES = 2**22
PRESET, WEIGHTS = "preset.json", "weights.safetensors"
BYTES_VARIABLE = "KERAS_RCNN_MAX_PRESET_BYTES"
# dicts and lists within each other; those of the zoo have six
MAX_DEPTH = 32
# of settings that have no rule
MAX_NUMBER = 2**31
# Keras's own parts, which a part of one's own may hold, and those of them that run or read what a config says
KERAS_MODULES = ("keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints", "keras.activations")
KERAS_CLASSES = {
    "keras": ("DTypePolicy", "Functional", "Sequential"),
    "keras.src.models.functional": ("Functional",),
}
TENSOR = "__keras_tensor__"  # what a layer of a functional model is called with
REFUSED = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
READ_FILES = ("TextVectorization", "StringLookup", "IntegerLookup")
SERIALISED = {"module", "class_name", "config", "registered_name", "shared_object_id"}
IN_FUNCTIONAL = {"name", "inbound_nodes"}  # what a layer of a functional model has as well
PACKAGE = "keras_rcnn>"
PART = 'a part, {"class_name": ..., "config": ...}, or null'


class PresetError(ValueError):
    """A preset that cannot be found, read, downloaded or written; the message says what to do."""


# the rules of these hold for a user's own class of detectors too
_EVERY_DETECTORS = ("name", "num_classes", "class_names")
WANTED_OF_URL = ("file", "converter", "model")


# === Reading ===


def read_preset_file(path: Path, max_bytes: int | None = None, own: bool = False) -> dict[str, Any]:
    """What a `preset.json` says, checked.

    Args:
        path: pathlib.Path of the file.
        max_bytes: int, the file's size. None: the environment's `KERAS_RCNN_MAX_PRESET_BYTES`, or else 4 MiB; the
            zoo's have 10 kB.
        own: whether it is one of this package's, which may name a builder in the place of a config, and an address
            without a SHA-256.

    Returns:
        A dict with "detector", a serialised Keras object, and what else the file has.

    Raises:
        PresetError: if it is no JSON, or says something that it may not; the message names the place and the value.
    """
    limit = max_preset_bytes() if max_bytes is None else max_bytes
    try:
        if not path.is_file():
            raise PresetError(f"{path} is no file, or a pipe or a device. A preset is a folder with a preset.json.")
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise PresetError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > limit:
        raise PresetError(
            f"{path} is not a preset: it has more than {limit} bytes. If you trust it, allow more by the environment's "
            f"{BYTES_VARIABLE}."
        )
    try:
        record = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it has brackets within brackets without end" if isinstance(error, RecursionError) else error
        raise PresetError(f"{path} is not a preset: {reason}. {_REMEDY}") from error
    check_record(record, path, own)
    return record


def check_record(record: Any, path: Path, own: bool = False) -> None:
    """Checks what a `preset.json` says.

    Args:
        record: what JSON makes of it.
        path: where it is from, for messages.
        own: as in `read_preset_file`.

    Raises:
        PresetError: for the first thing in it that may not be.
    """
    detector = record.get("detector") if isinstance(record, dict) else None
    named = own and isinstance(detector, dict) and "builder" in detector
    if not isinstance(detector, dict) or not (named or isinstance(detector.get("config"), dict)):
        raise PresetError(f"{path} is not a preset: it has no 'detector' with a 'config'. {_REMEDY}")
    if "builder" in detector and not named:
        raise PresetError(f"{path}: only presets of keras_rcnn itself name a builder. {_REMEDY}")
    _check_depth(record, path)
    if not isinstance(record.get("metrics") or {}, dict):
        raise _wrong(path, "metrics", record["metrics"], OBJECT)
    if not isinstance((record.get("metrics") or {}).get("bbox") or {}, dict):
        raise _wrong(path, "metrics.bbox", record["metrics"]["bbox"], OBJECT)
    _check_weights(record.get("weights"), path, WANTED_OF_URL if own else (*WANTED_OF_URL, "sha256_prefix"))
    if named:
        return
    for key in ("num_classes", "backbone"):
        if key not in detector["config"]:
            raise PresetError(f"{path}: detector.config has no {key!r}, which every detector needs. {_REMEDY}")
    for key, value in detector["config"].items():
        place = f"detector.config.{reprlib.repr(key)[1:-1]}"
        if key in _EVERY_DETECTORS and not SETTINGS[key].accepts(value):
            raise _wrong(path, place, value, SETTINGS[key])
        is_part = isinstance(value, dict) and "class_name" in value
        is_part |= key == "mask_pool" and value == "box_pool"  # the same layer, for both branches
        if not _is_users(detector) and key not in SETTINGS and value is not None and not is_part:
            raise _wrong(path, place, value, Rule(bool, PART))
    _check(detector, path, "detector")
    check_thresholds(record.get("thresholds"), detector["config"], path)


def unregistered(value: Any) -> Iterator[str]:
    """The names of the classes in a serialised detector that `check_record` refuses because they are not registered."""
    if isinstance(value, dict) and "class_name" in value and not _is_known(value):
        yield str(value["class_name"])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from unregistered(inner)


_REMEDY = "Get the preset again from where it is from, or save it anew by save_preset."


def max_preset_bytes() -> int:
    """What a `preset.json` may have at most.

    Raises:
        PresetError: the environment's `KERAS_RCNN_MAX_PRESET_BYTES` is no number.
    """
    value = os.environ.get(BYTES_VARIABLE)
    if not value:
        return MAX_BYTES
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 16):
        raise PresetError(f"The environment's {BYTES_VARIABLE} is a number of bytes, not {value!r}.")
    return int(value)


def _wrong(path: Path, place: str, value: Any, rule: Rule) -> PresetError:
    return PresetError(f"{path}: {place} is {reprlib.repr(value)}; it should be {rule.words}. {_REMEDY}")


def _check_depth(record: dict[str, Any], path: Path) -> None:
    level, depth = [record], 0
    while level:  # a level at a time: deep ones would end Python's recursion
        depth += 1
        if depth > MAX_DEPTH:
            raise PresetError(f"{path} is not a preset: more than {MAX_DEPTH} brackets stand in each other. {_REMEDY}")
        nested = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for values in nested for item in values if isinstance(item, (dict, list))]


def _check_weights(weights: Any, path: Path, wanted: Sequence[str]) -> None:
    if not weights and weights in (None, {}):
        return
    if not isinstance(weights, dict):
        raise _wrong(path, "weights", weights, OBJECT | NULL)
    for key, value in weights.items():
        if key in WEIGHTS_KEYS and not WEIGHTS_KEYS[key].accepts(value):
            raise _wrong(path, f"weights.{key}", value, WEIGHTS_KEYS[key])
    missing = [key for key in wanted if key not in weights] if "url" in weights else []
    if missing:
        raise PresetError(f"{path}: weights has a url, and no {' and no '.join(missing)}. {_REMEDY}")


def check_thresholds(thresholds: Any, config: Mapping[str, Any], path: Path) -> None:
    """Checks the least scores of the classes.

    Args:
        thresholds: None, or what should be a dict, class name -> score.
        config: the detector's, with `class_names` and `num_classes`.
        path: where they are from, for messages.

    Raises:
        PresetError: for the name of no class, or what is no number from 0 to 1.
    """
    if thresholds is None:
        return
    if not isinstance(thresholds, dict):
        raise _wrong(path, "thresholds", thresholds, OBJECT | NULL)
    names = config.get("class_names") or map(str, range(config["num_classes"]))
    unknown = sorted(set(thresholds) - set(names), key=str)
    if unknown:
        raise PresetError(f"{path}: thresholds has {reprlib.repr(unknown[0])}, which is no class of it. {_REMEDY}")
    for name, value in thresholds.items():
        if not UNIT.accepts(value):
            raise _wrong(path, f"thresholds.{name:.200}", value, UNIT)


def _check(value: Any, path: Path, place: str) -> None:
    """Any value within a detector."""
    if isinstance(value, dict):
        if "class_name" in value:
            _check_object(value, path, place)
            return
        for key, item in value.items():
            _check(item, path, f"{place}.{reprlib.repr(key)[1:-1]}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check(item, path, f"{place}[{i}]")
    elif is_number(value) and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise _wrong(path, place, value, Rule(bool, f"a finite number of at most {MAX_NUMBER}"))


def _check_object(value: dict[str, Any], path: Path, place: str) -> None:
    """A serialised part: of which kind it is, and its settings."""
    unknown = sorted(set(value) - SERIALISED - IN_FUNCTIONAL)
    if unknown:
        raise PresetError(f"{path}: {place} has {reprlib.repr(unknown)}, which a preset never has. {_REMEDY}")
    for key in ("module", "class_name", "registered_name"):
        if not (text() | NULL).accepts(value.get(key)):
            raise _wrong(path, f"{place}.{key}", value[key], text())
    for key in IN_FUNCTIONAL & set(value):
        _check(value[key], path, f"{place}.{key}")
    name, registered = value["class_name"], value.get("registered_name")
    if name == TENSOR:
        _check(value.get("config"), path, f"{place}.config")
        return
    if name is None or name.startswith("__") or name in (*REFUSED, *READ_FILES):
        raise PresetError(
            f"{path}: {place} is a {name!r}, which could run code or read files of a stranger's choosing. It was not "
            "built. A detector is made of parts of keras_rcnn, and of your own that you import before."
        )
    if not _is_known(value):
        raise PresetError(
            f"{path}: {place} is a {reprlib.repr(name)} of the module {reprlib.repr(value.get('module'))}, which is "
            "neither keras_rcnn's nor registered by keras.saving.register_keras_serializable. It was not built. "
            f"{_REMEDY}"
        )
    config = value.get("config")
    if name == "function":  # by its name alone: the look-up knows Keras's own and those that are registered
        if not text().accepts(config):
            raise _wrong(path, f"{place}.config", config, text())
        return
    if not (OBJECT | NULL).accepts(config):
        raise _wrong(path, f"{place}.config", config, OBJECT)
    ours = isinstance(registered, str) and registered.startswith(PACKAGE)
    for key, item in (config or {}).items():
        inner = f"{place}.config.{reprlib.repr(key)[1:-1]}"
        if ours and key in SETTINGS:
            if not SETTINGS[key].accepts(item):
                raise _wrong(path, inner, item, SETTINGS[key])
            if not isinstance(item, dict):
                continue
        _check(item, path, inner)


def _is_users(detector: Mapping[str, Any]) -> bool:
    """Whether a detector is of a class that a program has registered as its own: it has settings of its own."""
    registered = str(detector.get("registered_name") or "")
    return ">" in registered and not registered.startswith(PACKAGE)


def _is_known(value: Any) -> bool:
    """Whether a serialised object is of a class that some program has registered, or one of Keras's own."""
    name, module = value["class_name"], value.get("module")
    if name == TENSOR:
        return True
    if ">" in (value.get("registered_name") or ""):
        return True
    if module in KERAS_MODULES or name in KERAS_CLASSES.get(module, ()):
        return True
    return name == "function" and module == "builtins"
