"""How far a detector's answers move by float32's rounding alone.

Another runtime adds up the same products in another order. What it gets is what slightly other weights, each off by
about a unit in its last place, would have given without any rounding (backward error analysis); so the noise is
measured as what such weights do to the answers. SavedModels, LiteRT and ONNX files of torchvision's models and the
zoo's were from `detect` as far as this, within a factor of two, in the median detection as in a photo's farthest.
Weights off by 1e-6 would move the answers eight times as far.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.export.pairs import KEYS, differences, partners, within

if TYPE_CHECKING:
    import keras

# of a weight, relative: float32's distance from 1 to the next number
STEP = 2.0**-23


@contextlib.contextmanager
def rounded_otherwise(model: keras.Model, seed: int) -> Iterator[None]:
    """In the block each weight of the model is off by `STEP` times a normal random number; then all are as before.

    Args:
        model: a `keras.Model`.
        seed: int, of the random numbers.
    """
    import keras

    rng = np.random.default_rng(seed)
    weights = [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]
    values = [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]
    try:
        for weight, value in zip(weights, values):
            weight.assign(value * (1 + np.float32(STEP) * rng.standard_normal(value.shape, np.float32)))
        yield
    finally:
        for weight, value in zip(weights, values):
            weight.assign(value)


class Noise:
    """What noise does to the answer on one photo.

    Args:
        expected: the answer of `detect`.
        size: (height, width) of the photo in px.
        caps: dict of what a difference may be at most, by `pairs.KEYS`: a detection that is farther in some run, or
            not there at all, became another one, such as when NMS chose otherwise between two like boxes.
        iou: from which two boxes of a class are one object.
        runs: answers of `detect` within `rounded_otherwise`, each with another seed.

    Attributes:
        worst: dict of the largest differences, by `pairs.KEYS`, without detections that became others.
        typical: dict of the median differences of all detections and runs.
        lost: bool [D], the detections that became others in some run.
        facts: dict for the table of the check: `box`, `score`, `mask` (None without masks) of `worst`, `pixels` (`box`
            in px), `unsteady`, how many are lost, and `runs`, how many there were.
    """

    def __init__(
        self,
        expected: Mapping[str, Any],
        size: tuple[int, ...],
        caps: Mapping[str, float],
        iou: float,
        runs: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.expected, self.size, self.caps, self.iou = expected, size, caps, iou
        self.lost = np.zeros(len(expected["scores"]), bool)
        self.runs, self._pairs = [], []
        for run in runs:
            self.add(run)

    def add(self, run: Mapping[str, Any]) -> None:
        """Takes account of a further run's answer."""
        self.runs.append(run)
        pairs: dict[Any, Any] = dict(partners(self.expected, run, self.iou))
        for i in range(len(self.lost)):
            pair = differences(self.expected, i, run, pairs[i], self.size) if i in pairs else None
            self.lost[i] |= pair is None or not within(pair, self.caps)
            if pair is not None:
                self._pairs.append((i, pair))
        steady = [pair for i, pair in self._pairs if not self.lost[i]]
        self.worst = {key: max((errors[key] for errors in steady if key in errors), default=0.0) for key in KEYS}
        values = {key: [errors[key] for _, errors in self._pairs if key in errors] for key in KEYS}
        self.typical = {key: float(np.median(some)) if some else 0.0 for key, some in values.items()}
        self.facts = {
            **self.worst,
            "mask": self.worst["mask"] if "masks" in self.expected else None,
            "pixels": self.worst["box"] * max(self.size),
            "unsteady": int(np.sum(self.lost)),
            "runs": len(self.runs),
        }

    def has(self, answer: Mapping[str, Any], j: int | np.integer, limits: Mapping[str, float]) -> bool:
        """Whether some run found what detection j of an answer is, within a dict of limits."""
        for run in self.runs:
            alike = run["labels"] == answer["labels"][j]
            alike &= np.abs(run["scores"] - answer["scores"][j]) <= limits["score"]
            alike &= np.abs(run["boxes"] - answer["boxes"][j]).max(-1, initial=0) <= limits["box"] * max(self.size)
            if any(within(differences(run, i, answer, j, self.size), limits) for i in np.flatnonzero(alike)):
                return True
        return False
