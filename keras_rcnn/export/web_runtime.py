"""ONNX Runtime Web of npm, in one version: had once, checked by its SHA-512, and the files of it that a page needs.

Why this runtime. Its WebAssembly has all of ONNX's operators, so that a browser runs the very graph that `export_onnx`
checks: photos of any size, resizing in double precision, top-k, NMS and loops inside. LiteRT.js would take our LiteRT
files, which leave the resizing to the program around them and have an input of fixed size; TensorFlow.js has a
converter of its own. Of npm's several builds it is the plain one: those with WebGPU are twice as large.

It is not in this repository: 14 MB, of a package of 33 MB.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from keras_rcnn.download import DownloadError, cache_folder, downloaded
from keras_rcnn.export.target import ExportError
from keras_rcnn.interfaces import FilePath

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
BYTES = 33_106_585
REGISTRY = "https://registry.npmjs.org"
# npm reads its settings in either case
REGISTRY_VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# npm's package has no texts of licences; the same project's wheel, in which exports are checked, has
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")


class Runtime(NamedTuple):
    """What a page needs of a version of the runtime.

    Attributes:
        folder: str, package and version.
        files: dict of bytes by name, `MODULE` and `WASM` among them.
    """

    folder: str
    files: dict[str, bytes]


def read_runtime(given: FilePath | None = None) -> Runtime:
    """The runtime's files.

    Args:
        given: the package as npm has it, a `.tgz` file or its unpacked folder, of any version. None: the version of
            this module, from npm's registry or from what is kept of it in `downloads` of the cache's folder. The
            environment's `npm_config_registry`, `KERAS_RCNN_MIRROR` and `KERAS_RCNN_OFFLINE` count.

    Raises:
        ExportError: it cannot be had, or is not what it should be; the message says what to do.
    """
    path = _kept() if given is None else Path(given).expanduser()
    names = {f"dist/{name}": name for name in (MODULE, WASM)}
    try:
        found = _members(path, ["package.json", *names])
        about = json.loads(found.pop("package.json"))
        name, version = about["name"], about["version"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ExportError(
            f"{path} is not {PACKAGE} as npm has it, which has package.json and {', '.join(names)} "
            f"({getattr(error, 'strerror', None) or error}). npm pack {PACKAGE}@{VERSION} makes such a file."
        ) from error
    if name != PACKAGE or not re.fullmatch(r"[0-9A-Za-z.+-]{1,80}", str(version)):
        raise ExportError(f"{path} is {name} {version}, and not {PACKAGE}: npm pack {PACKAGE}@{VERSION} makes it.")
    files = {names[key]: content for key, content in found.items()}
    return Runtime(f"{PACKAGE}-{version}", {**files, **_licences()})


def _kept() -> Path:
    """The package's file in the cache, checked; downloaded if need be."""
    registry = next((os.environ[name] for name in REGISTRY_VARIABLES if os.environ.get(name)), REGISTRY)
    url = f"{registry.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    folder = cache_folder() / "downloads"
    kept = folder / f"{PACKAGE}-{VERSION}.tgz"
    try:
        if not kept.is_file():
            with downloaded(url, folder, "", BYTES) as path:
                _check(path, url)
                path.replace(kept)
        _check(kept, str(kept))
    except DownloadError as error:
        raise ExportError(
            f"{PACKAGE}: {error}\nTry again when there is a network. Or download {url} elsewhere and put it at\n"
            f"  {kept}\nor name it by runtime=... (--runtime FILE)."
        ) from error
    except OSError as error:
        raise ExportError(f"{PACKAGE}: {error.strerror or error}") from error
    return kept


def _check(path: Path, name: str) -> None:
    """Refuses a file that is not the one that npm published."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    integrity = f"sha512-{base64.b64encode(digest).decode()}"
    if integrity != INTEGRITY:
        raise DownloadError(f"{name} has the integrity {integrity} instead of {INTEGRITY}: delete it, if it is yours.")


def _members(path: Path, names: list[str]) -> dict[str, bytes]:
    """The contents of files of an unpacked package, or of its tarball, where they lie in `package/`."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names}
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for name in names:
            file = archive.extractfile(f"package/{name}")
            if file is None:
                raise KeyError(f"{name} is no file")
            found[name] = file.read()
    return found


def _licences() -> dict[str, bytes]:
    """The texts of licences that belong to the runtime."""
    spec = importlib.util.find_spec("onnxruntime")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    texts = {name: (folder / name).read_bytes() for name in LICENCES if (folder / name).is_file()}
    return {"LICENSE": (Path(__file__).parent / "web_page" / "LICENSE.onnxruntime").read_bytes(), **texts}
