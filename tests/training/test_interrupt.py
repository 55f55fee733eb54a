"""Trainings that are asked to end, and trainings that meet in a folder."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import threading
import time

import keras
import pytest
from PIL import Image

from keras_rcnn.training import Checkpoint, folder
from keras_rcnn.training.folder import FolderError, occupied
from keras_rcnn.training.interrupt import Interruption, TrainingInterrupted
from tests.models.tiny import shapes
from tests.training.test_checkpoint import Dense, fit_small, small


class Kill(keras.callbacks.Callback):
    """Sends this process signals: `at` is the batch, or "evaluation", in the second epoch."""

    def __init__(self, at, *numbers):
        super().__init__()
        self.at, self.numbers = at, numbers

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _send(self, at):
        if self.epoch == 1 and at == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.05)  # Python hears of it between two of its instructions

    def on_train_batch_begin(self, batch, logs=None):
        self._send(batch)

    def on_epoch_end(self, epoch, logs=None):
        self._send("evaluation")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("at", "position"), [(0, (1, 1)), (2, (1, 3)), (3, (1, 4)), ("evaluation", (1, 4))])
def test_a_signal_ends_fit_behind_a_checkpoint(tmp_path, at, position, number):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", Dense(), minutes=None)
    interruption = Interruption(checkpoint)
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted) as caught, interruption.listening():
        fit_small(small(), 3, [Kill(at, number), checkpoint, interruption])
    assert caught.value.signal == number and signal.getsignal(number) is before
    assert Checkpoint(tmp_path / "a.safetensors", Dense()).restore(small()) == position


def test_a_second_signal_does_not_wait(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", Dense(), minutes=None)
    interruption = Interruption(checkpoint)
    with pytest.raises(TrainingInterrupted), interruption.listening():
        fit_small(small(), 3, [Kill(1, signal.SIGTERM, signal.SIGTERM), checkpoint, interruption])
    assert Checkpoint(tmp_path / "a.safetensors", Dense()).restore(small()) == (1, 0)


class Swallow(keras.callbacks.Callback):
    """What TensorFlow and finalizers may do with an exception in the midst of an evaluation."""

    def on_epoch_end(self, epoch, logs=None):
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)


def test_a_signal_that_is_swallowed_ends_fit_before_the_next_epoch(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", Dense(), minutes=None)
    interruption = Interruption(checkpoint)
    with pytest.raises(TrainingInterrupted), interruption.listening():
        fit_small(small(), 3, [Swallow(), checkpoint, interruption])
    assert Checkpoint(tmp_path / "a.safetensors", Dense()).restore(small()) == (1, 0)


def test_other_threads_are_not_listening(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", Dense())
    seen = []

    def run():
        with Interruption(checkpoint).listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


# === The folder ===


def test_a_folder_is_one_trainings(tmp_path):
    out = tmp_path / "deep" / "run"
    program = (
        "import sys, time; from keras_rcnn.training.folder import occupied\n"
        f"with occupied({str(out)!r}):\n    print('in', flush=True); time.sleep(100)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    for enter in (occupied, folder.check_free):
        with pytest.raises(FolderError, match=f"process {other.pid} on .* is training into this folder"), enter(out):
            pass
    other.kill()  # -9: the system lets go of the folder
    other.wait()
    folder.check_free(out)
    with occupied(out):
        assert sorted(path.name for path in out.iterdir()) == [folder.HOLDER, folder.LOCK]
    assert not list(out.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FolderError, match="cannot be written to: .*Name another --out"),
        occupied(tmp_path / "file/run"),
    ):
        pass


# === The command ===


@pytest.fixture
def table(tmp_path):
    data = shapes(6)
    rows = [["image", "x1", "y1", "x2", "y2", "label"]]
    for record in data:
        Image.fromarray(record.image).save(tmp_path / f"{record.image_id}.png")
        for box, label in zip(record.boxes.tolist(), record.labels, strict=True):
            rows.append([f"{record.image_id}.png", *box, data.class_names[label]])
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


OUT = "my run é"


def command(table, *more):
    small = {
        "min_size": 64, "max_size": 64, "fpn_channels": 16, "box_head_units": (16,), "roi_samples": 16,
        "post_nms_proposals": (50, 20), "batch_size": 1, "seed": 3,
    }  # fmt: skip
    sets = [part for key, value in small.items() for part in ("--set", f"{key}={value!r}")]
    source = ["--csv", str(table / "boxes.csv"), "--images", str(table)]
    return [sys.executable, "-m", "keras_rcnn.cli", "train", *source, "--out", str(table / OUT), *sets, *more]


@pytest.mark.slow
def test_a_terminated_training_goes_on(table):
    """In a folder whose name is no name for a model of Keras's."""
    process = subprocess.Popen(
        command(table, "--epochs", "500"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    history = table / OUT / "history.csv"
    end = time.monotonic() + 300
    while not history.exists() and time.monotonic() < end:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)  # what Kubernetes gives is 30 seconds
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "ended by SIGTERM" in said and "--resume goes on from its checkpoint" in said
    with history.open() as file:
        done = len(list(csv.DictReader(file)))
    again = subprocess.run(
        command(table, "--epochs", str(done + 2), "--resume"), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    with history.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, done + 3))
    assert f"epochs={done + 2} (was 500)" in again.stderr
    again = subprocess.run(
        command(table, "--epochs", str(done + 2), "--resume"), capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0 and f"has had its {done + 2} epochs" in again.stderr
    assert all(row["loss"] for row in rows)
    assert not list((table / OUT).glob(".training*"))
