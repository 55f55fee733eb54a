"""Through each protocol a served detector answers as `detect` does, and says of itself what the protocol wants."""

import base64
import json
import struct

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data.proposals import selective_search
from keras_rcnn.export.client import ServedDetector, ServingError
from tests.export.detectors import detector, encoded, photos, proposals, valid
from tests.serve.service import running


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


def files():
    return [encoded(photos()[0]), encoded(photos()[1], "JPEG", quality=95), encoded(photos()[2], "WEBP", lossless=True)]


def same(found, expected):
    """Detections as JSON has them, and as `detect` answers them."""
    assert found["names"] == expected["names"] and len(expected["names"]) > 3
    assert found["labels"] == expected["labels"].tolist()
    assert np.abs(np.array(found["boxes"]) - expected["boxes"]).max() < 1e-4 * 256
    assert np.abs(np.array(found["scores"]) - expected["scores"]).max() < 1e-4


# === POST /detect ===


def test_a_photo_is_the_body(service, detectors):
    model = detectors["mask"]
    for content in files():
        status, found = service.post("/detect/mask?score=0.3", content)
        expected = model.detect(content, score=0.3, masks="rle")
        assert status == 200 and [found["height"], found["width"]] == expected["masks"][0]["size"]
        same(found, expected)
        assert found["masks"] == [{**mask, "counts": mask["counts"].decode()} for mask in expected["masks"]]


def test_options_of_detect(service, detectors):
    content = files()[0]
    status, found = service.post("/detect/mask?score=0.3&masks=none", content)
    assert status == 200 and "masks" not in found
    same(found, detectors["mask"].detect(content, score=0.3))
    crops = service.post("/detect/mask?masks=crops", content)[1]["masks"]
    assert np.abs(np.array(crops) - detectors["mask"].detect(content, masks="crops")["masks"]).max() < 1e-4
    for query, reason in (
        ("score=2", "0 to 1"),
        ("score=nan", "0 to 1"),
        ("score=", "0 to 1"),
        ("masks=png", "rle, crops, none"),
        ("mask=rle", "mask"),
        ("score=0.1&score=0.2", "twice"),
    ):
        status, answer = service.post(f"/detect/mask?{query}", content)
        assert status == 400 and reason in answer["error"]


@pytest.mark.slow  # a detector more
def test_keypoints_are_answered():
    model, content = detector("keypoints"), encoded(photos()[0])
    with running({"keypoints": model}) as service:
        expected = model.detect(content, score=0.2)
        found = service.post("/detect?score=0.2", content)[1]
        same(found, expected)
        assert np.abs(np.array(found["keypoints"]) - expected["keypoints"]).max() < 1e-2
        found = ServedDetector(f"{service.url}/keypoints").detect(photos()[0], score=0.2)
        assert np.abs(found["keypoints"] - expected["keypoints"]).max() < 1e-2


def test_a_models_own_thresholds_count(service, detectors):
    model = detectors["mask"]
    model.thresholds = {"square": 0.9, "Bärchen": 0.2}
    try:
        same(service.post("/detect/mask", files()[0])[1], model.detect(files()[0]))
    finally:
        model.thresholds = None


def test_selective_search_looks_where_nobody_says(service, detectors):
    content = encoded(photos()[2])
    expected = detectors["fast"].detect(content, score=0.3, proposals=selective_search(photos()[2]))
    same(service.post("/detect/fast?score=0.3", content)[1], expected)


def test_one_of_several_models_is_named(service):
    status, answer = service.post("/detect", files()[0])
    assert status == 404 and "/detect/NAME, one of mask, fast" in answer["error"]
    assert service.post("/detect/nuclei", files()[0])[0] == 404
    assert service.get("/v1/models")[1] == {"models": ["mask", "fast"]}


# === TF Serving ===


def test_the_client_of_tf_serving_is_answered(service, detectors, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(encoded(photos()[0], "JPEG", exif=exif))
    images = [turned, photos()[1], photos()[2]]
    client, model = ServedDetector(f"{service.url}/mask"), detectors["mask"]
    assert client.has_masks is True and client.wants_proposals is False
    for found, image in zip(client.detect(images, score=0.3, batch_size=3), images, strict=True):
        expected = model.detect(image, score=0.3)
        same({**found, "labels": found["labels"].tolist()}, expected)
        assert np.mean(found["masks"] != expected["masks"]) < 1e-3
    assert ServedDetector(f"{service.url}/mask/1").detect(turned)["names"]
    with pytest.raises(ServingError, match=r"Specific\(mask, 2\)"):
        ServedDetector(f"{service.url}/mask/2").detect(turned)


def test_proposals_are_sent_along(service, detectors):
    client, given = ServedDetector(f"{service.url}/fast"), [proposals(one) for one in photos()]
    assert client.wants_proposals is True
    found = client.detect(photos(), score=0.4, proposals=given, batch_size=2)
    for one, expected in zip(found, detectors["fast"].detect(photos(), score=0.4, proposals=given), strict=True):
        same({**one, "labels": one["labels"].tolist()}, expected)
    with pytest.raises(ServingError, match="wants proposals"):
        client.detect(photos()[0])


@pytest.mark.slow  # three exports
@pytest.mark.parametrize("kind", ["mask", "keypoints", "fast"])
def test_answers_are_those_of_the_exported_model(exported, kind):
    """The same keys, shapes and values as its signatures, of which the metadata speaks, too."""
    model, _, signatures = exported(kind)
    with running({kind: model}) as service:
        compared(model, signatures, service, kind)


def compared(model, signatures, service, kind):
    inputs = {"image_bytes": [b64(encoded(photos()[0]))]}
    x = {"image_bytes": [encoded(photos()[0])]}
    if model.wants_proposals:
        inputs["proposals"] = [proposals(photos()[0]).tolist()]
        x["proposals"] = np.array(inputs["proposals"], np.float32)
    expected = {key: value.numpy() for key, value in signatures["serving_default"](**x).items()}
    status, answer = service.post(f"/v1/models/{kind}:predict", {"inputs": inputs})
    found = {key: np.array(value) for key, value in answer["outputs"].items()}
    assert status == 200 and {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in expected.items()
    }
    assert valid(found)["names"].tolist() == [name.decode() for name in valid(expected)["names"]]
    for key in set(expected) - {"names"}:
        assert np.abs(valid(found)[key] - valid(expected)[key]).max() < 1e-2, key
    table = service.get(f"/v1/models/{kind}/versions/1/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    for name in ("serving_default", "images"):
        specs = {**signatures[name].structured_input_signature[1]}
        assert set(table[name]["inputs"]) == set(specs) and set(table[name]["outputs"]) == set(expected)
        for key, spec in specs.items():
            sides = [int(side["size"]) for side in table[name]["inputs"][key]["tensor_shape"]["dim"]]
            assert sides == [-1 if side is None else side for side in spec.shape]
            assert table[name]["inputs"][key]["dtype"] == f"DT_{spec.dtype.name.upper()}".replace("FLOAT32", "FLOAT")


def test_rows_and_columns_are_the_same(service):
    contents = [b64(content) for content in files()[:2]]
    path = "/v1/models/mask/versions/1:predict"
    columns = service.post(path, {"inputs": {"image_bytes": contents}})[1]["outputs"]
    for document in (
        {"instances": [{"image_bytes": content} for content in contents]},
        {"instances": contents},
        {"signature_name": "serving_default", "instances": contents},
    ):
        rows = service.post(path, document)[1]["predictions"]
        assert [row["names"] for row in rows] == columns["names"] and [row["boxes"] for row in rows] == columns["boxes"]
    assert service.post(path, {"inputs": contents})[1]["outputs"]["boxes"] == columns["boxes"]


def test_pixels_are_the_other_signature(service):
    image = photos()[2]
    path, content = "/v1/models/mask:predict", b64(encoded(image))
    expected = service.post(path, {"inputs": [content]})[1]["outputs"]
    for document in ({"inputs": {"images": [image.tolist()]}}, {"inputs": [image.tolist()]}):
        assert service.post(path, {"signature_name": "images", **document})[1]["outputs"] == expected
    status, answer = service.post(path, {"signature_name": "images", "instances": [image.tolist()]})
    assert answer["predictions"][0]["boxes"] == expected["boxes"][0]
    for wrong in ([[[256, 0, 0]]], [[[0.5, 0, 0]]], [[[True, False, True]]], [[1, 2, 3]], [], [[[1, 2]]], "x"):
        status, answer = service.post(path, {"signature_name": "images", "inputs": [wrong]})
        assert status == 400 and "images[0]" in answer["error"], wrong


def test_states_and_errors_are_tf_servings(service):
    status, answer = service.get("/v1/models/mask")
    (state,) = answer["model_version_status"]
    assert status == 200 and state["state"] == "AVAILABLE" and state["version"] == "1"
    assert service.get("/v1/models/mask/versions/1")[0] == 200
    for path in ("/v1/models/mask/versions/2", "/v1/models/nuclei", "/v1/models/nuclei/metadata", "/v1/models/"):
        status, answer = service.get(path)
        assert status == 404 and list(answer) == ["error"]
    status, answer, headers = service.ask("GET", "/v1/models/mask:predict")
    assert status == 405 and headers["Allow"] == "POST" and "error" in answer
    content = b64(files()[0])
    for document, reason in (
        ({"inputs": {"image_bytes": [content]}, "signature_name": "features"}, "signature key features not found"),
        ({"inputs": {"image_bytes": [content]}, "instances": [content]}, "One of 'instances' and 'inputs'"),
        ({}, "One of 'instances' and 'inputs'"),
        ({"inputs": {"images": [content]}}, "takes image_bytes, and there is images"),
        ({"instances": [{"image": content}]}, "instances[0]: the model takes image_bytes"),
        ({"instances": [{"b64": "***"}]}, "not base64"),
        ({"instances": ["no photo"]}, "begin with b'no photo'"),
        ({"instances": []}, "0 photos"),
        ({"instances": {"image_bytes": content}}, "a list, an entry for each photo"),
    ):
        status, answer = service.post("/v1/models/mask:predict", document)
        assert status == 400 and reason in answer["error"], answer
    assert service.post("/v1/models/mask:predict", {"instances": [content] * 5})[0] == 413


# === KServe v2 ===


def test_kserve_speaks_of_itself(service):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/mask/ready", "/v2/models/mask/versions/1/ready"):
        assert service.get(path)[0] == 200
    assert service.get("/v2")[1]["name"] == "keras_rcnn"
    made = service.get("/v2/models/fast")[1]
    assert [(one["name"], one["datatype"], one["shape"]) for one in made["inputs"]] == [
        ("image_bytes", "BYTES", [-1]),
        ("proposals", "FP32", [-1, -1, 4]),
    ]
    assert {one["name"]: one["datatype"] for one in made["outputs"]} == {
        "boxes": "FP32",
        "scores": "FP32",
        "labels": "INT32",
        "names": "BYTES",
    }
    assert service.get("/v2/models/nuclei")[0] == service.get("/v2/models/mask/versions/3")[0] == 404


def test_kserve_infers(service, detectors):
    content, boxes = encoded(photos()[0]), proposals(photos()[0])
    for kind in ("mask", "fast"):
        tensors = [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [b64(content)["b64"]]}]
        options = {}
        if kind == "fast":
            shape = [1, *boxes.shape]
            tensors.append({"name": "proposals", "datatype": "FP32", "shape": shape, "data": boxes.ravel().tolist()})
            options["proposals"] = boxes
        status, answer = service.post(f"/v2/models/{kind}/infer", {"id": "seven", "inputs": tensors})
        assert status == 200 and answer["id"] == "seven" and answer["model_name"] == kind
        outputs = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer["outputs"]}
        found = valid(outputs)
        keep = found["scores"] >= 0.4
        expected = detectors[kind].detect(content, score=0.4, **options)
        same({key: found[key][keep].tolist() for key in ("boxes", "scores", "labels", "names")}, expected)


def test_kserve_takes_binary_tensors(service):
    content = encoded(photos()[2])
    binary = struct.pack("<I", len(content)) + content
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
    tensor["parameters"] = {"binary_data_size": len(binary)}

    def ask(tensor, binary, length=None):
        document = json.dumps({"inputs": [tensor], "outputs": [{"name": "labels"}]}).encode()
        length = str(len(document)) if length is None else length
        headers = {"Inference-Header-Content-Length": length}
        return service.ask("POST", "/v2/models/mask/infer", document + binary, headers)[:2]

    status, answer = ask(tensor, binary)
    assert status == 200 and [one["name"] for one in answer["outputs"]] == ["labels"]
    for wrong in (
        ask(tensor, binary[:-1]),
        ask(tensor, binary + b"x"),
        ask(tensor, b"\xff\xff\xff\xff" + binary[4:]),
        ask(tensor, binary, "-1"),
        ask(tensor, binary, "9" * 30),
        ask({**tensor, "shape": [2]}, binary),
        ask({**tensor, "datatype": "FP32"}, binary),
        ask({**tensor, "parameters": {"binary_data_size": 1e9}}, binary),
        ask({**tensor, "parameters": 3}, binary),
    ):
        assert wrong[0] == 400 and wrong[1]["error"], wrong


# === The service itself ===


def test_pages_and_openapi(service):
    status, document = service.get("/openapi.json")
    assert status == 200 and document["openapi"].startswith("3.1")
    known = {route.path for route in service.server.config.app.routes}
    assert set(document["paths"]) == known - {"/", "/docs", "/openapi.json"}
    for path in ("/", "/docs"):
        status, page, headers = service.ask("GET", path)
        assert status == 200 and "/v1/models/{name}:predict" in page and "script" not in page
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_metrics_count(service):
    def value(line):
        text = service.get("/metrics")[1]
        return next((float(one.split()[-1]) for one in text.splitlines() if one.startswith(line)), 0.0)

    photos_before, bad = value('keras_rcnn_photos_total{model="mask"}'), value('keras_rcnn_refused_total{reason="no_')
    assert service.post("/detect/mask", files()[0])[0] == 200
    assert service.post("/detect/mask", b"no photo")[0] == 400
    assert value('keras_rcnn_photos_total{model="mask"}') == photos_before + 1
    assert value('keras_rcnn_refused_total{reason="no_') == bad + 1
    assert value("process_resident_memory_bytes") > 1e8
    assert value("keras_rcnn_waiting_photos") == 0
