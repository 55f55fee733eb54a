"""Weights that others have published: downloaded, checked, converted, and kept in the cache as a preset."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_rcnn.download import DownloadError, alone, cache_folder, checked, downloaded, sha256_of
from keras_rcnn.pins import check_pin, record_pin
from keras_rcnn.preset_build import build_detector
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError, read_preset_file

if TYPE_CHECKING:
    import numpy as np

# a file's size is known to a few bytes, or follows from its tensors: of more than twice that, nothing is read
ROOM = 2


class Converter(NamedTuple):
    """How a publisher's files become ours.

    Attributes:
        convert: `(model, path) -> {path: array}`: reads a file, and takes nothing but arrays from it.
        options: str, what `keras-rcnn convert` is given besides the weights, with `{model}` in it.
    """

    convert: Callable[[str, Path], dict[str, np.ndarray]]
    options: str


def _torchvision(model: str, path: Path) -> dict[str, np.ndarray]:
    from keras_rcnn.convert import convert_torchvision, read_torch_file

    return convert_torchvision(model, read_torch_file(path))


def _detectron2(model: str, path: Path) -> dict[str, np.ndarray]:
    from keras_rcnn.convert import convert_detectron2, read_detectron2_file

    return convert_detectron2(model, read_detectron2_file(path))


def _matterport(model: str, path: Path) -> dict[str, np.ndarray]:
    from keras_rcnn.convert import convert_matterport, read_keras_h5

    return convert_matterport(read_keras_h5(path))


CONVERTERS = {
    "torchvision": Converter(_torchvision, "torchvision --model {model}"),
    "detectron2": Converter(_detectron2, "detectron2 --model {model}"),
    "matterport": Converter(_matterport, "matterport"),
}


def weights_path(folder: Path, weights: Mapping[str, Any], own: bool) -> Path:
    """Where a preset's published weights are or will be, converted.

    Args:
        folder: path of the preset.
        weights: its `weights`.
        own: whether it is one of this package's; a stranger's preset of the same name has its own place.
    """
    known = weights.get("sha256_prefix") or hashlib.sha256(weights["url"].encode()).hexdigest()[:8]
    name = f"{folder.name}-{known.lower()}"
    if not own:
        name += "-" + hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:8]
    return cache_folder() / "presets" / name / WEIGHTS


def converted(folder: Path, record: Mapping[str, Any], path: Path, save: Callable[..., Path]) -> dict[str, Any]:
    """Has published weights downloaded and converted, once.

    Args:
        folder: path of the preset.
        record: its `preset.json`.
        path: of `weights_path`.
        save: `save_preset`.

    Returns:
        What the converted preset says of its own weights.

    Raises:
        PresetError: the download fails, or is not what it should be; the message says how to get the file.
    """
    kept = path.parent
    if not (path.is_file() and (kept / PRESET).is_file()):
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with alone(kept.parent / f"{kept.name}.lock", f"downloads and converts {folder.name}"):
                if not (path.is_file() and (kept / PRESET).is_file()):  # another process may have been faster
                    _download(folder, record, kept, save)
        except OSError as error:
            raise PresetError(
                f"{folder.name}: {kept.parent} cannot be written to ({error.strerror or error}). Set the environment's "
                "KERAS_RCNN_HOME to a folder that can."
            ) from error
    weights = read_preset_file(kept / PRESET).get("weights") or {}
    if not weights.get("sha256") or weights.get("file", WEIGHTS) != WEIGHTS:
        raise PresetError(f"{kept} is not what was converted there. Delete it: it is downloaded and converted anew.")
    return weights


def _download(folder: Path, record: Mapping[str, Any], target: Path, save: Callable[..., Path]) -> None:
    """Published weights -> a preset folder in the cache."""
    weights = record["weights"]
    if weights["converter"] not in CONVERTERS:
        raise PresetError(f"{folder / PRESET}: there is no converter {weights['converter']!r}.")
    convert = CONVERTERS[weights["converter"]].convert
    with contextlib.ExitStack() as stack:
        source, first_seen = _source(folder, weights, stack)
        try:
            values = convert(weights["model"], source)
        except ValueError as error:  # ConversionErrors, and a model of another name
            reason = f"the weights of {weights['url']} are not what they should be: {error}"
            raise PresetError(f"{folder.name}: {reason}") from error
        model = build_detector(record["detector"], folder / PRESET, values, source)
        if first_seen is not None:  # whose weights are these: that is known by now
            record_pin(weights["url"], folder.name, first_seen, source.stat().st_size)
        known = {key: value for key, value in record.items() if key not in ("detector", "weights")}
        save(model, target, **{**known, "source": f"{weights['url']}, converted"})


def _source(folder: Path, weights: Mapping[str, Any], stack: contextlib.ExitStack) -> tuple[Path, str | None]:
    """The published file, checked, and its SHA-256 if that was unknown: one that lies there, or downloaded until the
    stack ends.
    """
    downloads = cache_folder() / "downloads"
    by_hand, prefix, size = downloads / weights["file"], weights.get("sha256_prefix") or "", weights.get("size")
    if by_hand.is_file():
        try:
            if prefix:
                return checked(by_hand, prefix), None
            return by_hand, _as_first_seen(by_hand, weights, str(by_hand))
        except DownloadError as error:
            raise PresetError(str(error)) from error
    size, most = (size, None) if prefix else (None, size and ROOM * size)
    try:
        path = stack.enter_context(downloaded(weights["url"], downloads, prefix, size, most))
        return path, None if prefix else _as_first_seen(path, weights, weights["url"])
    except DownloadError as error:
        raise PresetError(f"{folder.name}: {error}\n{_advice(weights, by_hand)}") from error
    except OSError as error:
        raise PresetError(f"{folder.name}: {error.strerror}") from error


def _as_first_seen(path: Path, weights: Mapping[str, Any], where: str) -> str:
    """The SHA-256 of a file, if its MD5 is right as far as that is known, and it is what it was at the first time."""
    md5 = weights.get("md5_prefix") or ""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if not digest.startswith(md5.lower()):
        raise DownloadError(
            f"{where} is not the file that it should be: its MD5 begins with {digest[: len(md5)]} instead of {md5}."
        )
    sha256 = sha256_of(path)
    check_pin(weights["url"], sha256, where)
    return sha256


def _advice(weights: Mapping[str, Any], by_hand: Path) -> str:
    options = CONVERTERS[weights["converter"]].options.format(model=weights["model"])
    return (
        "Try again when there is a network. Or download that file elsewhere (a browser will do) and put it at\n"
        f"  {by_hand}\nor convert it from wherever it lies, and load the folder DIR:\n"
        f"  keras-rcnn convert {options} --weights {weights['file']} --out DIR"
    )
