"""What TensorBoard is given: losses, AP and learning rate by Keras's callback, pictures by ours."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_rcnn.training import Pictures
from tests.models.tiny import shapes

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")


class Report(keras.callbacks.Callback):
    """In the place of `EvaluateCallback`."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_AP50"] = 0.25 + epoch


def events(folder):
    """`{(file's folder, tag, step): value}` of the event files."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    found = {}
    for path in folder.rglob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                found[path.parent.name, value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found


def detections(image, score, **more):
    return {"boxes": np.array([[10, 10, 60, 60]], np.float32), "labels": np.array([1]), "scores": np.array([0.9])}


def test_the_board_has_everything(tmp_path):
    data = shapes(5)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "mse")
    model.detect = detections
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    pictures = Pictures(tmp_path, data, count=2, every=2, side=64)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[Report(), board, pictures])
    found = events(tmp_path)
    rates = [found["train", "epoch_learning_rate", step] for step in range(3)]
    assert rates[0] > rates[1] > rates[2] > 0
    assert [found["validation", "epoch_AP50", step] for step in range(3)] == [0.25, 1.25, 2.25]
    assert {("train", "epoch_loss", step) for step in range(3)} <= set(found)
    import tensorflow as tf

    chosen = {(tag, step): value for (_, tag, step), value in found.items() if tag.startswith("detections/")}
    assert set(chosen) == {("detections/0", 1), ("detections/4", 1)}
    for (tag, _), value in chosen.items():
        width, height, encoded = value
        assert (int(width), int(height)) == (64, 64)
        photo = data[int(tag.split("/")[1])].read()
        plain = tf.image.resize(photo.astype(np.float32), (64, 64), method="area").numpy()
        changed = np.abs(tf.io.decode_png(encoded).numpy() - plain).max(axis=-1) > 30
        assert changed.any() and not changed[40:, 40:].any()  # the box, and nothing else


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        Pictures(tmp_path, shapes(1), count=0)
