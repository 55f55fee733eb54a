"""Learning rates over the steps of a training: a linear warmup, then a cosine or steps.

Why a warmup: at the first steps the new predictors' gradients are large and the proposals random; the full rate from
step 0 makes the loss of a detector diverge.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.interfaces import Tensor


@keras.saving.register_keras_serializable(package="keras_rcnn")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to the peak, then half a cosine down to the end.

    At step `s` of `warmup_steps` the rate is `peak * (start + (1 - start) * s / warmup_steps)`; afterwards
    `final + (peak - final) * (1 + cos(pi * t)) / 2`, `t` going from 0 at the peak to 1 at `steps`, where it stays. With
    `follow_time`, `t` is at least the share of the time that has gone, so that a training that time ends is at `final`,
    too.

    Args:
        peak: float, the highest rate.
        steps: int, steps of the whole training, warmup included: `epochs * len(batches)`.
        warmup_steps: int.
        start: float, share of the peak at step 0.
        final: float, the rate at the end.

    Example:

    >>> rate = WarmupCosine(0.01, steps=12 * len(batches), warmup_steps=500)
    >>> model.compile(keras.optimizers.SGD(rate, momentum=0.9))
    """

    def __init__(
        self, peak: float, steps: int, warmup_steps: int = 0, start: float = 0.001, final: float = 0.0
    ) -> None:
        super().__init__()
        check_whole("steps", steps)
        _check(peak, start, warmup_steps)
        check_number("final", final, 0, what="a rate")
        if not steps > warmup_steps:
            raise ValueError(f"steps ({steps}) must be more than warmup_steps ({warmup_steps}), which they include.")
        self.peak, self.steps, self.warmup_steps = float(peak), int(steps), int(warmup_steps)
        self.start, self.final = float(start), float(final)
        self._time: keras.Variable | None = None

    def follow_time(self) -> keras.Variable:
        """The share of the time that has gone, from 0 to 1, for a callback to set; 0 at first.

        Call it before `compile`. On JAX, whose steps take the variable as it is when they are compiled, only the steps
        count.
        """
        self._time = keras.Variable(0.0, dtype="float32", trainable=False, name="time")
        return self._time

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        t = ops.clip((step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1), 0.0, 1.0)
        if self._time is not None:
            t = ops.maximum(t, self._time)
        rate = self.final + (self.peak - self.final) * 0.5 * (1.0 + ops.cos(math.pi * t))
        return rate * _warmup(step, self.warmup_steps, self.start)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "start": self.start,
            "final": self.final,
        }


@keras.saving.register_keras_serializable(package="keras_rcnn")
class WarmupMultiStep(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to the peak, which is multiplied by a factor at given steps: the classic detector schedule.

    At step `s` of `warmup_steps` the rate is `peak * (start + (1 - start) * s / warmup_steps)`; from the step
    `boundaries[i]` on it is `peak * factor ** (i + 1)`.

    Args:
        peak: float, the highest rate.
        boundaries: list of int, rising, counted from the start of the training.
        factor: float.
        warmup_steps: int.
        start: float, share of the rate at step 0.

    Example:

    >>> rate = WarmupMultiStep(0.02, boundaries=[60_000, 80_000], warmup_steps=1000)
    """

    def __init__(
        self,
        peak: float,
        boundaries: Sequence[int],
        factor: float = 0.1,
        warmup_steps: int = 0,
        start: float = 0.001,
    ) -> None:
        super().__init__()
        for boundary in boundaries:
            check_whole("boundaries", boundary, "steps")
        boundaries = [int(boundary) for boundary in boundaries]
        if boundaries != sorted(set(boundaries)):
            raise ValueError(f"boundaries must rise, got {boundaries}.")
        _check(peak, start, warmup_steps)
        check_number("factor", factor, 0)
        self.peak, self.boundaries, self.factor = float(peak), boundaries, float(factor)
        self.warmup_steps, self.start = int(warmup_steps), float(start)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = self.peak
        for boundary in self.boundaries:
            rate = rate * ops.where(step >= boundary, self.factor, 1.0)
        return rate * _warmup(step, self.warmup_steps, self.start)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "boundaries": self.boundaries,
            "factor": self.factor,
            "warmup_steps": self.warmup_steps,
            "start": self.start,
        }


def _warmup(step: Tensor, warmup_steps: int, start: float) -> Tensor:
    """The share of the rate at a step: from `start` linearly to 1."""
    if not warmup_steps:
        return 1.0
    return start + (1.0 - start) * ops.minimum(step / warmup_steps, 1.0)


def _check(peak: float, start: float, warmup_steps: int) -> None:
    check_number("peak", peak, 0, what="a rate")
    check_number("start", start, 0, 1, "a share of the peak")
    check_whole("warmup_steps", warmup_steps, least=0)
