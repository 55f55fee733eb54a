"""What a `preset.json` may say. It comes from strangers: all of it is checked before anything is built of it.

The rules of the settings stand in `SETTINGS`, by name, since a name means the same in every part of a detector.
"""

import json
import math
import os
import re
import reprlib
import urllib.parse
from typing import NamedTuple

MAX_BYTES = 2**22
PRESET, WEIGHTS = "preset.json", "weights.safetensors"
BYTES_VARIABLE = "KERAS_RCNN_MAX_PRESET_BYTES"
# dicts and lists within each other; those of the zoo have six
MAX_DEPTH = 32
# of settings that have no rule
MAX_NUMBER = 2**31
SCHEMES = ("http", "https")
# Keras's own parts, which a part of one's own may hold, and those of them that run or read what a config says
KERAS_MODULES = ("keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints", "keras.activations")
KERAS_CLASSES = {"keras": ("DTypePolicy", "Functional", "Sequential")}
REFUSED = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
READ_FILES = ("TextVectorization", "StringLookup", "IntegerLookup")
SERIALISED = {"module", "class_name", "config", "registered_name", "shared_object_id"}
PACKAGE = "keras_rcnn>"
PART = 'a part, {"class_name": ..., "config": ...}, or null'


class PresetError(ValueError):
    """A preset that cannot be found, read, downloaded or written; the message says what to do."""


# === Rules ===


class Rule(NamedTuple):
    """What a value may be."""

    accepts: object  # value -> bool
    words: str

    def __or__(self, other):
        return Rule(lambda value: self.accepts(value) or other.accepts(value), f"{self.words} or {other.words}")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(low, high):
    """A whole number from low to high; 3.0 is none."""
    return Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def number(low, high, open_low=False):
    """A number from low to high."""
    return Rule(
        lambda value: _is_number(value) and (low < value if open_low else low <= value) and value <= high,
        f"a number {'above' if open_low else 'from'} {low} {'up ' if open_low else ''}to {high:g}",
    )


def listed(rule, most, least=0):
    """A list, each of whose values follows a rule."""
    many = f"{least}" if least == most else f"{least} to {most}"
    return Rule(
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(rule.accepts, value)),
        f"a list of {many}, each {rule.words}",
    )


def text(most=1000):
    """A text of so many characters."""
    return Rule(lambda value: isinstance(value, str) and len(value) <= most, f"a text of up to {most} characters")


def one_of(*values):
    """One of a few texts."""
    return Rule(lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}")


NULL = Rule(lambda value: value is None, "null")
FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
OBJECT = Rule(lambda value: isinstance(value, dict), "an object {...}")
CLASSES = whole(1, 100_000)
WIDTH = whole(1, 2**20)  # the weights file says which; this is what is not even compared
UNIT, POSITIVE = number(0, 1), number(0, 1e6, open_low=True)
FILE_NAME = Rule(
    lambda value: (
        isinstance(value, str)
        and 0 < len(value) <= 200
        and not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', value)
        and value.strip(" .") != ""
    ),
    "a plain file name, without a folder",
)
HEX = Rule(
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{64}", value) is not None,
    "a SHA-256 of 64 hexadecimal digits",
)
HEX_PREFIX = Rule(
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{8,64}", value) is not None,
    "the first 8 to 64 hexadecimal digits of a SHA-256",
)


def _is_url(value):
    if not isinstance(value, str) or len(value) > 2000 or not value.isascii() or re.search(r"[\x00-\x20\x7f]", value):
        return False
    try:
        parts = urllib.parse.urlsplit(value)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a broken IPv6 address
        return False


URL = Rule(_is_url, "an address that begins with https:// or http://")

# a setting of a detector or of one of its parts -> its rule
SETTINGS = {
    "name": text(200),
    "trainable": FLAG,
    "dtype": NULL | text(100) | OBJECT,
    # detectors
    "num_classes": CLASSES,
    "class_names": NULL | listed(text(), 100_000),
    # backbones: weights are read by from_preset, and never by a path that the file names
    "weights": NULL | listed(POSITIVE, 4, 4),
    "norm": NULL | text(100),
    "freeze_at": whole(0, 16),
    "depth": whole(1, 1000),
    "epsilon": number(0, 1),
    "momentum": UNIT,
    "padded": FLAG,
    # necks and heads
    "channels": NULL | WIDTH | listed(WIDTH, 64),
    "in_features": listed(text(100), 16, 1),
    "in_feature": text(100),
    "top": NULL | text(100),
    "num_anchors": whole(1, 10_000),
    "convs": whole(0, 64) | listed(WIDTH, 64),
    "units": listed(WIDTH, 64, 1),
    "ranks": NULL | listed(NULL | WIDTH, 64),
    "dropout": Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "class_agnostic": FLAG,
    # anchors and proposals
    "sizes": listed(listed(POSITIVE, 100, 1), 16, 1),
    "aspect_ratios": listed(number(0, 1000, open_low=True), 100, 1),
    "rounded": FLAG,
    "strides": NULL | listed(whole(1, 1024), 16, 1),
    "pre_nms": listed(whole(1, 50_000), 2, 2),
    "post_nms": listed(whole(1, 10_000), 2, 2),
    "iou_threshold": UNIT,
    "score_threshold": number(-1e6, 1e6),
    "min_size": number(0, 16_384),
    # targets and losses
    "shuffle": FLAG,
    "seed": NULL | whole(0, 2**63),
    "foreground": UNIT,
    "background": UNIT | listed(UNIT, 2, 2),
    "count": whole(1, 100_000),
    "positive_fraction": UNIT,
    "border": NULL | number(-16_384, 16_384),
    "guard": FLAG,
    "add_truth": FLAG,
    "beta": number(0, 1e6),
    "normalisation": text(100),
    "box_weight": NULL | number(0, 1e6),
    # regions
    "size": whole(1, 1024),
    "samples": whole(0, 16),
    "aligned": FLAG,
    "canonical_size": POSITIVE,
    "canonical_level": whole(0, 16),
    "context": whole(0, 512),
    "mode": text(100),
    "chunk": whole(1, 10_000),
    "max_detections": whole(1, 10_000),
    # the preprocessor
    "max_size": whole(1, 16_384),
    "mean": listed(number(-1000, 1000), 3, 3),
    "std": listed(number(0, 1000, open_low=True), 3, 3),
    "size_divisor": whole(1, 1024),
    "fixed_size": NULL | listed(whole(1, 16_384), 2, 2),
    "few_shapes": NULL | FLAG,
}
_WEIGHTS_KEYS = {
    "file": FILE_NAME,
    "size": NULL | whole(0, 2**50),
    "sha256": NULL | HEX,
    "url": URL,
    "sha256_prefix": HEX_PREFIX,
    "converter": text(100),
    "model": text(100),
}
# the rules of these hold for a user's own class of detectors too
_EVERY_DETECTORS = ("name", "num_classes", "class_names")
WANTED_OF_URL = ("file", "sha256_prefix", "converter", "model")


# === Reading ===


def read_preset_file(path, max_bytes=None):
    """What a `preset.json` says, checked.

    Args:
        path: pathlib.Path of the file.
        max_bytes: int, the file's size. None: the environment's `KERAS_RCNN_MAX_PRESET_BYTES`, or else 4 MiB; the
            zoo's have 10 kB.

    Returns:
        A dict with "detector", a serialised Keras object, and what else the file has.

    Raises:
        PresetError: if it is no JSON, or says something that it may not; the message names the place and the value.
    """
    limit = _max_bytes() if max_bytes is None else max_bytes
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
    check_record(record, path)
    return record


def check_record(record, path):
    """Checks what a `preset.json` says.

    Args:
        record: what JSON makes of it.
        path: where it is from, for messages.

    Raises:
        PresetError: for the first thing in it that may not be.
    """
    detector = record.get("detector") if isinstance(record, dict) else None
    if not isinstance(detector, dict) or not isinstance(detector.get("config"), dict):
        raise PresetError(f"{path} is not a preset: it has no 'detector' with a 'config'. {_REMEDY}")
    _check_depth(record, path)
    if not isinstance(record.get("metrics") or {}, dict):
        raise _wrong(path, "metrics", record["metrics"], OBJECT)
    if not isinstance((record.get("metrics") or {}).get("bbox") or {}, dict):
        raise _wrong(path, "metrics.bbox", record["metrics"]["bbox"], OBJECT)
    _check_weights(record.get("weights"), path)
    for key in ("num_classes", "backbone"):
        if key not in detector["config"]:
            raise PresetError(f"{path}: detector.config has no {key!r}, which every detector needs. {_REMEDY}")
    for key, value in detector["config"].items():
        place = f"detector.config.{reprlib.repr(key)[1:-1]}"
        if key in _EVERY_DETECTORS and not SETTINGS[key].accepts(value):
            raise _wrong(path, place, value, SETTINGS[key])
        is_part = isinstance(value, dict) and "class_name" in value
        if not _is_users(detector) and key not in SETTINGS and value is not None and not is_part:
            raise _wrong(path, place, value, Rule(None, PART))
    _check(detector, path, "detector")


def unregistered(value):
    """The names of the classes in a serialised detector that `check_record` refuses because they are not registered."""
    if isinstance(value, dict) and "class_name" in value and not _is_known(value):
        yield str(value["class_name"])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from unregistered(inner)


_REMEDY = "Get the preset again from where it is from, or save it anew by save_preset."


def _max_bytes():
    value = os.environ.get(BYTES_VARIABLE)
    if not value:
        return MAX_BYTES
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 16):
        raise PresetError(f"The environment's {BYTES_VARIABLE} is a number of bytes, not {value!r}.")
    return int(value)


def _wrong(path, place, value, rule):
    return PresetError(f"{path}: {place} is {reprlib.repr(value)}; it should be {rule.words}. {_REMEDY}")


def _check_depth(record, path):
    level, depth = [record], 0
    while level:  # a level at a time: deep ones would end Python's recursion
        depth += 1
        if depth > MAX_DEPTH:
            raise PresetError(f"{path} is not a preset: more than {MAX_DEPTH} brackets stand in each other. {_REMEDY}")
        nested = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for values in nested for item in values if isinstance(item, (dict, list))]


def _check_weights(weights, path):
    if not weights and weights in (None, {}):
        return
    if not isinstance(weights, dict):
        raise _wrong(path, "weights", weights, OBJECT | NULL)
    for key, value in weights.items():
        if key in _WEIGHTS_KEYS and not _WEIGHTS_KEYS[key].accepts(value):
            raise _wrong(path, f"weights.{key}", value, _WEIGHTS_KEYS[key])
    missing = [key for key in WANTED_OF_URL if key not in weights] if "url" in weights else []
    if missing:
        raise PresetError(f"{path}: weights has a url, and no {' and no '.join(missing)}. {_REMEDY}")


def _check(value, path, place, rules=None):
    """Any value within a detector; `rules`: of the part whose setting it is."""
    if isinstance(value, dict):
        if "class_name" in value:
            _check_object(value, path, place)
            return
        for key, item in value.items():
            _check(item, path, f"{place}.{reprlib.repr(key)[1:-1]}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check(item, path, f"{place}[{i}]")
    elif _is_number(value) and not (math.isfinite(value) and abs(value) <= MAX_NUMBER):
        raise _wrong(path, place, value, Rule(None, f"a finite number of at most {MAX_NUMBER}"))


def _check_object(value, path, place):
    """A serialised part: of which kind it is, and its settings."""
    unknown = sorted(set(value) - SERIALISED)
    if unknown:
        raise PresetError(f"{path}: {place} has {reprlib.repr(unknown)}, which a preset never has. {_REMEDY}")
    for key in ("module", "class_name", "registered_name"):
        if not (text() | NULL).accepts(value.get(key)):
            raise _wrong(path, f"{place}.{key}", value[key], text())
    name, registered = value["class_name"], value.get("registered_name")
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


def _is_users(detector):
    """Whether a detector is of a class that a program has registered as its own: it has settings of its own."""
    registered = str(detector.get("registered_name") or "")
    return ">" in registered and not registered.startswith(PACKAGE)


def _is_known(value):
    """Whether a serialised object is of a class that some program has registered, or one of Keras's own."""
    name, module = value["class_name"], value.get("module")
    if ">" in (value.get("registered_name") or ""):
        return True
    if module in KERAS_MODULES or name in KERAS_CLASSES.get(module, ()):
        return True
    return name == "function" and module == "builtins"
