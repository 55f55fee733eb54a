"""Publishing a preset on a hub: what people need is there and loads, or nothing leaves this machine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rcnn.hub import ENDING, Handle, hf_error, hub_package, is_handle, kaggle_error, parse_handle
from keras_rcnn.json_text import to_json
from keras_rcnn.model_card import license_id, model_card
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError, check_record, read_preset_file
from keras_rcnn.presets import from_preset, save_preset

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath
    from keras_rcnn.models import Detector

CARD = "README.md"
PICTURES = ("picture.png", "picture.jpg", "detected.png", "detected.jpg")
# Hugging Face's names for licences -> Kaggle's; https://github.com/Kaggle/kaggle-cli/blob/main/docs/models_metadata.md
KAGGLE_LICENSES = {
    "apache-2.0": "Apache 2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc0-1.0": "CC0: Public Domain",
    "cc-by-3.0": "Attribution 3.0 Unported (CC BY 3.0)",
    "cc-by-4.0": "Attribution 4.0 International (CC BY 4.0)",
    "cc-by-nd-4.0": "Attribution-NoDerivatives 4.0 International (CC BY-ND 4.0)",
    "cc-by-nc-4.0": "Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)",
    "cc-by-nc-nd-4.0": "Attribution-NonCommercial-NoDerivatives 4.0 International (CC BY-NC-ND 4.0)",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0",
    "cc-by-sa-3.0": "CC BY-SA 3.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cdla-permissive-1.0": "Community Data License Agreement - Permissive - Version 1.0",
    "cdla-sharing-1.0": "Community Data License Agreement - Sharing - Version 1.0",
    "agpl-3.0": "GNU Affero General Public License 3.0",
    "lgpl-3.0": "GNU Lesser General Public License 3.0",
    "gpl-2.0": "GPL 2",
    "gpl-3.0": "GPL 3",
    "odc-by": "ODC Attribution License (ODC-By)",
    "pddl": "ODC Public Domain Dedication and Licence (PDDL)",
}


def push_preset(
    model_or_folder: Detector | FilePath,
    handle: str,
    private: bool | None = None,
    message: str | None = None,
    **metadata: Any,
) -> str:
    """Publishes a preset on Hugging Face or Kaggle, from where `from_preset(handle)` loads it.

    `preset.json`, the weights and a model card (`README.md`) are uploaded, in one commit or version; of a folder also
    `picture.png`, `picture.jpg`, `detected.png` or `detected.jpg`, if it has one, and its own `README.md` as the
    card's text. Before that the preset is loaded: what does not load is not uploaded.

    Args:
        model_or_folder: a detector, or a folder that `save_preset` or a training has left.
        handle: str, `"hf://USER/REPO[@BRANCH][/FOLDER]"` or `"kaggle://OWNER/MODEL/keras/VARIATION"`. What is not
            there yet is made.
        private: whether only you see it; None: as the hub has it, which is public on Hugging Face and private on
            Kaggle.
        message: str, what the commit or version is called.
        **metadata: what else is to be known, as in `save_preset`: `license` (it must be known), `title`, `source`,
            `metrics`, `notes`. It goes before what the folder says, whose files stay as they are.

    Returns:
        str, the address of what was published.

    Raises:
        PresetError: if the preset does not load or has no licence, or if the hub refuses; the message says what to do.

    Example:

    >>> keras_rcnn.push_preset("runs/figs", "hf://someone/figs", license="CC-BY-4.0")
    'https://huggingface.co/someone/figs/commit/...'
    >>> model = keras_rcnn.from_preset("hf://someone/figs")
    """
    target = parse_handle(handle)
    hub = hub_package(target.hub)
    _check_target(target, private)
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(model_or_folder, (str, os.PathLike)):
            folder = Path(model_or_folder).expanduser()
            if is_handle(model_or_folder) or not (folder / PRESET).is_file():
                raise PresetError(
                    f"{os.fspath(model_or_folder)!r} is no folder with a {PRESET}, as save_preset and a training leave "
                    "it. A preset of the zoo or of a hub is pushed as a model: push_preset(from_preset(NAME), ...)."
                )
        else:
            name = target.folder.rpartition("/")[2] or target.name.rpartition("/")[2]
            folder = save_preset(model_or_folder, Path(temporary) / "preset", **{"name": name, **metadata})
            metadata = {}
        license_name, files = _files(folder, target, metadata)
        from_preset(folder)
        if target.hub == "kaggle":
            return _to_kaggle(hub, target, files, license_name, message)
        return _to_hf(hub, target, files, private, message)


def _check_target(target: Handle, private: bool | None) -> None:
    """What cannot be pushed to."""
    if target.hub == "kaggle" and target.revision:
        raise PresetError(f"{target}: Kaggle numbers the versions itself. Leave /{target.revision} out.")
    if target.hub == "kaggle" and private is False:
        raise PresetError(
            f"{target}: kagglehub makes models private. Push without private=False, and publish it at "
            f"https://www.kaggle.com/models/{target.name}."
        )
    if target.hub == "hf" and target.revision and len(target.revision) == 40 and target.revision.isalnum():
        raise PresetError(f"{target}: a commit cannot be changed. Name a branch, or none.")


def _files(folder: Path, target: Handle, metadata: Mapping[str, Any]) -> tuple[str, dict[str, bytes | Path]]:
    """The licence, and what is uploaded, by name.

    Raises:
        PresetError: something is missing.
    """
    path = folder / PRESET
    record = read_preset_file(path)
    if metadata:
        if {"detector", "weights"} & set(metadata):
            raise PresetError("detector, weights: push_preset takes them from the folder.")
        try:
            record = {**record, **json.loads(to_json(dict(metadata)))}
        except TypeError as error:
            raise PresetError(f"A preset's metadata must be what JSON can say: {error}.") from error
        check_record(record, path)
    weights = record.get("weights") or {}
    if not weights or "url" in weights:
        what = "downloads its weights from elsewhere" if weights else "has no weights"
        raise PresetError(f"{path}: this preset {what}. Push a model that has them: push_preset(model, ...).")
    name = weights.get("file") or WEIGHTS
    if not name.endswith(ENDING):
        raise PresetError(f"{path}: weights.file is {name!r}; on a hub it is a {ENDING} file. Save it by save_preset.")
    if not isinstance(record.get("license"), str) or not record["license"].strip():
        raise PresetError(
            f"{path} does not say under which licence others may use the preset, and nothing was uploaded. Give it: "
            'push_preset(..., license="CC-BY-4.0") or `keras-rcnn push --license CC-BY-4.0`, or the setting `license` '
            "of a training. Think of the data, and of the weights that it started from."
        )
    pictures = [name for name in PICTURES if (folder / name).is_file()][:1]
    card = model_card(record, str(target), pictures, _own_card(folder / CARD))
    preset = to_json(record).encode() if metadata else path.read_bytes()
    files: dict[str, bytes | Path] = {PRESET: preset, name: folder / name, CARD: card.encode()}
    return record["license"], {**files, **{name: folder / name for name in pictures}}


def _own_card(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path} cannot be read as text: {error}.") from error


def _to_hf(
    hub: Any, target: Handle, files: Mapping[str, bytes | Path], private: bool | None, message: str | None
) -> str:
    api = hub.HfApi(library_name="keras_rcnn")
    branch = target.revision
    try:
        api.create_repo(target.name, private=private, exist_ok=True)
        if private and not api.repo_info(target.name).private:  # exist_ok leaves a public one public
            raise PresetError(
                f"{target} is there already, and public; nothing was uploaded. Make it private in its settings, or "
                "push without private."
            )
        if branch and not branch.startswith("refs/"):
            api.create_branch(target.name, branch=branch, exist_ok=True)
        place = f"{target.folder}/" if target.folder else ""
        operations = [hub.CommitOperationAdd(place + name, content) for name, content in files.items()]
        message = message or "Upload a preset of keras_rcnn"
        done = api.create_commit(target.name, operations, commit_message=message, revision=branch)
    except PresetError:
        raise
    except Exception as error:  # of the network, and the package's own
        raise hf_error(target, error) from error
    return str(done.commit_url)


def _to_kaggle(hub: Any, target: Handle, files: Mapping[str, bytes | Path], name: str, message: str | None) -> str:
    license_name = name if name in KAGGLE_LICENSES.values() else KAGGLE_LICENSES.get(license_id(name) or "")
    if license_name is None:
        raise PresetError(
            f"{target}: Kaggle has no licence {name!r}; nothing was uploaded. It has "
            f"{', '.join(KAGGLE_LICENSES.values())}: give one as license=..., if one fits."
        )
    try:
        with tempfile.TemporaryDirectory() as temporary:  # kagglehub uploads whole folders
            for file, content in files.items():
                if isinstance(content, bytes):
                    (Path(temporary) / file).write_bytes(content)
                else:
                    shutil.copyfile(content, Path(temporary) / file)
            hub.model_upload(str(target).removeprefix("kaggle://"), temporary, license_name, message or "")
    except Exception as error:  # of the network, and the package's own
        raise kaggle_error(target, error) from error
    return f"https://www.kaggle.com/models/{target.name}"
