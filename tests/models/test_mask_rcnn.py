"""Mask R-CNN as a Keras model, on the pictures that Faster R-CNN is tested on."""

import json

import keras
import numpy as np
import pytest

from keras_rcnn import layers
from keras_rcnn.data import Dataset, Record
from keras_rcnn.evaluation import evaluate
from keras_rcnn.models import MaskRCNN
from tests.models.tiny import TinyBackbone, batch, shapes, tiny_detector


def tiny_mask_rcnn(**changes):
    parts = dict(tiny_detector().parts)
    small = {
        "mask_pool": layers.RoIAlign(7, (4, 8, 16, 32), canonical_size=56, name="mask_pool"),
        "mask_targets": layers.MaskTargets(2, parts["box_targets"].most_positive, size=14),
        "mask_head": layers.MaskHead(2, convs=(32, 32), channels=32),
    }
    rest = {k: v for k, v in parts.items() if k not in ("backbone", "num_classes")}
    return MaskRCNN(TinyBackbone(), 2, **{**rest, **small, **changes})


def with_masks(data):
    """The shapes' masks are their boxes: polygons."""
    records = []
    for record in data:
        polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in record.boxes.tolist()]
        fields = {k: getattr(record, k) for k in ("image", "image_id", "height", "width", "boxes", "labels")}
        records.append(Record(**fields, segmentations=polygons))
    return Dataset(records, data.class_names, name="shapes with masks")


def test_losses_without_positives_are_zero():
    keras.utils.set_random_seed(0)
    model = tiny_mask_rcnn()
    x, y = batch()
    y |= {"masks": np.ones((2, 5, 28, 28), np.uint8), "mask_frames": y["boxes"].copy()}
    some = {k: np.asarray(v) for k, v in model.training_graph({**x, **y}, training=True).items()}
    assert some["loss_mask"][0] > 0
    y["labels"][:] = -1
    none = {k: np.asarray(v) for k, v in model.training_graph({**x, **y}, training=True).items()}
    assert none["loss_mask"].sum() == 0
    assert all(np.isfinite(v).all() for v in none.values())


def test_config_survives_json():
    model = tiny_mask_rcnn()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert [w.path for w in rebuilt.weights] == [w.path for w in model.weights]


@pytest.mark.slow
def test_overfits_eight_images():
    keras.utils.set_random_seed(0)
    data = with_masks(shapes(8))
    model = tiny_mask_rcnn()
    model.compile(keras.optimizers.AdamW(2e-3, clipnorm=5.0))
    batches = data.batches(model.preprocessor, batch_size=4, shuffle=True, cache=True, masks=True)
    model.fit(batches, epochs=80, verbose=0)
    result = evaluate(model, data, progress=False)
    assert result["bbox"]["AP50"] > 0.9
    assert result["segm"]["AP50"] > 0.9
    found = model.detect(data[0].image, score=0.5)
    assert found["masks"].shape == (len(found["boxes"]), 128, 128)
    assert found["masks"].dtype == bool
    x1, y1, x2, y2 = data[0].boxes[0].astype(int)
    inside = np.zeros((128, 128), bool)
    inside[y1:y2, x1:x2] = True
    best = found["masks"][0]
    assert (best & inside).sum() / (best | inside).sum() > 0.7
    assert "masks" not in model.detect(data[0].image, masks=False)
    assert {"size", "counts"} == set(model.detect(data[0].image, masks="rle")["masks"][0])
