"""What a training needs of Keras that Keras does not offer: all uses of its private names, and every patch.

`TRIED_ON` is the version that these were written for; setup.cfg allows no later minor release, and
tests/training/test_keras_internals.py says which of them a newer one has changed.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_rcnn.interfaces import Tensor

TRIED_ON = "3.15.1"


def unwrapped(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, within the loss scaling that mixed_float16 puts around it.

    Why: `LossScaleOptimizer` passes neither averages nor accumulated gradients on.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def slow_down(optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable], factor: float) -> None:
    """Lets some variables train with a share of the learning rate: a pretrained backbone below a new head.

    Why a patch: Keras has one rate for all variables.

    Args:
        optimizer: a Keras optimizer; it is changed in place. Its config and what is saved of it are not.
        variables: list of the model's `keras.Variable`s. They may be frozen.
        factor: float. AdamW's weight decay of them is not changed.
    """
    keys = {optimizer._var_key(variable) for variable in variables}
    update_all = optimizer.update_step

    def update_step(gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> Any:
        slow = optimizer._var_key(variable) in keys
        return update_all(gradient, variable, learning_rate * factor if slow else learning_rate)

    optimizer.update_step = update_step


def sum_before_clipping(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer sum the replicas' gradients first.

    Why a patch: Keras clips each replica's own gradients and sums these, which is another step than one device takes.

    Args:
        optimizer: a `keras.optimizers.Optimizer`; it is changed in place. Its config and what is saved of it are not.
    """
    import tensorflow as tf

    optimizer = unwrapped(optimizer)
    if getattr(optimizer, "_sums_first", False):
        return
    apply = optimizer.apply

    def summed(grads: Sequence[Tensor | None], trainable_variables: Any = None) -> Any:
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            known = context.all_reduce(tf.distribute.ReduceOp.SUM, [grad for grad in grads if grad is not None])
            known = iter(known)
            grads = [None if grad is None else next(known) for grad in grads]
        return apply(grads, trainable_variables)

    optimizer.apply = summed
    optimizer._all_reduce_sum_gradients = list
    optimizer._sums_first = True


class Accumulation:
    """An optimizer's accumulation of gradients on several devices.

    Why a patch: Keras updates within `cond`, where replicas cannot exchange gradients. Which batch updates is decided
    here, outside of the graph.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.optimizer, self.updates = optimizer, False
        optimizer._backend_apply_gradients = self._apply

    def next(self) -> bool:
        """Whether the batch that comes makes a step."""
        done = int(keras.ops.convert_to_numpy(self.optimizer._iterations))
        self.updates = (done + 1) % self.optimizer.gradient_accumulation_steps == 0
        return self.updates

    def _apply(self, gradients: Sequence[Tensor], variables: Sequence[keras.Variable]) -> None:
        """As Keras's: the mean of the batches' gradients is clipped; the average follows after each batch."""
        optimizer = self.optimizer
        sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(variable)] for variable in variables]
        if self.updates:
            count = optimizer.gradient_accumulation_steps
            means = [(own + others) / count for own, others in zip(gradients, sums, strict=True)]
            means = optimizer._clip_gradients(means)
            optimizer._apply_weight_decay(variables)
            optimizer._backend_update_step(means, variables, optimizer.learning_rate)
            gradients = [-total for total in sums]  # back to 0
        optimizer._backend_increment_gradient_accumulators(gradients, sums)
        if optimizer.use_ema:
            optimizer._update_model_variables_moving_average(optimizer._trainable_variables)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """In the block the model has its optimizer's averaged weights, exactly; afterwards its own.

    Why not `SwapEMAWeights`: it swaps by sums, which round, and leaves `Checkpoint` a choice of bad places.
    """
    optimizer = unwrapped(model.optimizer)
    pairs = list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))
    own = [(variable, keras.ops.convert_to_numpy(variable)) for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(keras.ops.convert_to_numpy(average))
    try:
        yield
    finally:
        for variable, value in own:
            variable.assign(value)


@contextlib.contextmanager
def frozen(*layers: keras.layers.Layer) -> Iterator[None]:
    """In the block neither these layers nor theirs are trained.

    Why a private name: setting a layer's `trainable` sets that of its sublayers, so each one's own must be kept, and
    Keras lists them nowhere else.
    """
    every = [sublayer for layer in layers for sublayer in layer._flatten_layers()]
    before = [layer.trainable for layer in every]
    for layer in every:
        layer.trainable = False
    try:
        yield
    finally:
        # the outer ones first
        for layer, trainable in zip(every, before, strict=True):
            layer.trainable = trainable


@contextlib.contextmanager
def predicting_alone(model: keras.Model) -> Iterator[None]:
    """In the block `model.predict_on_batch` runs on one device.

    Why a patch: under a strategy Keras's runs on all replicas, and in a cluster waits for the other workers, but the
    chief evaluates alone.
    """
    import tensorflow as tf

    model.predict_function = tf.function(lambda data: model.predict_step(data[0]), reduce_retracing=True)
    try:
        yield
    finally:
        model.predict_function = None
