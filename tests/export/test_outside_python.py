"""SavedModels in TensorFlow's C library, in a process without its Python, and in saved_model_cli."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_rcnn
from keras_rcnn.export import parity
from keras_rcnn.presets import zoo_folder
from tests.export.detectors import encoded, photos, proposals, valid
from tests.shared import SHARED, needs_data

pytestmark = pytest.mark.slow

LIBRARIES = Path(tf.__file__).parent
SCRIPT = Path(__file__).with_name("capi.py")


def signature(folder, name):
    """What a C program would be told by `saved_model_cli show`: {key: tensor name} of inputs and outputs."""
    content = saved_model_pb2.SavedModel.FromString((Path(folder) / "saved_model.pb").read_bytes())
    found = content.meta_graphs[0].signature_def[name]
    return tuple({key: one.name for key, one in part.items()} for part in (found.inputs, found.outputs))


def run(place, folder, name, **inputs):
    """A signature in the C library -> its outputs, or what it said as an error."""
    names, outputs = signature(folder, name)
    files = {}
    for key, value in inputs.items():
        if isinstance(value, list):
            files[names[key]] = [str(place / f"{key}{i}") for i in range(len(value))]
            for file, content in zip(files[names[key]], value):
                Path(file).write_bytes(content)
        else:
            files[names[key]] = str(place / f"{key}.npy")
            np.save(files[names[key]], value)
    job, answer = place / "job.json", place / "answer.npz"
    job.write_text(json.dumps({"model": str(folder), "inputs": files, "outputs": outputs, "answer": str(answer)}))
    # -I: nothing of this checkout; the answer would be no proof with Keras or TensorFlow's Python in the process
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(LIBRARIES), str(job)], capture_output=True, text=True, timeout=300
    )
    if done.returncode == 3:
        return done.stdout
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "loaded: []"
    with np.load(answer) as file:
        return {key: file[key] for key in file.files}


def assert_equal(model, contents, found, given=None):
    for i, content in enumerate(contents):
        boxes = None if given is None else given[i]
        expected = model.detect(content, score=0, masks="crops", proposals=boxes)
        size = keras_rcnn.data.read_image(content).shape[:2]
        row = parity.compare(expected, valid(found, i), size, cut=0.05)
        assert row["ok"] and row["detections"] > 5 and row["box"] < 1e-4 and row["score"] < 1e-4, row


@pytest.mark.parametrize("kind", ["mask", "fast"])
def test_the_c_library_answers_as_detect(exported, tmp_path, kind):
    model, result, _ = exported(kind)
    contents = [encoded(one, "PNG" if i else "JPEG") for i, one in enumerate(photos())]
    given = [proposals(one) for one in photos()] if model.wants_proposals else None
    more = {"proposals": np.stack(given)} if given else {}
    found = run(tmp_path, result["path"], "serving_default", image_bytes=contents, **more)
    assert_equal(model, contents, found, given)
    assert [name for name in found["names"][0] if name] == [model.class_names[i] for i in valid(found)["labels"]]


def test_bytes_that_are_no_picture_are_an_error_of_the_c_library(exported, tmp_path):
    said = run(tmp_path, exported("faster")[1]["path"], "serving_default", image_bytes=[b"no image"])
    assert said.startswith("error 3:") and "JPEG or PNG" in said  # 3 is INVALID_ARGUMENT


@needs_data
def test_the_zoos_detector_in_the_c_library(tmp_path):
    model = keras_rcnn.from_preset("nuclei_mrcnn")
    photo = zoo_folder() / "demo" / "immunohistochemistry.png"
    image = keras_rcnn.data.read_image(photo)
    files = sorted((SHARED / "data").rglob("*.png"))[:1] or [photo]
    contents = [photo.read_bytes(), files[0].read_bytes(), encoded(image[:200, :333], "JPEG")]
    result = keras_rcnn.export_model(model, tmp_path / "served")
    assert_equal(model, contents, run(tmp_path, result["path"], "serving_default", image_bytes=contents))


def test_saved_model_cli_shows_and_runs_it(exported, tmp_path):
    model, result, _ = exported("faster")

    def command(*arguments):
        start = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
        done = subprocess.run([*start, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    where = ("--dir", result["path"], "--tag_set", "serve")
    shown = command("show", *where, "--signature_def", "serving_default")
    assert "inputs['image_bytes'] tensor_info" in shown and "dtype: DT_STRING" in shown
    assert "outputs['boxes'] tensor_info" in shown and "shape: (-1, 100, 4)" in shown
    image = photos()[0]
    np.save(tmp_path / "images.npy", image[None])
    inputs = ("--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path / "out")
    command("run", *where, "--signature_def", "images", *inputs)
    found = {key: np.load(tmp_path / "out" / f"{key}.npy") for key in ("boxes", "scores", "labels")}
    assert_equal(model, [encoded(image)], found)
