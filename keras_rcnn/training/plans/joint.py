"""All of a detector at once: Fast R-CNN's training in one stage (section 2.3), and that of its successors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_rcnn.models import Detector
    from keras_rcnn.training.run import Run
    from keras_rcnn.training.settings import Settings


def check(settings: Settings, detector: type[Detector]) -> list[str]:
    """Problems in words, empty if there are none."""
    if settings.patience and not (settings.val or settings.val_fraction):
        return [f"patience = {settings.patience} counts evaluations, and there is no val, nor val_fraction."]
    return []


def train(run: Run, model: Detector) -> None:
    """Fits the detector; the preset is the best of the epochs that were evaluated."""
    run.find_proposals(model)
    run.fit(model, run.settings.epochs, kept=run.keep(model))
    if run.chief:
        run.publish()
