"""What a type checker makes of a user's program: pyright reads this file (pyproject.toml), and nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np

import keras_rcnn
from keras_rcnn.export.client import ServedDetector
from keras_rcnn.export.litert_detector import LiteRTDetector
from keras_rcnn.interfaces import BatchDetector, Detections, PhotoDetector


def count(detector: PhotoDetector, photo: np.ndarray) -> int:
    return len(detector.detect(photo, score=0.5)["boxes"])


def ap(detector: BatchDetector, dataset: keras_rcnn.data.Dataset) -> float:
    return keras_rcnn.evaluate(detector, dataset)["bbox"]["AP"]


def detectors(photo: np.ndarray, dataset: keras_rcnn.data.Dataset) -> None:
    """All three take a photo, and two of them a list, as `evaluate` does."""
    model = keras_rcnn.from_preset("nuclei_mrcnn")
    served, lite = ServedDetector("http://localhost:8501/nuclei"), LiteRTDetector("nuclei.tflite")
    for detector in (model, served, lite, keras_rcnn.MaskRCNN(keras_rcnn.backbones.ResNet(50), 3)):
        count(detector, photo)
    for detector in (model, served):
        ap(detector, dataset)
    keras_rcnn.evaluation.compare({"here": model, "there": served}, dataset)
    ap(lite, dataset)  # pyright: ignore[reportArgumentType]


def answers(photo: np.ndarray) -> None:
    """A photo has detections, a list of them a list."""
    model = keras_rcnn.from_preset(Path("runs/mine"), class_names=["fig", "date"])
    assert_type(model.detect("photo.jpg"), Detections)
    assert_type(model.detect(photo, masks="rle", size=640), Detections)
    assert_type(model.detect(["a.jpg", "b.jpg"], batch_size=2), list[Detections])
    assert_type(model.detect([photo, "b.jpg", Path("c.jpg")]), list[Detections])
    assert_type(ServedDetector("grpc://localhost:8500/nuclei").detect((photo, photo)), list[Detections])
    assert_type(model.detect(photo)["names"], list[str])
    assert_type(keras_rcnn.draw(photo, model.detect(photo), "found.png", score=0.5), np.ndarray)
    model.detect(photo, masks="boxes")  # pyright: ignore[reportCallIssue, reportArgumentType]
    len(model.detect(photo)["box"])  # pyright: ignore[reportGeneralTypeIssues]


def whole() -> None:
    """A training, a preset, an export."""
    path = keras_rcnn.train({"train": {"coco": "train.json", "images": "train"}}, "runs/mine", resume=True)
    assert_type(path, Path)
    keras_rcnn.train("recipe.py", path)
    keras_rcnn.train(keras_rcnn.training.Settings(epochs=3), path)
    model = keras_rcnn.from_preset(path)
    assert_type(keras_rcnn.save_preset(model, "mine", dtype="float16", source="photos of figs"), Path)
    keras_rcnn.export_model(model, "served/mine", masks="pasted")
    assert_type(keras_rcnn.bulk.detect_files(model, "photos", "found.jsonl", shard=(1, 2)), keras_rcnn.bulk.Summary)
    keras_rcnn.export_model(model, "mine", "coreml")  # pyright: ignore[reportArgumentType]
    assert_type([preset["name"] for preset in keras_rcnn.list_presets()], list[Any])
