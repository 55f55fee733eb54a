"""A detector as a folder of static files: a page that detects in the browser, asking nobody."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.request import least_score
from keras_rcnn.export.onnx import check_packages, checked_content
from keras_rcnn.export.target import ExportError, new_folder, new_path
from keras_rcnn.export.web_runtime import MODULE, WASM, read_runtime
from keras_rcnn.interfaces import FilePath
from keras_rcnn.visualize import COLOURS, class_colour

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.export import parity
    from keras_rcnn.models import Detector

PAGE = ("index.html", "page.css", "page.js", "masks.js", "worker.js")
MODEL, SETTINGS = "model.onnx", "detector.json"


def export_web(
    model: Detector,
    path: FilePath,
    *,
    photos: parity.Photos | None = None,
    proposals: Sequence[ArrayLike] | None = None,
    runtime: FilePath | None = None,
    from_disk: bool = False,
) -> dict[str, Any]:
    """Writes a folder with a page that detects in photos and in the camera's picture, in the browser.

    Any web server can have it, such as `python -m http.server`; the page asks no other, which its
    Content-Security-Policy forbids. In it are the file of `export_onnx`, which takes photos of any size, and ONNX
    Runtime Web, which npm's registry is asked for once (see `keras_rcnn.export.web_runtime`). The page's own files are
    those of `keras_rcnn/export/web_page`; `detector.json` says what is not in the graph: class names, least scores,
    colours, and by which rule masks are laid over a photo.

    `index.html?photo=FILE` detects at once in a photo beside it, and `&score=0.3` sets the slider. What is found is in
    the element `found`, as JSON with the keys of `keras-rcnn detect --json`; masks are COCO's uncompressed RLEs.

    Args:
        model: a detector that finds its proposals by itself.
        path: the folder.
        photos: list of paths or arrays for the check in onnxruntime; None: crops of the demo's photo.
        proposals: None; there is no selective search in a browser.
        runtime: npm's package `onnxruntime-web`, a `.tgz` file or its unpacked folder; None: the pinned version.
        from_disk: bool, whether the page works without a server, too: opened as a file it may not read those beside it,
            and each is there once more as a script, in base64, which makes the folder two and a half times as large.

    Returns:
        A dict: `path`, `bytes` of the whole folder, and `parity`, the rows of `parity.check`.

    Raises:
        ExportError: for a path that exists or cannot be written, a detector that wants proposals, where the packages of
            the extra `onnx` are missing, or if the runtime cannot be had.
        ParityError: if onnxruntime does not answer as `detect` does.
    """
    check_packages("A web page")
    if model.wants_proposals:
        raise ExportError(
            f"A {type(model).__name__} wants proposals, and no browser has selective search: export a Faster R-CNN or "
            "Mask R-CNN as a page, or this one by another format."
        )
    path = new_path(path)
    its_runtime = read_runtime(runtime)
    content, rows = checked_content(model, photos, proposals)
    files = {f"{its_runtime.folder}/{name}": data for name, data in its_runtime.files.items()}
    files |= {name: (Path(__file__).parent / "web_page" / name).read_bytes() for name in PAGE}
    read = {"model": MODEL, "module": f"{its_runtime.folder}/{MODULE}", "wasm": f"{its_runtime.folder}/{WASM}"}
    files[MODEL] = content
    files[SETTINGS] = _settings(model, read, sum(len(files[name]) for name in read.values()))
    if from_disk:
        for name in (SETTINGS, "worker.js", *read.values()):
            files[f"{name}.js"] = f'kept["{name}"] = "{base64.b64encode(files[name]).decode()}";\n'.encode()
    with new_folder(path) as folder:
        (folder / its_runtime.folder).mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
    return {"path": path, "bytes": sum(map(len, files.values())), "parity": rows}


def _settings(model: Detector, files: dict[str, str], count: int) -> bytes:
    """What the page has to know of its detector, as JSON.

    Args:
        model: the detector.
        files: addresses in the folder, of the model, and of the runtime's module and WebAssembly.
        count: bytes of these.
    """
    names = list(model.class_names)
    scores = np.broadcast_to(np.asarray(least_score(None, model.thresholds, names), np.float64), len(names))
    matterport = isinstance(model.preprocessor, MatterportPreprocessor)
    settings = {
        "name": model.name,
        "model": type(model).__name__,
        "class_names": names,
        "scores": [round(score, 6) for score in scores.tolist()],
        "colours": [class_colour(label) for label in range(max(len(names), len(COLOURS)))],
        "paste": "matterport" if matterport else model.preprocessor.paste,
        "bones": list(model.skeleton.bones) if model.skeleton else [],
        "files": files,
        "bytes": count,
    }
    return json.dumps(settings, ensure_ascii=False, indent=1).encode()
