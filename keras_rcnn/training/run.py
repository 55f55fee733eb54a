"""One training as a plan sees it: its data, folder, clock and devices, and `fit` with all that goes around it."""

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_rcnn.data import Dataset, ProposalSet
from keras_rcnn.evaluation import EvaluateCallback
from keras_rcnn.evaluation.scoring import has_masks
from keras_rcnn.files import aside
from keras_rcnn.models import Detector
from keras_rcnn.presets import save_preset
from keras_rcnn.training import distribute
from keras_rcnn.training.averages import WithAverages
from keras_rcnn.training.build import build_augment, find_proposals
from keras_rcnn.training.callbacks import BestAndLast, EarlyStopping, StopOnNaN, TimeLimit, WarnOnRise
from keras_rcnn.training.checkpoint import Checkpoint
from keras_rcnn.training.history import HistoryCSV
from keras_rcnn.training.interrupt import Interruption
from keras_rcnn.training.keras_internals import slow_down
from keras_rcnn.training.optimizer import build_optimizer, build_rate
from keras_rcnn.training.pictures import Pictures
from keras_rcnn.training.progress import ProgressLines
from keras_rcnn.training.schedules import WarmupCosine
from keras_rcnn.training.settings import Settings
from keras_rcnn.training.silent import SilentUnits

logger = logging.getLogger(__name__)

# of the learning rate: at all of it, the statistics of frozen normalisation no longer fit, and units fall silent
BACKBONE_SHARE = 0.5
EPOCHS, ENDLESS = 20, 10_000  # where nobody says how many: without a time limit, and with one


class TrainingDiverged(ValueError):
    """The loss or a weight is no longer finite; the message says where, and what to try."""


class Run:
    """One training, without a word about what is trained.

    Args:
        settings: `Settings`.
        out: `pathlib.Path` of the folder, which is there and this process's alone.
        training: `Dataset`.
        validation: `Dataset`, or None.
        devices: of `distribute.strategy`.
        resume: whether to go on from the checkpoints in the folder.
        verbose: as in `fit`.
        other_data: see `Checkpoint`.
    """

    # a `ProposalSet`, or None for a detector that finds its own
    proposals: Any
    val_proposals: Any

    def __init__(
        self,
        settings: Settings,
        out: Path,
        training: Dataset,
        validation: Dataset | None,
        devices: Any,
        resume: bool = False,
        verbose: int = 1,
        other_data: bool = False,
    ) -> None:
        self.settings, self.out = settings, out
        self.training, self.validation, self.devices = training, validation, devices
        self.resume, self.verbose, self.other_data = resume, verbose, other_data
        self.chief = distribute.is_chief(devices)
        self.proposals = self.val_proposals = None
        self._started, self._cpu = time.monotonic(), _cpu_seconds()
        self._spent = _spent(out / "last") if resume else {}

    def find_proposals(self, model: Detector) -> None:
        """For a detector that is told where to look: selective search, or the files of the settings."""
        if not model.wants_proposals:
            return
        settings = self.settings
        cache = settings.proposals_cache or self.out / "proposals"
        self.proposals = find_proposals(settings, self.training, cache, settings.train_proposals)
        if self.validation is not None:
            self.val_proposals = find_proposals(settings, self.validation, cache, settings.val_proposals)

    def keep(self, model: Detector, evaluated: bool = True) -> list[keras.callbacks.Callback]:
        """The callbacks of `fit` that evaluate a model after its epochs, save the best and the last, and end early.

        Args:
            model: `Detector`.
            evaluated: whether AP is measured after an epoch. If not, the lowest loss is the best.
        """
        settings, callbacks, evaluation, monitor = self.settings, [], None, "loss"
        if evaluated and self.validation is not None:
            monitor = "val_segm_AP50" if model.has_masks and has_masks(self.validation) else "val_AP50"
            if model.skeleton is not None and self.validation.skeleton is not None:
                monitor = "val_keypoints_AP50"
            evaluation = EvaluateCallback(
                self.validation,
                every=settings.evaluate_every,
                max_detections=settings.eval_max_detections,
                proposals=self.val_proposals,
            )
            callbacks.append(evaluation)
            if settings.patience:
                callbacks.append(EarlyStopping(monitor, mode="max", patience=settings.patience))

        silent = None
        if settings.strategy is None:
            silent = SilentUnits(self.validation or self.training, settings.evaluate_every)
            callbacks.append(silent)

        def save(model: Detector, folder: Path) -> None:
            measured = evaluation and evaluation.last, evaluation and evaluation.thresholds
            self.save(model, folder, *measured, silent and silent.last)

        return [*callbacks, BestAndLast(self.out, save, monitor=monitor)]

    def fit(
        self,
        model: Detector,
        epochs: int | None,
        kept: Sequence[keras.callbacks.Callback] = (),
        first: int = 0,
        proposals: ProposalSet | None = None,
        name: str = "checkpoint",
    ) -> keras.callbacks.History:
        """Compiles and fits a detector, from its checkpoint if the training goes on.

        Args:
            model: `Detector`.
            epochs: int; None for `EPOCHS`, or as many as there is time for.
            kept: what `keep` returned; nothing for a step whose weights are not the training's result.
            first: int, epochs that came before, in other steps.
            proposals: `ProposalSet`, instead of those that `find_proposals` found.
            name: the checkpoint's.

        Returns:
            `keras.callbacks.History`.

        Raises:
            TrainingDiverged: the model then has its last finite weights, and they are saved.
            TrainingInterrupted: by a signal; the checkpoint has been written.
        """
        settings = self.settings
        batches = self.training.batches(
            model.preprocessor,
            batch_size=settings.batch_size,
            shuffle=True,
            augment=build_augment(settings.augment),
            seed=settings.seed,
            cache=settings.cache,
            max_objects=settings.max_objects,
            min_sizes=settings.train_min_sizes,
            repeat_threshold=settings.repeat_threshold,
            difficult=settings.difficult,
            masks=model.has_masks,
            keypoints=model.skeleton is not None,
            proposals=proposals or self.proposals,
        )
        # not with several workers: each has a clock of its own, and their rates must be the same; not in JAX's steps
        by_time = bool(settings.minutes) and settings.strategy != "multiworker" and keras.backend.backend() != "jax"
        if epochs is None:
            epochs = ENDLESS if by_time and settings.lr_drop_epochs is None else EPOCHS
        with self.devices.scope():
            rate = build_rate(settings, epochs, len(batches))
            share = rate.follow_time() if by_time and isinstance(rate, WarmupCosine) else None
            optimizer = build_optimizer(settings, rate)
            slow_down(optimizer, model.parts["backbone"].variables, _backbone_share(settings))
            model.compile(optimizer, jit_compile="auto" if settings.jit_compile is None else settings.jit_compile)
        guard = StopOnNaN(batches, path=self.out / "not_finite.json")
        callbacks = [guard, *([TimeLimit(settings.minutes, share)] if settings.minutes else [])]
        callbacks += [ProgressLines()] if self.verbose == 2 else []
        callbacks += [WithAverages(kept)] if settings.ema_momentum and kept else kept
        history = HistoryCSV(self.out / "history.csv", plot=self.out / "history.png")
        callbacks += [history, WarnOnRise(history, first), *(self._board() if settings.tensorboard else [])]
        checkpoint = Checkpoint(
            self.out / f"{name}.safetensors",
            batches,
            minutes=settings.checkpoint_minutes,
            keep=[callback for callback in kept if isinstance(callback, EarlyStopping)],
            other_data=self.other_data,
            settings=settings.changed(),
        )
        position = checkpoint.restore(model) if self.resume and self.chief else None
        if self.resume and position is None and kept:
            logger.warning("%s is not there to go on from; the training starts anew.", checkpoint.path)
        epoch, step = position or (first, 0)
        if epoch >= first + epochs:
            logger.warning("%s: the training has had its %d epochs already.", checkpoint.path, epoch)
        interruption = Interruption(checkpoint)
        callbacks += [checkpoint, interruption]
        with interruption.listening() if self.chief else contextlib.nullcontext():
            fitted = distribute.fit(
                model, batches, max(first + epochs, epoch), epoch, step, callbacks, self.devices, self.verbose
            )
        if guard.message is not None:
            raise TrainingDiverged(f"{guard.message} {self._last_resort()}")
        return fitted

    def best(self) -> Path:
        """The folder of the best model so far."""
        return self.out / "best" if (self.out / "best").is_dir() else self.out / "last"

    def publish(self) -> None:
        """Makes the best model so far the preset in the training's own folder."""
        for file in ("preset.json", "weights.safetensors"):
            with aside(self.out / file) as temporary:
                shutil.copyfile(self.best() / file, temporary)

    def save(
        self,
        model: Detector,
        folder: Path,
        metrics: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, float] | None = None,
        silent: Mapping[str, Any] | None = None,
    ) -> None:
        """A preset with what was measured on the validation data, and the time that the training took.

        Args:
            model: `Detector`.
            folder: path.
            metrics: of `evaluate`, if any.
            thresholds: of `best_thresholds`, if any.
            silent: of `silent_units`, if it was measured.
        """
        settings, facts = self.settings, {}
        if metrics is not None:
            facts = {"dataset": self.validation.name, **{k: v for k, v in metrics.items() if k != "per_class"}}
        if silent:
            facts["silent_units"] = silent
        facts["seconds"] = round(self._spent.get("seconds", 0) + time.monotonic() - self._started)
        facts["cpu_seconds"] = round(self._spent.get("cpu_seconds", 0) + _cpu_seconds() - self._cpu)
        save_preset(
            model,
            folder,
            dtype=settings.weights_dtype,
            name=settings.name,
            title=settings.title,
            license=settings.license,
            source=settings.source,
            notes=settings.notes,
            metrics=facts,
            thresholds=thresholds,
        )

    def _board(self) -> Iterator[keras.callbacks.Callback]:
        folder = self.out / "board"
        yield keras.callbacks.TensorBoard(folder, write_graph=False)
        if self.validation is not None:
            yield Pictures(folder, self.validation, proposals=self.val_proposals)

    def _last_resort(self) -> str:
        path = self.out / "best" / "training.json"
        if not path.is_file():
            return "No epoch was whole: there is no trained preset."
        return f"{path.parent} is the best model from before (epoch {json.loads(path.read_text())['epoch']})."


def _spent(folder: Path) -> dict[str, Any]:
    """The time that a training had taken when it saved this folder."""
    try:
        return json.loads((folder / "preset.json").read_text(encoding="utf-8")).get("metrics") or {}
    except (OSError, ValueError):
        return {}


def _cpu_seconds() -> float:
    """Of this process and those of its children that have ended."""
    return sum(os.times()[:4])


def _backbone_share(settings: Settings) -> float:
    if settings.backbone_lr_multiplier is not None:
        return settings.backbone_lr_multiplier
    return 1.0 if settings.backbone_weights == "random" else BACKBONE_SHARE
