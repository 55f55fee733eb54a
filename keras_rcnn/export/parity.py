"""Is the export the model? Its answers on photos beside those of `detect`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_rcnn.export.noise import Noise, rounded_otherwise
from keras_rcnn.export.pairs import differences, partners, pasted, within
from keras_rcnn.export.target import ExportError
from keras_rcnn.interfaces import MaskForm, Photo

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from keras_rcnn.data.preprocess import Preprocessor
    from keras_rcnn.models import Detector

# an exported model as a function of a photo and its proposals, if it wants such
Run = Callable[[np.ndarray, np.ndarray | None], Mapping[str, Any]]
Photos = Sequence[Photo | tuple[str, Photo]]

# longer sides in px of the demo's photo, and its crop (of 512 x 512) as y1, y2, x1, x2: wide, high, small, whole
_DEMO_CROPS = ((0, 300, 0, 512), (40, 512, 100, 330), (130, 250, 200, 330), (0, 512, 0, 512))
# how often the noise is measured at least, and how many detections more than noise makes others do not end it then
_LEAST_RUNS, _FEW = 3, 3


class ParityError(ExportError):
    """An exported model that does not answer as `detect` does; the message has the table."""

    rows: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an export may be from `detect`. The defaults are for float32: everything is found, to 1e-4; of masks to
    5e-4, as TensorFlow's own eager and graph runs of one network already differ by 1.3e-4 there.

    Some networks amplify float32's rounding to more than that. Where photos are out of `box`, `score`, `mask` and
    `pasted`, the model's own noise on them is measured (`keras_rcnn.export.noise`), and on each photo a detection may
    be off by `multiple` times what noise did to any there, half of them by `multiple` times what it did to half of them
    (or by the four limits, if these are more). What noise made another detection, or hid, may be another one, too.

    Args:
        box: of a coordinate, in longer sides of the photo: 1e-4 is 0.1 px of 1000.
        score: of a score.
        mask: of a probability of a mask's 28 x 28.
        pasted: 1 - IoU of a pasted mask: its corners are whole pixels, and a rounding may move one.
        missing: share of the detections of all photos that may be found by one of the two alone.
        off: share of them that may be further apart than `box`, `score`, `mask` and `pasted` say.
        least: float; detections with a lower score are not looked at, unless they are the other's partner.
        iou: from which two boxes of a class are one object.
        multiple: float, of the noise; 0: it is not measured, and the limits above are all.
        box_cap: the most that noise may raise `box` to: 5e-4 is half a pixel of 1000.
        score_cap: the most that it may raise `score` to.
        mask_cap: the most that it may raise `mask` to.
        pasted_cap: the most that it may raise `pasted` to: the IoU is at least 1 minus this.
        unsteady: share of the detections of all photos that may be others because noise makes them others; one always
            may.
        runs: int, how often the noise is measured at most. It ends after three if the photos are within tolerance, or
            far from it.
    """

    box: float = 1e-4
    score: float = 1e-4
    mask: float = 5e-4
    pasted: float = 0.1
    missing: float = 0.0
    off: float = 0.0
    least: float = 0.0
    iou: float = 0.5
    multiple: float = 4.0
    box_cap: float = 5e-4
    score_cap: float = 5e-3
    mask_cap: float = 0.05
    pasted_cap: float = 0.25
    unsteady: float = 0.05
    runs: int = 12

    def limits(self, pasted: bool, noise: Mapping[str, float] | None = None) -> dict[str, float]:
        """The limits of `pairs.differences`, by its keys; with `noise`, a dict with the same keys, those that it makes
        of them. `pasted`: whether masks are."""
        mask = "pasted" if pasted else "mask"
        limits = {"box": self.box, "score": self.score, "mask": getattr(self, mask)}
        if noise is None:
            return limits
        caps = self.caps(pasted)
        return {key: min(max(limit, self.multiple * noise[key]), caps[key]) for key, limit in limits.items()}

    def caps(self, pasted: bool) -> dict[str, float]:
        """The most that noise may raise each of `limits` to, and no less than these are without it."""
        caps = {"box": self.box_cap, "score": self.score_cap, "mask": self.pasted_cap if pasted else self.mask_cap}
        return {key: max(limit, caps[key]) for key, limit in self.limits(pasted).items()}


EXACT = Tolerance()


def check(
    run: Run | dict[str, Run],
    model: Detector,
    photos: Photos | None = None,
    *,
    proposals: Sequence[ArrayLike | None] | None = None,
    tolerance: Tolerance = EXACT,
    preprocessor: Preprocessor | None = None,
    masks: Literal[True, "crops"] = "crops",
    score: float = 0.0,
) -> list[dict[str, Any]]:
    """Compares an exported model with `model.detect` on photos.

    Args:
        run: the exported model as a function of a photo, uint8 [h, w, 3], and its proposals, float32 [P, 4] in px of
            the photo, or None; it returns a dict of `boxes` [D, 4] in px of the photo, `scores` [D], `labels` [D] (-1
            is padding), and with masks `masks` [D, M, M], probabilities in the box. Or a dict of such functions by
            name, each of which is called with every photo in turn.
        model: the detector that was exported.
        photos: list of paths or arrays, or of `(name, photo)`; None: four crops of the demo's photo, of several sizes.
            A blank photo must be answered, too.
        proposals: for each photo [P, 4] in its px, of a detector that wants such; None: selective search.
        tolerance: `Tolerance`.
        preprocessor: `Preprocessor` that the export has instead of the model's, e.g. with a `fixed_size`.
        masks: `"crops"`, or True if the export's masks are pasted: bool or uint8 [D, h, w].
        score: float, of `detect`.

    Returns:
        A list of dicts, for each photo and function: `photo` and `input` (their names), `height`, `width`,
        `detections` (of `detect`), `missing` and `extra` (found by `detect` or the export alone), `off` (found by both,
        but out of tolerance), `unsteady` (would be one of these, but noise alone makes it another), `box` (largest
        difference in longer sides), `pixels` (the same in px), `score` and `mask` (largest difference; None without
        masks; of pasted ones 1 - IoU), `ok`, and `noise`: None if it was not measured, else a dict of `box`, `pixels`,
        `score`, `mask` (largest differences that noise makes), `unsteady` (detections that it makes others) and `runs`
        (how often it was measured).

    Raises:
        ParityError: if the photos, or those given to one of the functions, are out of tolerance. `rows` is the list.
        keras_rcnn.data.ImageError: for a file that is no image.
    """
    answers = answers_of(run, model, photos, proposals=proposals)
    return judge(answers, model, tolerance=tolerance, preprocessor=preprocessor, masks=masks, score=score)


def answers_of(
    run: Run | dict[str, Run],
    model: Detector,
    photos: Photos | None = None,
    *,
    proposals: Sequence[ArrayLike | None] | None = None,
) -> list[dict[str, Any]]:
    """The first half of `check`: what an exported model says to photos, as a list that `judge` takes."""
    from keras_rcnn.data import read_image
    from keras_rcnn.data.proposals import selective_search

    runs = run if isinstance(run, dict) else {"": run}
    answers = []
    for i, (name, photo) in enumerate(named_photos(photos)):
        image, boxes = read_image(photo), None
        if model.wants_proposals:
            boxes = np.array(selective_search(image) if proposals is None else proposals[i], np.float32)
        detections = {
            way: {key: np.asarray(value) for key, value in function(image, boxes).items()}
            for way, function in runs.items()
        }
        answers.append({"photo": name, "image": image, "proposals": boxes, "detections": detections})
    blank = np.full((32, 32, 3), 127, np.uint8)
    boxes = np.array([[2, 2, 30, 30], [8, 4, 20, 28]], np.float32) if model.wants_proposals else None
    for function in runs.values():
        function(blank, boxes)  # where nothing is found, too, there must be an answer
    return answers


def judge(
    answers: Sequence[Mapping[str, Any]],
    model: Detector,
    *,
    tolerance: Tolerance = EXACT,
    preprocessor: Preprocessor | None = None,
    masks: Literal[True, "crops"] = "crops",
    score: float = 0.0,
) -> list[dict[str, Any]]:
    """The second half of `check`: holds what `answers_of` returns against `detect`; arguments and result as there."""

    def detect(masks: MaskForm = masks) -> list[Any]:
        return [
            model.detect(photo["image"], score=score, masks=masks, proposals=photo["proposals"]) for photo in answers
        ]

    def compared(noises: Sequence[Noise | None]) -> list[dict[str, Any]]:
        rows = []
        for photo, expected, noise in zip(answers, references, noises):
            cut, size = max(_cut(model, expected), score), photo["image"].shape[:2]
            for way, detections in photo["detections"].items():
                facts = {"photo": photo["photo"], "input": way, "height": size[0], "width": size[1]}
                rows.append({**facts, **compare(expected, detections, size, tolerance, cut, noise)})
        for way in answers[0]["detections"]:
            same_input = [row for row in rows if row["input"] == way]
            if _within(same_input, tolerance):
                for row in same_input:
                    row["ok"] = True
        return rows

    with _as_exported(model, preprocessor):
        references, runs = detect(), 0
        rows = compared([None] * len(answers))
        noises = [
            Noise(expected, photo["image"].shape[:2], tolerance.caps(pasted(expected)), tolerance.iou)
            for photo, expected in zip(answers, references)
        ]
        while tolerance.multiple and not _settled(rows, tolerance, runs):
            with rounded_otherwise(model, seed=runs):
                # as RLE: those of all runs might not fit into memory
                for noise, detections in zip(noises, detect("rle" if masks is True else masks)):
                    noise.add(detections)
            runs += 1
            rows = compared(noises)
    if not all(row["ok"] for row in rows):
        error = ParityError(f"The exported model does not answer as detect does:\n{table(rows, tolerance)}")
        error.rows = rows
        raise error
    return rows


def compare(
    expected: Mapping[str, Any],
    detections: Mapping[str, Any],
    size: tuple[int, ...],
    tolerance: Tolerance = EXACT,
    cut: float = 0.0,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """Compares two answers on a photo of `size` (height, width); see `check` for what is returned.

    Detections within the limit of scores of `cut`, the least score that is shown, may be found by one alone. `noise` is
    the photo's `Noise`, if it was measured.
    """
    keep = detections["labels"] >= 0
    # pasted masks may come without padding
    detections = {key: value[keep[: len(value)]] for key, value in detections.items()}
    errors = {"box": 0.0, "score": 0.0, "mask": 0.0 if "masks" in expected and "masks" in detections else None}
    limits = tolerance.limits(pasted(expected), noise and noise.worst)
    couples = partners(expected, detections, tolerance.iou)
    alone = [np.ones(len(answer["scores"]), bool) for answer in (expected, detections)]
    for i, j in couples:
        alone[0][i] = alone[1][j] = False
    couples = [(i, j) for i, j in couples if max(expected["scores"][i], detections["scores"][j]) >= tolerance.least]
    apart = [differences(expected, i, detections, j, size) for i, j in couples]
    for pair in apart:
        errors |= {key: float(np.maximum(errors[key], value)) for key, value in pair.items()}
    off = {j for (_, j), pair in zip(couples, apart) if not within(pair, limits)}
    shown = max(tolerance.least, cut + limits["score"])
    missing, extra = (
        set(np.flatnonzero(single & (answer["scores"] > shown)))
        for single, answer in zip(alone, (expected, detections))
    )
    unsteady = 0
    if noise:
        excused = {j for j in off | extra if noise.has(detections, j, limits)}, {i for i in missing if noise.lost[i]}
        off, extra, missing = off - excused[0], extra - excused[0], missing - excused[1]
        unsteady = max(map(len, excused))
        # not all may be as far as the farthest of the noise
        for key, limit in tolerance.limits(pasted(expected), noise.typical).items():
            far = {j for (_, j), pair in zip(couples, apart) if not pair.get(key, 0.0) <= limit}
            off |= far - excused[0] if 2 * len(far) > len(couples) else set()
    row = {
        "detections": int(np.sum(expected["scores"] >= tolerance.least)),
        "missing": len(missing),
        "extra": len(extra),
        "off": len(off),
        "unsteady": unsteady,
        "pixels": errors["box"] * max(size),
        **errors,
        "noise": noise and noise.facts,
    }
    return {**row, "ok": _within([row], tolerance)}


def table(rows: Sequence[dict[str, Any]], tolerance: Tolerance = EXACT) -> str:
    """What `check` returns as text; where noise was measured, with a line of it for each photo."""
    runs = max((row["noise"]["runs"] for row in rows if row["noise"]), default=0)
    counts = ["detections", "missing", "extra", "off", *(["unsteady"] if runs else [])]
    measures = ["pixels", "box", "score", "mask"]
    lines = [["photo", "input", "size", *counts, "box, px", "box / side", "score", "mask", ""]]

    def add(row: Mapping[str, Any], way: str, facts: Mapping[str, Any], verdict: str) -> None:
        numbers = [str(facts.get(key, "")) for key in counts]
        numbers += ["-" if facts[key] is None else f"{facts[key]:.1e}" for key in measures]
        lines.append([row["photo"], way, f"{row['width']} x {row['height']}", *numbers, verdict])

    for row, after in zip(rows, [*rows[1:], {}]):
        add(row, row["input"], row, "ok" if row["ok"] else "FAILED")
        if row["noise"] and after.get("noise") is not row["noise"]:
            add(row, "noise", row["noise"], "")
    if not any(line[1] for line in lines[1:]):
        lines = [[*line[:1], *line[2:]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    if runs:
        text.append(
            f"noise: how far detect is from itself, in {runs} runs with each weight off by about float32's rounding. "
            f"{tolerance.multiple:g} times that is allowed, at most {tolerance.box_cap:g} of the longer side, "
            f"{tolerance.score_cap:g} of a score, {tolerance.mask_cap:g} of a mask's probability, and of pasted masks "
            f"an IoU of {1 - tolerance.pasted_cap:g}; what noise makes another detection may be another one."
        )
    return "\n".join(text)


def named_photos(photos: Photos | None = None) -> Sequence[tuple[str, Photo]]:
    """What `check` takes as photos -> `[(name, photo)]`."""
    if photos is None:
        return demo_photos()
    if not len(photos):
        raise ExportError("A parity check needs at least one photo.")
    return [photo if isinstance(photo, tuple) else (_name(i, photo), photo) for i, photo in enumerate(photos)]


def demo_photos() -> list[tuple[str, np.ndarray]]:
    """`[(name, uint8 [h, w, 3])]`: the photo that comes with the package in several sizes, enlarged and cropped."""
    from keras_rcnn.data import read_image
    from keras_rcnn.presets import zoo_folder

    photo = zoo_folder() / "demo" / "immunohistochemistry.png"
    image = read_image(photo)
    crops = [image[y1:y2, x1:x2] for y1, y2, x1, x2 in _DEMO_CROPS]
    return [(photo.stem, np.ascontiguousarray(crop)) for crop in crops]


@contextlib.contextmanager
def _as_exported(model: Detector, preprocessor: Preprocessor | None) -> Iterator[None]:
    """In the block `detect` has the export's preprocessor, is not compiled by XLA, for which photos are padded, and
    runs in whole float32 on a GPU, too."""
    import tensorflow as tf

    own, compiled = model.preprocessor, model.jit_compile
    short = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        model.preprocessor = (preprocessor or own).replace(few_shapes=False)
        if compiled:
            model.jit_compile, model.predict_function = False, None
        tf.config.experimental.enable_tensor_float_32_execution(False)
        yield
    finally:
        model.preprocessor = own
        if compiled:
            model.jit_compile, model.predict_function = compiled, None
        tf.config.experimental.enable_tensor_float_32_execution(short)


def _cut(model: Detector, expected: Mapping[str, Any]) -> float:
    """The least score that is shown: the last one's where there is no room for more."""
    decoder = model.parts["decoder"]
    full = len(expected["scores"]) >= decoder.max_detections
    return float(expected["scores"].min()) if full else float(decoder.score_threshold)


def _within(rows: Sequence[dict[str, Any]], tolerance: Tolerance) -> bool:
    """Whether all photos' detections together are within the shares that may differ."""
    count = max(sum(row["detections"] for row in rows), 1)
    missing, extra, off, unsteady = (sum(row[key] for row in rows) for key in ("missing", "extra", "off", "unsteady"))
    enough = missing + extra <= tolerance.missing * count and off <= tolerance.off * count
    return enough and unsteady <= max(tolerance.unsteady * count, 1)


def _settled(rows: Sequence[dict[str, Any]], tolerance: Tolerance, runs: int) -> bool:
    """Whether the noise need not be measured once more: all is well, or more is wrong than noise explains."""
    if all(row["ok"] for row in rows):
        return not runs or runs >= _LEAST_RUNS
    wrong, count = {}, {}
    for row in rows:
        wrong[row["input"]] = wrong.get(row["input"], 0) + row["missing"] + row["extra"] + row["off"]
        count[row["input"]] = count.get(row["input"], 0) + row["detections"]
    share = tolerance.unsteady + tolerance.missing + tolerance.off
    hopeless = any(wrong[way] > max(share * count[way], _FEW) for way in wrong)
    return runs >= tolerance.runs or (hopeless and runs >= _LEAST_RUNS)


def _name(i: int, photo: Photo) -> str:
    return f"array {i}" if isinstance(photo, np.ndarray) else str(getattr(photo, "name", photo))
