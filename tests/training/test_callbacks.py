"""The callbacks in real fits of a tiny model."""

import json
import logging
import math
import re
import time

import keras
import numpy as np
import pytest

from keras_rcnn.data import Dataset, Preprocessor, Record
from keras_rcnn.training import BestAndLast, HistoryCSV, StopOnNaN, TimeLimit, WarnOnRise, distribute, plot_history
from keras_rcnn.training.history import read_history
from keras_rcnn.training.progress import ProgressLines
from keras_rcnn.training.schedules import WarmupCosine


class Report(keras.callbacks.Callback):
    """Puts given numbers into the logs of the epochs; None leaves an epoch without."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs[self.name] = self.values[epoch]


def tiny(rate=0.1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def fit(callbacks, epochs, start=0, model=None, batches=4):
    x = np.random.default_rng(0).normal(size=(batches, 2))
    model = model or tiny()
    model.fit(x, x.sum(1), batch_size=1, epochs=epochs, initial_epoch=start, verbose=0, callbacks=callbacks)
    return model


def save(model, folder):
    model.save_weights(folder / "model.weights.h5")


# === HistoryCSV ===


def test_history_holds_every_epoch_and_late_columns(tmp_path):
    path = tmp_path / "out" / "history.csv"
    fit([Report("val_AP50", [None, 0.25, None]), HistoryCSV(path)], 3)
    rows = read_history(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row.get("val_AP50") for row in rows] == [None, 0.25, None]
    assert rows[0]["learning_rate"] == pytest.approx(0.1) and rows[0]["loss"] > rows[2]["loss"] > 0
    assert path.read_text().splitlines()[0] == "epoch,seconds,learning_rate,loss,memory_mb,val_AP50"
    assert all(10 < row["memory_mb"] < 100_000 for row in rows)
    assert [entry.name for entry in path.parent.iterdir()] == ["history.csv"]


def test_history_is_continued_by_a_resumed_fit(tmp_path):
    path = tmp_path / "history.csv"
    fit([Report("val_AP50", [0.1, 0.2, 0.3]), HistoryCSV(path)], 3)
    first = path.read_text().splitlines()
    fit([Report("val_AP50", [0, 0, 0.5, 0.6]), HistoryCSV(path)], 4, start=2)  # the third epoch was lost
    assert path.read_text().splitlines()[:3] == first[:3]
    assert [row["val_AP50"] for row in read_history(path)] == [0.1, 0.2, 0.5, 0.6]
    fit([HistoryCSV(path)], 1)  # and from epoch 0 it begins anew
    assert [row["epoch"] for row in read_history(path)] == [1]


def test_history_is_on_disk_after_each_epoch(tmp_path):
    path = tmp_path / "history.csv"
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(len(read_history(path))))
    fit([HistoryCSV(path), look], 3)
    assert seen == [1, 2, 3]


def test_something_else_is_not_taken_for_a_history(tmp_path):
    (tmp_path / "history.csv").write_text("a,b\n1,x\n")
    with pytest.raises(ValueError, match=r"history.csv: not a history file"):
        fit([HistoryCSV(tmp_path / "history.csv")], 2, start=1)


def test_plot(tmp_path):
    from PIL import Image

    picture = tmp_path / "plots" / "history.png"
    report = [Report("val_AP50", [0.1, None, 0.5]), Report("rpn_loss", [1.0, math.nan, 0.5])]
    fit([*report, HistoryCSV(tmp_path / "history.csv", plot=picture)], 3)
    with Image.open(picture) as image:
        four = image.size[0]
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    (tmp_path / "plain.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    plot_history(tmp_path / "plain.csv", picture)
    with Image.open(picture) as image:
        assert image.size[0] * 4 == pytest.approx(four, abs=4)
    assert [entry.name for entry in picture.parent.iterdir()] == ["history.png"]


# === BestAndLast ===


def facts(folder):
    return json.loads((folder / "training.json").read_text())


def test_best_by_the_monitor_and_last_always(tmp_path):
    kept = {}
    model = tiny()
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.update({epoch: model.get_weights()}))
    callback = BestAndLast(tmp_path, save)
    fit([Report("val_AP50", [0.2, 0.6, 0.4, None]), callback, keep], 4, model=model)
    assert callback.best == {"monitor": "val_AP50", "value": 0.6, "epoch": 2}
    assert facts(tmp_path / "best")["epoch"] == 2 and facts(tmp_path / "last")["epoch"] == 4
    assert facts(tmp_path / "best")["logs"]["val_AP50"] == 0.6
    for name, epoch in (("best", 1), ("last", 3)):
        again = tiny()
        again.load_weights(tmp_path / name / "model.weights.h5")
        for a, b in zip(again.get_weights(), kept[epoch], strict=True):
            np.testing.assert_array_equal(a, b)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["best", "last"]


def test_best_by_the_loss_until_the_monitor_is_seen(tmp_path):
    history = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: history.append(callback.best))
    callback = BestAndLast(tmp_path, save)
    losses = Report("loss", [3.0, 4.0, 2.0, 1.0, 0.5, 0.4])
    fit([losses, Report("val_AP50", [None, None, None, 0.1, None, math.nan]), callback, watch], 6)
    assert [(best["monitor"], best["epoch"]) for best in history] == [
        ("loss", 1),
        ("loss", 1),
        ("loss", 3),
        ("val_AP50", 4),
        ("val_AP50", 4),
        ("val_AP50", 4),
    ]
    assert facts(tmp_path / "last")["logs"]["val_AP50"] is None  # NaN


def test_a_monitored_loss_goes_down(tmp_path):
    callback = BestAndLast(tmp_path, save, monitor="val_loss")
    fit([Report("val_loss", [3.0, 1.0, 2.0]), callback], 3)
    assert callback.best["epoch"] == 2


def test_best_goes_on_when_resumed_and_begins_anew_otherwise(tmp_path):
    fit([Report("val_AP50", [0.2, 0.6]), BestAndLast(tmp_path, save)], 2)
    resumed = BestAndLast(tmp_path, save)
    fit([Report("val_AP50", [0, 0, 0.5]), resumed], 3, start=2)
    assert resumed.best["epoch"] == 2 and facts(tmp_path / "last")["epoch"] == 3
    anew = BestAndLast(tmp_path, save)
    fit([Report("val_AP50", [0.1]), anew], 1)
    assert anew.best["value"] == 0.1 and facts(tmp_path / "best")["epoch"] == 1


def test_a_crash_while_saving_leaves_the_old_model(tmp_path):
    fit([Report("val_AP50", [0.2]), BestAndLast(tmp_path, save)], 1)
    before = (tmp_path / "last" / "model.weights.h5").read_bytes()

    def crash(model, folder):
        (folder / "model.weights.h5").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fit([BestAndLast(tmp_path, crash)], 2, start=1)
    assert (tmp_path / "last" / "model.weights.h5").read_bytes() == before
    (tmp_path / "last").rename(tmp_path / ".last.old")  # killed between the two renames
    fit([Report("val_AP50", [0, 0.1]), BestAndLast(tmp_path, save)], 2, start=1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["best", "last"]
    assert facts(tmp_path / "last")["epoch"] == 2 and facts(tmp_path / "best")["epoch"] == 1


# === StopOnNaN ===


class Named:
    """What StopOnNaN asks of keras_rcnn.data.Batches: two images a batch, in another order each epoch."""

    batch_size = 2

    class dataset:
        class Named:
            def __init__(self, name):
                self.name = name

        def __class_getitem__(cls, i):
            return cls.Named(f"photo_{i}.jpg")

    epoch = 0

    def order(self, epoch):
        return np.arange(8) if epoch == 0 else np.arange(8)[::-1]


class Poisoned(keras.utils.PyDataset):
    """Four batches an epoch; from the second epoch on the third one has a NaN."""

    def __init__(self, names, poison=math.nan):
        super().__init__()
        self.names, self.poison = names, poison

    def __len__(self):
        return 4

    def __getitem__(self, i):
        x = np.full((2, 2), 0.1 * (i + 1), "float32")
        return x, np.full((2, 1), self.poison if self.names.epoch and i == 2 else 1, "float32")

    def on_epoch_end(self):
        self.names.epoch += 1


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_stops_at_nan_with_good_weights_and_the_images(tmp_path, caplog, poison):
    names = Named()
    names.epoch = -1  # Keras ends an "epoch" before the first
    model = tiny()
    kept = {}

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kept[names.epoch, batch] = self.model.get_weights()

    stop = StopOnNaN(names, every=2, path=tmp_path / "nan.json")
    saver = BestAndLast(tmp_path, save)
    with caplog.at_level(logging.ERROR):
        history = model.fit(
            Poisoned(names, poison), epochs=9, verbose=0, shuffle=False, callbacks=[Keep(), stop, saver]
        ).history
    assert len(history["loss"]) == 2 and not math.isfinite(history["loss"][1])
    assert stop.images == ["photo_3.jpg", "photo_2.jpg"]  # the third pair from the end
    assert "batch 3 of epoch 2. Images: photo_3.jpg, photo_2.jpg" in caplog.text
    said = json.loads((tmp_path / "nan.json").read_text())
    assert (said["epoch"], said["batches"], said["images"]) == (2, [3, 3], stop.images)
    assert not math.isfinite(float(said["logs"]["loss"]))
    for weight, good in zip(model.get_weights(), kept[1, 1], strict=True):
        np.testing.assert_array_equal(weight, good)
    assert facts(tmp_path / "best")["epoch"] == 1 and facts(tmp_path / "last")["logs"]["loss"] is None


@pytest.mark.parametrize(
    ("begin", "end", "batches", "where"), [(6, 6, [7, 7], "batch 7 of"), (6, 7, [7, 8], "batches 7 to 8 of")]
)
def test_only_batches_that_were_seen_are_blamed(tmp_path, begin, end, batches, where):
    """Of an epoch that goes on from its middle, and of several batches a call."""
    stop = StopOnNaN(Named(), path=tmp_path / "nan.json")
    stop.set_model(tiny())
    stop.on_epoch_begin(1)
    stop.on_train_batch_begin(begin)
    stop.on_train_batch_end(end, {"loss": math.nan})
    assert json.loads((tmp_path / "nan.json").read_text())["batches"] == batches
    assert f"at {where} epoch 2" in stop.message


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras's own fit takes the batches of a call")
def test_several_batches_a_call_in_a_fit():
    model = tiny(rate=1e38)
    model.compile(keras.optimizers.SGD(1e38), "mse", steps_per_execution=2)
    stop = StopOnNaN(every=1)
    fit([stop], 1, model=model, batches=8)
    assert "at batches 1 to 2 of epoch 1" in stop.message or "at batches 3 to 4 of epoch 1" in stop.message


def test_weights_that_are_not_finite_while_the_loss_is(tmp_path):
    model = tiny(rate=0.1)
    before = model.get_weights()

    stop, saved = StopOnNaN(path=tmp_path / "nan.json"), []
    best = BestAndLast(tmp_path, lambda model, folder: saved.append(folder.name), monitor="loss")
    logs = {"loss": 1.0}
    for callback in (stop, best):
        callback.set_model(model)
        callback.on_train_begin()
        callback.on_epoch_begin(0)
    stop.on_train_batch_end(0, {"loss": 1.0})
    model.set_weights([np.full_like(weight, np.inf) if i == 0 else weight for i, weight in enumerate(before)])
    stop.on_train_batch_end(1, {"loss": 1.0})
    assert stop.message is None
    for callback in (stop, best):
        callback.on_epoch_end(0, logs)
    assert "1 of the model's" in stop.message and "not finite after epoch 1" in stop.message
    assert model.stop_training and np.isnan(logs["loss"])
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert json.loads((tmp_path / "nan.json").read_text())["batches"] == [None, 2]
    assert saved == [".last.new"]  # it is no candidate for the best


def test_a_training_that_goes_on_in_mid_epoch_blames_its_own_batches():
    records = [
        Record(np.zeros((32, 32, 3), "uint8"), f"id{i}", 32, 32, [[1, 1, 9, 9]], [int(i == 7)]) for i in range(8)
    ]
    batches = Dataset(records, ["good", "bad"]).batches(Preprocessor(min_size=32, max_size=32), batch_size=1)
    model = Brightness()
    model({"images": np.zeros((1, 32, 32, 3), "float32")})
    model.compile("sgd", jit_compile=False)
    stop = StopOnNaN(batches)
    model.accept = lambda batches: None  # as a detector's
    distribute.fit(model, batches, 1, 0, 7, [stop], verbose=0)
    assert "at batch 8 of epoch 1. Images: image 'id7'" in stop.message and len(stop.images) == 1


class Brightness(keras.Model):
    """Takes the batches of a dataset; class 1 has no logarithm."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(keras.ops.mean(x["images"], axis=(1, 2)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        worst = keras.ops.max(keras.ops.cast(y["labels"], "float32"))
        return keras.ops.mean(self(x)) ** 2 + keras.ops.log(0.5 - worst)


@pytest.mark.parametrize("rotten", [2, 6])
def test_names_the_images_of_real_shuffled_batches(rotten):
    records = [
        Record(np.zeros((32, 32, 3), "uint8"), f"id{i}", 32, 32, [[1, 1, 9, 9]], [int(i == rotten)]) for i in range(8)
    ]
    preprocessor = Preprocessor(min_size=32, max_size=32)
    batches = Dataset(records, ["good", "bad"]).batches(preprocessor, batch_size=2, shuffle=True, seed=3)
    batches.epoch = 4  # resumed
    model = Brightness()
    model({"images": np.zeros((1, 32, 32, 3), "float32")})  # Keras on JAX takes a batch off to build a model
    model.compile("sgd")
    stop = StopOnNaN(batches)
    model.fit(batches, epochs=2, verbose=0, shuffle=False, callbacks=[stop])
    assert f"image 'id{rotten}'" in stop.images and len(stop.images) == 2


def test_weights_that_are_no_longer_finite_are_not_kept():
    """A finite loss whose gradient is not: the weights are NaN one batch before the loss is."""
    model = tiny(rate=1e38)
    before = model.get_weights()
    stop = StopOnNaN(every=1)
    fit([stop], 3, model=model)
    assert stop.message and stop.images == [] and "Images: not known" in stop.message
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert len(before) == len(model.get_weights())


def test_a_healthy_training_is_left_alone():
    stop = StopOnNaN()
    alone, watched = fit([], 3), fit([stop], 3)
    assert stop.message is None
    for a, b in zip(alone.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# === WarnOnRise ===


def test_a_loss_that_has_risen_is_told_once_and_after_resuming_too(tmp_path, caplog):
    def risen(losses, epochs, start=0, first=0):
        history = HistoryCSV(tmp_path / "history.csv")
        warn = WarnOnRise(history, first)
        fit([Report("loss", losses), history, warn], epochs, start)
        return warn.message

    losses = [0.9, 0.6, 0.89, 1.2, 1.5]
    assert risen(losses, 3) is None and not caplog.records
    assert "from 0.6 in epoch 2 to 1.2 in epoch 4" in risen(losses, 5, start=3) and "than 0.1 is" in caplog.text
    assert len(caplog.records) == 1
    assert risen(losses, 5, start=3, first=3) is None  # another step's losses


# === TimeLimit ===


def test_time_limit_ends_within_the_epoch_and_in_good_order(tmp_path, caplog):
    limit = TimeLimit(0.3 / 60)
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.1))
    saver = BestAndLast(tmp_path, save)
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: batches.append(batch))
    fit([slow, limit, count, saver], 100, batches=50)
    assert limit.reached and 1 <= len(batches) <= 4
    assert facts(tmp_path / "last")["epoch"] == 1 and "time limit" in caplog.text
    calm = TimeLimit(5)
    fit([calm], 1)
    assert not calm.reached
    with pytest.raises(ValueError, match="minutes"):
        TimeLimit(0)


def test_the_rate_has_come_down_when_the_time_is_up():
    schedule = WarmupCosine(0.1, steps=10_000, warmup_steps=5)
    share = schedule.follow_time()
    model = tiny(schedule)
    rates = []

    def batch_end(batch, logs):
        rates.append((float(share), float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))))
        time.sleep(0.02)

    limit = TimeLimit(2 / 60, share)
    fit([limit, keras.callbacks.LambdaCallback(on_train_batch_end=batch_end)], 1, batches=5000, model=model)
    assert limit.reached and rates[-1][0] == 1.0 and 10 < len(rates) < 200
    if keras.backend.backend() == "tensorflow":
        assert rates[-1][1] == pytest.approx(0, abs=1e-6) and max(rate for _, rate in rates) > 0.01
        for done, rate in rates[6:]:  # the steps alone would leave it at the peak
            assert rate == pytest.approx(0.05 * (1 + math.cos(math.pi * done)), abs=2e-3)


# === ProgressLines ===


def test_progress_in_lines(caplog):
    caplog.set_level("INFO", "keras_rcnn.training.progress")
    slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.02))
    fit([slow, ProgressLines(0.1)], 2, batches=20)
    lines = [record.getMessage() for record in caplog.records]
    assert 2 <= len(lines) <= 12
    pattern = r"Epoch [12]/2: step \d+ of 20, loss [\d.e-]+, 0\.0\d+ s a step, 0\.0 minutes left in the epoch"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    caplog.clear()
    fit([ProgressLines()], 2)
    assert not caplog.records
