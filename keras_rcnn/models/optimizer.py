"""An optimizer's variables, made before the first step of a training."""

import contextlib

import keras


def build_optimizer(model: keras.Model) -> None:
    """Makes the variables of a model's optimizer, in its strategy's scope, if there is an optimizer that has none yet.

    A graph of TensorFlow's that makes them itself, as the first step of `fit` does, is traced twice.
    """
    optimizer = getattr(model, "optimizer", None)  # not there before `compile`
    if optimizer is None or optimizer.built:
        return
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's models have it
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        optimizer.build(model.trainable_variables)
