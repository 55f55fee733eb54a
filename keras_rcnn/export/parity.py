"""Is the export the model? Its answers on photos beside those of `detect`."""

import dataclasses

import numpy as np

from keras_rcnn.export.target import ExportError

# longer sides in px of the demo's photo, and its crop (of 512 x 512) as y1, y2, x1, x2: wide, high, small, whole
_DEMO_CROPS = ((0, 300, 0, 512), (40, 512, 100, 330), (130, 250, 200, 330), (0, 512, 0, 512))


class ParityError(ExportError):
    """An exported model that does not answer as `detect` does; the message has the table."""


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an export may be from `detect`. The defaults are for float32: everything is found, to 1e-4; of masks to
    5e-4, as TensorFlow's own eager and graph runs of one network already differ by 1.3e-4 there.

    Args:
        box: of a coordinate, in longer sides of the photo: 1e-4 is 0.1 px of 1000.
        score: of a score.
        mask: of a probability of a mask's 28 x 28.
        pasted: 1 - IoU of a pasted mask: its corners are whole pixels, and a rounding may move one.
        missing: share of the detections of all photos that may be found by one of the two alone.
        off: share of them that may be further apart than `box`, `score`, `mask` and `pasted` say.
        least: float; detections with a lower score are not looked at, unless they are the other's partner.
        iou: from which two boxes of a class are one object.
    """

    box: float = 1e-4
    score: float = 1e-4
    mask: float = 5e-4
    pasted: float = 0.1
    missing: float = 0.0
    off: float = 0.0
    least: float = 0.0
    iou: float = 0.5


EXACT = Tolerance()


def check(run, model, photos=None, *, proposals=None, tolerance=EXACT, preprocessor=None, masks="crops", score=0.0):
    """Compares an exported model with `model.detect` on photos.

    Args:
        run: the exported model as a function of a photo, uint8 [h, w, 3], and its proposals, float32 [P, 4] in px of
            the photo, or None; it returns a dict of `boxes` [D, 4] in px of the photo, `scores` [D], `labels` [D] (-1
            is padding), and with masks `masks` [D, M, M], probabilities in the box. Or a dict of such functions by
            name, each of which is called with every photo in turn.
        model: the detector that was exported.
        photos: list of paths or arrays, or of `(name, photo)`; None: four crops of the demo's photo, of several sizes.
        proposals: for each photo [P, 4] in its px, of a detector that wants such; None: selective search.
        tolerance: `Tolerance`.
        preprocessor: `Preprocessor` that the export has instead of the model's, e.g. with a `fixed_size`.
        masks: `"crops"`, or True if the export's masks are pasted: bool or uint8 [D, h, w].
        score: float, of `detect`.

    Returns:
        A list of dicts, for each photo and function: `photo` and `input` (their names), `height`, `width`,
        `detections` (of `detect`), `missing` and `extra` (found by `detect` or the export alone), `off` (found by both,
        but out of tolerance), `box` (largest difference in longer sides), `pixels` (the same in px), `score` and `mask`
        (largest difference; None without masks; of pasted ones 1 - IoU), and `ok`.

    Raises:
        ParityError: if the photos, or those given to one of the functions, are out of tolerance. `rows` is the list.
        keras_rcnn.data.ImageError: for a file that is no image.
    """
    from keras_rcnn.data import read_image
    from keras_rcnn.data.proposals import selective_search

    runs = run if isinstance(run, dict) else {"": run}
    rows = []
    for i, (name, photo) in enumerate(named_photos(photos)):
        image = read_image(photo)
        given = None
        if model.wants_proposals:
            given = np.float32(selective_search(image) if proposals is None else proposals[i])
        expected = _detect(model, preprocessor, image, given, masks, score)
        cut = max(_cut(model, expected), score)
        for way, function in runs.items():
            found = {key: np.asarray(value) for key, value in function(image, given).items()}
            facts = {"photo": name, "input": way, "height": image.shape[0], "width": image.shape[1]}
            rows.append({**facts, **compare(expected, found, image.shape[:2], tolerance, cut)})
    for way in runs:
        its = [row for row in rows if row["input"] == way]
        if _within(its, tolerance):
            for row in its:
                row["ok"] = True
    if not all(row["ok"] for row in rows):
        error = ParityError(f"The exported model does not answer as detect does:\n{table(rows)}")
        error.rows = rows
        raise error
    return rows


def compare(expected, found, size, tolerance=EXACT, cut=0.0):
    """Compares two answers on a photo of `size` (height, width); see `check` for what is returned.

    Detections within `tolerance.score` of `cut`, the least score that is shown, may be found by one alone.
    """
    keep = found["labels"] >= 0
    found = {key: value[keep[: len(value)]] for key, value in found.items()}  # pasted masks may come without padding
    side = float(max(size))
    errors = {"box": 0.0, "score": 0.0, "mask": 0.0 if "masks" in expected and "masks" in found else None}
    pasted = errors["mask"] is not None and expected["masks"].dtype == bool
    limits = {"box": tolerance.box, "score": tolerance.score, "mask": tolerance.pasted if pasted else tolerance.mask}
    off, partners = 0, [-np.ones(len(one["scores"]), int) for one in (expected, found)]
    for i, j in _partners(expected, found, tolerance.iou):
        partners[0][i], partners[1][j] = j, i
        if max(expected["scores"][i], found["scores"][j]) < tolerance.least:
            continue
        pair = {
            "box": _far(expected["boxes"][i], found["boxes"][j]) / side,
            "score": _far(expected["scores"][i], found["scores"][j]),
        }
        if errors["mask"] is not None:
            pair["mask"] = (_disagreement if pasted else _far)(expected["masks"][i], found["masks"][j])
        errors |= {key: float(np.maximum(errors[key], value)) for key, value in pair.items()}
        off += not all(value <= limits[key] for key, value in pair.items())  # NaN is out of all limits
    shown = max(tolerance.least, cut + tolerance.score)
    missing, extra = (
        int(np.sum((partner < 0) & (one["scores"] > shown))) for partner, one in zip(partners, (expected, found))
    )
    row = {
        "detections": int(np.sum(expected["scores"] >= tolerance.least)),
        "missing": missing,
        "extra": extra,
        "off": off,
        "pixels": errors["box"] * side,
        **errors,
    }
    return {**row, "ok": _within([row], tolerance)}


def table(rows):
    """What `check` returns as text."""
    counts = ["detections", "missing", "extra", "off"]
    head = ["photo", "input", "size", *counts, "box, px", "box / side", "score", "mask", ""]
    cells = [
        [
            row["photo"],
            row["input"],
            f"{row['width']} x {row['height']}",
            *(str(row[key]) for key in counts),
            *("-" if row[key] is None else f"{row[key]:.1e}" for key in ("pixels", "box", "score", "mask")),
            "ok" if row["ok"] else "FAILED",
        ]
        for row in rows
    ]
    if not any(row["input"] for row in rows):
        head, *cells = [[*row[:1], *row[2:]] for row in [head, *cells]]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(wide) if i == 0 else cell.rjust(wide) for i, (cell, wide) in enumerate(zip(row, widths)))
        for row in [head, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def named_photos(photos=None):
    """What `check` takes as photos -> `[(name, photo)]`."""
    if photos is None:
        return demo_photos()
    if not len(photos):
        raise ExportError("A parity check needs at least one photo.")
    return [one if isinstance(one, tuple) else (_name(i, one), one) for i, one in enumerate(photos)]


def demo_photos():
    """`[(name, uint8 [h, w, 3])]`: the photo that comes with the package in several sizes, enlarged and cropped."""
    from keras_rcnn.data import read_image
    from keras_rcnn.presets import zoo_folder

    photo = zoo_folder() / "demo" / "immunohistochemistry.png"
    image = read_image(photo)
    crops = [image[y1:y2, x1:x2] for y1, y2, x1, x2 in _DEMO_CROPS]
    return [(photo.stem, np.ascontiguousarray(crop)) for crop in crops]


def _detect(model, preprocessor, image, proposals, masks, score):
    own = model.preprocessor
    try:
        model.preprocessor = preprocessor or own
        return model.detect(image, score=score, masks=masks, proposals=proposals)
    finally:
        model.preprocessor = own


def _cut(model, expected):
    """The least score that is shown: the last one's where there is no room for more."""
    decoder = model.parts["decoder"]
    full = len(expected["scores"]) >= decoder.max_detections
    return float(expected["scores"].min()) if full else float(decoder.score_threshold)


def _within(rows, tolerance):
    """Whether all photos' detections together are within the shares that may differ."""
    count = max(sum(row["detections"] for row in rows), 1)
    alone = sum(row["missing"] + row["extra"] for row in rows)
    return alone <= tolerance.missing * count and sum(row["off"] for row in rows) <= tolerance.off * count


def _partners(expected, found, least):
    """Pairs (i, j) of one class, each index at most once, the best IoU first."""
    from keras_rcnn.ops.boxes import iou

    if not len(expected["scores"]) or not len(found["scores"]):
        return []
    overlap = np.array(iou(np.float32(expected["boxes"]), np.float32(found["boxes"])))
    overlap[expected["labels"][:, None] != found["labels"][None]] = 0
    pairs = []
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = np.unravel_index(place, overlap.shape)
        if overlap[i, j] < least or overlap[i, j] <= 0:
            continue
        pairs.append((i, j))
        overlap[i], overlap[:, j] = 0, 0
    return pairs


def _far(one, other):
    return float(np.max(np.abs(np.float64(one) - np.float64(other)), initial=0.0))


def _disagreement(one, other):
    """1 - IoU of two masks."""
    one, other = one.astype(bool), other.astype(bool)
    return 1.0 - float(np.sum(one & other)) / max(int(np.sum(one | other)), 1) if (one | other).any() else 0.0


def _name(i, photo):
    return f"array {i}" if isinstance(photo, np.ndarray) else str(getattr(photo, "name", photo))
