"""Which class is taken for which."""

from collections.abc import Mapping

import numpy as np

from keras_rcnn.data.request import DEFAULT_SCORE, check_score
from keras_rcnn.evaluation.matches import Matches, PhotoMatches


def confusion_matrix(matches: Matches, score: float | Mapping[str, float] = DEFAULT_SCORE) -> np.ndarray:
    """Counts objects by their class and the class that they are detected as.

    Detections that find an object of their own class (`match_detections`) are on the diagonal. Of the others, best
    score first, each that overlaps an object of another class which nobody has found, by the IoU of a match, is
    counted there. What then is left over is background: a detection of nothing or a second one of the same object in
    the last row, an object that is not found in the last column. Crowds, difficult objects and the detections of them
    are left out.

    Args:
        matches: of `match_detections`.
        score: float, the least score of the detections that are counted, or a dict, class name -> score, such as
            `best_thresholds` returns; 0.5 for a class that it lacks.

    Returns:
        int64 `[classes + 1, classes + 1]`, `[true class, detected class]`.

    Example:

    >>> confusion_matrix(match_detections(dataset, detections), score=0.5)[cat, dog]
    """
    least, nothing = least_scores(matches.class_names, score), len(matches.class_names)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    for photo in matches.photos:
        shown, right, missed = shown_and_missed(photo, least)
        np.add.at(counts, (photo.labels[right], photo.labels[right]), 1)
        left, free = shown & ~right, missed.copy()
        for i, j in photo.mixed:  # by detection, best score first; of several objects the first that is free
            if left[i] and free[j]:
                counts[photo.true_labels[j], photo.labels[i]] += 1
                left[i] = free[j] = False
        np.add.at(counts[nothing], photo.labels[left], 1)
        np.add.at(counts[:, nothing], photo.true_labels[free], 1)
    return counts


def least_scores(class_names: list[str], score: float | Mapping[str, float]) -> np.ndarray:
    """The least score of each class, float64 `[classes]`."""
    scores = score if isinstance(score, Mapping) else dict.fromkeys(class_names, score)
    for value in scores.values():
        check_score(value)
    return np.array([scores.get(name, DEFAULT_SCORE) for name in class_names], "float64")


def shown_and_missed(photo: PhotoMatches, least: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a photo looks like at the least scores of the classes.

    A detection finds the same object whatever scores less than it, so that the matches stay.

    Returns:
        `(shown, right, missed)`: bool `[n]`, the detections that count; bool `[n]`, those of them that find an object;
        bool `[m]`, the objects that are not found.
    """
    shown = (photo.scores >= least[photo.labels]) & ~photo.ignored
    right = shown & (photo.objects >= 0)
    found = np.zeros(len(photo.counted), bool)
    found[photo.objects[right]] = True
    return shown, right, photo.counted & ~found
