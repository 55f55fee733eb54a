"""The four papers in turn, on one photo: what each does, what it changed, and pictures of it.

A paper's pictures come from the first detector of its kind. Where there is none, those that need no weights of their
own are drawn, and it is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from keras_rcnn.app.pictures import Canvas, boxes_picture, detections_picture, objectness_picture, sampling_picture
from keras_rcnn.app.sampling import sampling
from keras_rcnn.app.stages import array, own_settings
from keras_rcnn.app.viewer import class_scores
from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.layers import RegionWarp, RoIAlign, RoIPool
from keras_rcnn.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN

if TYPE_CHECKING:
    from keras_rcnn.app.stages import Run, Stages
    from keras_rcnn.app.viewer import Viewer

MOST = 3  # pictures of a paper
# title -> what it does, what it changed: Markdown
WORDS = {
    "R-CNN (2014)": (
        "Selective search proposes up to 2,000 boxes by colour and texture. Each is cut out of the photo, stretched to "
        "one size, and goes through the whole CNN; an SVM for each class scores its features.\n\n"
        "*What it changed:* before it, features were made by hand. The price is one run of the CNN for each box."
    ),
    "Fast R-CNN (2015)": (
        "The CNN runs once per photo. RoIPool cuts each box out of its map instead of the photo, rounds it to whole "
        "cells, and keeps the maximum of each bin.\n\n"
        "*What it changed:* one network replaces the CNN, the SVMs and the box regressors that were trained in turn."
    ),
    "Faster R-CNN (2015)": (
        "A Region Proposal Network looks at the same map. At each cell it says how likely each anchor holds an object, "
        "and how to move it; NMS leaves the proposals.\n\n"
        "*What it changed:* the network proposes by itself. Selective search, which took longer than the rest, is gone."
    ),
    "Mask R-CNN (2017)": (
        "RoIAlign reads the map at points between its cells, without rounding. A branch beside the box head predicts a "
        "mask for each detection.\n\n"
        "*What it changed:* each object has its pixels, and features lie exactly where the box does."
    ),
}


@dataclass
class Paper:
    """A paper: Markdown, and pictures with their captions."""

    title: str
    text: str
    pictures: list[tuple[np.ndarray, str]] = field(default_factory=list)


def papers(viewer: Viewer, photo: np.ndarray) -> list[Paper]:
    """The four papers on a photo, in the order of their years."""
    canvas, searched = Canvas(photo), viewer.search(photo)
    runs = {kind: _first(viewer, kind, photo) for kind in (RCNN, FastRCNN, FasterRCNN, MaskRCNN)}
    proposer = runs[FasterRCNN] or runs[MaskRCNN]
    return [
        _rcnn(canvas, runs[RCNN], viewer.run(next(iter(viewer.models)), photo), searched),
        _fast_rcnn(canvas, runs[FastRCNN], proposer, searched),
        _faster_rcnn(canvas, runs[FasterRCNN], proposer),
        _mask_rcnn(canvas, runs[MaskRCNN]),
    ]


def _rcnn(canvas: Canvas, found: tuple[str, Run] | None, any_run: Run, searched: np.ndarray) -> Paper:
    paper = _paper("R-CNN (2014)", found, "the boxes and a crop need no weights, the scores do")
    paper.pictures.append((boxes_picture(canvas, searched), f"Selective search: {len(searched)} boxes, the first 60"))
    run, pool = (found[1], None) if found else (any_run, RegionWarp())
    regions = run.model.preprocessor.place(searched, run.photo.shape[:2], run.image_size)
    if len(regions):
        crop = sampling(run, regions[_object_like(run, searched)], pool)
        paper.pictures.append((sampling_picture(crop), "One of the boxes, as the CNN sees it"))
    if found:
        _add_detections(paper, canvas, run)
    return paper


def _fast_rcnn(
    canvas: Canvas, found: tuple[str, Run] | None, other: tuple[str, Run] | None, searched: np.ndarray
) -> Paper:
    note = f"the map is that of {other[0]}, the scores are missing" if other else "its map and scores are missing"
    paper = _paper("Fast R-CNN (2015)", found, note)
    chosen = found or other
    if chosen is None or not len(searched):
        return paper
    run = chosen[1]
    regions = run.model.preprocessor.place(searched, run.photo.shape[:2], run.image_size)
    region = regions[_object_like(run, searched)]
    if found:
        taken = sampling(run, region)
    else:
        pool = run.model.parts["box_pool"]
        place = int(array(pool.levels(region[None]))[0]) if isinstance(pool, RoIAlign) else 0
        taken = sampling(run, region, RoIPool(7, (run.strides[place],)), place)
    paper.pictures.append((sampling_picture(taken), f"{taken.how} of a box of selective search, on {taken.level}"))
    if found:
        _add_detections(paper, canvas, run)
    return paper


def _faster_rcnn(canvas: Canvas, found: tuple[str, Run] | None, proposer: tuple[str, Run] | None) -> Paper:
    note = f"the RPN is that of {proposer[0]}" if proposer else "its RPN is missing"
    paper = _paper("Faster R-CNN (2015)", found, note)
    if proposer is None:
        return paper
    run = proposer[1]
    stages = run.stages(own_settings(run.model))
    level = max(stages.levels, key=lambda one: one.objectness.max())
    paper.pictures += [
        (objectness_picture(canvas, level), f"Objectness on {level.name}"),
        (boxes_picture(canvas, stages.proposals, stages.proposal_scores), "The best 60 proposals, after NMS"),
    ]
    if found:
        _add_detections(paper, canvas, run)
    return paper


def _mask_rcnn(canvas: Canvas, found: tuple[str, Run] | None) -> Paper:
    paper = _paper("Mask R-CNN (2017)", found, "its masks are missing")
    if found is None:
        return paper
    run = found[1]
    stages = run.stages(own_settings(run.model))
    if len(stages.regions):
        taken = sampling(run, stages.regions[0])
        paper.pictures.append((sampling_picture(taken), f"{taken.how} of the best proposal, on {taken.level}"))
    _add_detections(paper, canvas, run)
    return paper


def _paper(title: str, found: tuple[str, Run] | None, without: str) -> Paper:
    kind = title.partition(" (")[0]
    source = f"Shown by {found[0]}." if found else f"No {kind} is among the presets: {without}."
    return Paper(title, f"### {title}\n\n{WORDS[title]}\n\n{source}")


def _add_detections(paper: Paper, canvas: Canvas, run: Run) -> None:
    stages = run.stages(own_settings(run.model))
    best = _said(stages, run.model.class_names)
    caption = f"{len(stages.detections['boxes'])} detections{best}"
    paper.pictures.append((detections_picture(canvas, stages, run.model.preprocessor), caption))


def _said(stages: Stages, names: list[str]) -> str:
    """What the head says of the first proposal."""
    scores = [f"{name} {score:.2f}" for name, score in class_scores(stages, 0, names).items()]
    return f"; the first proposal's scores: {', '.join(scores[:3])}" if scores else ""


def _first(viewer: Viewer, kind: type, photo: np.ndarray) -> tuple[str, Run] | None:
    """The first detector of exactly this kind, on the photo."""
    names = [name for name, model in viewer.models.items() if isinstance(model, kind)]
    return (names[0], viewer.run(names[0], photo)) if names else None


def _object_like(run: Run, searched: np.ndarray) -> int:
    """Which box of selective search fits the detector's best detection; the first where it detects nothing."""
    found = run.stages(own_settings(run.model)).detections["boxes"]
    return int(pairwise_iou(searched, found[:1])[:, 0].argmax()) if len(found) else 0
