"""A training that is asked to end: SIGTERM, as Kubernetes, Slurm and spot machines send it, and Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras

from keras_rcnn.training.checkpoint import Checkpoint


class TrainingInterrupted(KeyboardInterrupt):
    """The training has ended because of a signal; its state is in the checkpoint.

    Attributes:
        signal: int, the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.signal = int(number)


class Interruption(keras.callbacks.Callback):
    """Ends `fit` at the next batch after SIGTERM or SIGINT, when the checkpoint has been written.

    While the model is evaluated or saved it ends at once: the checkpoint of the epoch's last batch is there already.
    Should the code that is interrupted there swallow the exception, the next epoch does not begin. A second signal ends
    the training at once in any case. Put it behind the `Checkpoint` in the list, and `fit` into the block of
    `listening()`; in threads other than the main one there is nothing to listen to.

    Args:
        checkpoint: `Checkpoint`.

    Example:

    >>> interruption = Interruption(checkpoint)
    >>> with interruption.listening():
    ...     fit(model, batches, 12, callbacks=[checkpoint, interruption])
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.number = None
        self._in_batches = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """In the block signals end the training in the way that is described above.

        Raises:
            TrainingInterrupted: when it has ended.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number is not None, number
        if again or not self._in_batches:
            raise TrainingInterrupted(number)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.number is not None:  # heard before, in code that lets no exception out, such as a finalizer
            raise TrainingInterrupted(self.number)
        self._epoch, self._in_batches = epoch, True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        last = batch + 1 == (self.params or {}).get("steps")
        if self.number is not None:
            if not last:  # of the last batch there is a checkpoint
                self.checkpoint.write(self._epoch, batch + 1)
            raise TrainingInterrupted(self.number)
        self._in_batches = not last
