"""How far a training is, for logs in which Keras's progress bar cannot be seen."""

import logging
import time
from typing import Any

import keras

from keras_rcnn.data.request import check_number

logger = logging.getLogger(__name__)


class ProgressLines(keras.callbacks.Callback):
    """Logs a line every minute: the step, the loss, seconds a step, and how long the epoch still takes.

    Args:
        seconds: float, between two lines.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        check_number("seconds", seconds, 0)
        self.seconds = seconds
        self._next = time.monotonic() + seconds
        self._epoch, self._first, self._since = 0, 0, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._since = epoch, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.monotonic()
        if not self._since:  # the first step, in which the graph is traced, does not count
            self._first, self._since = batch, now
        if now < self._next or batch == self._first:
            return
        self._next = now + self.seconds
        steps, pace = self.params["steps"], (now - self._since) / (batch - self._first)
        logger.info(
            "Epoch %d/%d: step %d of %d, loss %.4g, %.2g s a step, %.1f minutes left in the epoch",
            self._epoch + 1,
            self.params["epochs"],
            batch + 1,
            steps,
            float((logs or {}).get("loss", float("nan"))),
            pace,
            (steps - batch - 1) * pace / 60,
        )
