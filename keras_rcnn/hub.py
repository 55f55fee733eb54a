"""Presets on the Hugging Face Hub and on Kaggle Models, by a handle.

A handle is `hf://USER/REPO[@REVISION][/FOLDER]` or `kaggle://OWNER/MODEL/keras/VARIATION[/VERSION]`. The hub's own
library (the extra `hub`) downloads, logs in and keeps the cache; this module asks it for `preset.json` and the weights
that it names, nothing else, and says what to do when that fails.
"""

from __future__ import annotations

import glob
import importlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_rcnn.download import OFFLINE, DownloadError, alone, max_bytes, megabytes, offline
from keras_rcnn.preset_file import PRESET, WEIGHTS, PresetError, max_preset_bytes, read_preset_file

if TYPE_CHECKING:
    from keras_rcnn.interfaces import FilePath

logger = logging.getLogger(__name__)

FORMS = {
    "hf": "hf://USER/REPO[@REVISION][/FOLDER]",
    "kaggle": "kaggle://OWNER/MODEL/keras/VARIATION[/VERSION]",
}
PACKAGES = {"hf": "huggingface_hub", "kaggle": "kagglehub"}
LOGIN = {
    "hf": "log in (`hf auth login`, or HF_TOKEN in the environment)",
    "kaggle": "log in (kagglehub.login(), or KAGGLE_API_TOKEN in the environment)",
}
ENDING = ".safetensors"
# what a repository, a branch and a folder are called; no part of a path begins with a dot
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_FOLDER = r"[\w-](?:[\w. -]{0,98}[\w-])?"
_HF = re.compile(rf"({_NAME}/{_NAME})(?:@(refs/pr/\d+|(?:[\w.-]|%2[Ff]){{1,100}}))?((?:/{_FOLDER})*)")
_SLUG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
_KAGGLE = re.compile(rf"({_SLUG}/{_SLUG}/keras/{_SLUG})(?:/([1-9]\d{{0,8}}))?")


class Handle(NamedTuple):
    """A handle's parts; `str` of it is the handle."""

    hub: str
    name: str
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        if self.hub == "kaggle":
            return f"kaggle://{self.name}" + (f"/{self.revision}" if self.revision else "")
        revision = self.revision or ""
        revision = revision if revision.startswith("refs/pr/") else revision.replace("/", "%2F")
        return f"hf://{self.name}" + (f"@{revision}" if revision else "") + (f"/{self.folder}" if self.folder else "")


def is_handle(value: object) -> bool:
    """Whether something is meant as a handle, and not as a name or a folder."""
    return isinstance(value, (str, os.PathLike)) and re.match("(?i)(hf|kaggle):/", str(value)) is not None


def parse_handle(value: FilePath) -> Handle:
    """A handle's parts.

    Args:
        value: str, a handle.

    Returns:
        A `Handle`.

    Raises:
        PresetError: for what is none; the message says how one is written.

    Example:

    >>> parse_handle("hf://someone/figs@v2/small")
    Handle(hub='hf', name='someone/figs', revision='v2', folder='small')
    """
    text = os.fspath(value)
    hub, _, rest = text.partition(":/")
    form = FORMS.get(hub.lower(), " or ".join(FORMS.values()))
    if hub not in FORMS or not rest.startswith("/"):
        why = " (a pathlib.Path loses a slash)" if isinstance(value, os.PathLike) else ""
        raise PresetError(f"{text[:200]!r} is no handle{why}: write {form}, as text.")
    match = (_HF if hub == "hf" else _KAGGLE).fullmatch(rest[1:].removesuffix("/"))
    if match is None or ".." in text or "--" in match[1] * (hub == "hf"):
        raise PresetError(f"{text[:200]!r} is no handle: one is written {form}.")
    if hub == "kaggle":
        return Handle(hub, match[1], match[2])
    revision = re.sub("%2[Ff]", "/", match[2]) if match[2] else None
    if revision and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", revision):
        raise PresetError(f"{text[:200]!r} is no handle: {revision!r} is no branch, tag or commit.")
    return Handle(hub, match[1], revision, match[3].lstrip("/"))


def fetched(value: FilePath) -> Path:
    """The folder in the hub's cache with a handle's preset, downloaded if need be.

    Args:
        value: str, a handle.

    Returns:
        The path of a folder with `preset.json` and the weights file that it names.

    Raises:
        PresetError: for what is no handle; without the hub's package; if the hub does not give the files, the message
            says why and what to do; or if they are not what a preset on a hub may have.
    """
    handle = parse_handle(value)
    hub = hub_package(handle.hub)
    get = _HuggingFace(hub, handle).get if handle.hub == "hf" else _Kaggle(hub, handle).get
    path = get(PRESET, max_preset_bytes())
    weights = read_preset_file(path).get("weights") or {}
    if not weights:
        return path.parent  # a record of a training, which from_preset knows what to say of
    name = weights.get("file") or WEIGHTS
    if "url" in weights or not name.endswith(ENDING):
        raise PresetError(
            f"{handle}: its {PRESET} wants weights from elsewhere, or not as {ENDING}. A preset on a hub has a "
            f"{WEIGHTS} of its own, as save_preset writes it. None were downloaded."
        )
    try:
        limit = max_bytes()
    except DownloadError as error:
        raise PresetError(str(error)) from error
    file = get(name, limit)
    with open(file, "rb") as opened:
        head = opened.read(9)
    if head[8:] != b"{":  # a pickle of that name, which would be read with care, but has no business here
        raise PresetError(f"{handle}: its {name} is no {ENDING} file ({file}). Ask who has published it.")
    if file.parent != path.parent:
        raise PresetError(f"{handle} was published anew while it was downloaded. Try again.")
    return path.parent


def hub_package(hub: str) -> Any:
    """The package that speaks with a hub, imported.

    Raises:
        PresetError: it is not installed.
    """
    try:
        return importlib.import_module(PACKAGES[hub])
    except ImportError as error:
        raise PresetError(
            f"{hub}:// needs the package {PACKAGES[hub]}: pip install {PACKAGES[hub]}, or keras_rcnn with the extra "
            "hub, which from a checkout is pip install -e '.[hub]'."
        ) from error


# === Hugging Face ===


class _HuggingFace:
    def __init__(self, hub: Any, handle: Handle) -> None:
        self.hub, self.handle, self.commit = hub, handle, handle.revision

    def get(self, name: str, limit: int) -> Path:
        """A file, of the same commit as the one before it."""
        where: dict[str, Any] = {"repo_id": self.handle.name, "revision": self.commit}
        filename = f"{self.handle.folder}/{name}".lstrip("/")
        try:
            if not isinstance(self.hub.try_to_load_from_cache(filename=filename, **where), str):
                if offline():
                    raise _forbidden(self.handle)
                size = self.hub.get_hf_file_metadata(self.hub.hf_hub_url(filename=filename, **where)).size or 0
                if size > limit:
                    raise PresetError(f"{self.handle}: {name} has {megabytes(size)}, more than {megabytes(limit)}.")
            download = {"local_files_only": offline(), "library_name": "keras_rcnn"}
            path = Path(self.hub.hf_hub_download(filename=filename, **download, **where))
        except PresetError:
            raise
        except Exception as error:  # of the network, of the disk, and the package's own
            raise hf_error(self.handle, error, name) from error
        self.commit = path.parents[filename.count("/")].name
        return path


def hf_error(handle: Handle, error: BaseException, name: str = "") -> PresetError:
    """What an error of huggingface_hub means, and what to do.

    Args:
        handle: what was asked for.
        error: what came instead.
        name: of the file that was to be downloaded; "" for an upload.
    """
    from huggingface_hub import constants, errors

    login = LOGIN["hf"]
    cached = f"It is not in the cache ({constants.HF_HUB_CACHE})" if name else "Nothing was uploaded"
    status = next(filter(None, map(_status, _causes(error))), None)
    kinds = tuple(type(one) for one in _causes(error))

    def is_a(*classes: type[BaseException]) -> bool:
        return any(issubclass(kind, classes) for kind in kinds)

    if is_a(errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        why = f"the environment's HF_HUB_OFFLINE forbids the network. {cached}: unset it once."
    elif is_a(errors.GatedRepoError):
        why = f"its owner gives it to those who ask. Do so at {constants.ENDPOINT}/{handle.name}, and {login}."
    elif is_a(errors.RepositoryNotFoundError) or status == 401:
        why = f"there is no such repository, or it is private and this token may not see it: {login}."
    elif is_a(errors.RevisionNotFoundError):
        why = f"the repository has no branch, tag or commit {handle.revision or 'main'!r}."
    elif is_a(errors.EntryNotFoundError) and not is_a(errors.LocalEntryNotFoundError):
        why = f"the repository has no {name}{f' in {handle.folder}' if handle.folder else ' at its top'}."
    elif status == 429:
        why = f"the hub answers that there are too many requests. Wait some minutes, or {login}: it allows more then."
    elif status == 403:
        why = f"the token may not do that: {login}, with a token that may{'' if name else ' write to this repository'}."
    elif status is not None and status >= 500:
        why = f"{constants.ENDPOINT} answers with the status {status}. {cached}. Try again later. ({_short(error)})"
    elif is_a(OSError) and getattr(error, "strerror", None) and getattr(error, "filename", None):
        why = f"the cache cannot be written to ({error}). Make room, or set HF_HOME to a folder that has it."
    elif status is None and (is_a(OSError) or any(kind.__module__.startswith(("httpx", "httpcore")) for kind in kinds)):
        why = (
            f"{constants.ENDPOINT} cannot be reached. {cached}. Try again when there is a network, or set HF_ENDPOINT "
            f"to a mirror. ({_short(error)})"
        )
    else:
        why = f"{_short(error)}. {cached}."
    return PresetError(f"{handle}: {why}")


# === Kaggle ===


class _Kaggle:
    def __init__(self, hub: Any, handle: Handle) -> None:
        self.hub, self.handle = hub, handle

    def get(self, name: str, limit: int) -> Path:
        """A file of the version, by default of the newest and then of the same; its size is known when it is here."""
        cached = _in_cache(self.handle, name, self.handle.revision or ("*" if offline() else None))
        if cached is not None:
            return cached
        if offline():
            raise _forbidden(self.handle)
        locks = kaggle_cache() / ".keras_rcnn"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            lock = locks / f"{self.handle.name.replace('/', '-')}.lock"
            with alone(lock, f"downloads {self.handle}"):  # kagglehub has none: two would write into one file
                path = self._download(name)
        except Exception as error:  # of the network, of the disk, and the package's own
            raise kaggle_error(self.handle, error, name) from error
        if path.stat().st_size > limit:
            raise PresetError(f"{self.handle}: {path} has more than {megabytes(limit)}.")
        if path.parent.name.isdigit():
            self.handle = self.handle._replace(revision=path.parent.name)
        return path

    def _download(self, name: str) -> Path:
        try:
            return Path(self.hub.model_download(_kaggle_name(self.handle), path=name))
        except OSError as error:  # requests' ConnectionError and Timeout among them
            known = self.handle.revision or _status(error) or error.errno
            newest = None if known else _in_cache(self.handle, name)
            if newest is None:
                raise
        version = newest.parent.name
        logger.warning("%s: Kaggle cannot be reached; version %s is in the cache and serves.", self.handle, version)
        return newest


def kaggle_cache() -> Path:
    """Where kagglehub keeps what it has downloaded."""
    return Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser()


def _kaggle_name(handle: Handle) -> str:
    return str(handle).removeprefix("kaggle://")


def _in_cache(handle: Handle, name: str, version: str | None = "*") -> Path | None:
    """A file of a version that is in the cache and whole, by default of the newest."""
    folder = kaggle_cache() / "models" / handle.name
    marks = folder.glob(f".complete/{version}/{glob.escape(name)}.complete") if version else ()
    versions = sorted((mark.parent.name for mark in marks if mark.parent.name.isdigit()), key=int, reverse=True)
    return next((path for path in (folder / number / name for number in versions) if path.is_file()), None)


def kaggle_error(handle: Handle, error: BaseException, name: str = "") -> PresetError:
    """What an error of kagglehub means, and what to do, like `hf_error`."""
    login = LOGIN["kaggle"]
    page = f"https://www.kaggle.com/models/{handle.name}"
    cached = f"It is not in the cache ({kaggle_cache()})" if name else "Nothing was published"
    status = next(filter(None, map(_status, _causes(error))), None)
    if status in (401, 403) or type(error).__name__ == "UnauthenticatedError":
        why = f"there is no such model, or it is private or asks for consent: look at {page}, and {login}."
    elif status == 404:
        why = f"there is no such model, variation or version, or it has no {name or 'place for it'}: look at {page}."
    elif status == 429:
        why = f"Kaggle answers that there are too many requests. Wait some minutes, or {login}: it allows more then."
    elif status is not None and status >= 500:
        why = f"Kaggle answers with the status {status}. {cached}. Try again later. ({_short(error)})"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        why = f"the cache cannot be written to ({error}). Make room, or set KAGGLEHUB_CACHE to a folder that has it."
    elif isinstance(error, OSError) and status is None:
        why = f"Kaggle cannot be reached. {cached}. Try again when there is a network. ({_short(error)})"
    else:
        why = f"{_short(error)}. {cached}."
    return PresetError(f"{handle}: {why}")


# === Errors ===


def _forbidden(handle: Handle) -> PresetError:
    return PresetError(
        f"{handle} is not in the cache, and the environment's {OFFLINE} forbids the network. Unset it once."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The status of an HTTP answer, if an error is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__
