"""Faster R-CNN's 4-step alternating training (section 3.2): RPN and Fast R-CNN in turn, until they share layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from keras_rcnn.convert import assign
from keras_rcnn.data import ProposalSet
from keras_rcnn.evaluation import best_thresholds, detect_all, match_detections
from keras_rcnn.evaluation.scoring import metrics_of
from keras_rcnn.files import aside
from keras_rcnn.models import FasterRCNN, FastRCNN
from keras_rcnn.models.rpn import RPN
from keras_rcnn.training.keras_internals import frozen

if TYPE_CHECKING:
    from keras_rcnn.data.records import Dataset
    from keras_rcnn.models import Detector
    from keras_rcnn.training.run import Run
    from keras_rcnn.training.settings import Settings

_RPN = ("anchors", "rpn_head", "proposals", "rpn_targets", "rpn_loss")
_BOXES = ("box_targets", "box_pool", "box_head", "box_predictor", "box_loss", "cascade", "decoder")


def suits(settings: Settings, detector: type[Detector]) -> bool:
    """Whether the settings ask for it."""
    return settings.alternating is not None


def check(settings: Settings, detector: type[Detector]) -> list[str]:
    """Problems in words, empty if there are none."""
    problems = []
    if detector is not FasterRCNN:
        problems.append("alternating is Faster R-CNN's training: leave masks and detector unset.")
    if settings.minutes:
        problems.append("minutes ends a joint training; of an alternating one, choose the epochs.")
    if settings.strategy == "multiworker":
        problems.append("alternating trains on the devices of one machine: leave strategy, or make it mirrored.")
    if settings.patience:
        problems.append(f"patience = {settings.patience} counts evaluations, and there is one, after the four steps.")
    return problems


def train(run: Run, model: Detector) -> None:
    """The four steps; `step_1` to `step_3` keep the weights after each until the end."""
    epochs = run.settings.alternating
    start = {part: model.parts[part].get_weights() for part in ("backbone", "neck")}
    done = _done(run, model) if run.resume else 0

    def fit(step: int, detector: Detector, proposals: ProposalSet | None) -> None:
        name = f"checkpoint_{step + 1}"
        run.fit(detector, epochs[step], first=sum(epochs[:step]), proposals=proposals, name=name)
        if step < 3:
            _keep(run, model, step + 1)
            (run.out / f"{name}.safetensors").unlink(missing_ok=True)

    alternate(model, run.training, fit, bool(run.verbose), done, start)
    metrics = thresholds = None
    if run.validation is not None:
        detections = detect_all(model, run.validation, progress=bool(run.verbose))
        metrics = metrics_of(run.validation, detections)
        thresholds = best_thresholds(match_detections(run.validation, detections))
    run.save(model, run.out, metrics, thresholds)
    for file in ("step_1", "step_2", "step_3", "checkpoint_4"):
        (run.out / f"{file}.safetensors").unlink(missing_ok=True)


def _keep(run: Run, model: Detector, step: int) -> None:
    from safetensors.numpy import save_file

    with aside(run.out / f"step_{step}.safetensors") as temporary:
        save_file({weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}, temporary)


def _done(run: Run, model: Detector) -> int:
    """Puts the weights of the last whole step into the model; returns its number."""
    from safetensors.numpy import load_file

    for step in (3, 2, 1):
        path = run.out / f"step_{step}.safetensors"
        if path.is_file():
            assign(model, load_file(path))
            return step
    return 0


def propose(model: Detector, dataset: Dataset, progress: bool = True) -> ProposalSet:
    """An RPN's proposals for every image.

    Args:
        model: `RPN`.
        dataset: `Dataset`.
        progress: whether to show a progress bar.

    Returns:
        `ProposalSet`.
    """
    from tqdm import tqdm

    bar = tqdm(dataset, desc="proposals", unit="image", disable=not progress)
    return ProposalSet({record.image_id: model.detect(record.read(), score=0.0)["boxes"] for record in bar})


def alternate(
    model: Any,
    dataset: Dataset,
    fit: Callable[..., Any],
    progress: bool = True,
    done: int = 0,
    start: dict[str, Any] | None = None,
) -> Any:
    """Trains a Faster R-CNN in the four steps of the paper, in the place of its `fit`.

    1. The RPN, on the backbone as it is now (ImageNet's weights). 2. Fast R-CNN, on a backbone of its own that starts
    from the same weights, with the proposals of step 1. 3. The RPN's head on the backbone of step 2, which from now on
    is fixed. 4. Fast R-CNN's head on the same backbone, with the proposals of step 3.

    Args:
        model: a new `FasterRCNN`; afterwards it has the trained weights. Its neck belongs to the shared layers.
        dataset: `Dataset` to train on.
        fit: function `(step, detector, proposals)`, called four times: compiles and fits `detector`, an `RPN` in steps
            0 and 2 and a `FastRCNN` in steps 1 and 3, for which `proposals` is a `ProposalSet` and otherwise None.
        progress: whether to show a progress bar while proposals are made.
        done: int, steps that were done before, whose result the model's weights are: these are left out.
        start: with `done`, the weights before step 1: a dict of `get_weights()` of the parts "backbone" and "neck".

    Returns:
        A list of the values that `fit` returned, one for each step.

    Example:

    >>> def fit(step, detector, proposals):
    ...     detector.compile(keras.optimizers.SGD(0.001, momentum=0.9))
    ...     batches = dataset.batches(detector.preprocessor, batch_size=2, shuffle=True, proposals=proposals)
    ...     return detector.fit(batches, epochs=8)
    >>> alternate(model, dataset, fit)
    """
    start = start or {part: model.parts[part].get_weights() for part in ("backbone", "neck")}
    answers = []
    if done < 2:
        rpn = _rpn(model)
        if done < 1:
            answers.append(fit(0, rpn, None))
        proposals = propose(rpn, dataset, progress)
        # Fast R-CNN begins again from the weights before step 1: in the paper the two do not share anything yet
        for part, weights in start.items():
            model.parts[part].set_weights(weights)
        answers.append(fit(1, _fast(model), proposals))
    with frozen(model.parts["backbone"], model.parts["neck"]):
        # a model's trainable weights are asked for when it is compiled: new models for the fixed layers
        rpn = _rpn(model)
        if done < 3:
            answers.append(fit(2, rpn, None))
        answers.append(fit(3, _fast(model), propose(rpn, dataset, progress)))
    return answers


def _rpn(model: Detector) -> RPN:
    """The RPN that a Faster R-CNN consists of, sharing its layers."""
    parts = {key: model.parts[key] for key in (*_RPN, "neck", "preprocessor")}
    return RPN(model.parts["backbone"], **parts)


def _fast(model: Detector) -> FastRCNN:
    """The Fast R-CNN that a Faster R-CNN consists of, sharing its layers."""
    parts = {key: model.parts[key] for key in (*_BOXES, "neck", "preprocessor") if key in model.parts}
    return FastRCNN(model.parts["backbone"], model.num_classes, class_names=list(model.class_names), **parts)
