"""A training that is killed at any moment goes on as if it had not been: weights, optimizer, random state, position."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath
from keras_rcnn.models.optimizer import build_optimizer
from keras_rcnn.training.callbacks import is_finite

logger = logging.getLogger(__name__)

_MOST_NAMES = 20_000  # images whose names are kept in a checkpoint; of more there is a hash


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is another training's."""


class Checkpoint(keras.callbacks.Callback):
    """Keeps the whole state of a training in one file, in mid-epoch too, and puts it back.

    That is the weights in float32, the optimizer's variables (moments, averages, accumulated gradients), the state of
    the random generators, the epoch and the batch, the epoch's metrics so far, and what chosen callbacks remember.
    The file is written aside and renamed: kill -9 and a full disk leave the one before. A write that fails is logged,
    and the training goes on; a state that is not finite is not written. `Batches` need no state: order and
    augmentation follow from seed, epoch and index.

    Put it last in the list: what the other callbacks do at the end of an epoch is done again if they were not finished.

    Args:
        path: the file, `.safetensors`.
        batches: the `Batches` of the training.
        minutes: float, between two writes within an epoch; after an epoch's last batch, and after the evaluation that
            may follow it, there is one in any case. None: never.
        steps: int, the same in batches.
        keep: callbacks whose numbers and texts are kept: those that remember earlier epochs, as `EarlyStopping` does.
        other_data: whether a training may go on with other images than it had: one was repaired or removed. The epoch
            that was interrupted then begins again, with the weights that there are.
        settings: dict of what the training was told, to say what is different when it goes on.

    Example:

    >>> checkpoint = Checkpoint("runs/a/checkpoint.safetensors", batches, keep=[stopping])
    >>> epoch, step = checkpoint.restore(model) or (0, 0)
    >>> fit(model, batches, 12, epoch, step, callbacks=[EvaluateCallback(val), stopping, checkpoint])
    """

    def __init__(
        self,
        path: FilePath,
        batches: Any,
        minutes: float | None = 10.0,
        steps: int | None = None,
        keep: Sequence[keras.callbacks.Callback] = (),
        other_data: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if minutes is not None:
            check_number("minutes", minutes, 0, what="or None", open_low=True)
        if steps is not None:
            check_whole("steps", steps, "batches, or None")
        self.path, self.batches, self.minutes, self.steps, self.keep = Path(path), batches, minutes, steps, list(keep)
        self.other_data = other_data
        self.settings = {name: repr(value) for name, value in (settings or {}).items()}
        self._pending = None
        self._epoch = self._done = 0

    def restore(self, model: keras.Model) -> tuple[int, int] | None:
        """Puts the state in the file into a compiled model, and what is to follow into `fit`'s callbacks.

        Args:
            model: as it was built and compiled in the training that is to go on.

        Returns:
            `(epoch, step)`, the epochs and the batches of the next one that are done; None if there is no file.

        Raises:
            CheckpointError: it is no checkpoint, or one of another model, optimizer or data.
        """
        for leftover in self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
        if not self.path.is_file():
            return None
        state, facts = self._read()
        changes = _changes(facts["batches"], self._batches())
        if changes and self.other_data:
            logger.warning("Since %s was written: %s.", self.path, "; ".join(changes))
            facts["step"] = 0
        elif changes and facts["step"]:
            raise CheckpointError(
                f"{self.path} is from the middle of an epoch of other batches. Since then: {'; '.join(changes)}. Go on "
                "with the same data, batch_size and seed; begin that epoch again with --resume-with-other-data (in "
                "Python Checkpoint(other_data=True)); or remove the file to begin anew."
            )
        build_optimizer(model)
        chosen = _variables(model)
        wrong = [
            f"{variable.path} {tuple(variable.shape)}"
            for key, variable in chosen.items()
            if key not in state or state[key].shape != tuple(variable.shape)
        ]
        extra = [key for key in state if key not in chosen and not key.startswith("totals/")]
        if wrong or extra:
            raise CheckpointError(
                f"{self.path} is of another model or optimizer: {len(wrong)} of {len(chosen)} variables are not in it, "
                f"{', '.join(wrong[:3]) or 'but it has more'}. Go on with the same recipe, or remove the file to begin "
                "anew."
            )
        for key, variable in chosen.items():
            variable.assign(state[key])
        told = _other_settings(facts.get("settings") or self.settings, self.settings)  # an earlier version wrote none
        if told:
            logger.warning("%s goes on with other settings: %s.", self.path, ", ".join(told))
        totals = {key.removeprefix("totals/"): value for key, value in state.items() if key.startswith("totals/")}
        self._pending = (totals, facts["callbacks"])
        return facts["epoch"], facts["step"]

    # === In fit ===

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._done = epoch, 0
        if self._pending is None:
            return
        totals, callbacks = self._pending
        self._pending = None
        for name, values in totals.items():
            if name in self.params.get("totals", {}):
                self.params["totals"][name][...] = values
        for callback in self.keep:
            vars(callback).update(callbacks.get(type(callback).__name__, {}))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._done = self._done, batch + 1
        by_steps = self.steps and self._done // self.steps > before // self.steps
        by_time = self.minutes and time.monotonic() - self._written >= 60 * self.minutes
        # before the evaluation, which can take minutes in which a training is ended
        last = self._done == (self.params or {}).get("steps")
        if by_steps or by_time or last:
            self.write(self._epoch, self._done)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.write(epoch + 1, 0)

    def write(self, epoch: int, step: int) -> None:
        """Writes the state after `step` batches of an epoch."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        model = self.model
        variables = _variables(model)
        state = {key: np.array(keras.ops.convert_to_numpy(value), order="C") for key, value in variables.items()}
        bad = [variables[key].path for key, value in state.items() if not is_finite(value)]
        if bad:
            logger.error("%s is not written: %s is not finite. The one before is left.", self.path, bad[0])
            return
        if step:
            state |= {f"totals/{name}": values for name, values in self._totals(model).items()}
        facts = {
            "epoch": int(epoch),
            "step": int(step),
            "batches": self._batches(),
            "settings": self.settings,
            "callbacks": {type(callback).__name__: _memory(callback) for callback in self.keep},
        }
        try:
            with aside(self.path) as temporary:
                save_file(state, temporary, metadata={"keras_rcnn": json.dumps(facts)})
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
        except (OSError, SafetensorError) as error:
            logger.error(
                "%s could not be written (%s); the one before is left. The training goes on.", self.path, error
            )
        self._written = time.monotonic()

    def _totals(self, model: keras.Model) -> dict[str, Any]:
        if "totals" in self.params:
            return self.params["totals"]
        return {
            metric.name: np.array([keras.ops.convert_to_numpy(value) for value in metric.variables])
            for metric in model.metrics
        }

    def _batches(self) -> dict[str, Any]:
        batches = self.batches
        names = [str(getattr(record, "name", record)) for record in batches.dataset]
        return {
            "images": len(names),
            "batch_size": batches.batch_size,
            "seed": batches.seed,
            "shuffle": bool(batches.shuffle),
            "names": names if len(names) <= _MOST_NAMES else hashlib.sha256("\n".join(names).encode()).hexdigest(),
        }

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})["keras_rcnn"])
                return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118 (it is no dict)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path}: not a checkpoint ({error}); remove it to begin anew.") from error


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different about the batches, in words."""
    changes = [
        f"{key} is {now[key]!r} and was {before[key]!r}"
        for key in ("batch_size", "seed", "shuffle")
        if before[key] != now[key]
    ]
    old, new = before.get("names"), now["names"]
    if old is None or old == new:  # None: an earlier version's file
        return (
            changes
            if before["images"] == now["images"]
            else [*changes, f"{now['images']} images, not {before['images']}"]
        )
    if not isinstance(old, list) or not isinstance(new, list):
        return [*changes, f"the images are others ({before['images']} then, {now['images']} now)"]
    for change, names in (("removed", set(old) - set(new)), ("added", set(new) - set(old))):
        if names:
            shown = sorted(names)
            changes.append(f"{len(names)} images {change} ({', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''})")
    return changes or ["the images are in another order"]


def _other_settings(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which settings are not as they were, in words; those that are left out have their default."""
    return [
        f"{name}={now.get(name, 'its default')} (was {before.get(name, 'its default')})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Everything that a step changes, by a key that is the same in the next process; metrics are left out."""
    metrics = {id(value) for metric in model.metrics for value in metric.variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    keys = {f"model/{i:05}": variable for i, variable in enumerate(own)}
    return keys | {f"optimizer/{i:05}": variable for i, variable in enumerate(model.optimizer.variables)}


def _memory(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's numbers and texts."""
    plain = {}
    for name, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        if not name.startswith("_") and isinstance(value, (bool, int, float, str, type(None))):
            plain[name] = value
    return plain
