"""R-CNN's stages: the CNN is fine-tuned, then come SVMs and box regressors (sections 2.3 and 3, appendices B and C).

`stages.json` has what each stage brings, `violations.png` the mining of the SVMs.
"""

from __future__ import annotations

import inspect
import shutil
from typing import TYPE_CHECKING

from keras_rcnn.evaluation import best_thresholds, coco_metrics, match_detections
from keras_rcnn.files import aside
from keras_rcnn.json_text import to_json
from keras_rcnn.models import RCNN
from keras_rcnn.presets import from_preset
from keras_rcnn.training.history import plot_violations
from keras_rcnn.training.svms import check_positives, fit_box_regressors, fit_svms, stage_detections

if TYPE_CHECKING:
    from keras_rcnn.models import Detector
    from keras_rcnn.training.run import Run
    from keras_rcnn.training.settings import Settings


def suits(settings: Settings, detector: type[Detector]) -> bool:
    """Whether the detector has these stages."""
    return issubclass(detector, RCNN)


def check(settings: Settings, detector: type[Detector]) -> list[str]:
    """Problems in words, empty if there are none."""
    problems = []
    if settings.patience:
        problems.append(f"patience = {settings.patience} counts evaluations, and R-CNN is evaluated after its stages.")
    for name, function in (("svms", fit_svms), ("box_regressors", fit_box_regressors)):
        known = list(inspect.signature(function).parameters)[4:]  # behind model, dataset, proposals and cache
        unknown = [key for key in getattr(settings, name) or {} if key not in known]
        if unknown:
            problems.append(f"{name} has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}.")
    try:
        check_positives((settings.svms or {}).get("positives", "truth"))
    except ValueError as error:
        problems.append(f"svms: {error}")
    return problems


def train(run: Run, model: Detector) -> None:
    """Fine-tunes the detector and fits its stages; the preset has both."""
    run.find_proposals(model)
    # an evaluation takes seconds an image
    run.fit(model, run.settings.epochs, kept=run.keep(model, evaluated=False))
    if run.chief:
        _fit_stages(run, from_preset(run.best()))


def _fit_stages(run: Run, model: Detector) -> None:
    settings, features, results, metrics, thresholds = run.settings, run.out / "features", {}, None, None
    options = {"cache": features, "progress": bool(run.verbose)}
    if settings.svms is not None:
        results["mining"] = fit_svms(model, run.training, run.proposals, **{**options, **settings.svms})
        plot_violations(results["mining"], run.out / "violations.png")
    if settings.box_regressors is not None:
        results["regression"] = fit_box_regressors(
            model, run.training, run.proposals, **{**options, **settings.box_regressors}
        )
    if run.validation is not None:
        stages = stage_detections(model, run.validation, run.val_proposals, options["progress"])
        for name, detections in stages.items():
            metrics = coco_metrics(run.validation, detections, max_detections=settings.eval_max_detections)
            results[name] = {"per_class": metrics.pop("per_class"), "bbox": metrics}
        # without SVMs, their scores are the softmax's, and without regressors the deltas 0
        metrics = results["svms_boxes"]
        thresholds = best_thresholds(match_detections(run.validation, stages["svms_boxes"]))
    with aside(run.out / "stages.json") as temporary:
        temporary.write_text(to_json(results), encoding="utf-8")
    run.save(model, run.out, metrics, thresholds)
    shutil.rmtree(features, ignore_errors=True)
