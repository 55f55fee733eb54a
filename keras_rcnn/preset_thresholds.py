"""The scores from which on a preset's detections count, one for each class: `thresholds` in its `preset.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from keras_rcnn.files import aside
from keras_rcnn.hub import is_handle
from keras_rcnn.json_text import to_json
from keras_rcnn.preset_file import PRESET, PresetError, check_record, read_preset_file

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath


def preset_to_change(folder: FilePath) -> Path:
    """A preset's folder, if it is one that a command may write into: not the name of one of the zoo's.

    Raises:
        PresetError: if it has no `preset.json`.
    """
    if is_handle(folder):
        raise PresetError(
            f"Thresholds are stored in a preset's folder, and {str(folder)!r} is on a hub: save_preset(from_preset("
            "HANDLE), FOLDER) makes a folder of it, and push_preset publishes that."
        )
    folder = Path(folder).expanduser()
    if not (folder / PRESET).is_file():
        raise PresetError(
            f"Thresholds are stored in a preset's folder, and {str(folder)!r} is none with a {PRESET}. A preset of the "
            "zoo is not altered: save_preset(from_preset(NAME), FOLDER) makes a folder of it."
        )
    return folder


def store_thresholds(folder: FilePath, thresholds: Mapping[str, float]) -> None:
    """Writes thresholds into a preset's folder, instead of those that it has.

    Args:
        folder: path, with a `preset.json`.
        thresholds: dict, class name -> score, 0..1.

    Raises:
        PresetError: for the name of no class of the preset, or another score; or if the file cannot be written.

    Example:

    >>> matches = match_detections(validation, detect_all(model, validation))
    >>> store_thresholds("runs/mine", best_thresholds(matches))
    """
    path = preset_to_change(folder) / PRESET
    record = read_preset_file(path)
    record["thresholds"] = {name: float(value) for name, value in thresholds.items()}
    check_record(record, path)
    try:
        with aside(path) as temporary:
            temporary.write_text(to_json(record), encoding="utf-8")
    except OSError as error:
        raise PresetError(f"{path} cannot be written: {error.strerror or error}.") from error
