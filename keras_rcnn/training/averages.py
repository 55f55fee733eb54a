"""Evaluating and saving a running average of the weights, which scores better than the weights of the last step."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_rcnn.training.keras_internals import averaged, unwrapped


class WithAverages(keras.callbacks.CallbackList):
    """Runs callbacks at the end of an epoch with the averaged weights in the model, which then gets its own back.

    The average is the optimizer's: `keras.optimizers.AdamW(..., use_ema=True)`. Keras's `SwapEMAWeights` does the same
    for `evaluate`, but leaves `Checkpoint` a choice of bad places in the list, and swaps by sums, which round.

    Args:
        callbacks: list, `EvaluateCallback` and `BestAndLast` for instance.

    Raises:
        ValueError: as the training begins, if the optimizer keeps no average.

    Example:

    >>> callbacks = [WithAverages([EvaluateCallback(val), BestAndLast(out, save)]), HistoryCSV(path), checkpoint]
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__(callbacks)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not getattr(unwrapped(self.model.optimizer), "use_ema", False):
            raise ValueError("WithAverages needs an optimizer that keeps averages: use_ema=True.")
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        with averaged(self.model):
            for callback in self.callbacks:  # the logs as they are: they report in them
                callback.on_epoch_end(epoch, logs)
