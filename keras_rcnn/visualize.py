"""Draw detections onto a picture."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rcnn.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from keras_rcnn.interfaces import Detections, FilePath, Photo
    from keras_rcnn.skeletons import Skeleton

# the first ones apart for every eye, none close to skin, grass or sky; then the golden angle around the colour wheel
COLOURS = (
    (255, 82, 82),
    (64, 156, 255),
    (255, 193, 7),
    (0, 200, 140),
    (200, 110, 255),
    (255, 128, 30),
    (0, 205, 230),
    (255, 105, 180),
    (150, 220, 40),
    (120, 110, 255),
    (230, 180, 140),
    (0, 150, 110),
)
SURE = 0.05  # the least score of a keypoint that is drawn
DENSE = 15  # detections in a picture; above it, labels only go where there is room for them


def draw(
    image: Photo,
    detections: Detections | Mapping[str, Any],
    path: FilePath | None = None,
    score: float | None = None,
    class_names: Sequence[str] | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
    skeleton: Skeleton | None = None,
) -> np.ndarray:
    """Draw boxes, masks, keypoints and labels of one image's detections.

    Lines and letters scale with the image, and get thinner where it is crowded. In a crowd, labels are left out for
    objects smaller than their label, and altogether if all objects are of one class. A class has the same colour in
    every picture; where all are of one class, masks differ in shade, so that neighbours can be told apart.

    Args:
        image: path, PIL image, or array `[height, width]`, `[height, width, 3]` or `[height, width, 4]`.
        detections: dict as `model.detect` returns it for one image: `"boxes"` `[n, 4]` xyxy pixels, and where there,
            `"labels"` `[n]`, `"scores"` `[n]`, `"names"` (n words to print), and `"masks"`: boolean or 0..1
            `[n, height, width]`, or COCO RLEs, and `"keypoints"` `[n, K, 3]`, x, y and score or
            visibility. Ground truth can be drawn too: boxes and labels will do.
        path: where to save the picture, if anywhere; the ending decides the format (`.png`, `.jpg` ...).
        score: float. Leave out detections that score less.
        class_names: list of words for the labels, if there are no `"names"`.
        colours: list of n colours `(red, green, blue)`, 0..255, one for each detection, instead of the classes'.
        skeleton: which keypoints are joined by lines, `model.skeleton`; None: COCO's 17 as COCO has it, others not.

    Returns:
        uint8 RGB array `[height, width, 3]`.

    Raises:
        ValueError: detections that are not those of one image, or do not fit it, or have no scores to go by.

    Example:

    >>> draw("photo.jpg", model.detect("photo.jpg"), "found.png", score=0.5)
    """
    from PIL import Image

    _check(detections, score, class_names, colours)
    picture = _pixels(image)
    chosen = _chosen(detections, score)
    if colours is None:
        shown = [class_colour(label) for label in chosen["labels"]]
    else:
        shown = [tuple(colours[i]) for i in chosen["places"]]
    style = _style(picture.shape, chosen["boxes"])
    if chosen["masks"] is not None:
        _check_masks(chosen["masks"], picture.shape)
        if colours is None and len(set(shown)) == 1:
            shown = _shades(shown)
        picture = _with_masks(picture, chosen["masks"], shown, style)
    canvas = Image.fromarray(picture)
    _draw_boxes(canvas, chosen["boxes"], shown, style, faint=chosen["masks"] is not None)
    if chosen["keypoints"] is not None:
        _draw_keypoints(canvas, chosen["keypoints"], shown, style, skeleton)
    texts = _texts(chosen, class_names)
    if texts is not None and not (style["dense"] and len(np.unique(chosen["labels"])) == 1):
        _draw_labels(canvas, chosen["boxes"], texts, shown, style)
    if path is not None:
        _save(canvas, Path(path))
    return np.asarray(canvas).copy()


def side_by_side(pictures: Sequence[np.ndarray], path: FilePath, height: int = 400, gap: int = 6) -> None:
    """Saves pictures as one, in a row, all of one height.

    Args:
        pictures: uint8 RGB arrays `[height, width, 3]`.
        path: where to save the picture; the ending decides the format.
        height: of the result, in pixels.
        gap: white pixels between two pictures.
    """
    from PIL import Image

    row = [Image.fromarray(picture) for picture in pictures]
    row = [picture.resize((round(picture.width * height / picture.height), height)) for picture in row]
    canvas = Image.new("RGB", (sum(picture.width + gap for picture in row) - gap, height), "white")
    left = 0
    for picture in row:
        canvas.paste(picture, (left, 0))
        left += picture.width + gap
    _save(canvas, Path(path))


def class_colour(label: int) -> tuple[int, int, int]:
    """A class's colour, the same in every picture: `(red, green, blue)`, 0..255."""
    label = int(label)
    if 0 <= label < len(COLOURS):
        return COLOURS[label]
    hue = (label * 0.6180339887) % 1
    lightness, saturation = ((0.6, 1.0), (0.72, 0.85), (0.5, 0.9))[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _pixels(image: Photo) -> np.ndarray:
    from keras_rcnn.data.images import read_image

    return read_image(image)


def _check(
    detections: Any,
    score: float | None,
    class_names: Sequence[str] | None,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Refuses what cannot be drawn, or would be left out without a word."""
    from keras_rcnn.data.request import check_boxes, check_score

    if not isinstance(detections, Mapping) or "boxes" not in detections:
        raise ValueError(
            "draw takes the detections of one image, a dict with 'boxes' as model.detect returns it for one, not a "
            f"{type(detections).__name__}."
        )
    count = len(check_boxes(detections["boxes"], "The detections' boxes"))
    for key in ("labels", "scores", "names", "masks", "keypoints"):
        values = detections.get(key)
        if values is not None and len(values) != count:
            raise ValueError(f"The detections have {count} boxes, but {len(values)} {key}.")
    if colours is not None and len(colours) != count:
        raise ValueError(f"The detections have {count} boxes, but there are {len(colours)} colours.")
    if score is not None:
        check_score(score, math.inf)
        if detections.get("scores") is None:
            raise ValueError(f"score={score}, but the detections have no 'scores'.")
    if class_names is not None and detections.get("names") is None and detections.get("labels") is not None:
        highest = int(np.max(detections["labels"], initial=-1))
        if highest >= len(class_names):
            raise ValueError(f"{len(class_names)} class_names, but there is a label {highest}.")


def _chosen(detections: Mapping[str, Any], score: float | None) -> dict[str, Any]:
    """The detections to draw, as arrays, worst first so that the best come on top; padding is dropped."""
    boxes = np.array(detections["boxes"], "float64").reshape(-1, 4)
    labels = np.asarray(detections.get("labels", np.zeros(len(boxes)))).astype(int).reshape(-1)
    scores, names, masks, points = (detections.get(key) for key in ("scores", "names", "masks", "keypoints"))
    keep = labels >= 0
    if scores is not None:
        scores = np.asarray(scores, "float64").reshape(-1)
        keep &= scores >= (-np.inf if score is None else score)
        order = np.argsort(scores, kind="stable")
    else:
        size = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        order = np.argsort(-size, kind="stable")  # without scores: small ones on top
    order = order[keep[order]]
    return {
        "places": order,
        "boxes": boxes[order],
        "labels": labels[order],
        "scores": None if scores is None else scores[order],
        "names": None if names is None else [names[i] for i in order],
        "masks": None if masks is None else _boolean([masks[i] for i in order]),
        "keypoints": None if points is None or not len(boxes) else np.asarray(points, "float64")[order],
    }


def _boolean(masks: list[Any]) -> list[np.ndarray]:
    if masks and isinstance(masks[0], dict):
        from pycocotools import mask as rle

        masks = [
            rle.decode(rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask)
            for mask in masks
        ]
    return [np.asarray(mask) >= 0.5 for mask in masks]


def _check_masks(masks: list[np.ndarray], shape: tuple[int, ...]) -> None:
    for mask in masks:
        if mask.shape != shape[:2]:
            raise ValueError(
                f"A mask has shape {mask.shape}, but the image is {shape[:2]} (height, width). "
                "Give masks in the frame of the whole image."
            )


def _style(shape: tuple[int, ...], boxes: np.ndarray) -> dict[str, int]:
    """Line width, letter size, and whether it is crowded."""
    side = (shape[0] * shape[1]) ** 0.5
    line = max(1, round(side / 300))
    if len(boxes):
        object_side = float(np.median(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)) ** 0.5)
        line = max(1, min(line, round(object_side / 16)))  # a line must not fill its box
    dense = len(boxes) > DENSE
    letters = max(10, round(side / (55 if dense else 38)))
    return {"line": line, "letters": letters, "dense": dense}


def _shades(colours: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """One colour's variations: the same hue moved a little, lighter and darker in turn."""
    shades = []
    for i, (red, green, blue) in enumerate(colours):
        hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
        hue = (hue + (0, 0.5, 0.14, 0.66, 0.3, 0.8, 0.42)[i % 7]) % 1
        lightness = (lightness, min(0.8, lightness + 0.08), lightness - 0.08)[i % 3]
        shades.append(tuple(round(255 * x) for x in colorsys.hls_to_rgb(hue, lightness, saturation)))
    return shades


def _with_masks(
    picture: np.ndarray, masks: list[np.ndarray], colours: Sequence[tuple[int, int, int]], style: dict[str, int]
) -> np.ndarray:
    import cv2

    picture = picture.copy()
    line = max(1, style["line"] - 1) if style["dense"] else style["line"]
    for mask, colour in zip(masks, colours, strict=True):
        picture[mask] = (0.6 * picture[mask] + 0.4 * np.array(colour)).astype("uint8")
    for mask, colour in zip(masks, colours, strict=True):  # after all fills, so that none covers a contour
        outline, _ = cv2.findContours(mask.astype("uint8"), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outline, -1, colour, line, cv2.LINE_AA if line > 1 else cv2.LINE_8)
    return picture


def _draw_boxes(
    canvas: Image, boxes: np.ndarray, colours: Sequence[tuple[int, int, int]], style: dict[str, int], faint: bool
) -> None:
    from PIL import ImageDraw

    width, height = canvas.size
    pen = ImageDraw.Draw(canvas)
    line = 1 if faint else style["line"]  # the contour says more than the box
    if faint and style["dense"]:
        return
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        # xyxy are edges between pixels: the last pixel inside is x2 - 1
        x1, y1 = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
        x2, y2 = max(min(round(x2) - 1, width - 1), x1), max(min(round(y2) - 1, height - 1), y1)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _draw_keypoints(
    canvas: Image,
    keypoints: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
    style: dict[str, int],
    skeleton: Skeleton | None,
) -> None:
    """Lines between the keypoints in the colour of their object, and a white dot for each."""
    from PIL import ImageDraw

    from keras_rcnn.skeletons import Skeleton

    skeleton = skeleton or Skeleton.of(keypoints.shape[1])
    if len(skeleton) != keypoints.shape[1]:
        raise ValueError(f"The detections have {keypoints.shape[1]} keypoints, the skeleton {len(skeleton)}.")
    pen, size = ImageDraw.Draw(canvas), style["line"]
    for points, colour in zip(keypoints, colours, strict=True):
        at = [tuple(point) for point in points[:, :2].tolist()]
        for start, end in skeleton.bones:
            if min(points[start, 2], points[end, 2]) >= SURE:
                pen.line((at[start], at[end]), fill=colour, width=size + 1)
        for (x, y), sure in zip(at, points[:, 2] >= SURE, strict=True):
            if sure:
                radius = size + 1
                box = (x - radius, y - radius, x + radius, y + radius)
                pen.ellipse(box, fill=(255, 255, 255), outline=colour, width=max(1, size // 2))


def _texts(chosen: Mapping[str, Any], class_names: Sequence[str] | None) -> list[str] | None:
    names = chosen["names"]
    if names is None and class_names is not None:
        names = [class_names[label] for label in chosen["labels"]]
    if names is None and chosen["scores"] is None:
        return None
    names = [printable(name) for name in (chosen["labels"] if names is None else names)]
    if chosen["scores"] is None:
        return names
    return [f"{name} {value:.2f}" for name, value in zip(names, chosen["scores"], strict=True)]


def _draw_labels(
    canvas: Image, boxes: np.ndarray, texts: list[str], colours: Sequence[tuple[int, int, int]], style: dict[str, int]
) -> None:
    from PIL import ImageDraw, ImageFont

    font: Any = ImageFont.load_default(style["letters"])
    pen = ImageDraw.Draw(canvas)
    ascent, descent = font.getmetrics()
    pad = max(1, style["letters"] // 6)
    high = ascent + descent + pad
    taken, chosen = np.zeros((0, 4)), []
    # best first, so that the best labels get the best places; the list is worst first
    for i in reversed(range(len(boxes))):
        x1, y1, x2, y2 = boxes[i]
        wide = pen.textlength(texts[i], font) + 2 * pad
        if style["dense"] and (x2 - x1) * (y2 - y1) < 1.5 * wide * high:
            continue
        place, covered = _place(boxes[i], wide, high, canvas.size, taken)
        if style["dense"] and covered > 0.3 * wide * high:
            continue
        taken = np.concatenate([taken, [place]])
        chosen.append((i, place))
    for i, place in reversed(chosen):  # and come on top
        pen.rectangle(tuple(place), fill=colours[i])
        dark = np.dot(colours[i], (0.299, 0.587, 0.114)) > 130
        pen.text((place[0] + pad, place[1] + pad / 2), texts[i], fill=(0, 0, 0) if dark else (255, 255, 255), font=font)


def _place(
    box: np.ndarray, wide: float, high: float, size: tuple[int, int], taken: np.ndarray
) -> tuple[np.ndarray, float]:
    """Where a label goes: above the box, inside at its top, or below, whichever covers the least of other labels."""
    x1, y1, x2, y2 = box
    spots = [(x1, y1 - high), (x1, y1), (x2 - wide, y1 - high), (x2 - wide, y1), (x1, y2), (x1, y2 - high)]
    best: Any = None
    for x, y in spots:
        inside_x, inside_y = max(0, min(x, size[0] - wide)), max(0, min(y, size[1] - high))
        spot = np.round([inside_x, inside_y, inside_x + wide - 1, inside_y + high - 1])
        shared = np.minimum(spot[2:], taken[:, 2:]) - np.maximum(spot[:2], taken[:, :2])
        # a spot that had to be pushed into the image belongs less clearly to its box
        covered = np.clip(shared, 0, None).prod(1).sum() + 0.05 * abs(inside_y - y) * wide
        if best is None or covered < best[1] - 1e-6:
            best = spot, covered
    return best


def _save(canvas: Image, path: Path) -> None:
    from keras_rcnn.files import aside

    options: dict[str, Any] = {"quality": 92} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    with aside(path) as temporary:
        canvas.save(temporary, **options)
