"""Callbacks for `fit`: the best and the last model; an end at NaN, without a better AP, at a time; a risen loss."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.files import aside, recover_folder, replacing_folder
from keras_rcnn.interfaces import FilePath
from keras_rcnn.json_text import finite
from keras_rcnn.models import Detector
from keras_rcnn.training.history import HistoryCSV

logger = logging.getLogger(__name__)


class BestAndLast(keras.callbacks.Callback):
    """Saves the model to `out_dir/last` after every epoch, and to `out_dir/best` when it is the best so far.

    Best is by `monitor`; until that is seen for the first time, by the training's `loss`. Each folder is written
    aside and then renamed, so that a crash leaves a whole model, and holds `training.json` with the epoch (from 1) and
    its logs beside what `save` writes. `fit(initial_epoch=..)` goes on from the best that is there; a fit from epoch 0
    starts anew. Put it after `EvaluateCallback`.

    Args:
        out_dir: folder.
        save: function `(model, folder)` that writes the model into a folder, which exists and is empty.
        monitor: the entry of the logs.
        mode: `"max"`, `"min"`, or `None`: `"min"` for an entry with "loss" in its name.

    Attributes:
        best: `{"monitor": .., "value": .., "epoch": ..}` of the best so far, or `None`.
    """

    def __init__(
        self,
        out_dir: FilePath,
        save: Callable[[Detector, Path], Any],
        monitor: str = "val_AP50",
        mode: Literal["max", "min"] | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("max", "min", None):
            raise ValueError(f'mode must be "max", "min" or None, not {mode!r}.')
        self.out_dir = Path(out_dir)
        self.save = save
        self.monitor = monitor
        self.mode = mode or ("min" if "loss" in monitor else "max")
        self.best: dict[str, Any] | None = None
        self._begun = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._begun:
            self._begun = True
            for name in ("best", "last"):
                recover_folder(self.out_dir / name)
            self.best = self._read_best() if epoch else None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {key: float(value) for key, value in (logs or {}).items() if np.ndim(value) == 0}
        self._write("last", {"epoch": epoch + 1, "logs": logs})
        candidate = self._candidate(epoch, logs)
        if candidate is not None:
            self.best = candidate
            self._write("best", candidate | {"logs": logs})

    def _candidate(self, epoch: int, logs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What is best after this epoch, if it is this epoch. An epoch that `StopOnNaN` has ended is not."""
        if not math.isfinite(logs.get("loss", 0.0)):
            return None
        seen = self.best is not None and self.best["monitor"] == self.monitor
        if not seen and self.monitor not in logs:
            key, mode = "loss", "min"
        else:
            key, mode = self.monitor, self.mode
        value = logs.get(key, math.nan)
        if not math.isfinite(value):
            return None
        rival = self.best["value"] if self.best is not None and self.best["monitor"] == key else None
        if rival is not None and not (value > rival if mode == "max" else value < rival):
            return None
        return {"monitor": key, "value": value, "epoch": epoch + 1}

    def _read_best(self) -> dict[str, Any] | None:
        path = self.out_dir / "best" / "training.json"
        if not path.exists():
            return None
        try:
            best = json.loads(path.read_text(encoding="utf-8"))
            return {"monitor": best["monitor"], "value": float(best["value"]), "epoch": int(best["epoch"])}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not what a training left there ({error}); remove it to begin anew.") from error

    def _write(self, name: str, facts: Mapping[str, Any]) -> None:
        with replacing_folder(self.out_dir / name) as folder:
            self.save(self.model, folder)
            (folder / "training.json").write_text(json.dumps(finite(facts), indent=2) + "\n", encoding="utf-8")


class StopOnNaN(keras.callbacks.Callback):
    """Ends a training whose loss or weights are no longer finite, with the weights as they were before, and says where.

    The loss is looked at after every batch, the weights at the end of every epoch: weights of an infinite learning rate
    can leave the loss finite. The weights are copied to memory at the start of each epoch and every so many batches, if
    they are finite. When something is not, the last copy is put back, the training ends as if it were over (the epoch's
    other callbacks run: the model is evaluated and saved), and an error is logged that names the batch and its images.
    The optimizer's own state is not put back: lower the learning rate and start again rather than go on. Put it first
    in the list.

    Args:
        batches: the `keras_rcnn.data.Batches` of the training, for the images' names; needs `fit(shuffle=False)`,
            since else it is Keras that orders the batches.
        every: int, batches between copies, besides those at the start of an epoch.
        path: a json file for the epoch, the batch, its losses and its images, if any.

    Attributes:
        message: what was logged, or `None`.
        images: names of the images of the batch, empty if not known.
    """

    def __init__(self, batches: Any = None, every: int = 1000, path: FilePath | None = None) -> None:
        super().__init__()
        check_whole("every", every, "batches")
        self.batches = batches
        self.path = path
        self.every = every
        self.message: str | None = None
        self.images: list[str] = []
        self._weights = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._data_epoch = getattr(self.batches, "epoch", None)
        self._first = self._last = None
        if self.message is None:
            self._keep()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = batch  # several batches a call with steps_per_execution; an epoch may go on from its middle

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        first, self._last = batch if self._first is None else self._first, batch
        loss = (logs or {}).get("loss")
        if loss is None or self.message is not None:
            return
        if math.isfinite(float(loss)):
            # a model that builds itself at its first batch had no weights before
            if (batch + 1) // self.every > first // self.every or not self._weights:
                self._keep()
            return
        self.images = self._names(range(first, batch + 1))
        bad = [key for key, value in logs.items() if np.ndim(value) == 0 and not math.isfinite(float(value))]
        where = f"batch {batch + 1}" if first == batch else f"batches {first + 1} to {batch + 1}"
        self._stop(
            f"The loss is not finite ({', '.join(bad)}) at {where} of epoch {self._epoch + 1}. Images: "
            f"{', '.join(self.images) or 'not known'}.",
            "and look at the annotations of these images",
            [first + 1, batch + 1],
            logs or {},
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.message is not None:
            return
        values = zip(self.model.weights, self.model.get_weights(), strict=True)
        bad = [weight.path for weight, value in values if not is_finite(value)]
        if bad:
            if logs:
                logs["loss"] = math.nan  # of weights that are not kept
            self._stop(
                f"{len(bad)} of the model's {len(self.model.weights)} weights are not finite after epoch {epoch + 1} "
                f"({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}).",
                "or begin from other weights",
                [None, None if self._last is None else self._last + 1],
                logs or {},
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._weights = None

    def _stop(self, problem: str, remedy: str, batches: Sequence[int | None], logs: Mapping[str, Any]) -> None:
        self.message = (
            f"{problem} The training ends with the last finite weights; lower the learning rate, lengthen its warmup "
            f"or clip the gradients, {remedy}."
        )
        logger.error(self.message)
        if self._weights:
            self.model.set_weights(self._weights)
        self.model.stop_training = True
        if self.path is not None:
            values = {key: str(float(value)) for key, value in logs.items() if np.ndim(value) == 0}
            facts = {"epoch": self._epoch + 1, "batches": batches, "images": self.images, "logs": values}
            with aside(self.path) as temporary:
                temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def _keep(self) -> None:
        weights = self.model.get_weights()
        if all(map(is_finite, weights)):
            self._weights = weights

    def _names(self, batches: Iterable[int]) -> list[str]:
        source = self.batches
        if source is None or not hasattr(source, "order"):
            return []
        order = source.order(self._data_epoch)
        size = source.batch_size
        return [source.dataset[int(i)].name for b in batches for i in order[b * size : (b + 1) * size]]


def is_finite(values: np.ndarray) -> bool:
    """Whether an array has no NaN and no infinity."""
    return values.dtype.kind not in "fV" or bool(np.isfinite(values.astype(np.float32)).all())  # V: bfloat16


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's, whose patience counts evaluations: an epoch without one is no failure, and nothing is warned of."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.monitor in (logs or {}):
            super().on_epoch_end(epoch, logs)


class WarnOnRise(keras.callbacks.Callback):
    """Says once that the loss of an epoch is far above that of an earlier one: a training that has diverged.

    It goes on: only a look at the curves tells a bad rate from a hard epoch.

    Args:
        history: the training's `HistoryCSV`, which must come first; its rows are there after `--resume`, too.
        first: int, epochs whose losses are others, of earlier steps.
        factor: float, of the lowest epoch's loss.
    """

    def __init__(self, history: HistoryCSV, first: int = 0, factor: float = 1.5) -> None:
        super().__init__()
        check_whole("first", first, "epochs", least=0)
        check_number("factor", factor, 1)
        self.history, self.first, self.factor = history, first, factor
        self.message: str | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rows = [row for row in self.history.rows if row["epoch"] > self.first and "loss" in row]
        if self.message is not None or not rows:
            return
        lowest, last = min(rows, key=lambda row: row["loss"]), rows[-1]
        if math.isfinite(last["loss"]) and last["loss"] > self.factor * lowest["loss"] > 0:
            highest = max(row.get("learning_rate", 0) for row in rows)  # schedules may have lowered it since
            rate = f" than {highest:.2g}" if highest else ""
            self.message = (
                f"The loss has risen from {lowest['loss']:.3g} in epoch {lowest['epoch']} to {last['loss']:.3g} in "
                f"epoch {last['epoch']}: the training may have diverged. Look at "
                f"{self.history.plot or self.history.path}; a lower learning_rate{rate} is the first thing to try."
            )
            logger.warning(self.message)


class TimeLimit(keras.callbacks.Callback):
    """Ends a training in good order when its time is up: after the batch at hand, with the end of its epoch.

    Evaluating and saving at the end of that epoch come after the limit: leave time for them.

    Args:
        minutes: float, from the start of `fit`.
        share: what `WarmupCosine.follow_time` returns, so that the learning rate has come down when the time is up.
    """

    def __init__(self, minutes: float, share: keras.Variable | None = None) -> None:
        super().__init__()
        check_number("minutes", minutes, 0, open_low=True)
        self.minutes, self.share = minutes, share
        self.reached = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.reached = False
        self._end = time.monotonic() + 60 * self.minutes

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        left = self._end - time.monotonic()
        if self.share is not None:
            self.share.assign(min(max(1 - left / (60 * self.minutes), 0.0), 1.0))
        if not self.reached and left <= 0:
            self.reached = True
            self.model.stop_training = True
            logger.warning("The time limit of %g minutes is reached after batch %d.", self.minutes, batch + 1)
