"""Detectors side by side on one data set: their AP, and the seconds that an image takes."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

from keras_rcnn.data.proposals import ProposalSet
from keras_rcnn.data.records import Dataset
from keras_rcnn.data.request import check_whole
from keras_rcnn.evaluation.scoring import evaluate
from keras_rcnn.interfaces import BatchDetector


def compare(
    models: Mapping[str, BatchDetector],
    dataset: Dataset,
    *,
    proposals: ProposalSet | None = None,
    timed: int = 10,
    rounds: int = 3,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Scores and times several detectors on the same images and machine.

    Times are of `model.detect` on a decoded photo, one photo a call, proposals given: the median over the images, of
    each image's fastest of `rounds` calls. The detectors take turns (A B A B), so that whatever else the machine does
    hits all of them.

    Args:
        models: dict from a name to a detector.
        dataset: `Dataset`.
        proposals: `ProposalSet` for those of the models whose proposals come from outside, of which there must be one.
        timed: int, images that are timed.
        rounds: int, calls an image and model.
        progress: whether to show progress bars.

    Returns:
        For each name a dict: what `evaluate` returns, and `seconds` an image.
    """
    check_whole("timed", timed, "images")
    check_whole("rounds", rounds)
    if proposals is not None and not any(_own(model, proposals) for model in models.values()):
        raise ValueError(f"All of {', '.join(models)} find their proposals themselves: leave proposals out.")
    answer = {}
    for name, model in models.items():
        answer[name] = evaluate(model, dataset, proposals=_own(model, proposals), progress=progress)
    chosen = list(dataset)[:timed]
    best = {name: [float("inf")] * len(chosen) for name in models}
    for number in range(rounds + 1):
        for i, record in enumerate(chosen):
            image = record.read()
            for name, model in models.items():
                given = _own(model, proposals)
                start = time.perf_counter()
                model.detect(image, score=0.05, proposals=given and given[record])
                if number:  # the first round compiles
                    best[name][i] = min(best[name][i], time.perf_counter() - start)
    for name in models:
        answer[name]["seconds"] = statistics.median(best[name])
    return answer


def _own(model: BatchDetector, proposals: ProposalSet | None) -> Any:
    return proposals if getattr(model, "wants_proposals", False) else None
