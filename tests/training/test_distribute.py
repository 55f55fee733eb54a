"""One global batch on one device and on several: the same step. Workers are processes; JAX's devices are forced."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_rcnn.training.distribute import fit, strategy
from tests.models.tiny import shapes, tiny_detector
from tests.shared import gated
from tests.training.processes import addresses, finish, start, tf_config, train, train_cluster, worst

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow's")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
TENSORFLOW = {"KERAS_BACKEND": "tensorflow"}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Two steps: 4 images of two sizes, then 3, which no number of devices but 3 divides."""
    return train({}, tmp_path_factory.mktemp("one") / "run", **TENSORFLOW)


def same(run, reference, tolerance=1e-5):
    (weights, losses), (expected, expected_losses) = run, reference
    assert worst(expected, weights) < tolerance
    assert losses.keys() == expected_losses.keys()
    for key, logs in expected_losses.items():
        assert losses[key] == pytest.approx(logs, rel=1e-5, abs=1e-6), key


@pytest.mark.slow
def test_two_mirrored_devices(one_device, tmp_path):
    same(train({"strategy": "mirrored"}, tmp_path / "run", **TENSORFLOW), one_device)


@pytest.mark.slow
def test_mirrored_devices_through_keras_fit(tmp_path):
    """Clipping, sampling and averages are the same."""
    settings = {"images": 8, "keras": True, "optimizer": {"use_ema": True, "ema_momentum": 0.5}}
    one = train(settings, tmp_path / "one", **TENSORFLOW)
    same(train({**settings, "strategy": "mirrored"}, tmp_path / "two", **TENSORFLOW), one)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=gated)])
def test_workers(one_device, tmp_path, monkeypatch, count):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    same(train_cluster({}, tmp_path / "run", count), one_device)


@pytest.mark.slow
def test_gradients_that_accumulate_and_a_slow_backbone(tmp_path, monkeypatch):
    """Of five batches two make steps; the fifth's waits. Clipping is of the mean, the average follows each batch."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    optimizer = {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.5}
    settings = {"images": 18, "optimizer": optimizer, "backbone_rate": 0.1}
    one = train(settings, tmp_path / "one")
    same(train({**settings, "strategy": "mirrored"}, tmp_path / "two"), one)
    same(train_cluster(settings, tmp_path / "workers", 2), one)


@pytest.mark.slow
@needs_jax
def test_four_jax_devices(tmp_path):
    settings = {"images": 8, "same_size": True, "backbone_rate": 0.1}
    one = train(settings, tmp_path / "one", KERAS_BACKEND="jax")
    four = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    same(train({**settings, "strategy": "jax"}, tmp_path / "four", **four), one)


@pytest.mark.slow
def test_a_worker_killed_in_mid_epoch(tmp_path, monkeypatch):
    """It is started again, the other begins again by itself, and both go on from the last checkpoint."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    settings = {"images": 16, "batch_size": 2, "epochs": 2, "rejoin": True}
    undisturbed = train_cluster(settings, tmp_path / "whole", 2)
    for worker in (0, 1):
        out, checkpoint = tmp_path / f"killed{worker}", str(tmp_path / f"{worker}.safetensors")
        killed = train_cluster({**settings, "checkpoint": checkpoint, "kill": [worker, 1, 6]}, out, 2)
        assert out.with_suffix(".killed").exists()
        same(killed, undisturbed)


# === What cannot be ===


def test_unknown_strategies_and_other_backends():
    assert strategy(None).scope() is not None
    with pytest.raises(ValueError, match="strategy = 'horovod': there are mirrored, multiworker, jax"):
        strategy("horovod")
    other = "jax" if keras.backend.backend() == "tensorflow" else "mirrored"
    with pytest.raises(ValueError, match="KERAS_BACKEND="):
        strategy(other)


@needs_tensorflow
def test_a_dead_worker_is_named_in_time(monkeypatch):
    here, dead = addresses(2)
    monkeypatch.setenv("TF_CONFIG", tf_config([here, dead], 0))
    with pytest.raises(RuntimeError, match=f"No worker has come from {dead} in 0.5 seconds"):
        strategy("multiworker", wait=0.5)


@pytest.mark.slow
@needs_tensorflow
def test_a_program_ends_when_a_worker_is_dead(tmp_path):
    here, dead = addresses(2)
    process = start(
        {"strategy": "multiworker", "out": str(tmp_path / "a"), "wait": 2}, TF_CONFIG=tf_config([here, dead], 0)
    )
    assert f"No worker has come from {dead} in 2 seconds" in finish(process, 200, code=1)


@needs_tensorflow
def test_batches_that_cannot_be_shared():
    model = tiny_detector()
    model.compile("sgd")

    class Three:
        num_replicas_in_sync = 3

    with pytest.raises(ValueError, match="The last batch has 2 images for 3 devices: .*drop_remainder=True"):
        fit(model, shapes(6).batches(model.preprocessor, batch_size=4), 1, strategy=Three())


# === A device's share of a batch ===


def test_shares_are_the_batch_and_only_they_are_read(monkeypatch):
    data = shapes(7)
    model_input = tiny_detector().preprocessor
    batches = data.batches(model_input, batch_size=4, shuffle=True, augment=True, seed=3)
    for index in range(2):
        x, y = batches[index]
        read, original = [], batches.sample
        monkeypatch.setattr(batches, "sample", lambda i, *rest, own=original, to=read: (to.append(i), own(i, *rest))[1])
        parts = []
        for rank in range(3):
            read.clear()
            parts.append(batches.shard(index, rank, 3))
            assert read == np.array_split(batches.chosen(index), 3)[rank].tolist()
        monkeypatch.undo()
        for whole, pieces in ((x, [part[0] for part in parts]), (y, [part[1] for part in parts])):
            for key, values in whole.items():
                np.testing.assert_array_equal(np.concatenate([piece[key] for piece in pieces]), values)
