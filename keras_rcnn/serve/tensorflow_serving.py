"""TensorFlow Serving's REST API: its requests -> photos, and what is found -> its answers, errors and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_rcnn.serve.bodies import boxes, image_bytes, kind_of_json, parsed, pixels
from keras_rcnn.serve.model import SIGNATURES, VERSION, Found, Photo, ServedModel
from keras_rcnn.serve.refusal import Refusal, shown

_DTYPES = {"FP32": "DT_FLOAT", "INT32": "DT_INT32", "BYTES": "DT_STRING", "UINT8": "DT_UINT8"}


def photos_of(body: bytes, model: ServedModel, max_images: int) -> tuple[list[Photo], bool]:
    """A body of `:predict` -> its photos, and whether they came in rows (`instances`) and not in columns (`inputs`).

    Raises:
        Refusal: it is not what TF Serving or the model would take.
    """
    document = parsed(body)
    signature = document.get("signature_name", "serving_default") or "serving_default"
    if signature not in SIGNATURES:
        raise Refusal(400, f"Serving signature key {shown(signature)} not found; there are {' and '.join(SIGNATURES)}.")
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        raise Refusal(400, f"One of 'instances' and 'inputs' is wanted, and there are {len(given)}.")
    rows = given == ["instances"]
    names = list(model.inputs(signature))
    columns = (_from_rows if rows else _from_columns)(document[given[0]], names)
    count = len(columns[names[0]])
    if not 1 <= count <= max_images:
        raise Refusal(400 if count == 0 else 413, f"{count} photos; 1 to {max_images} can be asked about at once.")
    for name, values in columns.items():
        if len(values) != count:
            raise Refusal(400, f"{count} {names[0]}, but {len(values)} {name}.")
    photos = []
    for i in range(count):
        where = f"{names[0]}[{i}]"
        value = columns[names[0]][i]
        content = (
            image_bytes(value, where) if signature == "serving_default" else pixels(value, where, model.max_pixels)
        )
        given_boxes = boxes(columns["proposals"][i], f"proposals[{i}]") if model.wants_proposals else None
        photos.append(Photo(content, given_boxes))
    return photos, rows


def _from_columns(value: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """`inputs`: `{"image_bytes": [...], ...}`, or of a model with one input its list alone."""
    if len(names) == 1 and isinstance(value, list):
        value = {names[0]: value}
    if not isinstance(value, dict):
        raise Refusal(400, f"'inputs' is an object with {', '.join(names)}, not {kind_of_json(value)}.")
    _check_names(value, names, "inputs")
    for name in names:
        if not isinstance(value[name], list):
            raise Refusal(400, f"{name}: a list is wanted, one for all photos, not {kind_of_json(value[name])}.")
    return value


def _from_rows(value: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """`instances`: `[{"image_bytes": ..., ...}, ...]`, or of a model with one input the values alone."""
    if not isinstance(value, list):
        raise Refusal(400, f"'instances' is a list, an entry for each photo, not {kind_of_json(value)}.")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for i, row in enumerate(value):
        if len(names) == 1 and (not isinstance(row, dict) or set(row) == {"b64"}):
            row = {names[0]: row}
        if not isinstance(row, dict):
            raise Refusal(400, f"instances[{i}] is an object with {', '.join(names)}, not {kind_of_json(row)}.")
        _check_names(row, names, f"instances[{i}]")
        for name in names:
            columns[name].append(row[name])
    return columns


def _check_names(given: dict[str, Any], names: Sequence[str], where: str) -> None:
    if set(given) != set(names):
        said = shown(", ".join(given)) or "nothing"
        raise Refusal(400, f"{where}: the model takes {', '.join(names)}, and there is {said}.")


def answer(found: Sequence[Found], rows: bool, model: ServedModel) -> dict[str, Any]:
    """`{"predictions": [...]}` for rows, `{"outputs": {...}}` for columns."""
    each = [{key: value.tolist() for key, value in model.padded(one).items()} for one in found]
    if rows:
        return {"predictions": each}
    return {"outputs": {key: [one[key] for one in each] for key in each[0]}}


def check_version(version: str | None, name: str) -> None:
    """Refuses a version that there is not."""
    if version is not None and version != str(VERSION):
        raise Refusal(404, f"Servable not found for request: Specific({shown(name)}, {shown(version)})", "not_found")


def status() -> dict[str, Any]:
    """Of a model, `GET /v1/models/NAME`."""
    state = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": str(VERSION), "state": "AVAILABLE", "status": state}]}


def metadata(model: ServedModel) -> dict[str, Any]:
    """A model's signatures, `GET /v1/models/NAME/metadata`."""
    table = {
        signature: {
            "inputs": {key: _tensor(key, *value) for key, value in model.inputs(signature).items()},
            "outputs": {key: _tensor(key, *value) for key, value in model.outputs().items()},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for signature in SIGNATURES
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(VERSION)},
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                "signature_def": table,
            }
        },
    }


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    sides = [{"size": str(side), "name": ""} for side in shape]
    return {"dtype": _DTYPES[datatype], "tensor_shape": {"dim": sides, "unknown_rank": False}, "name": f"{name}:0"}


def stacked(found: Sequence[Found], model: ServedModel) -> dict[str, np.ndarray]:
    """The outputs of several photos, [B, ...] each."""
    each = [model.padded(one) for one in found]
    return {key: np.stack([one[key] for one in each]) for key in each[0]}
