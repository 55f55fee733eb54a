"""The optimizer that a recipe's settings ask for."""

import keras
import numpy as np
import pytest

from keras_rcnn.training import Settings, WarmupCosine, WarmupMultiStep, run
from keras_rcnn.training import optimizer as optimizers
from keras_rcnn.training.keras_internals import slow_down


def build_optimizer(settings, epochs, steps):
    return optimizers.build_optimizer(settings, optimizers.build_rate(settings, epochs, steps))


def settings(**changes):
    plain = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "clipnorm": 5.0}
    return Settings(**{**plain, "warmup_steps": 3, **changes})


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adamw", "AdamW"), ("lamb", "Lamb")])
def test_kinds(name, kind):
    optimizer = build_optimizer(settings(optimizer=name), 4, 10)
    assert type(optimizer).__name__ == kind
    assert (optimizer.weight_decay, optimizer.clipnorm) == (0.01, 5.0)
    assert isinstance(optimizer._learning_rate, WarmupCosine) and optimizer._learning_rate.steps == 40
    assert optimizer.gradient_accumulation_steps is None and not optimizer.use_ema


def test_steps_of_the_rate():
    rate = build_optimizer(settings(lr_drop_epochs=(1, 3)), 4, 10)._learning_rate
    assert isinstance(rate, WarmupMultiStep) and (rate.boundaries, rate.factor) == ([10, 30], 0.1)
    assert build_optimizer(settings(lr_drop_epochs=(1,), lr_drop_factor=0.5), 4, 10)._learning_rate.factor == 0.5


def test_accumulation_is_a_larger_batch():
    """Two batches of two are a batch of four."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")

    def trained(accumulate, batch_size):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        schedule = settings(gradient_accumulation_steps=accumulate, warmup_steps=0, lr_drop_epochs=(5,), clipnorm=0.5)
        model.compile(build_optimizer(schedule, 1, 8), "mse")
        model.fit(x, x[:, :1], batch_size=batch_size, shuffle=False, verbose=0)
        return model.get_weights()

    for a, b in zip(trained(2, 2), trained(1, 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_averages():
    optimizer = build_optimizer(settings(ema_momentum=0.99), 4, 10)
    assert optimizer.use_ema and optimizer.ema_momentum == 0.99


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb"])
def test_some_weights_train_slowly(kind):
    """The first step of a layer that has a tenth of the rate is a tenth of that of its twin."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Dense(3)])
    optimizer = build_optimizer(settings(optimizer=kind, weight_decay=0.0, warmup_steps=0, lr_drop_epochs=(5,)), 1, 8)
    slow_down(optimizer, model.layers[0].variables, 0.1)
    before = model.get_weights()
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.full(one.shape, 0.1) for one in model.trainable_variables])
    steps = [np.abs(one - old).mean() for one, old in zip(model.get_weights(), before, strict=True)]
    scale = np.linalg.norm(before[0]) / np.linalg.norm(before[2]) if kind == "lamb" else 1  # Lamb's is of the weights
    assert steps[0] == pytest.approx(0.1 * scale * steps[2], rel=1e-3) and steps[2] > 0
    assert np.all(before[1] == 0) and steps[1] == pytest.approx(0.1 * steps[3], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, 0.5), ({"backbone_weights": "random"}, 1.0), ({"backbone_lr_multiplier": 0.0}, 0.0), ({"base": "mine"}, 0.5)],
)
def test_the_backbones_share_of_the_rate(changes, share):
    assert run._backbone_share(Settings(**changes)) == share
