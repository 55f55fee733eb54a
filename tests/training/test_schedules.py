"""Rates at given steps, worked out by hand."""

import keras
import numpy as np
import pytest

from keras_rcnn.training import WarmupCosine, WarmupMultiStep


def rates(schedule, steps):
    return [float(keras.ops.convert_to_numpy(schedule(step))) for step in steps]


def test_cosine():
    schedule = WarmupCosine(0.1, steps=1100, warmup_steps=100, start=0.1, final=0.02)
    # half way up the warmup: 0.55 of the peak; a quarter, half and the whole of the cosine's 1000 steps
    expected = [0.01, 0.055, 0.1, 0.02 + 0.08 * (1 + np.sqrt(0.5)) / 2, 0.06, 0.02, 0.02]
    assert rates(schedule, [0, 50, 100, 350, 600, 1100, 5000]) == pytest.approx(expected, rel=1e-5)
    assert rates(WarmupCosine(0.1, 10), [0, 5, 10]) == pytest.approx([0.1, 0.05, 0], abs=1e-8)


def test_cosine_is_kerass_own():
    """keras.optimizers.schedules.CosineDecay with a warmup from 0 says the same."""
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 400, alpha=0.1, warmup_target=0.2, warmup_steps=50)
    ours = WarmupCosine(0.2, steps=450, warmup_steps=50, start=0.0, final=0.02)
    steps = range(0, 500, 7)
    assert rates(ours, steps) == pytest.approx(rates(theirs, steps), rel=1e-5, abs=1e-8)


def test_multi_step():
    """Detectron2's 1x schedule: 0.02, a warmup from a thousandth over 1000 steps, a tenth at 60k and at 80k."""
    schedule = WarmupMultiStep(0.02, boundaries=[60_000, 80_000], warmup_steps=1000)
    steps = [0, 500, 1000, 59_999, 60_000, 79_999, 80_000, 90_000]
    expected = [2e-5, 0.02 * 0.5005, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
    assert rates(schedule, steps) == pytest.approx(expected, rel=1e-5)
    assert rates(WarmupMultiStep(1.0, [], factor=0.5), [0, 10]) == [1, 1]


@pytest.mark.parametrize(
    "schedule", [WarmupCosine(0.1, 100, 10, 0.01, 0.001), WarmupMultiStep(0.1, [30, 60], 0.5, 10, 0.01)]
)
def test_an_optimizer_with_it_survives_saving(tmp_path, schedule):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(again) is type(schedule) and again.get_config() == schedule.get_config()
    assert rates(again, range(0, 120, 7)) == rates(schedule, range(0, 120, 7))


def test_it_counts_the_steps_of_fit():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(WarmupMultiStep(0.1, [4], warmup_steps=2, start=0.5)), "mse")
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(float(np.asarray(self.model.optimizer.learning_rate)))

    model.fit(np.zeros((6, 2)), np.zeros((6, 1)), batch_size=1, verbose=0, callbacks=[Watch()])
    assert seen == pytest.approx([0.05, 0.075, 0.1, 0.1, 0.01, 0.01])


def test_refusals():
    with pytest.raises(ValueError, match=r"steps \(100\) must be more than warmup_steps \(100\)"):
        WarmupCosine(0.1, 100, 100)
    with pytest.raises(ValueError, match="boundaries must rise"):
        WarmupMultiStep(0.1, [80, 60])
    with pytest.raises(ValueError, match="warmup_steps"):
        WarmupMultiStep(0.1, [80], warmup_steps=-1)
