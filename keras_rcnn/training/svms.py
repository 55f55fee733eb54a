"""R-CNN's stages after the CNN: its features on disk, linear SVMs with hard negatives, ridge regression of the boxes.

Section 2.3 and appendices B and C of the paper; the numbers are those of its published code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.data.preprocess import scale_boxes
from keras_rcnn.data.proposals import check_proposals, pad_proposals
from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.files import aside
from keras_rcnn.interfaces import FilePath
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from keras_rcnn.data.proposals import ProposalSet
    from keras_rcnn.data.records import Dataset, Record

logger = logging.getLogger(__name__)

# features are scaled so that their mean norm is this; C and lambda belong to it
_NORM = 20.0
# the bias of a class that no image shows: its score is 2e-9
_NEVER = -20.0


def fit_svms(
    model: Any,
    dataset: Dataset,
    proposals: ProposalSet,
    cache: FilePath,
    positives: float | Literal["truth"] = "truth",
    background: float = 0.3,
    C: float = 1e-3,
    positive_weight: float = 2.0,
    bias: float = 10.0,
    retrain_every: int = 2000,
    passes: int = 1,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Trains one linear SVM a class on the CNN's vectors, with hard negative mining (R-CNN, section 2.3).

    Negatives are the regions that overlap every object of the class by less than `background`. Image after image,
    those with a margin over -1.0001 join the class's negatives; after every `retrain_every` new ones its SVM is trained
    anew, and negatives with a margin under -1.2 are dropped. A class without any object is never detected; a warning
    names it.

    Args:
        model: a fine-tuned `RCNN`; it gets the SVMs as weights.
        dataset: `Dataset`.
        proposals: `ProposalSet` of it.
        cache: folder for the features, float16, a file an image: an interrupted run goes on, and
            `fit_box_regressors` reads them too.
        positives: `"truth"`, the objects' own boxes alone (the paper), or a number: all regions of at least that IoU
            (the review article's reading has 0.3).
        background: float, IoU below which a region is a negative.
        C: float, of the SVM.
        positive_weight: float, weight of a positive in the SVM's loss.
        bias: float, the constant feature that the SVM's bias multiplies.
        retrain_every: int, new negatives of a class.
        passes: int, over the images.
        progress: whether to show progress bars.

    Returns:
        A list of dicts, one for each time that an SVM was trained: `class`, `pass` (from 1), `images` seen in it,
        `positives`, `negatives`, `seen` (regions looked at since the last time) and `violations` (those of them with a
        margin over -1.0001).

    Raises:
        ValueError: for other classes or a setting that makes no sense.
        ImportError: without scikit-learn.

    Example:

    >>> mining = fit_svms(model, dataset, proposals, cache="features")
    >>> plot_violations(mining, "violations.png")
    """
    check_whole("passes", passes, "over the images")
    check_whole("retrain_every", retrain_every, "new negatives")
    check_number("background", background, 0, 1, "an IoU")
    for name, value in (("C", C), ("positive_weight", positive_weight), ("bias", bias)):
        check_number(name, value, 0, open_low=name != "bias")
    check_positives(positives)
    features = _Features(model, dataset, proposals, cache, progress)
    scale = _NORM / max(features.mean_norm(), 1e-6)
    classes = range(model.num_classes)
    positive_vectors = [[] for _ in classes]
    for regions in features.each("positives"):
        for c in classes:
            chosen = (
                regions.is_truth & (regions.labels == c) if positives == "truth" else regions.overlap(c) >= positives
            )
            positive_vectors[c].append(regions.vectors[chosen] * scale)
    miners = [_Miner(np.concatenate(positive_vectors[c]), C, positive_weight, bias) for c in classes]
    history = []
    for number in range(passes):
        for i, regions in enumerate(features.each("hard negatives")):
            vectors = regions.vectors * scale
            for c, miner in enumerate(miners):
                rows = np.flatnonzero(regions.overlap(c) < background)
                miner.see(vectors[rows], i * 10**6 + rows)
                last = i + 1 == len(dataset)
                if miner.new >= retrain_every or (last and miner.seen):
                    facts = {"class": model.class_names[c], "pass": number + 1, "images": i + 1}
                    history.append({**facts, **miner.train()})
    empty = [model.class_names[c] for c, miner in enumerate(miners) if not len(miner.positives)]
    if empty:
        logger.warning("%s shows no %s: no SVM, and nothing is detected as such.", dataset.name, ", ".join(empty))
    svms = model.parts["svms"]
    svms.kernel.assign(np.stack([miner.weights * scale for miner in miners], axis=1))
    svms.bias.assign([miner.bias for miner in miners])
    svms.fitted.assign(1.0)
    return history


def fit_box_regressors(
    model: Any,
    dataset: Dataset,
    proposals: ProposalSet,
    cache: FilePath,
    overlap: float = 0.6,
    regularisation: float | Literal["cv"] = 1000.0,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Fits a ridge regression a class from a region's map to the deltas onto its object (R-CNN, appendix C).

    Args:
        model: a fine-tuned `RCNN`; it gets the regressions as weights.
        dataset, proposals, cache, progress: as in `fit_svms`.
        overlap: float; regions with more than this IoU with an object of the class are learned from.
        regularisation: float, lambda; or `"cv"`: of 10, 100, 1,000 and 10,000 the best by leave-one-out
            cross-validation, for each class.

    Returns:
        A dict for each class name: `pairs`, the number of regions, and `regularisation`, the lambda taken. A class
        without pairs has 0 and None; its boxes stay the proposals.
    """
    check_number("overlap", overlap, 0, 1, "an IoU")
    if regularisation != "cv":
        check_number("regularisation", regularisation, 0, what='or "cv"')
    features = _Features(model, dataset, proposals, cache, progress, least=overlap)
    pairs = [([], []) for _ in range(model.num_classes)]
    for regions in features.each("boxes"):
        for c, (maps, targets) in enumerate(pairs):
            near = regions.overlap(c, regions.near) > overlap
            if near.any():
                own = regions.objects_of(c)[regions.iou_of(c, regions.near)[near].argmax(axis=1)]
                maps.append(regions.maps[near])
                targets.append(np.asarray(delta_ops.encode(own, regions.boxes[regions.near][near])))
    counts = [sum(map(len, maps)) for maps, _ in pairs]
    norms = [np.linalg.norm(part.astype(np.float32), axis=1).sum() for maps, _ in pairs for part in maps]
    scale = _NORM / max(sum(norms) / max(sum(counts), 1), 1e-6)
    layer, answer = model.parts["box_regressors"], {}
    kernel, bias = (np.zeros(w.shape, np.float32) for w in (layer.kernel, layer.bias))
    for c, (maps, targets) in enumerate(pairs):
        alpha = None
        if counts[c]:
            x = np.concatenate(maps).astype(np.float32) * scale
            part = slice(4 * c, 4 * c + 4)
            kernel[:, part], bias[part], alpha = ridge(x, np.concatenate(targets), regularisation)
            kernel[:, part] *= scale
        answer[model.class_names[c]] = {"pairs": counts[c], "regularisation": alpha}
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    return answer


def stage_detections(
    model: Any, dataset: Dataset, proposals: ProposalSet, progress: bool = True
) -> dict[str, list[Any]]:
    """What a fitted R-CNN detects with and without its later stages, from one run of the CNN over each image.

    Args:
        model: `RCNN` after `fit_svms` and `fit_box_regressors`.
        dataset: `Dataset`.
        proposals: `ProposalSet` of it.
        progress: whether to show a progress bar.

    Returns:
        A dict of lists of detections, one for each image: `softmax` and `svms`, whose boxes are the proposals, and
        `softmax_boxes` and `svms_boxes`, whose boxes are regressed.
    """
    import keras
    from tqdm import tqdm

    parts, inputs = model.parts, {tensor.name: tensor for tensor in model.inputs}
    features = model.region_features(inputs)
    logits, deltas = parts["box_predictor"](features["vectors"]), parts["box_regressors"](features["maps"])
    scores = {
        "softmax": keras.ops.softmax(logits, axis=-1)[..., :-1],
        "svms": parts["svms"](features["vectors"], logits),
    }
    outputs = {}
    for name, values in scores.items():
        for suffix, moves in (("", keras.ops.zeros_like(deltas)), ("_boxes", deltas)):
            outputs[name + suffix] = parts["decoder"](values, moves, inputs["proposals"], inputs["image_sizes"])
    stages = keras.Model(inputs, outputs)
    answer = {name: [] for name in outputs}
    for record in tqdm(dataset, desc="stages", unit="image", disable=not progress):
        image = record.read()
        x = model.preprocessor.batch([image])
        x["proposals"] = pad_proposals([proposals[record]], [image], x["image_sizes"])
        for name, padded in stages.predict_on_batch(x).items():
            padded = {key: np.asarray(values)[0] for key, values in padded.items()}
            answer[name].append(model.restore(padded, image.shape[:2], x["image_sizes"][0]))
    return answer


def ridge(
    x: np.ndarray, targets: np.ndarray, regularisation: float | Literal["cv"] = 1000.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Ridge regression on whitened targets.

    Args:
        x: float32 [n, F].
        targets: float32 [n, 4].
        regularisation: float, lambda, or `"cv"`.

    Returns:
        `(kernel [F, 4], bias [4], lambda)`, for the targets as they were.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    mean = targets.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(targets - mean, rowvar=False, bias=True))
    deviation = np.sqrt(np.maximum(values, 0) + 1e-3)
    whitened = (targets - mean) @ (vectors / deviation @ vectors.T)
    back = vectors * deviation @ vectors.T
    many = regularisation == "cv" and len(x) > 1
    model = RidgeCV([1e1, 1e2, 1e3, 1e4]) if many else Ridge(1e3 if regularisation == "cv" else regularisation)
    model.fit(x, whitened)
    kernel, bias = model.coef_.T @ back, model.intercept_ @ back + mean
    return kernel.astype(np.float32), bias.astype(np.float32), float(model.alpha_ if many else model.alpha)


def check_positives(positives: Any) -> None:
    """Raises a ValueError for what `fit_svms` does not take as `positives`."""
    if positives != "truth" and (isinstance(positives, str) or not 0 < positives <= 1):
        raise ValueError(f'positives is "truth" or an IoU, not {positives!r}.')


class _Miner:
    """One class's SVM and its cache of hard negatives."""

    def __init__(self, positives: np.ndarray, C: float, positive_weight: float, constant: float) -> None:
        from sklearn.svm import LinearSVC

        weight = {1: positive_weight}
        self.svm = LinearSVC(
            C=C, loss="hinge", class_weight=weight, intercept_scaling=constant, max_iter=20000, random_state=0
        )
        self.positives = positives
        self.negatives = np.zeros((0, positives.shape[1]), np.float32)
        self.keys = np.zeros(0, np.int64)
        self.weights, self.bias = np.zeros(positives.shape[1], np.float32), 0.0 if len(positives) else _NEVER
        self.new = self.seen = self.violations = 0

    def see(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        if not len(self.positives):
            return
        hard = self.margins(vectors) > -1.0001
        self.seen, self.violations = self.seen + len(vectors), self.violations + int(hard.sum())
        hard &= ~np.isin(keys, self.keys)  # in a second pass some are there already
        self.negatives = np.concatenate([self.negatives, vectors[hard]])
        self.keys = np.concatenate([self.keys, keys[hard]])
        self.new += int(hard.sum())

    def train(self) -> dict[str, Any]:
        facts = {"positives": len(self.positives), "negatives": len(self.negatives)}
        facts |= {"seen": self.seen, "violations": self.violations}
        if len(self.negatives):
            x = np.concatenate([self.positives, self.negatives])
            self.svm.fit(x, np.arange(len(x)) < len(self.positives))
            self.weights, self.bias = self.svm.coef_[0].astype(np.float32), float(self.svm.intercept_[0])
            kept = self.margins(self.negatives) >= -1.2
            self.negatives, self.keys = self.negatives[kept], self.keys[kept]
        self.new = self.seen = self.violations = 0
        return facts

    def margins(self, vectors: np.ndarray) -> np.ndarray:
        return vectors @ self.weights + self.bias


class _Image:
    """The regions of one image: the objects' own boxes and the proposals."""

    def __init__(self, record: Record, stored: Mapping[str, np.ndarray]) -> None:
        kept = ~(record.crowd | record.difficult)
        self.objects, self.object_labels = record.boxes[kept], record.labels[kept]
        self.boxes = stored["boxes"]
        self.vectors = stored["vectors"].astype(np.float32)
        self.near, self.maps = stored["near"], stored["maps"]
        count = len(self.objects)
        self.is_truth = np.arange(len(self.boxes)) < count
        self.labels = np.full(len(self.boxes), -1)
        self.labels[:count] = self.object_labels

    def objects_of(self, c: int) -> np.ndarray:
        return self.objects[self.object_labels == c]

    def iou_of(self, c: int, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """IoU [regions, objects of the class]."""
        return np.asarray(box_ops.iou(self.boxes[rows], self.objects_of(c)))

    def overlap(self, c: int, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """The best IoU of each region with an object of the class, 0 without any."""
        if not (self.object_labels == c).any():
            return np.zeros(len(self.boxes[rows]), np.float32)
        return self.iou_of(c, rows).max(axis=1)


class _Features:
    """A data set's features, computed when first asked for and kept on disk as float16.

    Vectors of all regions; maps, which are larger, of those with an IoU over `least` with an object.
    """

    def __init__(
        self, model: Any, dataset: Dataset, proposals: ProposalSet, cache: FilePath, progress: bool, least: float = 0.6
    ) -> None:
        if list(dataset.class_names) != list(model.class_names):
            raise ValueError(f"The dataset's classes are {dataset.class_names}, the model's {model.class_names}.")
        check_proposals(proposals, dataset)
        self.model, self.dataset, self.proposals, self.progress = model, dataset, proposals, progress
        self.least, self.folder = least, Path(cache)
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = hashlib.sha256(json.dumps(model.preprocessor.get_config(), sort_keys=True).encode())
        for weight in model.region_features.weights:
            weights.update(np.asarray(weight).tobytes())
        self.key = weights.hexdigest()

    def mean_norm(self) -> float:
        """The mean length of all vectors."""
        norms = [np.linalg.norm(regions.vectors, axis=1) for regions in self.each("features")]
        return float(np.concatenate(norms).mean())

    def each(self, field: str) -> Iterator[_Image]:
        from tqdm import tqdm

        for record in tqdm(self.dataset, desc=field, unit="image", disable=not self.progress):
            yield _Image(record, self._of(record))

    def _of(self, record: Record) -> dict[str, np.ndarray]:
        kept = ~(record.crowd | record.difficult)
        boxes = np.concatenate([record.boxes[kept], self.proposals[record]]).astype(np.float32)
        name = hashlib.sha256(f"{self.key} {record.name} {record.image_id} {self.least}".encode() + boxes.tobytes())
        path = self.folder / f"{name.hexdigest()[:32]}.npz"
        if path.is_file():
            try:
                with np.load(path) as file:
                    return dict(file)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                logger.warning("%s is damaged: its features are computed anew.", path)
        stored = self._compute(record, boxes, record.boxes[kept])
        with aside(path) as temporary:
            np.savez(temporary, **stored)
        return stored

    def _compute(self, record: Record, boxes: np.ndarray, objects: np.ndarray) -> dict[str, Any]:
        image = record.read()
        x = self.model.preprocessor.batch([image])
        # no model runs on no region at all: an image without any has one here that is cut off again
        given = boxes if len(boxes) else np.zeros((1, 4), np.float32)
        x["proposals"] = scale_boxes(given, image.shape[:2], x["image_sizes"][0])[None]
        outputs = self.model.region_features.predict_on_batch(x)
        arrays = {k: np.asarray(v)[0, : len(boxes)] for k, v in outputs.items()}
        near = np.zeros(len(boxes), bool)
        if len(objects):
            near = np.asarray(box_ops.iou(boxes, objects)).max(axis=1) > self.least
        maps = arrays["maps"].reshape(len(boxes), int(np.prod(arrays["maps"].shape[1:])))[near]
        return {
            "boxes": boxes,
            "vectors": arrays["vectors"].astype(np.float16),
            "near": np.flatnonzero(near),
            "maps": maps.astype(np.float16),
        }
