"""Weights that others have published: downloaded, checked, converted, and kept in the cache as a preset."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_rcnn.download import DownloadError, alone, cache_folder, checked, downloaded
from keras_rcnn.preset_build import build_detector
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError, read_preset_file


def weights_path(folder: Path, weights: Mapping[str, Any], own: bool) -> Path:
    """Where a preset's published weights are or will be, converted.

    Args:
        folder: path of the preset.
        weights: its `weights`.
        own: whether it is one of this package's; a stranger's preset of the same name has its own place.
    """
    name = f"{folder.name}-{weights['sha256_prefix'].lower()}"
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
    from keras_rcnn.convert import convert_torchvision, read_torch_file

    weights = record["weights"]
    if weights["converter"] != "torchvision":
        raise PresetError(f"{folder / PRESET}: there is no converter {weights['converter']!r}.")
    downloads = cache_folder() / "downloads"
    by_hand = downloads / weights["file"]
    with contextlib.ExitStack() as stack:
        if by_hand.is_file():
            try:
                source = checked(by_hand, weights["sha256_prefix"])
            except DownloadError as error:
                raise PresetError(str(error)) from error
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
        save(model, target, **{**known, "source": f"{weights['url']}, converted"})


def _advice(weights: Mapping[str, Any], by_hand: Path) -> str:
    return (
        "Try again when there is a network. Or download that file elsewhere (a browser will do) and put it at\n"
        f"  {by_hand}\nor convert it from wherever it lies, and load the folder DIR:\n"
        f"  keras-rcnn convert torchvision --model {weights['model']} --weights {weights['file']} --out DIR"
    )
