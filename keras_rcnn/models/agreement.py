"""Whether a model and a data set mean the same classes."""

from collections.abc import Iterable
from typing import Any

import keras


def agree_on_classes(model: keras.Model, batches: Any) -> None:
    """Compares a model's classes with those of the data set of batches; a model without names takes them from it.

    Raises:
        ValueError: they are not the same in the same order; the message says what to do.
    """
    names = getattr(getattr(batches, "dataset", None), "class_names", None)
    if names is None:
        return
    named = model.class_names != [str(i) for i in range(model.num_classes)]
    if len(names) == model.num_classes and list(names) == list(model.class_names):
        return
    load = "load its preset by from_preset(..., class_names=dataset.class_names)"
    if named and sorted(names) == sorted(model.class_names):
        raise ValueError(
            f"The dataset's classes are {_short(names)}, in this order; the model's are the same in another, "
            f"{_short(model.class_names)}. To go on with what it knows of them, {load}. (A model without a preset "
            "is saved by save_preset first.)"
        )
    if len(names) != model.num_classes:
        raise ValueError(
            f"The dataset has {len(names)} classes {_short(names)}, the model num_classes={model.num_classes} "
            f"{_short(model.class_names)}. Build the model with num_classes={len(names)}, or {load}: classes of the "
            "same name keep what it knows of them, and the predictors are new for the others."
        )
    if named:
        raise ValueError(
            f"The dataset's classes are {_short(names)}, in this order; the model's are "
            f"{_short(model.class_names)}. If these are other names of the same classes, set model.class_names = "
            f"dataset.class_names; else {load}."
        )
    model.class_names = list(names)  # a model without names takes them from its first dataset


def _short(names: Iterable[str]) -> str:
    names = list(names)
    return f"[{', '.join(map(str, names[:8]))}{', ...' if len(names) > 8 else ''}]"


def agree_on_keypoints(model: Any, batches: Any) -> None:
    """Compares a model's keypoints with those of batches.

    Raises:
        ValueError: the model learns keypoints that the batches have not.
    """
    if model.skeleton is None:
        return
    if not getattr(batches, "keypoints", True):
        raise ValueError(f"{type(model).__name__} learns keypoints: dataset.batches(..., keypoints=True).")
    given = getattr(getattr(batches, "dataset", None), "skeleton", None)
    if given is not None and len(given) != len(model.skeleton):
        raise ValueError(
            f"The dataset has {len(given)} keypoints {_short(given.names)}, the model {len(model.skeleton)} "
            f"{_short(model.skeleton.names)}: give it a KeypointHead({len(given)}, names=dataset.skeleton.names, "
            "bones=dataset.skeleton.bones)."
        )
