"""Detectors by name and the photos that they were last asked about: what the page shows, without the page."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.app import MAX_PIXELS
from keras_rcnn.app.pictures import (
    Canvas,
    anchors_picture,
    boxes_picture,
    detections_picture,
    objectness_picture,
    region_picture,
    sampling_picture,
)
from keras_rcnn.app.sampling import sampling
from keras_rcnn.app.stages import Network, Run, Settings, Stages, check_shown
from keras_rcnn.data.images import ImageError
from keras_rcnn.data.proposals import selective_search
from keras_rcnn.serve.photos import kind_of, read_photo
from keras_rcnn.serve.refusal import Refusal

if TYPE_CHECKING:
    from keras_rcnn.models import Detector

_KEPT = 4  # photos with a detector; the maps of a large one are some 100 MB


@dataclass(frozen=True)
class View:
    """What is shown of a detector on a photo; pictures are uint8 RGB, None where the detector has no such stage.

    Attributes:
        summary: Markdown.
        scores: dict, class name -> score of the region.
        numbers: what JSON holds: the region, and the detections as `detect` returns them.
    """

    summary: str
    anchors: np.ndarray | None
    objectness: np.ndarray | None
    candidates: np.ndarray
    proposals: np.ndarray
    region: np.ndarray | None
    sampling: np.ndarray | None
    scores: dict[str, float]
    detections: np.ndarray
    numbers: dict[str, Any]


class Viewer:
    """Shows what detectors do with photos. It is not for several threads at once.

    Args:
        models: dict, name -> detector.
        max_pixels: int, width times height of a photo.

    Raises:
        ValueError: no detector, or one that has other steps than the four papers'.
    """

    def __init__(self, models: Mapping[str, Detector], max_pixels: int = MAX_PIXELS) -> None:
        if not models:
            raise ValueError("The app needs a detector: name a preset, or a folder that train has left.")
        for name, model in models.items():
            check_shown(model, name)
        self.models, self.max_pixels = dict(models), max_pixels
        self._networks = {name: Network(model) for name, model in models.items()}
        self._runs: OrderedDict[tuple[str, str], Run] = OrderedDict()
        self._searched = ("", np.zeros((0, 4), np.float32))

    def read(self, path: str | Path | None) -> np.ndarray:
        """Reads a photo that somebody has uploaded, turned by its EXIF orientation.

        Raises:
            ImageError: it is none, or has too many pixels; the message is for whoever uploaded it.
        """
        if path is None:
            raise ImageError("Choose a photo first: upload one, take one, or click the example.")
        content = Path(path).read_bytes()
        if kind_of(content) is None:
            raise ImageError("This file is no photo that can be read: take a JPEG, PNG, WebP, GIF, BMP or TIFF file.")
        try:
            return read_photo(content, self.max_pixels)
        except Refusal as refusal:
            message = refusal.message.replace("send it smaller", "make it smaller, or start the app with --max-pixels")
            raise ImageError(message) from refusal

    def run(self, name: str, photo: np.ndarray) -> Run:
        """A detector on a photo, as it was kept, or anew."""
        key, network = (name, _digest(photo)), self._networks[name]
        searched = self.search(photo) if self.models[name].wants_proposals else None
        run = self._runs.pop(key, None) or Run(network, photo, searched)
        self._runs[key] = run
        if len(self._runs) > _KEPT:
            self._runs.popitem(last=False)
        return run

    def search(self, photo: np.ndarray) -> np.ndarray:
        """What selective search finds in a photo, which takes seconds the first time."""
        digest = _digest(photo)
        if self._searched[0] != digest:
            self._searched = (digest, selective_search(photo))
        return self._searched[1]

    def view(self, name: str, photo: np.ndarray, settings: Settings, level: int = 1, region: int = 1) -> View:
        """All that is shown of a detector on a photo.

        Args:
            name: of the detector.
            photo: uint8 RGB [height, width, 3].
            settings: `Settings`.
            level: int from 1, of the RPN's levels; one that is not there is the nearest that is.
            region: int from 1, of the proposals, likewise.
        """
        run = self.run(name, photo)
        stages, model, canvas = run.stages(settings), run.model, Canvas(photo)
        shown = stages.levels[min(level, len(stages.levels)) - 1] if stages.levels else None
        place = min(region, len(stages.proposals)) - 1
        pictures = _region_pictures(run, stages, place)
        return View(
            summary=_summary(name, run, stages),
            anchors=anchors_picture(canvas, shown) if shown else None,
            objectness=objectness_picture(canvas, shown) if shown else None,
            candidates=boxes_picture(canvas, stages.candidates, stages.candidate_scores),
            proposals=boxes_picture(canvas, stages.proposals, stages.proposal_scores),
            region=pictures[0],
            sampling=pictures[1],
            scores=class_scores(stages, place, model.class_names),
            detections=detections_picture(canvas, stages, model.preprocessor),
            numbers=_numbers(run, stages, place),
        )


def class_scores(stages: Stages, place: int, names: list[str]) -> dict[str, float]:
    """Class name -> score of a proposal, the best first."""
    if not len(stages.proposals):
        return {}
    scores = dict(zip(names, np.maximum(stages.class_scores[place], 0).tolist(), strict=True))
    if stages.background is not None:
        scores["(background)"] = float(stages.background[place])
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _region_pictures(run: Run, stages: Stages, place: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not len(stages.proposals):
        return None, None
    label = int(stages.class_scores[place].argmax())
    refined, name = stages.refined[place, label], run.model.class_names[label]
    first = region_picture(stages.photo, stages.proposals[place], refined, label, name)
    return first, sampling_picture(sampling(run, stages.regions[place]))


def _summary(name: str, run: Run, stages: Stages) -> str:
    kind = type(run.model).__name__
    height, width = stages.photo.shape[:2]
    seen = " x ".join(str(int(side)) for side in run.image_size[::-1])
    levels = ", ".join(one.name for one in stages.levels)
    source = f"RPN on {levels}" if levels else "selective search"
    found = len(stages.detections["boxes"])
    return (
        f"**{name}**, a {kind}. The photo of {width} x {height} px is seen as {seen} px. {source}: "
        f"{len(stages.candidates)} boxes, {len(stages.proposals)} proposals, {found} detections."
    )


def _numbers(run: Run, stages: Stages, place: int) -> dict[str, Any]:
    found = stages.detections
    numbers: dict[str, Any] = {
        "detector": type(run.model).__name__,
        "candidates": len(stages.candidates),
        "proposals": len(stages.proposals),
        "detections": [
            {"name": name, "score": float(score), "box": box}
            for name, score, box in zip(found["names"], found["scores"], found["boxes"].tolist(), strict=True)
        ],
    }
    if len(stages.proposals):
        box = stages.proposals[place].tolist()
        numbers["region"] = {"box": box, "scores": class_scores(stages, place, run.model.class_names)}
    return numbers


def _digest(photo: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(photo).data).hexdigest() + str(photo.shape)
