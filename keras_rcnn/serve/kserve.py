"""The KServe v2 protocol (Open Inference Protocol) over HTTP: photos as BYTES tensors, detections as tensors.

A photo is base64 text in JSON's `data`, or binary behind it as Triton has it (`Inference-Header-Content-Length`,
`binary_data_size`). Answers are JSON. https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_rcnn.serve.bodies import boxes, from_base64, image_bytes, kind_of_json, numbers, parsed
from keras_rcnn.serve.model import VERSION, Found, Photo, ServedModel
from keras_rcnn.serve.refusal import Refusal, shown
from keras_rcnn.serve.tensorflow_serving import stacked


def metadata(model: ServedModel) -> dict[str, Any]:
    """`GET /v2/models/NAME`."""
    return {
        "name": model.name,
        "versions": [str(VERSION)],
        "platform": "keras_rcnn",
        "inputs": _described(model.inputs()),
        "outputs": _described(model.outputs()),
    }


def _described(tensors: Mapping[str, tuple[str, list[int]]]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in tensors.items()]


def photos_of(
    body: bytes, header_length: str | None, model: ServedModel, max_images: int
) -> tuple[list[Photo], dict[str, Any]]:
    """A body of `infer` -> its photos, and the JSON of the request.

    Raises:
        Refusal: it is not what the protocol or the model would take.
    """
    end = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or len(header_length) > 12 or int(header_length) > len(body):
            raise Refusal(400, f"Inference-Header-Content-Length: {shown(header_length)}, of {len(body)} bytes.")
        end = int(header_length)
    document, binary = parsed(body[:end]), body[end:]
    given = document.get("inputs")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise Refusal(400, "'inputs' is a list of tensors, objects with name, shape, datatype and data.")
    if not isinstance(document.get("id", ""), str):
        raise Refusal(400, f"'id' is a string, not {kind_of_json(document['id'])}.")
    tensors: dict[str, Any] = {}
    for one in given:
        tensors[shown(one.get("name"))] = one
    wanted = model.inputs()
    if set(tensors) != set(wanted) or len(given) != len(wanted):
        raise Refusal(400, f"The model takes the inputs {', '.join(wanted)}, not {shown(', '.join(tensors))}.")
    wanted_outputs(document, model)
    contents, binary = _contents(tensors["image_bytes"], binary)
    if not 1 <= len(contents) <= max_images:
        raise Refusal(400 if not contents else 413, f"{len(contents)} photos; 1 to {max_images} can be asked about.")
    if binary:
        raise Refusal(400, f"{len(binary)} bytes are left over behind the tensors.")
    given_boxes: list[np.ndarray] | list[None] = [None] * len(contents)
    if model.wants_proposals:
        given_boxes = _boxes(tensors["proposals"], len(contents))
    return [Photo(*pair) for pair in zip(contents, given_boxes, strict=True)], document


def _contents(tensor: Mapping[str, Any], binary: bytes) -> tuple[list[bytes], bytes]:
    """The files in a BYTES tensor, and what is left of the binary data."""
    if tensor.get("datatype") != "BYTES":
        raise Refusal(400, f"image_bytes: the datatype is BYTES, not {shown(tensor.get('datatype'))}.")
    parameters = tensor.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(400, f"image_bytes: parameters are an object, not {kind_of_json(parameters)}.")
    if "binary_data_size" in parameters:
        size = parameters["binary_data_size"]
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary):
            raise Refusal(400, f"image_bytes: binary_data_size is {shown(size)}, and there are {len(binary)} bytes.")
        contents, binary = _split(binary[:size]), binary[size:]
    else:
        data = tensor.get("data")
        if not isinstance(data, list):
            raise Refusal(400, f"image_bytes: data is a list of texts in base64, not {kind_of_json(data)}.")
        contents = [
            from_base64(value, f"image_bytes[{i}]") if isinstance(value, str) else image_bytes(value, f"data[{i}]")
            for i, value in enumerate(data)
        ]
    if tensor.get("shape") not in ([len(contents)], [len(contents), 1]):
        raise Refusal(400, f"image_bytes: the shape is {shown(tensor.get('shape'))}, of {len(contents)} elements.")
    return contents, binary


def _split(binary: bytes) -> list[bytes]:
    """Elements, each behind its length in four bytes, the lowest first."""
    contents, place = [], 0
    while place < len(binary):
        end = place + 4
        length = struct.unpack("<I", binary[place:end])[0] if end <= len(binary) else len(binary)
        if end + length > len(binary):
            raise Refusal(400, f"image_bytes: element {len(contents)} is longer than the data.")
        contents.append(binary[end : end + length])
        place = end + length
    return contents


def _boxes(tensor: Mapping[str, Any], count: int) -> list[np.ndarray]:
    shape = tensor.get("shape")
    if tensor.get("datatype") != "FP32":
        raise Refusal(400, f"proposals: the datatype is FP32, not {shown(tensor.get('datatype'))}.")
    values = numbers(tensor.get("data"), "proposals")
    sides = shape if isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape) else []
    if len(sides) != 3 or sides[0] != count or sides[2] != 4 or sides[0] * sides[1] * sides[2] != values.size:
        raise Refusal(400, f"proposals: the shape [{count}, P, 4] is wanted, not {shown(shape)} of {values.size}.")
    return [boxes(one, f"proposals[{i}]") for i, one in enumerate(values.reshape(sides).tolist())]


def wanted_outputs(document: Mapping[str, Any], model: ServedModel) -> list[str]:
    """The names of the outputs that are asked for; all, if none are named."""
    known, asked = [*model.outputs()], document.get("outputs")
    if asked is None:
        return known
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise Refusal(400, "'outputs' is a list of objects with name.")
    names = [one.get("name") for one in asked]
    for name in names:
        if name not in known:
            raise Refusal(400, f"There is no output {shown(name)}; there are {', '.join(known)}.")
    return names or known


def answer(found: Sequence[Found], document: Mapping[str, Any], model: ServedModel) -> dict[str, Any]:
    """The answer of `infer`."""
    values, described = stacked(found, model), model.outputs()
    outputs = [
        {
            "name": name,
            "datatype": described[name][0],
            "shape": list(values[name].shape),
            "data": values[name].ravel().tolist(),
        }
        for name in wanted_outputs(document, model)
    ]
    made = {"model_name": model.name, "model_version": str(VERSION), "outputs": outputs}
    return {**made, "id": document["id"]} if "id" in document else made
