"""Trainings that are ended at any moment and go on as if they had not been."""

import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_rcnn.training import Checkpoint, CheckpointError, EarlyStopping, WithAverages
from tests.training.processes import finish, result, start, train


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"ema_momentum": 0.9, "gradient_accumulation_steps": 2}])
def test_kill_minus_nine(tmp_path, more):
    """In processes, and deterministic: the loss curve of a killed and resumed training is the undisturbed one's.

    Sampling, order, augmentation, moments, averages, accumulated gradients and running losses are all the same.
    """
    settings = {"images": 10, "batch_size": 2, "epochs": 2, "optimizer": {"use_ema": True, **more}}
    weights, losses = train(settings, tmp_path / "whole", KERAS_BACKEND="tensorflow")
    settings |= {"checkpoint": str(tmp_path / "a.safetensors"), "kill": [0, 1, 3], "out": str(tmp_path / "killed")}
    finish(start(settings, KERAS_BACKEND="tensorflow"), code=-9)
    finish(start(settings, KERAS_BACKEND="tensorflow"))
    again, resumed = result(tmp_path / "killed")
    assert resumed == losses
    for a, b in zip(weights, again, strict=True):
        np.testing.assert_array_equal(a, b)


# === The file ===


class Dense(keras.callbacks.Callback):
    """A small model with what a checkpoint asks of batches."""

    dataset, batch_size, seed, shuffle = range(8), 2, 0, True


def small(units=1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(units)])
    model.compile(keras.optimizers.AdamW(0.1), "mse")
    return model


def fit_small(model, epochs, callbacks, start=0):
    x = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    model.fit(
        x, x[:, :1], batch_size=2, epochs=epochs, initial_epoch=start, verbose=0, shuffle=False, callbacks=callbacks
    )
    return model


class AP(keras.callbacks.Callback):
    """As `EvaluateCallback(every=..)` reports: in some epochs only."""

    values = (0.1, 0.5, None, 0.4, 0.3, 0.2, 0.1)

    def on_epoch_end(self, epoch, logs=None):
        if self.values[epoch] is not None:
            logs["val_AP50"] = self.values[epoch]


@pytest.mark.filterwarnings("error:Early stopping")
def test_early_stopping_on_ap_counts_on_after_a_kill(tmp_path):
    path = tmp_path / "deep" / "a.safetensors"

    def stopping():
        return EarlyStopping("val_AP50", mode="max", patience=3)

    whole = stopping()
    expected = fit_small(small(), 7, [AP(), whole, Checkpoint(path, Dense())])
    assert (whole.stopped_epoch, whole.best_epoch) == (5, 1)
    path.unlink()
    first = stopping()
    fit_small(small(), 4, [AP(), first, Checkpoint(path, Dense(), keep=[first])])
    again, second = small(), stopping()
    checkpoint = Checkpoint(path, Dense(), keep=[second])
    assert checkpoint.restore(again) == (4, 0)
    fit_small(again, 7, [AP(), second, checkpoint], start=4)
    assert (second.stopped_epoch, second.best_epoch) == (5, 1)
    for a, b in zip(expected.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


def test_written_every_so_many_batches_and_minutes(tmp_path):
    written = []

    class Watched(Checkpoint):
        def write(self, epoch, step):
            written.append((epoch, step))
            super().write(epoch, step)

    fit_small(small(), 1, [Watched(tmp_path / "a.safetensors", Dense(), steps=3)])
    assert written == [(0, 3), (0, 4), (1, 0)]  # (0, 4) before the evaluation, (1, 0) after it
    written.clear()
    fit_small(small(), 1, [Watched(tmp_path / "a.safetensors", Dense(), minutes=1e-9)])
    assert written == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]
    with pytest.raises(ValueError, match="steps is a whole number of at least 1, batches, or None"):
        Checkpoint("a", Dense(), steps=0)


def test_files_that_are_no_checkpoint_of_this_training(tmp_path):
    path = tmp_path / "a.safetensors"
    assert Checkpoint(path, Dense()).restore(small()) is None
    checkpoint = Checkpoint(path, Dense())
    fit_small(small(), 1, [checkpoint])
    with pytest.raises(CheckpointError, match=r"a.safetensors is of another model .*\(2, 3\)"):
        Checkpoint(path, Dense()).restore(small(units=3))
    other = small()
    other.compile("sgd", "mse")
    with pytest.raises(CheckpointError, match="another model or optimizer"):
        Checkpoint(path, Dense()).restore(other)
    checkpoint.write(0, 3)
    batches = Dense()
    batches.seed = 9
    with pytest.raises(CheckpointError, match="middle of an epoch of other batches"):
        Checkpoint(path, batches).restore(small())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="a.safetensors: not a checkpoint"):
        Checkpoint(path, Dense()).restore(small())


def test_images_that_are_others_than_before(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    checkpoint = Checkpoint(path, Dense())
    fit_small(small(), 1, [checkpoint])
    checkpoint.write(1, 3)
    fewer = Dense()
    fewer.dataset = [*range(5), "new.png", 6]
    with pytest.raises(CheckpointError, match=r"2 images removed \(5, 7\); 1 images added \(new.png\).*other-data"):
        Checkpoint(path, fewer).restore(small())
    assert Checkpoint(path, fewer, other_data=True).restore(small()) == (1, 0)
    assert "2 images removed (5, 7)" in caplog.text
    assert Checkpoint(path, Dense(), other_data=True).restore(small()) == (1, 3)  # nothing has changed
    fewer.dataset = list(range(8))[::-1]
    with pytest.raises(CheckpointError, match="in another order"):
        Checkpoint(path, fewer).restore(small())


def test_a_full_disk_leaves_the_file_before(tmp_path, caplog):
    """The system refuses files of more than 100 bytes."""
    path = tmp_path / "a.safetensors"
    checkpoint = Checkpoint(path, Dense())
    fit_small(small(), 1, [checkpoint])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        checkpoint.write(7, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "a.safetensors could not be written" in caplog.text
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_state_that_is_not_finite_is_not_written(tmp_path, caplog):
    path, model = tmp_path / "a.safetensors", small()
    checkpoint = Checkpoint(path, Dense())
    fit_small(model, 1, [checkpoint])
    model.optimizer.variables[2].assign(np.full((2, 1), np.nan))
    checkpoint.write(2, 0)
    assert "kernel_momentum is not finite" in caplog.text
    assert Checkpoint(path, Dense()).restore(small()) == (1, 0)


def test_other_settings_are_told(tmp_path, caplog):
    path = tmp_path / "a.safetensors"
    fit_small(small(), 1, [Checkpoint(path, Dense(), settings={"epochs": 3, "seed": 1})])
    Checkpoint(path, Dense(), settings={"epochs": 3, "seed": 1}).restore(small())
    assert not caplog.text
    Checkpoint(path, Dense(), settings={"epochs": 3, "momentum": 0.5}).restore(small())
    assert "momentum=0.5 (was its default), seed=its default (was 1)" in caplog.text


def test_killed_while_writing(tmp_path):
    """What a killed process had half written goes away, and the file before is whole."""
    path = tmp_path / "a.safetensors"
    fit_small(small(), 1, [Checkpoint(path, Dense())])
    program = (
        "import os, signal, sys; from pathlib import Path; from keras_rcnn import files\n"
        f"with files.aside(Path({str(path)!r})) as half:\n"
        "    half.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    assert Checkpoint(path, Dense()).restore(small()) == (1, 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


# === Averages ===


def test_averages_are_in_the_model_for_its_callbacks_alone():
    seen = []

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_AP50"] = 0.5
            seen.append(self.model.get_weights())

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            averages = self.model.optimizer._model_variables_moving_average
            seen.append(
                (logs["val_AP50"], self.model.get_weights(), [keras.ops.convert_to_numpy(one) for one in averages])
            )

    model = small()
    model.compile(keras.optimizers.AdamW(0.1, use_ema=True, ema_momentum=0.5), "mse")
    fit_small(model, 2, [WithAverages([Report()]), Look()])
    for inside, (reported, outside, averages) in zip(seen[::2], seen[1::2], strict=True):
        assert reported == 0.5
        for a, b, average in zip(inside, outside, averages, strict=True):
            np.testing.assert_array_equal(a, average)
            assert not np.array_equal(a, b)
    with pytest.raises(ValueError, match="use_ema=True"):
        fit_small(small(), 1, [WithAverages([])])
