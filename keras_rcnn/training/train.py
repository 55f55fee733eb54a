"""A whole training: recipe -> settings -> data -> detector -> plan -> preset."""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras

from keras_rcnn.data import Dataset, check_masks
from keras_rcnn.interfaces import FilePath
from keras_rcnn.models import Detector
from keras_rcnn.precision import precision
from keras_rcnn.survey import BUILT, View, short_text, suggestions, survey
from keras_rcnn.training import build, distribute
from keras_rcnn.training.folder import occupied
from keras_rcnn.training.plans import plan_for
from keras_rcnn.training.recipe import load_recipe
from keras_rcnn.training.run import Run
from keras_rcnn.training.settings import RecipeError, Settings, listed

# what is told at the start; the command line shows it
logger = logging.getLogger("keras_rcnn.survey")


def train(
    settings: Settings | Mapping[str, Any] | FilePath,
    out: FilePath,
    resume: bool = False,
    verbose: Literal[0, 1, 2] = 1,
    other_data: bool = False,
) -> Path:
    """Trains a detector and leaves a preset folder.

    `out` then holds the preset (the best model), `best/` and `last/`, `history.csv` and `history.png`. A killed run
    goes on with `resume=True` from its last checkpoint, within an epoch too, as if it had not been killed. R-CNN and
    the alternating training leave files of their stages as well: see `keras_rcnn.training.plans`.

    Args:
        settings: `Settings`, a dict of them, or the path of a recipe.
        out: folder.
        resume: bool.
        verbose: as in `fit`.
        other_data: with `resume`, whether the images may be others than before; see `Checkpoint`.

    Returns:
        `out` as a `pathlib.Path`.

    Raises:
        RecipeError, DataError, FolderError: before anything is trained.
        TrainingDiverged: loss or weights are not finite; `best/` has the best model from before, if there is one.
        TrainingInterrupted: after SIGTERM or Ctrl-C, when the checkpoint has been written.
        ClusterError: of the strategy multiworker, a worker that does not come or has gone.

    Example:

    >>> data = {"coco": "train.json", "images": "train"}
    >>> keras_rcnn.train({"train": data, "val_fraction": 0.2, "epochs": 12}, "runs/mine")
    """
    settings = _settings(settings)
    detector = build.detector_of(settings)
    plan = plan_for(settings, detector)
    problems = build.check(settings, detector) + plan.check(settings, detector)
    if problems:
        raise RecipeError(listed(problems))
    devices = distribute.strategy(settings.strategy)  # before anything else of TensorFlow
    out = Path(out)
    with occupied(out) if distribute.is_chief(devices) else contextlib.nullcontext():
        keras.utils.set_random_seed(settings.seed)
        training, validation = build.load_both(settings)
        settings, model = _built(settings, training, validation, devices)
        if model.has_masks:
            training = check_masks(training, settings.on_bad, settings.difficult)
            if validation is not None and any(record.segmentations is not None for record in validation):
                validation = check_masks(validation, settings.on_bad)
        plan.train(Run(settings, out, training, validation, devices, resume, verbose, other_data), model)
    return out


def _built(
    settings: Settings, training: Dataset, validation: Dataset | None, devices: Any
) -> tuple[Settings, Detector]:
    """The settings and the detector, both as the data suggest if the settings ask for it."""
    fixed = [*settings.changed(), *(BUILT if settings.base is not None else ())]
    with devices.scope(), precision(settings.precision):
        counts = build.class_counts(training, settings.difficult)
        model = build.build_model(settings, training.class_names, counts, training.skeleton)
        suggested = suggestions(training, View.of(model), fixed) if settings.auto else {}
        if suggested:
            logger.info("Chosen for the data: %s", ", ".join(f"{key}={value}" for key, value in suggested.items()))
            settings = settings.replace(**suggested)
            keras.utils.set_random_seed(settings.seed)  # as if these had been given
            model = build.build_model(settings, training.class_names, counts, training.skeleton)
    if distribute.is_chief(devices):
        logger.info(short_text(survey(training, validation, View.of(model), fixed=fixed, compare_photos=False)))
    return settings, model


def _settings(given: Settings | Mapping[str, Any] | FilePath) -> Settings:
    if isinstance(given, Settings):
        return given
    if isinstance(given, (str, os.PathLike)):
        return load_recipe(given)
    if isinstance(given, Mapping):
        return Settings(**given)
    raise TypeError(f"settings are Settings, a dict or the path of a recipe, not {given!r}.")
