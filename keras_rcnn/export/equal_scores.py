"""A parity check for runtimes that have another NMS than TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_rcnn.export import parity
from keras_rcnn.ops.backend import kernels_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.models import Detector

# sums in another order; a mask's probability is behind five layers more than the score
FLOAT32 = parity.Tolerance(mask=1e-3)
# with RoIPool: share of the detections that may be others, and the IoU from which one is no other
_OTHERS, _SAME = 0.05, 0.95


def check(
    run: parity.Run | dict[str, parity.Run],
    model: Detector,
    photos: parity.Photos | None = None,
    *,
    proposals: Sequence[ArrayLike] | None = None,
    tolerance: parity.Tolerance = FLOAT32,
    **settings: Any,
) -> list[dict[str, Any]]:
    """`parity.check`; a model that fails is compared with a `detect` once more that ranks equal scores by index.

    Of boxes with exactly the same score TensorFlow's NMS takes any first, and what is suppressed depends on it. RoIPool
    makes such boxes, since regions that it rounds to the same cells have the same features, up to the last bit of a
    matrix product: there, a twentieth of the detections may be others, and the rest have to be equal all the same.
    The noise is measured with scores so ranked, if need be.
    """
    from keras_rcnn.layers import RoIPool

    answers = parity.answers_of(run, model, photos, proposals=proposals)
    try:
        return parity.judge(answers, model, tolerance=dataclasses.replace(tolerance, multiple=0.0), **settings)
    except parity.ParityError:
        if isinstance(model.parts["box_pool"], RoIPool) and tolerance == FLOAT32:
            tolerance = dataclasses.replace(tolerance, missing=_OTHERS, iou=_SAME)
        with equal_scores_by_index(model):
            return parity.judge(answers, model, tolerance=tolerance, **settings)


@contextlib.contextmanager
def equal_scores_by_index(model: Detector) -> Iterator[None]:
    """In the block `detect`, of one photo at a time, ranks equal scores by their index."""
    own, model.predict_function = model.predict_function, None
    try:
        with kernels_for("ranked"):
            yield
    finally:
        model.predict_function = own
