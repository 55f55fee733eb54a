"""`POST /detect`: a photo is the body, and JSON as `keras-rcnn detect --json` writes it is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from keras_rcnn.data.masks import text_rle
from keras_rcnn.interfaces import MaskForm
from keras_rcnn.serve.bodies import score_of
from keras_rcnn.serve.model import Found, ServedModel
from keras_rcnn.serve.refusal import Refusal, shown

_MASKS: dict[str, MaskForm] = {"rle": "rle", "crops": "crops", "none": False}


def options_of(query: Mapping[str, str]) -> tuple[float | None, MaskForm]:
    """`?score=S&masks=FORM` -> least score (None: the preset's) and form of the masks."""
    unknown = [key for key in query if key not in ("score", "masks")]
    if unknown:
        raise Refusal(400, f"?{shown(unknown[0])}= is unknown; there are score and masks.")
    form = query.get("masks", "rle")
    if form not in _MASKS:
        raise Refusal(400, f"masks={shown(form)}: one of {', '.join(_MASKS)} is wanted.")
    return (score_of(query["score"]) if "score" in query else None), _MASKS[form]


def answer(found: Found, score: float | None, masks: MaskForm, model: ServedModel) -> dict[str, Any]:
    """A photo's detections, best first, as JSON has them."""
    detections = cast(dict[str, Any], model.detections(found, score, masks))
    shown_masks = detections.pop("masks", None)
    made: dict[str, Any] = {"model": model.name, "height": found.size[0], "width": found.size[1]}
    made |= {key: value if isinstance(value, list) else value.tolist() for key, value in detections.items()}
    if shown_masks is not None:
        made["masks"] = [text_rle(mask) for mask in shown_masks] if masks == "rle" else shown_masks.tolist()
    return made
