"""A whole training from settings: data, model, optimizer, callbacks, and a preset folder at the end."""

import contextlib
import json
import logging
import math
import os
import shutil
import time
from pathlib import Path

import keras

from keras_rcnn.convert import assign
from keras_rcnn.data import check_masks, check_targets
from keras_rcnn.data.files import aside
from keras_rcnn.evaluation import EvaluateCallback, coco_metrics, evaluate
from keras_rcnn.evaluation.evaluate import has_masks
from keras_rcnn.models import RCNN, FasterRCNN
from keras_rcnn.models.rcnn_stages import plot_violations, stage_detections
from keras_rcnn.precision import policy, precision
from keras_rcnn.presets import detector_class, from_preset, save_preset, to_json
from keras_rcnn.training import distribute
from keras_rcnn.training.alternating import alternate
from keras_rcnn.training.averages import WithAverages
from keras_rcnn.training.build import build_augment, build_model, check_base, find_proposals, load_data
from keras_rcnn.training.callbacks import (
    BestAndLast,
    EarlyStopping,
    HistoryCSV,
    StopOnNaN,
    TimeLimit,
    WarnOnRise,
)
from keras_rcnn.training.checkpoint import Checkpoint
from keras_rcnn.training.folder import occupied
from keras_rcnn.training.interrupt import Interruption
from keras_rcnn.training.optimizer import build_optimizer, slow_down
from keras_rcnn.training.pictures import Pictures
from keras_rcnn.training.recipe import RecipeError
from keras_rcnn.training.settings import check_settings

logger = logging.getLogger(__name__)

def train(settings, out, resume=False, verbose=1, other_data=False):
    """Trains a detector and leaves a preset folder.

    `out` then holds the preset (the best model), `best/` and `last/`, `history.csv` and `history.png`. A killed run
    goes on with `resume=True` from its last checkpoint, within an epoch too, as if it had not been killed.

    R-CNN's `fit` is the fine-tuning; after it come SVMs and box regressors, whose gains are in `stages.json` and whose
    mining is drawn in `violations.png`. With `alternating`, Faster R-CNN is trained in four steps.

    Args:
        settings: a namespace with some of `DEFAULTS`, from `load_recipe` or `default_settings`.
        out: folder.
        resume: bool.
        verbose: as in `fit`.
        other_data: with `resume`, whether the images may be others than before; see `Checkpoint`.

    Returns:
        `out` as a `pathlib.Path`.

    Raises:
        RecipeError, DataError, FolderError: before anything is trained.
        TrainingInterrupted: after SIGTERM or Ctrl-C, when the checkpoint has been written.
        ClusterError: of the strategy multiworker, a worker that does not come or has gone.
    """
    settings = check_settings(settings)
    check_base(settings)
    if settings.train is None:
        raise RecipeError("The settings name no training data: set train = {'coco': ..., 'images': ...}.")
    try:
        policy(settings.precision)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    if settings.jit_compile is True and settings.strategy in ("mirrored", "multiworker"):
        raise RecipeError(
            f"jit_compile = True: under the strategy {settings.strategy} devices exchange gradients within the step, "
            "which TensorFlow does not compile. Leave jit_compile unset, or take the strategy jax."
        )
    kind = None if settings.base is None else detector_class(settings.base)
    _check_patience(settings, kind or (RCNN if settings.detector == "rcnn" else None))
    devices = distribute.strategy(settings.strategy)  # before anything else of TensorFlow
    out = Path(out)
    with occupied(out) if distribute.is_chief(devices) else contextlib.nullcontext():
        _train(settings, out, resume, verbose, devices, other_data)
    return out


def _train(settings, out, resume, verbose, devices, other_data):
    keras.utils.set_random_seed(settings.seed)
    training = load_data(settings.train, settings.on_bad)
    validation = None
    if settings.val:
        validation = load_data(settings.val, settings.on_bad, training.class_names)
    elif settings.hold_out:
        training, validation = training.split(settings.hold_out, settings.seed)
    check_targets(training, settings.difficult)
    with devices.scope(), precision(settings.precision):
        model = build_model(settings, training.class_names)
    _check_patience(settings, type(model))
    _check_proposals(settings, model)
    if model.has_masks:
        training = check_masks(training, settings.on_bad, settings.difficult)
        if validation is not None and any(record.segmentations is not None for record in validation):
            validation = check_masks(validation, settings.on_bad)
    run = _Run(settings, out, training, validation, resume, verbose, devices, other_data)
    if settings.alternating is not None:
        run.alternating(model)
        return
    run.find_proposals(model)
    run.fit(model, settings.epochs)
    if not distribute.is_chief(devices):
        return
    best = out / "best" if (out / "best").is_dir() else out / "last"
    if isinstance(model, RCNN):
        run.stages(from_preset(best))
        return
    for file in ("preset.json", "weights.safetensors"):
        with aside(out / file) as temporary:
            shutil.copyfile(best / file, temporary)


def _check_patience(settings, kind):
    """Refuses a patience that would never end anything; `kind` is the detector's class, None if not known yet."""
    if not settings.patience:
        return
    staged = kind is not None and issubclass(kind, RCNN)
    if staged or not (settings.val or settings.hold_out):
        why = "R-CNN is evaluated after its stages" if staged else "there is no val, nor hold_out"
        raise RecipeError(f"patience = {settings.patience} counts evaluations of an epoch, and {why}.")


def _check_proposals(settings, model):
    """Refuses files of proposals for a detector that finds its own."""
    given = [key for key in ("train_proposals", "val_proposals") if getattr(settings, key)]
    if given and not model.wants_proposals:
        raise RecipeError(f"{given[0]} = {getattr(settings, given[0])!r}: {type(model).__name__} finds its own.")


class _Run:
    """One training: its settings, data and folder."""

    def __init__(self, settings, out, training, validation, resume, verbose, devices, other_data=False):
        self.other_data = other_data
        self.settings, self.out, self.resume, self.verbose = settings, out, resume, verbose
        self.devices, self.training, self.validation = devices, training, validation
        self.proposals = self.val_proposals = None
        self.started, self.cpu = time.monotonic(), _cpu_seconds()
        self.before = _spent(out / "last") if resume else {}

    def find_proposals(self, model):
        """For a detector that is told where to look: selective search, or files."""
        if not model.wants_proposals:
            return
        settings = self.settings
        cache = settings.search_cache or self.out / "proposals"
        self.proposals = find_proposals(settings, self.training, cache, settings.train_proposals)
        if self.validation is not None:
            self.val_proposals = find_proposals(settings, self.validation, cache, settings.val_proposals)

    def fit(self, model, epochs, first=0, proposals=None, saved=True, name="checkpoint"):
        """Fits a detector, evaluated and saved after each epoch; `first` epochs came before, in other steps.

        `name` is the checkpoint's.
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
            difficult=settings.difficult,
            masks=model.has_masks,
            proposals=proposals or self.proposals,
        )
        with self.devices.scope():
            optimizer = build_optimizer(settings, epochs, len(batches))
            slow_down(optimizer, model.parts["backbone"].variables, settings.backbone_rate)
            model.compile(optimizer, jit_compile="auto" if settings.jit_compile is None else settings.jit_compile)
        callbacks = [StopOnNaN(batches, path=self.out / "not_finite.json")]
        if settings.minutes:
            callbacks.append(TimeLimit(settings.minutes))
        kept = self._evaluation_callbacks(model) if saved else []
        stopping = [one for one in kept if isinstance(one, EarlyStopping)]
        callbacks += [WithAverages(kept)] if settings.ema and kept else kept
        history = HistoryCSV(self.out / "history.csv", plot=self.out / "history.png")
        callbacks += [history, WarnOnRise(history, first)]
        if settings.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(self.out / "board", write_graph=False))
            if self.validation is not None and saved:
                callbacks.append(Pictures(self.out / "board", self.validation, proposals=self.val_proposals))
        checkpoint = Checkpoint(
            self.out / f"{name}.safetensors",
            batches,
            minutes=settings.checkpoint_minutes,
            keep=stopping,
            other_data=self.other_data,
        )
        position = checkpoint.restore(model) if self.resume and distribute.is_chief(self.devices) else None
        if self.resume and position is None and saved:
            logger.warning("%s is not there to go on from; the training starts anew.", checkpoint.path)
        epoch, step = position or (first, 0)
        interruption = Interruption(checkpoint)
        with interruption.listening() if distribute.is_chief(self.devices) else contextlib.nullcontext():
            return distribute.fit(
                model,
                batches,
                max(first + epochs, epoch),
                epoch,
                step,
                [*callbacks, checkpoint, interruption],
                self.devices,
                self.verbose,
            )

    def _evaluation_callbacks(self, model):
        """Those that see the weights that are kept: evaluation, the best and the last model, and an early end."""
        settings, callbacks, evaluation, monitor = self.settings, [], None, "loss"
        if self.validation is not None:
            monitor = "val_segm_AP50" if model.has_masks and has_masks(self.validation) else "val_AP50"
        # R-CNN's evaluation takes seconds an image, and comes with its stages
        if self.validation is not None and not isinstance(model, RCNN):
            evaluation = EvaluateCallback(
                self.validation,
                every=settings.evaluate_every,
                max_detections=settings.eval_detections,
                proposals=self.val_proposals,
            )
            callbacks.append(evaluation)
            if settings.patience:
                callbacks.append(EarlyStopping(monitor, mode="max", patience=settings.patience))

        def save(model, folder):
            self.save(model, folder, evaluation and evaluation.last)

        return [*callbacks, BestAndLast(self.out, save, monitor=monitor)]

    def stages(self, model):
        """R-CNN's SVMs and box regressors; the preset in `out` has both."""
        settings, cache, results, found = self.settings, self.out / "features", {}, None
        common = {"cache": cache, "progress": bool(self.verbose)}
        if settings.svms is not None:
            results["mining"] = model.fit_svms(self.training, self.proposals, **common, **settings.svms)
            plot_violations(results["mining"], self.out / "violations.png")
        if settings.box_regressors is not None:
            results["regression"] = model.fit_box_regressors(
                self.training, self.proposals, **common, **settings.box_regressors
            )
        if self.validation is not None:
            for name, detections in stage_detections(
                model, self.validation, self.val_proposals, common["progress"]
            ).items():
                found = coco_metrics(self.validation, detections, max_detections=settings.eval_detections)
                results[name] = {"per_class": found.pop("per_class"), "bbox": found}
            # without SVMs, their scores are the softmax's, and without regressors the deltas 0
            found = results["svms_boxes"]
        with aside(self.out / "stages.json") as temporary:
            temporary.write_text(to_json(_finite(results)), encoding="utf-8")
        self.save(model, self.out, found)
        shutil.rmtree(cache, ignore_errors=True)

    def alternating(self, model):
        """The four steps; `step_1` to `step_3` keep the weights after each until the end."""
        settings = self.settings
        steps = settings.alternating
        if type(model) is not FasterRCNN:
            raise RecipeError("alternating is Faster R-CNN's training: leave masks and detector unset.")
        if len(steps) != 4 or min(steps) < 1:
            raise RecipeError(f"alternating = {steps}: the epochs of each of the four steps.")
        if settings.minutes:
            raise RecipeError("minutes ends a joint training; of an alternating one, choose the epochs.")
        if settings.strategy == "multiworker":
            raise RecipeError("alternating trains on the devices of one machine: leave strategy, or make it mirrored.")
        start = {part: model.parts[part].get_weights() for part in ("backbone", "neck")}
        done = self._done(model) if self.resume else 0

        def fit(step, detector, proposals):
            name = f"checkpoint_{step + 1}"
            self.fit(detector, steps[step], sum(steps[:step]), proposals, saved=False, name=name)
            if step < 3:
                self._keep(model, step + 1)
                (self.out / f"{name}.safetensors").unlink(missing_ok=True)

        alternate(model, self.training, fit, bool(self.verbose), done, start)
        found = None
        if self.validation is not None:
            found = evaluate(model, self.validation, progress=bool(self.verbose))
        self.save(model, self.out, found)
        for file in ("step_1", "step_2", "step_3", "checkpoint_4"):
            (self.out / f"{file}.safetensors").unlink(missing_ok=True)

    def _keep(self, model, step):
        from safetensors.numpy import save_file

        with aside(self.out / f"step_{step}.safetensors") as temporary:
            save_file({w.path: keras.ops.convert_to_numpy(w) for w in model.weights}, temporary)

    def _done(self, model):
        """Puts the weights of the last whole step into the model; returns its number."""
        from safetensors.numpy import load_file

        for step in (3, 2, 1):
            path = self.out / f"step_{step}.safetensors"
            if path.is_file():
                assign(model, load_file(path))
                return step
        return 0

    def save(self, model, folder, found):
        """A preset with what was found on the validation data, and the time that it took."""
        settings, metrics = self.settings, {}
        if found is not None:
            metrics = {"dataset": self.validation.name, **{k: v for k, v in found.items() if k != "per_class"}}
        metrics["seconds"] = round(self.before.get("seconds", 0) + time.monotonic() - self.started)
        metrics["cpu_seconds"] = round(self.before.get("cpu_seconds", 0) + _cpu_seconds() - self.cpu)
        save_preset(
            model,
            folder,
            dtype=settings.weights_dtype,
            name=settings.name,
            title=settings.title,
            license=settings.license,
            source=settings.source,
            notes=settings.notes,
            metrics=metrics,
        )


def _spent(folder):
    """The time that a training had taken when it saved this folder."""
    try:
        return json.loads((folder / "preset.json").read_text(encoding="utf-8")).get("metrics") or {}
    except (OSError, ValueError):
        return {}


def _cpu_seconds():
    """Of this process and those of its children that have ended."""
    return sum(os.times()[:4])


def _finite(values):
    """Dicts and lists with None for NaN, which JSON does not have."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values
