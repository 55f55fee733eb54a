"""What a detector does with one photo, step by step, as NumPy arrays: its own layers, called one after another.

Shapes: L levels, A anchors a cell, P proposals, K classes, N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
from keras import ops

from keras_rcnn.data.proposals import pad_proposals, selective_search
from keras_rcnn.layers import Cascade, DetectionDecoder, Proposals, ScoreDecoder, SingleLevel
from keras_rcnn.models import RCNN

if TYPE_CHECKING:
    from keras_rcnn.interfaces import Detections, Tensor
    from keras_rcnn.models import Detector

Layer = TypeVar("Layer", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be changed of a detector without training it.

    Args:
        proposals: int, how many proposals the box head looks at.
        rpn_iou: float, IoU of the NMS of the proposals; None where selective search proposes.
        score: float, the least score of a detection.
        iou: float, IoU of the NMS of the detections.
    """

    proposals: int
    rpn_iou: float | None
    score: float
    iou: float


@dataclass(frozen=True)
class Level:
    """A level of the RPN: `anchors` float32 [h, w, A, 4] in pixels of the photo, `objectness` [h, w, A], 0..1."""

    name: str
    stride: int
    anchors: np.ndarray
    objectness: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """Of each cell's anchors, x and y in pixels of the photo, float32 [h, w, 2]."""
        return ((self.anchors[..., :2] + self.anchors[..., 2:]) / 2).mean(2)


@dataclass(frozen=True)
class Stages:
    """Each step's outcome; boxes are float32 xyxy in pixels of the photo.

    Attributes:
        photo: uint8 [height, width, 3].
        levels: the RPN's, finest first; none where selective search proposes.
        candidates: float32 [N, 4], before NMS, best first; of selective search all that it found.
        candidate_scores: float32 [N], objectness, or None.
        proposals: float32 [P, 4], what the box head looks at.
        proposal_scores: float32 [P] or None.
        regions: float32 [P, 4], the proposals in pixels of the image as the detector sees it.
        class_scores: float32 [P, K]; what takes no part has -1.
        background: float32 [P], or None where the scores are no softmax.
        refined: float32 [P, K, 4], each proposal moved by the deltas of each class.
        detections: as `detect(masks="crops")` returns them: a large photo's masks at its size would take gigabytes.
    """

    photo: np.ndarray
    levels: list[Level]
    candidates: np.ndarray
    candidate_scores: np.ndarray | None
    proposals: np.ndarray
    proposal_scores: np.ndarray | None
    regions: np.ndarray
    class_scores: np.ndarray
    background: np.ndarray | None
    refined: np.ndarray
    detections: Detections


def check_shown(model: Detector, name: str) -> None:
    """Refuses a detector that has other steps than the four papers'.

    Raises:
        ValueError: it names the detector and what is different.
    """
    parts = model.parts
    if isinstance(parts.get("cascade"), Cascade):
        raise ValueError(f"{name} is a Cascade R-CNN: the app shows detectors with one box head.")
    proposals = parts.get("proposals")
    if not model.wants_proposals and not isinstance(proposals, Proposals):
        raise ValueError(f"{name}: the app does not know how {type(proposals).__name__} proposes.")
    if not isinstance(parts["decoder"], DetectionDecoder):
        raise ValueError(f"{name}: the app does not know how {type(parts['decoder']).__name__} decides.")


def own_settings(model: Detector) -> Settings:
    """The settings with which a detector's stages end in what `detect` returns."""
    decoder, layer = model.parts["decoder"], model.parts.get("proposals")
    if model.wants_proposals:
        return Settings(proposals=2000, rpn_iou=None, score=0.5, iou=decoder.iou_threshold)
    return Settings(proposals=layer.post_nms[1], rpn_iou=layer.iou_threshold, score=0.5, iou=decoder.iou_threshold)


class Network:
    """A detector cut in two: up to its maps and what the RPN says of them, and its box head on given regions.

    Both are graphs over the detector's own layers, traced once for all photos: called layer by layer, RoIPool alone
    would take minutes.

    Args:
        model: a detector of one of the four papers, see `check_shown`.
    """

    def __init__(self, model: Detector) -> None:
        self.model, parts = model, model.parts
        self.body: keras.Model | None = None
        if isinstance(model, RCNN):  # there are no maps of the whole photo
            inputs, found = model.region_features.input, model.region_features.output
            logits = parts["svms"](found["vectors"], parts["box_predictor"](found["vectors"]))
            deltas = parts["box_regressors"](found["maps"])
        else:
            images = keras.Input((None, None, 3), dtype="float32")
            features = parts["neck"](parts["backbone"](images))
            outputs = {"features": features}
            if not model.wants_proposals:
                outputs["anchors"] = parts["anchors"](features, images)
                outputs["logits"], outputs["deltas"] = parts["rpn_head"](features)
            self.body = keras.Model(images, outputs, name="body")
            maps = [keras.Input(one.shape[1:], dtype=one.dtype) for one in features]
            regions = keras.Input((None, 4), dtype="float32")
            inputs = [*maps, regions]
            logits, deltas = parts["box_predictor"](parts["box_head"](parts["box_pool"](maps, regions)))
        self.head = keras.Model(inputs, {"logits": logits, "deltas": deltas}, name="head")


class Run:
    """A detector on one photo. What does not depend on the settings is computed once.

    Args:
        network: `Network` of the detector.
        photo: uint8 RGB [height, width, 3].
        searched: float32 [S, 4], what selective search found in the photo, if it has been run already.

    Attributes:
        features: list of the neck's maps, [1, h, w, C]; none of R-CNN, which has no map of the whole photo.
        searched: as given, or found here; None of a detector with an RPN.

    Example:

    >>> from keras_rcnn.app.stages import Network, Run, own_settings
    >>> photo = keras_rcnn.data.read_image("photo.jpg")
    >>> stages = Run(Network(model), photo).stages(own_settings(model))
    >>> stages.proposals.shape, stages.detections["names"]
    """

    def __init__(self, network: Network, photo: np.ndarray, searched: np.ndarray | None = None) -> None:
        self.network, self.model, self.photo = network, network.model, photo
        self.inputs = self.model.preprocessor.batch([photo])
        self.searched = selective_search(photo) if searched is None and self.model.wants_proposals else searched
        found = network.body.predict_on_batch(self.inputs["images"]) if network.body else {"features": []}
        self.features: list[np.ndarray] = found["features"]
        self._rpn: tuple[Any, ...] = tuple(found[key] for key in ("anchors", "logits", "deltas") if key in found)
        self._looked: tuple[Any, dict[str, Any]] = (None, {})

    @property
    def level_names(self) -> list[str]:
        """Of the neck's maps, as the papers call them."""
        neck = self.model.parts["neck"]
        if isinstance(neck, SingleLevel):
            return [neck.in_feature]
        return [f"P{int(np.log2(stride))}" for stride in self.strides]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of the neck's maps."""
        return self.model.parts["neck"].strides(self.model.parts["backbone"].strides)

    @property
    def image_size(self) -> np.ndarray:
        """`(height, width)` of the photo as the detector sees it, without padding."""
        return self.inputs["image_sizes"][0]

    def stages(self, settings: Settings) -> Stages:
        """All steps with these settings.

        Raises:
            ValueError: a setting that makes no sense.
        """
        if settings.proposals < 1:
            raise ValueError(f"The number of proposals is at least 1, not {settings.proposals}.")
        looked = self._look(settings)
        parts, sizes = self.model.parts, self.inputs["image_sizes"]
        decoder = changed(parts["decoder"], iou_threshold=settings.iou)
        head = (looked["logits"], looked["deltas"], looked["regions"], sizes)
        refined, scores = (array(value)[0] for value in decoder.candidates(*head))
        there = looked["there"]
        background = None
        if not isinstance(decoder, ScoreDecoder):
            background = 1 - array(decoder.scores(looked["logits"]))[0].sum(-1)[there]
        return Stages(
            photo=self.photo,
            levels=self.levels(),
            candidates=looked["candidates"],
            candidate_scores=looked["candidate_scores"],
            proposals=self._restored(looked["regions"][0][there]),
            proposal_scores=None if looked["scores"] is None else looked["scores"][0][there],
            regions=looked["regions"][0][there],
            class_scores=scores[there],
            background=background,
            refined=self._restored(np.broadcast_to(refined, (*scores.shape, 4))[there]),
            detections=self._detections(decoder(*head), settings.score),
        )

    def levels(self) -> list[Level]:
        """The RPN's anchors and objectness."""
        levels = []
        for i, feature in enumerate(self.features if self._rpn else []):
            anchors, logits = self._rpn[0][i], self._rpn[1][i]
            height, width = feature.shape[1:3]
            logits = logits.reshape(height, width, -1)
            boxes = self._restored(anchors.reshape(height, width, -1, 4))
            levels.append(Level(self.level_names[i], self.strides[i], boxes, array(ops.sigmoid(logits))))
        return levels

    def _look(self, settings: Settings) -> dict[str, Any]:
        """Proposals, and what the box head says of them; kept until these settings change."""
        asked = (settings.proposals, None if self.model.wants_proposals else settings.rpn_iou)
        if self._looked[0] == asked:
            return self._looked[1]
        looked = self._searched(settings) if self.model.wants_proposals else self._proposed(settings)
        regions = looked["regions"]
        inputs: Any = [*self.features, regions] if self.features else {**self.inputs, "proposals": regions}
        looked |= self.network.head.predict_on_batch(inputs)
        looked["there"] = np.flatnonzero((regions[0, :, 2:] > regions[0, :, :2]).all(axis=1))  # zeros are padding
        self._looked = (asked, looked)
        return looked

    def _searched(self, settings: Settings) -> dict[str, Any]:
        """Proposals of selective search, as `detect` takes them."""
        sizes, parts = self.inputs["image_sizes"], self.model.parts
        cells = getattr(parts["box_pool"], "cells", None)
        regions = pad_proposals([self.searched[: settings.proposals]], [self.photo], sizes, cells)
        if "proposals" in parts:
            regions = array(parts["proposals"](regions, sizes, training=False))
        return {"candidates": self.searched, "candidate_scores": None, "regions": regions, "scores": None}

    def _proposed(self, settings: Settings) -> dict[str, Any]:
        """Proposals of the RPN."""
        most = (settings.proposals, settings.proposals)
        layer = changed(self.model.parts["proposals"], post_nms=most, iou_threshold=settings.rpn_iou)
        rpn = (*self._rpn, self.inputs["image_sizes"])
        boxes, scores = (array(value)[0] for value in layer.candidates(*rpn))
        boxes, scores = boxes.reshape(-1, 4), scores.reshape(-1)
        order = np.argsort(-scores, kind="stable")
        order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1) & (scores[order] > layer.dropped)]
        regions, chosen = (array(value) for value in layer(*rpn, training=False))
        return {
            "candidates": self._restored(boxes[order]),
            "candidate_scores": scores[order],
            "regions": regions,
            "scores": chosen,
        }

    def _detections(self, detections: dict[str, Any], score: float) -> Detections:
        """The decoder's outputs -> what `detect` returns, by way of the mask and the keypoint branch."""
        parts = self.model.parts
        if self.model.has_masks:
            mask_logits = parts["mask_head"](parts["mask_pool"](self.features, detections["boxes"]))
            detections = parts["mask_decoder"](detections, mask_logits)
        if "keypoint_branch" in parts:
            detections = parts["keypoint_branch"](self.features, detections)
        outputs = {key: array(value)[0] for key, value in detections.items()}
        return self.model.restore(outputs, self.photo.shape[:2], self.image_size, score, "crops")

    def _restored(self, boxes: np.ndarray) -> np.ndarray:
        return self.model.preprocessor.restore(boxes, self.photo.shape[:2], self.image_size)


def changed(layer: Layer, **settings: Any) -> Layer:
    """A layer without weights, with other settings."""
    return type(layer).from_config({**layer.get_config(), **settings})


def array(tensor: Tensor) -> np.ndarray:
    """A tensor as NumPy."""
    return ops.convert_to_numpy(tensor)
