"""Photos with rare classes more often: repeat-factor sampling (Gupta et al. 2019, LVIS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_rcnn.data.request import check_number

if TYPE_CHECKING:
    from keras_rcnn.data.records import Dataset


def repeat_factors(dataset: Dataset, threshold: float, targets: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """How often each photo is to come up in an epoch (LVIS, Gupta et al. 2019, appendix, "Data resampling").

    With f the share of the photos that have an object of a class, the class's factor is max(1, sqrt(threshold / f)),
    and a photo's is the largest of the classes in it.

    Args:
        dataset: A `Dataset`.
        threshold: t, from 0 to 1: classes in less than this share of the photos are repeated. LVIS takes 0.001.
        targets: for each record, which of its objects count, bool `[n]`. None: all but crowds.

    Returns:
        float64 `[len(dataset)]`, from 1; a photo without objects has 1.

    Raises:
        ValueError: if the threshold is no such number.

    Example:

    >>> repeat_factors(dataset, 0.01).max()
    """
    check_number("threshold", threshold, 0, 1, "a share of the photos", open_low=True)
    chosen = [~record.crowd for record in dataset] if targets is None else targets
    classes = [np.unique(record.labels[kept]) for record, kept in zip(dataset, chosen, strict=True)]
    present = np.bincount(np.concatenate(classes), minlength=len(dataset.class_names))
    factors = np.maximum(1, np.sqrt(threshold * len(dataset) / np.maximum(present, 1)))
    return np.array([factors[labels].max(initial=1) for labels in classes])


def repeated(factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An epoch's photos: each as often as its factor says, rounded up or down at random.

    Their number is the factors' sum, rounded up, in every epoch, so that the steps of a training can be counted; the
    factors grow by as little as that takes.

    Args:
        factors: float `[n]`, from 1.
        rng: `numpy.random.Generator`.

    Returns:
        int `[epoch_length(factors)]`, indices in rising order.
    """
    order = rng.permutation(len(factors))  # so that neighbours are not rounded against each other in every epoch
    count = epoch_length(factors)
    ends = np.cumsum(factors[order] * (count / factors.sum()))
    ends[-1] = count
    marks = np.floor(ends + rng.random()).astype(int)
    return np.repeat(np.sort(order), np.diff(marks, prepend=0)[np.argsort(order)])


def epoch_length(factors: np.ndarray) -> int:
    """How many photos an epoch has, given their factors `[n]`."""
    return int(np.ceil(factors.sum() - 1e-9))


def occurrences(indices: np.ndarray) -> np.ndarray:
    """For each of some indices `[n]`, how often it has come before; int `[n]`."""
    order = np.argsort(indices, kind="stable")
    firsts = np.searchsorted(indices[order], indices[order])
    answer = np.empty(len(indices), int)
    answer[order] = np.arange(len(indices)) - firsts
    return answer
