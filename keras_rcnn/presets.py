"""Presets: a detector with its weights as one folder, those of the zoo by name.

A folder has `preset.json` (the detector's config with preprocessing and class names; weights, licence, source,
metrics) and `weights.safetensors` (tensors under their `variable.path`), or instead of the latter the address of
published weights of another framework, which are downloaded and converted once. The package's own are in `zoo/`.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from keras_rcnn.classes import Change, counted
from keras_rcnn.download import DownloadError, alone, cache_folder, downloaded, megabytes, sha256_of
from keras_rcnn.precision import precision
from keras_rcnn.preset_build import build_detector
from keras_rcnn.preset_file import PresetError, read_preset_file

logger = logging.getLogger(__name__)

DEFAULT_PRESET = "nuclei_mrcnn"
PRESET, WEIGHTS = "preset.json", "weights.safetensors"
WEIGHT_DTYPES = ("float32", "float16")
# precision is the loading program's business
DTYPE_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
TASKS = {"MaskRCNN": "boxes and masks"}


def from_preset(name_or_folder, num_classes=None, class_names=None, dtype=None):
    """Loads a detector with its weights.

    The first time, the weights of some presets are downloaded (a
    progress bar shows it), checked, converted, and kept in `~/.keras_rcnn` or the environment's `KERAS_RCNN_HOME`.

    Args:
        name_or_folder: a name among `presets()`, or a folder that `save_preset` or a training has left.
        num_classes: int. If it is not the preset's, whatever is fitted to the classes is new and untrained, and the
            detector is to be fine-tuned: all weights of the layers whose config has `num_classes`, but for those that
            such a layer names in its `class_free_weights` (a mask head's convolutions, boxes that serve all classes).
        class_names: list of str, in any order. Classes that the preset has too keep what is theirs of the predictors'
            weights, so that the same names in another order are the same detector. What belongs to the others is
            new and untrained; a warning says it.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, what convolutions and dense layers compute in (see
            `keras_rcnn.precision`); None: Keras's current dtype policy. Weights and boxes are float32 in each.

    Returns:
        A detector, such as a `FasterRCNN`.

    Raises:
        PresetError: for an unknown name, weights of another model, a damaged file, or a download that fails (nothing
            of it stays; the message says how to get the file).

    Example:

    >>> model = keras_rcnn.from_preset("fasterrcnn_resnet50_fpn")
    >>> model.detect("street.jpg")["names"]
    ['car', 'person']
    >>> model = keras_rcnn.from_preset("fasterrcnn_resnet50_fpn", class_names=["fig", "date"])  # to be fine-tuned
    """
    folder = _find(name_or_folder)
    record = read_preset(folder)
    config, change = _with_classes(record["detector"], num_classes, class_names)
    weights = record.get("weights")
    if not weights:
        raise PresetError(f"{folder}: this preset records a training and has no weights. Train it by its recipe.py.")
    path = _weights_path(folder, weights)
    if "url" in weights:
        weights = _converted(folder, record, path)
    values = _read_weights(path, weights.get("sha256"))
    with precision(dtype):
        model = build_detector(config, folder / PRESET, values, path, change)
    told = None if change is None else change.told(model, folder.name)
    if told:
        logger.warning(told)
    return model


def save_preset(model, folder, dtype="float32", **metadata):
    """Writes a detector as a preset folder, for `from_preset`.

    The files are written aside and then renamed: after a failure, a full disk for instance, the folder is what it was.
    Other files in the folder stay.

    Args:
        model: a detector.
        folder: path; made if need be.
        dtype: `"float32"`, or `"float16"`, half the size: kernels are rounded to 11 bits; vectors (biases,
            normalisation statistics) and kernels beyond float16's range stay float32.
        **metadata: what else is to be known: `name` (by default the folder's), `title`, `license`, `source`,
            `metrics` (`{"bbox": {"AP": ...}, "dataset": ...}`), `notes`, anything that JSON can say.

    Returns:
        The folder as a `pathlib.Path`.

    Raises:
        PresetError: if the files cannot be written (the message says how many MB they need), for another dtype, or
            for metadata that JSON cannot say.

    Example:

    >>> keras_rcnn.save_preset(model, "my_detector", dtype="float16", source="trained on 300 photos of figs")
    >>> model = keras_rcnn.from_preset("my_detector")
    """
    if dtype not in WEIGHT_DTYPES:
        raise PresetError(f"A preset's dtype is one of {', '.join(map(repr, WEIGHT_DTYPES))}, not {dtype!r}.")
    unknown = {"detector", "weights"} & set(metadata)
    if unknown:
        raise PresetError(f"{', '.join(sorted(unknown))}: save_preset writes that itself.")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise PresetError(f"{folder} is a file; a preset is saved as a folder.")
    content = _to_safetensors(model, dtype)
    known = {key: value for key, value in metadata.items() if value is not None}
    record = {"name": folder.resolve().name, "title": "", **known}
    record["weights"] = {
        "file": WEIGHTS,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "dtype": dtype,
    }
    record["detector"] = describe(model)
    _write(folder, {WEIGHTS: content, PRESET: to_json(record).encode()})
    return folder


def presets():
    """The presets of the zoo that have weights, by name.

    Returns:
        A list of dicts: what `preset.json` says besides the detector's config (`name`, `title`, `license`, `source`,
        `metrics`, `weights`, ...), and `task`, `AP` and `AP50` (of boxes, 0 to 1, or None), `dataset` (which they were
        measured on), `size` (bytes of the weights file), and `local`, whether it loads without a network.

    Example:

    >>> [preset["name"] for preset in keras_rcnn.presets() if preset["local"]]
    ['nuclei_frcnn', 'nuclei_mrcnn']
    """
    records = {folder: read_preset(folder) for folder in _zoo().values()}
    return [_summary(folder, record) for folder, record in records.items() if record.get("weights")]


def zoo_folder():
    """The folder of the package's own presets and of the demo's photo."""
    checkout = Path(__file__).resolve().parents[1] / "zoo"
    spec = importlib.util.find_spec("keras_rcnn.zoo")
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(place) for place in places if Path(place).is_dir()), checkout)


# === What a folder says ===


def _zoo():
    """Name -> folder."""
    return {path.parent.name: path.parent for path in sorted(zoo_folder().glob(f"*/{PRESET}"))}


def _find(name_or_folder):
    """The folder of a preset: one that exists goes before the zoo's."""
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise PresetError(f"A preset is given by its name or its folder, not {name_or_folder!r}.")
    try:
        folder = Path(name_or_folder).expanduser()
        if (folder / PRESET).is_file():
            return folder
    except (OSError, RuntimeError) as error:  # a name of thousands of characters, a home that is nobody's
        raise PresetError(f"There is no preset {os.fspath(name_or_folder)[:100]!r}: {error!s:.200}") from error
    zoo = _zoo()
    name = os.fspath(name_or_folder)
    if name in zoo:
        return zoo[name]
    if folder.is_dir():
        raise PresetError(f"{folder} is a folder without {PRESET}, which save_preset and `keras-rcnn train` write.")
    if folder.is_file():
        raise PresetError(f"{folder} is a file. Give the name of a preset, or a folder with {PRESET}.")
    near = difflib.get_close_matches(name, zoo, 1)
    raise PresetError(
        f"There is no preset {name!r}{f'; did you mean {near[0]!r}' if near else ''}. There are "
        f"{', '.join(zoo) or 'none'}; any folder with {PRESET} will do too."
    )


def read_preset(folder):
    """What a folder's `preset.json` says, as a dict."""
    return read_preset_file(folder / PRESET)


def detector_class(name_or_folder):
    """The class of a preset's detector, from its `preset.json` alone; None for one that is not imported.

    Raises:
        PresetError: as in `from_preset`.
    """
    import keras

    detector = read_preset(_find(name_or_folder))["detector"]
    importlib.import_module("keras_rcnn.models")
    name = detector.get("registered_name") or f"keras_rcnn>{detector.get('class_name')}"
    found = keras.saving.get_registered_object(str(name))
    return found if isinstance(found, type) else None


def _summary(folder, record):
    metrics, weights = record.get("metrics") or {}, record.get("weights") or {}
    bbox = metrics.get("bbox") or {}
    return {
        "name": folder.name,
        **{key: value for key, value in record.items() if key != "detector"},
        "task": TASKS.get(record["detector"].get("class_name"), "boxes"),
        "AP": bbox.get("AP"),
        "AP50": bbox.get("AP50"),
        "dataset": metrics.get("dataset"),
        "size": weights.get("size"),
        "local": bool(weights) and _weights_path(folder, weights).is_file(),
    }


def describe(model):
    """A detector's config as `preset.json` has it: no shapes, no compilation, no precision."""
    import keras

    return _plain(keras.saving.serialize_keras_object(model))


def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    serialised = "class_name" in value and "config" in value
    left_out = ("build_config", "compile_config") if serialised else ()
    value = {key: _plain(one) for key, one in value.items() if key not in left_out}
    if serialised and isinstance(value["config"], dict):
        policy = value["config"].get("dtype")
        if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicy":
            policy = policy["config"]["name"]
        if policy in DTYPE_POLICIES:
            del value["config"]["dtype"]
    return value


# === Classes ===


def _with_classes(detector, num_classes, class_names):
    """The config for other classes, and the `Change` if the weights that depend on them do not serve it as they are."""
    config = detector["config"]
    count, names = config["num_classes"], config.get("class_names")
    if class_names is not None:
        named = isinstance(class_names, Iterable) and not isinstance(class_names, (str, bytes, Mapping))
        class_names = list(class_names) if named else class_names
        if not named or not all(isinstance(name, (str, int, np.integer)) for name in class_names):
            raise PresetError(f"class_names is a list of names, not {class_names!r:.200}.")
        class_names = [str(name) for name in class_names]
        if num_classes not in (None, len(class_names)):
            raise PresetError(f"num_classes={num_classes}, but there are {len(class_names)} class_names.")
        num_classes = len(class_names)
    if num_classes is None or (num_classes == count and class_names in (None, names)):
        return detector, None
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
        raise PresetError(f"num_classes is a whole number from 1, background not counted, not {num_classes!r}.")
    num_classes = int(num_classes)
    config = {**counted(config, num_classes), "class_names": class_names}
    if names == [str(i) for i in range(count)] and not set(class_names or ()) & set(names):
        names = None  # which is how a detector without names says so
    same = names is None and num_classes == count
    change = None if same else Change.between(names, class_names, count, num_classes)
    return {**detector, "config": config}, change


# === Loading ===


def _read_weights(path, sha256=None):
    """Path -> array."""
    from keras_rcnn.convert import ConversionError, read_torch_file

    if not path.is_file():
        raise PresetError(f"{path} is missing: the folder has {PRESET}, but not the weights that belong to it.")
    try:
        values = read_torch_file(path)
    except ConversionError as error:
        raise PresetError(str(error)) from error
    except OSError as error:
        raise PresetError(f"{path} cannot be read: {error.strerror or error}.") from error
    if sha256 is not None and sha256_of(path) != sha256.lower():
        raise PresetError(
            f"{path} is not the file that {PRESET} beside it describes: its SHA-256 is another, so it was "
            "damaged or altered. Get both anew (delete the folder, if it is in the cache); or if the weights were "
            "changed on purpose, save them by save_preset."
        )
    return values


# === Downloads ===


def _weights_path(folder, weights):
    """Where a preset's weights are or will be."""
    if "url" not in weights:
        return folder / (weights.get("file") or WEIGHTS)
    name = f"{folder.name}-{weights['sha256_prefix'].lower()}"
    if folder.parent != zoo_folder():  # a stranger's preset of the same name has its own place
        name += "-" + hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:8]
    return cache_folder() / "presets" / name / WEIGHTS


def _converted(folder, record, path):
    """Has published weights downloaded and converted, once; what the converted preset says of its own weights."""
    kept = path.parent
    if not (path.is_file() and (kept / PRESET).is_file()):
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with alone(kept.parent / f"{kept.name}.lock", f"downloads and converts {folder.name}"):
                if not (path.is_file() and (kept / PRESET).is_file()):  # another process may have been faster
                    _download(folder, record, kept)
        except OSError as error:
            raise PresetError(
                f"{folder.name}: {kept.parent} cannot be written to ({error.strerror or error}). Set the environment's "
                "KERAS_RCNN_HOME to a folder that can."
            ) from error
    weights = read_preset(kept).get("weights") or {}
    if not weights.get("sha256") or weights.get("file", WEIGHTS) != WEIGHTS:
        raise PresetError(f"{kept} is not what was converted there. Delete it: it is downloaded and converted anew.")
    return weights


def _download(folder, record, target):
    """Published weights -> a preset folder in the cache."""
    from keras_rcnn.convert import convert_torchvision, read_torch_file

    weights = record["weights"]
    if weights["converter"] != "torchvision":
        raise PresetError(f"{folder / PRESET}: there is no converter {weights['converter']!r}.")
    downloads = cache_folder() / "downloads"
    by_hand = downloads / weights["file"]
    with contextlib.ExitStack() as stack:
        if by_hand.is_file():
            source = _checked(by_hand, weights["sha256_prefix"])
        else:
            try:
                source = stack.enter_context(
                    downloaded(weights["url"], downloads, weights["sha256_prefix"], weights.get("size"))
                )
            except DownloadError as error:
                raise PresetError(f"{folder.name}: {error}\n{_advice(weights, by_hand)}") from error
            except OSError as error:
                raise PresetError(f"{folder.name}: {error.strerror}") from error
        try:
            values = convert_torchvision(weights["model"], read_torch_file(source))
        except ValueError as error:  # ConversionErrors, and a model of another name
            reason = f"the weights of {weights['url']} are not what they should be: {error}"
            raise PresetError(f"{folder.name}: {reason}") from error
        model = build_detector(record["detector"], folder / PRESET, values, source)
        known = {key: value for key, value in record.items() if key not in ("detector", "weights")}
        save_preset(model, target, **{**known, "source": f"{weights['url']}, converted"})


def _checked(path, sha256_prefix):
    digest = sha256_of(path)
    if not digest.startswith(sha256_prefix.lower()):
        raise PresetError(
            f"{path} is not the file that it should be: its SHA-256 begins with {digest[: len(sha256_prefix)]} instead "
            f"of {sha256_prefix}. Delete it, and copy or download it again."
        )
    return path


def _advice(weights, by_hand):
    return (
        "Try again when there is a network. Or download that file elsewhere (a browser will do) and put it at\n"
        f"  {by_hand}\nor convert it from wherever it lies, and load the folder DIR:\n"
        f"  keras-rcnn convert torchvision --model {weights['model']} --weights {weights['file']} --out DIR"
    )


# === Saving ===


def _to_safetensors(model, dtype):
    """A model's weights as the bytes of a .safetensors file."""
    import keras
    from safetensors.numpy import save

    tensors = {}
    for weight in model.weights:
        if weight.path in tensors:
            raise PresetError(f"Two weights of {model.name} have the path {weight.path}: a preset cannot hold both.")
        value = np.array(keras.ops.convert_to_numpy(weight))
        value = value.astype(np.float32) if value.dtype.kind not in "iub" else value
        # a variance may be 1e-9, and a float16 is 0 below 6e-8
        if dtype == "float16" and value.dtype.kind == "f" and value.ndim > 1 and _fits_float16(value):
            value = value.astype(np.float16)
        tensors[weight.path] = np.array(value, order="C")  # ascontiguousarray would make a vector of a scalar
    return save(tensors, metadata={"format": "keras_rcnn"})


def _fits_float16(value):
    return not np.abs(value).max(initial=0) > np.finfo(np.float16).max


def _write(folder, files):
    """Writes files into a folder, all or none; in this order, the last of them makes it a preset."""
    needed = sum(map(len, files.values()))
    existed = folder.is_dir()
    # in the folder itself if there is one: it may be a disk of its own, and its parent not ours to write to
    aside = (folder if existed else folder.parent) / f".{folder.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            with open(aside / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if not existed:
            with contextlib.suppress(OSError):  # another process was faster: replace its files
                aside.rename(folder)
                return
        for name in files:
            os.replace(aside / name, folder / name)
    except OSError as error:
        raise PresetError(
            f"{folder}: the preset could not be saved ({error.strerror or error}). It needs {megabytes(needed)}"
            f"{_free(folder)}. What was there before is as it was."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _free(folder):
    with contextlib.suppress(OSError):
        place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        return f"; {megabytes(shutil.disk_usage(place).free)} are free"
    return ""


# === JSON that people read ===


def to_json(value):
    """JSON with what fits into a line on one line, long lists of numbers or names filled; NaN becomes null."""
    return _lines(_finite(value), "") + "\n"


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _finite(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(value, indent, width=110):
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise PresetError(f"A preset's metadata must be what JSON can say: {error}.") from error
    if not isinstance(value, (dict, list)) or len(indent) + len(line) <= width:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(one, deeper)}" for key, one in value.items()]
    else:
        parts = [_lines(one, deeper) for one in value]
        if not any(isinstance(one, (dict, list)) for one in value):
            parts = _filled(parts, width - len(deeper))
    return "\n".join([line[0], ",\n".join(deeper + part for part in parts), indent + line[-1]])


def _filled(parts, width):
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 < width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines
