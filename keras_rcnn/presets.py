"""Presets: a detector with its weights as one folder, those of the zoo by name.

A folder holds `preset.json`: the detector's configuration with its preprocessing and class names, where the weights
are, licence, source and measured metrics; and `weights.safetensors`, every weight under its variable's path. The zoo's
torchvision presets name a download instead, which is converted once and kept in `$KERAS_RCNN_HOME` (`~/.keras_rcnn`).
"""

import hashlib
import importlib.resources
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

DEFAULT_PRESET = "nuclei_frcnn"
WEIGHTS = "weights.safetensors"


class PresetError(ValueError):
    """A preset that cannot be found, read, downloaded or written; the message says what to do."""


def zoo_folder():
    """The folder of the presets that come with the package."""
    here = Path(__file__).resolve().parents[1] / "zoo"  # a checkout
    return here if here.is_dir() else Path(str(importlib.resources.files("keras_rcnn") / "zoo"))


def cache_folder():
    """Where downloaded presets are kept: `$KERAS_RCNN_HOME`, else `~/.keras_rcnn`."""
    return Path(os.environ.get("KERAS_RCNN_HOME") or Path.home() / ".keras_rcnn")


def presets():
    """The presets of the zoo that have weights.

    Returns:
        A list of dicts, as their `preset.json` without the detector: `name`, `title`, `license`, `source`, `metrics`,
        `weights`, and `local`, whether the weights are on this machine.

    Example:

    >>> [preset["name"] for preset in keras_rcnn.presets()]
    """
    found = []
    for path in sorted(zoo_folder().glob("*/preset.json")):
        info = _read(path.parent)
        info.pop("detector", None)
        if info.get("weights"):
            here = (path.parent / WEIGHTS).is_file() or (cache_folder() / info["name"] / WEIGHTS).is_file()
            found.append({**info, "local": here})
    return found


def from_preset(name, num_classes=None, class_names=None):
    """Loads a detector with its weights.

    Args:
        name: a preset of the zoo (see `presets`), or a folder that `save_preset` or `keras-rcnn train` wrote.
        num_classes: int; if it differs from the preset's, the predictors are new and everything else is kept: the
            start of a fine-tuning.
        class_names: list of names, likewise; with the preset's own names everything is kept.

    Returns:
        A detector.

    Raises:
        PresetError: for an unknown name, a download that fails (nothing half-written stays), weights that are not this
            detector's, or a damaged file.

    Example:

    >>> model = keras_rcnn.from_preset("nuclei_frcnn")
    >>> model = keras_rcnn.from_preset("fasterrcnn_resnet50_fpn", class_names=["cat", "dog"])
    """
    folder = _folder(name)
    info = _read(folder)
    if not info.get("weights"):
        raise PresetError(f"The preset {info.get('name', name)!r} records a training and has no weights: run its recipe.")
    # zoo presets that are downloaded keep their configuration, the weights come from the cache
    weights = _download(info, folder) if "url" in info["weights"] else folder / WEIGHTS
    detector, fresh = info["detector"], set()
    if class_names is not None:
        class_names = [str(n) for n in class_names]
        if num_classes not in (None, len(class_names)):
            raise PresetError(f"num_classes={num_classes}, but {len(class_names)} class names.")
        num_classes = len(class_names)
    config = detector["config"]
    if num_classes is not None and (num_classes != config["num_classes"] or class_names not in (None, config["class_names"])):
        if not isinstance(num_classes, int) or num_classes < 1:
            raise PresetError(f"num_classes is an int of at least 1, not {num_classes!r}.")
        detector, fresh = _with_classes(detector, num_classes, class_names)
    try:
        model = keras.saving.deserialize_keras_object(detector)
    except (TypeError, ValueError, KeyError) as error:
        raise PresetError(f"{folder / 'preset.json'}: no detector can be made of this configuration: {error}") from error
    _load(model, weights, fresh)
    return model


def save_preset(model, folder, dtype="float32", **metadata):
    """Writes a detector and its weights as a preset folder.

    Written aside and renamed: if anything fails, what was in `folder` is as it was. Files of other names in the folder
    are kept.

    Args:
        model: a detector.
        folder: path of the folder.
        dtype: `"float32"`, or `"float16"` for kernels and matrices (vectors, and so all statistics, stay float32).
        **metadata: further entries of `preset.json`: `name`, `title`, `license`, `source`, `metrics`, `notes`.

    Returns:
        The folder as a `pathlib.Path`.

    Raises:
        PresetError: if the folder cannot be written, naming it and the space needed, or weights overflow float16.
    """
    if dtype not in ("float32", "float16"):
        raise PresetError(f"Weights are kept as 'float32' or 'float16', not {dtype!r}.")
    folder = Path(folder)
    tensors = {w.path: _stored(w.path, keras.ops.convert_to_numpy(w), dtype) for w in model.weights}
    if len(tensors) != len(model.weights):
        raise PresetError(f"{model.name}: several weights share a path; give the layers names of their own.")
    size = sum(t.nbytes for t in tensors.values())
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(tensors, aside / WEIGHTS)
        info = {
            "name": metadata.pop("name", None) or folder.name,
            "title": metadata.pop("title", None) or "",
            "weights": {
                "file": WEIGHTS,
                "size": (aside / WEIGHTS).stat().st_size,
                "sha256": _sha256(aside / WEIGHTS),
                "dtype": dtype,
            },
            **{key: value for key, value in metadata.items() if value is not None},
            "detector": _plain(keras.saving.serialize_keras_object(model)),
        }
        (aside / "preset.json").write_text(json.dumps(_no_nan(info), indent=1) + "\n", encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, "preset.json"):
            os.replace(aside / name, folder / name)
    except (OSError, SafetensorError) as error:
        raise PresetError(
            f"{folder}: the preset could not be written ({error}); it needs {size / 1e6 + 1:.0f} MB of space. "
            "What was there is as it was."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _stored(path, value, dtype):
    if dtype == "float16" and value.ndim > 1 and value.dtype == np.float32:
        if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
            raise PresetError(f"The weight {path} overflows float16: keep float32.")
        return value.astype(np.float16)
    return np.ascontiguousarray(value)


def _folder(name):
    path = Path(name)
    if (path / "preset.json").is_file():
        return path
    known = zoo_folder() / str(name)
    if str(name) and path.name == str(name) and (known / "preset.json").is_file():
        return known
    names = ", ".join(p["name"] for p in presets())
    why = "a folder without preset.json" if path.is_dir() else "neither a folder nor a preset"
    raise PresetError(f"{str(name)!r} is {why}. Presets: {names}.")


def _read(folder):
    path = Path(folder) / "preset.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: not a preset: {error}") from error


def _with_classes(detector, num_classes, class_names):
    """The configuration with another number of classes, and the names of the layers whose weights are then new."""
    detector = json.loads(json.dumps(detector))
    config, fresh = detector["config"], set()
    config["num_classes"], config["class_names"] = num_classes, class_names
    for part in config.values():
        inner = part.get("config") if isinstance(part, dict) else None
        if isinstance(inner, dict) and "num_classes" in inner:
            inner["num_classes"] = num_classes
            fresh.add(inner["name"])
    return detector, fresh


def _load(model, path, fresh):
    """Sets every weight by its path; those of the layers in `fresh` keep what they have where shapes differ."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PresetError(f"{path}: the weights cannot be read: {error}") from error
    values, missing, shapes = [], [], []
    for weight in model.weights:
        is_new = weight.path.split("/")[0] in fresh
        value = tensors.pop(weight.path, None)
        if is_new and weight.path.split("/")[-2] in ("logits", "deltas"):
            continue
        if value is None:
            missing.append(weight.path)
        elif tuple(value.shape) != tuple(weight.shape):
            shapes.append(f"{weight.path} {tuple(value.shape)} (wanted {tuple(weight.shape)})")
        else:
            values.append((weight, value))
    for what, names in (("lacks", missing), ("has further", list(tensors)), ("has other shapes:", shapes)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise PresetError(f"{path}: the weights of another model; it {what} {', '.join(names[:5])}{more}.")
    for weight, value in values:
        weight.assign(value.astype(weight.dtype) if value.dtype != weight.dtype else value)


def _download(info, folder):
    """The cached weights of a preset that is downloaded and converted at its first use."""
    home = cache_folder() / info["name"]
    if (home / WEIGHTS).is_file():
        return home / WEIGHTS
    weights = info["weights"]
    from keras_rcnn.convert import ConversionError, assign, convert_torchvision, read_torch_file
    from keras_rcnn.convert.build import torchvision_detector

    file = _fetch(weights, home)
    try:
        model = torchvision_detector(weights["model"], class_names=info["detector"]["config"]["class_names"])
        assign(model, convert_torchvision(weights["model"], read_torch_file(file)))
    except ConversionError as error:
        raise PresetError(f"{file}: {error}") from error
    save_preset(model, home, **{k: info[k] for k in ("name", "title", "license", "source", "metrics") if k in info})
    file.unlink(missing_ok=True)
    return home / WEIGHTS


def _fetch(weights, home):
    """The checked download; a file that somebody put at its place is taken, too."""
    from tqdm import tqdm

    url, prefix = weights["url"], weights["sha256_prefix"]
    file = home / weights["file"]
    by_hand = f"Download {url} by other means to {file}, then call this again."
    if not file.is_file():
        part = home / f".{weights['file']}.{os.getpid()}.part"
        try:
            home.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(url, timeout=30) as answer, part.open("wb") as out:
                total = int(answer.headers.get("Content-Length") or 0) or None
                with tqdm(total=total, unit="B", unit_scale=True, desc=weights["file"]) as bar:
                    while block := answer.read(1 << 20):
                        out.write(block)
                        bar.update(len(block))
            if total is not None and part.stat().st_size != total:
                raise PresetError(f"{url}: the download broke off at {part.stat().st_size} of {total} bytes. {by_hand}")
            digest = _sha256(part)
            if not digest.startswith(prefix):
                raise PresetError(
                    f"{url}: the download is damaged or another file: its sha256 begins with {digest[:8]}, not {prefix}. "
                    f"{by_hand}"
                )
            os.replace(part, file)
        except (urllib.error.URLError, OSError) as error:
            raise PresetError(f"{url} could not be downloaded ({error}). {by_hand}") from error
        finally:
            part.unlink(missing_ok=True)
    elif not (digest := _sha256(file)).startswith(prefix):
        raise PresetError(f"{file}: damaged or another file: its sha256 begins with {digest[:8]}, not {prefix}. Remove it.")
    return file


def _sha256(path):
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value):
    """JSON's types only: tuples become lists, as they would in the file."""
    return json.loads(json.dumps(value))


def _no_nan(value):
    """NaN (a metric without objects) is no JSON: null."""
    if isinstance(value, dict):
        return {k: _no_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value
