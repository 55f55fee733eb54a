"""`evaluate` and the callback, with a model that "detects" what it was told."""

import csv
import json
import math

import keras
import numpy as np
import pytest

from keras_rcnn.evaluation import EvaluateCallback, coco_metrics, coco_results, detect_all, evaluate, voc_metrics


class Oracle:
    """Detects a given list, in order, and notes the calls. Images carry their index in the first pixel."""

    def __init__(self, detections, class_names=None):
        self.detections = detections
        self.class_names = class_names
        self.calls = []

    def detect(self, images, score=None, batch_size=None):
        self.calls.append((len(images), score, batch_size))
        return [self.detections[image[0, 0, 0]] for image in images]


def numbered(dataset):
    for i, record in enumerate(dataset):
        record.image[0, 0, 0] = i
    return dataset


def test_it_is_the_metric_of_the_detections(make):
    dataset, detections = make.random(3)
    model = Oracle(detections, dataset.class_names)
    result = evaluate(model, numbered(dataset), batch_size=5, progress=False)
    assert model.calls == [(5, 0.0, 5), (5, 0.0, 5), (2, 0.0, 5)]
    expected = coco_metrics(dataset, detections)
    per_class = expected.pop("per_class")
    assert set(result) == {"bbox", "per_class"}
    assert result["bbox"] == pytest.approx(expected, nan_ok=True)
    for name, values in per_class.items():
        assert result["per_class"][name] == pytest.approx(values, nan_ok=True)


def test_masks_are_scored_where_both_have_them(make):
    dataset, detections = make.random(3, masks=True)
    result = evaluate(Oracle(detections), numbered(dataset), progress=False)
    segm = coco_metrics(dataset, detections, "segm")
    per_class = segm.pop("per_class")
    assert result["segm"] == pytest.approx(segm, nan_ok=True)
    assert result["per_class"]["class 0"]["segm_AP50"] == per_class["class 0"]["AP50"]
    assert result["per_class"]["class 0"]["AP50"] != per_class["class 0"]["AP50"]
    for record in dataset:
        record.segmentations = None
    assert set(evaluate(Oracle(detections), dataset, progress=False)) == {"bbox", "per_class"}


def test_masks_are_kept_compressed(make):
    dataset, detections = make.random(3, masks=True)
    found = detect_all(Oracle(detections), numbered(dataset), progress=False)
    assert all(isinstance(mask, dict) for one in found for mask in one["masks"])
    assert json.loads(json.dumps(coco_results(dataset, found, "segm"))) == coco_results(dataset, detections, "segm")


@pytest.mark.parametrize(("metric", "eleven_point"), [("voc07", True), ("voc10", False)])
def test_voc_metrics(make, metric, eleven_point):
    dataset, detections = make.random(3)
    result = evaluate(Oracle(detections), numbered(dataset), metric=metric, progress=False)
    expected = voc_metrics(dataset, detections, eleven_point=eleven_point)
    assert result["bbox"] == {"AP50": expected["AP50"]}
    assert result["per_class"]["class 1"] == expected["per_class"]["class 1"]


def test_classes_are_matched_by_name(make):
    boxes = [[0, 0, 30, 30], [50, 50, 90, 90]]
    dataset = make.data([make.record(boxes, [0, 1])], ["cat", "dog"])
    swapped = [make.found(boxes, [0.9, 0.8], [1, 0])]
    assert evaluate(Oracle(swapped, ["dog", "cat"]), dataset, progress=False)["bbox"]["AP"] == pytest.approx(1)
    assert evaluate(Oracle(swapped, ["cat", "dog"]), dataset, progress=False)["bbox"]["AP"] == 0
    for unnamed in (None, ["0", "1"]):
        assert evaluate(Oracle(swapped, unnamed), dataset, progress=False)["bbox"]["AP"] == 0
    with pytest.raises(ValueError, match="Only the model has 'fox', 'hen'; only the dataset has 'dog'"):
        evaluate(Oracle(swapped, ["cat", "fox", "hen"]), dataset, progress=False)


def test_classes_of_the_model_alone_are_left_out(make, caplog):
    """COCO's 80 categories, torchvision's 90 classes with "N/A" for the unused ids."""
    boxes = [[0, 0, 30, 30], [50, 50, 90, 90], [10, 10, 40, 40]]
    dataset = make.data([make.record(boxes[:2], [0, 1])], ["cat", "dog"])
    found = [make.found(boxes, [0.8, 0.7, 0.9], [1, 3, 2])]
    assert evaluate(Oracle(found, ["N/A", "cat", "N/A", "dog"]), dataset, progress=False)["bbox"]["AP"] == (
        pytest.approx(1)
    )
    assert not caplog.records
    evaluate(Oracle(found, ["N/A", "cat", "fox", "dog"]), dataset, progress=False)
    assert "has no 'fox'" in caplog.text


def test_progress_goes_to_stderr_if_wanted(make, capsys):
    dataset, detections = make.random(3)
    evaluate(Oracle(detections), numbered(dataset), progress=False)
    assert capsys.readouterr() == ("", "")
    evaluate(Oracle(detections), dataset, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "12/12" in captured.err


def test_refusals(make):
    dataset, detections = make.random(3)
    with pytest.raises(ValueError, match="metric must be one of coco, voc07, voc10"):
        evaluate(Oracle(detections), dataset, metric="mAP")
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(Oracle(detections), dataset, batch_size=0)


class Fitted(keras.Model):
    """A model for `fit` that detects an object only from its second epoch on."""

    def __init__(self, detections):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.detections = detections
        self.evaluations = 0

    def call(self, x):
        return self.dense(x)

    def detect(self, images, score=None, batch_size=None):
        self.evaluations += 1
        return [self.detections[self.evaluations > 1]] * len(images)


def fit(make, tmp_path, epochs, **arguments):
    box = [[0, 0, 30, 30]]
    dataset = make.data([make.record(box, [0])], ["cat"])
    model = Fitted([make.found([], [], []), make.found(box, [0.9], [0])])
    model.compile("sgd", "mse")
    callback = EvaluateCallback(dataset, **arguments)
    after = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5", "val_AP50", mode="max", save_best_only=True, save_weights_only=True
        ),
    ]
    data = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    history = model.fit(*data, epochs=epochs, verbose=0, callbacks=[callback, *after]).history
    return callback, history, tmp_path


def test_callback_reports_into_the_logs(make, tmp_path):
    callback, history, folder = fit(make, tmp_path, epochs=3)
    assert history["val_AP50"] == pytest.approx([0, 1, 1]) and history["val_AP"] == pytest.approx([0, 1, 1])
    rows = list(csv.DictReader((folder / "log.csv").open()))
    assert [float(row["val_AP50"]) for row in rows] == pytest.approx([0, 1, 1])
    assert (folder / "best.weights.h5").exists()
    assert callback.last["bbox"]["AP75"] == pytest.approx(1) and callback.last_epoch == 2
    assert math.isnan(callback.last["bbox"]["APl"])


def test_callback_tells_other_classes_before_the_first_epoch(make, tmp_path):
    dataset = make.data([make.record([[0, 0, 30, 30]], [0])], ["dog"])
    model = Fitted([make.found([], [], []), make.found([], [], [])])
    model.class_names = ["cat"]
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="only the dataset has 'dog'"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[EvaluateCallback(dataset)])
    assert model.evaluations == 0


def test_callback_every_few_epochs_and_at_the_end(make, tmp_path):
    callback, history, _ = fit(make, tmp_path, epochs=5, every=2, metric="voc10")
    assert len(history["val_AP50"]) == 3 and callback.last_epoch == 4 and "val_AP" not in history
    with pytest.raises(ValueError, match="every"):
        EvaluateCallback([], every=0)
