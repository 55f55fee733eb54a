"""Presets: a detector with its weights as one folder, those of the zoo by name.

A folder has `preset.json` (the detector's config with preprocessing and class names; weights, licence, source,
metrics) and `weights.safetensors` (tensors under their `variable.path`), or instead of the latter the address of
published weights of another framework, which are downloaded and converted once. The package's own are in `zoo/`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.classes import Change, counted
from keras_rcnn.download import megabytes
from keras_rcnn.files import write_together
from keras_rcnn.hub import fetched, is_handle
from keras_rcnn.json_text import to_json
from keras_rcnn.precision import precision
from keras_rcnn.preset_build import build_detector
from keras_rcnn.preset_builders import outline
from keras_rcnn.preset_file import (
    PRESET,
    TENSOR,
    WEIGHTS,
    PresetError,
    check_thresholds,
    read_preset_file,
    unregistered,
)
from keras_rcnn.preset_summary import summary
from keras_rcnn.preset_weights import read_weights, to_safetensors
from keras_rcnn.published import converted, weights_path
from keras_rcnn.renamed import keep_former_name

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath
    from keras_rcnn.models import Detector

logger = logging.getLogger(__name__)

DEFAULT_PRESET = "everyday_frcnn"
WEIGHT_DTYPES = ("float32", "float16")
# precision is the loading program's business
DTYPE_POLICIES = ("float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def from_preset(
    name_or_folder: FilePath,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    dtype: str | None = None,
) -> Detector:
    """Loads a detector with its weights.

    The first time, the weights of some presets are downloaded (a
    progress bar shows it), checked, converted, and kept in `~/.keras_rcnn` or the environment's `KERAS_RCNN_HOME`.

    Args:
        name_or_folder: a name among `list_presets()`, a folder that `save_preset` or a training has left, or a handle:
            `hf://USER/REPO[@REVISION][/FOLDER]` or `kaggle://OWNER/MODEL/keras/VARIATION[/VERSION]`.
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
    path = _path(folder, weights)
    if "url" in weights:
        weights = converted(folder, record, path, save_preset)
    values = read_weights(path, weights.get("sha256"))
    with precision(dtype):
        model = build_detector(config, folder / PRESET, values, path, change)
    thresholds = record.get("thresholds") or {}
    model.thresholds = {name: thresholds[name] for name in model.class_names if name in thresholds} or None
    told = None if change is None else change.told(model, str(record.get("name") or folder.name))
    if told:
        logger.warning(told)
    return model


def save_preset(model: Detector, folder: FilePath, dtype: str = "float32", **metadata: Any) -> Path:
    """Writes a detector as a preset folder, for `from_preset`.

    The files are written aside and then renamed: after a failure, a full disk for instance, the folder is what it was.
    Other files in the folder stay.

    Args:
        model: a detector.
        folder: path; made if need be.
        dtype: `"float32"`, or `"float16"`, half the size: kernels are rounded to 11 bits; vectors (biases,
            normalisation statistics) and kernels beyond float16's range stay float32.
        **metadata: what else is to be known: `name` (by default the folder's), `title`, `license`, `source`,
            `metrics` (`{"bbox": {"AP": ...}, "dataset": ...}`), `notes`, `thresholds` (by default the model's; None:
            none), anything that JSON can say.

    Returns:
        The folder as a `pathlib.Path`.

    Raises:
        PresetError: if the files cannot be written (the message says how many MB they need), for another dtype, for
            metadata that JSON cannot say, or for classes of your own that are not registered with Keras.

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
    detector = describe(model)
    nameless = sorted(set(unregistered(detector)))
    if nameless:
        raise PresetError(
            f"{', '.join(nameless)}: a class of your own is loaded by the name under which it is registered. Write "
            '@keras.saving.register_keras_serializable("my_package") before the class.'
        )
    content = to_safetensors(model, dtype)
    known = {**metadata, "thresholds": metadata.get("thresholds", model.thresholds)}
    known = {key: value for key, value in known.items() if value is not None}
    check_thresholds(known.get("thresholds"), detector["config"], folder / PRESET)
    record = {"name": folder.resolve().name, "title": "", **known}
    record["weights"] = {
        "file": WEIGHTS,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "dtype": dtype,
    }
    record["detector"] = detector
    try:
        text = to_json(record)
    except TypeError as error:
        raise PresetError(f"A preset's metadata must be what JSON can say: {error}.") from error
    _write(folder, {WEIGHTS: content, PRESET: text.encode()})
    return folder


def list_presets() -> list[dict[str, Any]]:
    """The presets of the zoo that have weights, by name.

    Returns:
        A list of dicts: what `preset.json` says besides the detector's config (`name`, `title`, `license`, `source`,
        `metrics`, `weights`, ...), and what `keras_rcnn.preset_summary.summary` adds: `task`, `origin`, `num_classes`,
        `AP`, `AP50`, `mask_AP` (0 to 1, or None), `dataset` (which they were measured on), `size` (bytes), `local`
        (whether it loads without a network) and others.

    Example:

    >>> [preset["name"] for preset in keras_rcnn.list_presets() if preset["local"]]
    ['nuclei_frcnn', 'nuclei_mrcnn']
    """
    return [row for folder in _zoo().values() if (row := preset_summary(folder))["weights"]]


def preset_summary(name_or_folder: FilePath) -> dict[str, Any]:
    """What `list_presets` says of a preset, of one without weights and of any folder too.

    Raises:
        PresetError: as in `from_preset`.
    """
    folder = _find(name_or_folder)
    record = read_preset(folder)
    weights = record.get("weights") or {}
    return summary(folder, record, bool(weights) and _path(folder, weights).is_file(), _is_own(folder))


def zoo_folder() -> Path:
    """The folder of the package's own presets and of the demo's photo."""
    checkout = Path(__file__).resolve().parents[1] / "zoo"
    if checkout.with_name("setup.cfg").is_file():  # its own, whichever checkout is installed
        return checkout
    spec = importlib.util.find_spec("keras_rcnn.zoo")
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(place) for place in places if Path(place).is_dir()), checkout)


# === What a folder says ===


def _zoo() -> dict[str, Path]:
    """Name -> folder."""
    return {path.parent.name: path.parent for path in sorted(zoo_folder().glob(f"*/{PRESET}"))}


def _find(name_or_folder: FilePath) -> Path:
    """The folder of a preset: one that exists goes before the zoo's."""
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise PresetError(f"A preset is given by its name or its folder, not {name_or_folder!r}.")
    if is_handle(name_or_folder):
        return fetched(name_or_folder)
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


def read_preset(folder: Path) -> dict[str, Any]:
    """What a folder's `preset.json` says, as a dict."""
    record = read_preset_file(folder / PRESET, own=_is_own(folder))
    return {**record, "detector": outline(record["detector"])}


def detector_class(name_or_folder: FilePath) -> type[Detector] | None:
    """The class of a preset's detector, from its `preset.json` alone; None for one that is not imported.

    Raises:
        PresetError: as in `from_preset`.
    """
    import keras

    detector = read_preset(_find(name_or_folder))["detector"]
    importlib.import_module("keras_rcnn.models")
    name = detector.get("registered_name") or f"keras_rcnn>{detector.get('class_name')}"
    registered = keras.saving.get_registered_object(str(name))
    return registered if isinstance(registered, type) else None


def describe(model: Detector) -> dict[str, Any]:
    """A detector's config as `preset.json` has it: no shapes, no compilation, no precision."""
    import keras

    return _plain(keras.saving.serialize_keras_object(model))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    serialised = "class_name" in value and "config" in value
    left_out = ("build_config", "compile_config") if serialised else ()
    value = {key: _plain(item) for key, item in value.items() if key not in left_out}
    if serialised and isinstance(value["config"], dict):
        policy = value["config"].get("dtype")
        if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicy":
            policy = policy["config"]["name"]
        if policy in DTYPE_POLICIES and value["class_name"] != TENSOR:
            del value["config"]["dtype"]
    return value


# === Classes ===


def _with_classes(
    detector: dict[str, Any], num_classes: int | None, class_names: Sequence[str] | None
) -> tuple[dict[str, Any], Change | None]:
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


def _is_own(folder: Path) -> bool:
    """Whether a folder is one of this package's."""
    return folder.resolve().parent == zoo_folder().resolve()


def _path(folder: Path, weights: Mapping[str, Any]) -> Path:
    """Where a preset's weights are or will be."""
    if "url" in weights:
        return weights_path(folder, weights, _is_own(folder))
    return folder / (weights.get("file") or WEIGHTS)


# === Saving ===


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a preset's files, all or none; in this order, the last of them makes it a preset."""
    try:
        write_together(folder, files)
    except OSError as error:
        needed = megabytes(sum(map(len, files.values())))
        raise PresetError(
            f"{folder}: the preset could not be saved ({error.strerror or error}). It needs {needed}{_free(folder)}. "
            "What was there before is as it was."
        ) from error


def _free(folder: Path) -> str:
    with contextlib.suppress(OSError):
        place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        return f"; {megabytes(shutil.disk_usage(place).free)} are free"
    return ""


keep_former_name(__name__, "presets", "list_presets")
