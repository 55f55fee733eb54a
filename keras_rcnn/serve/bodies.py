"""What a request brings: a body within its limits, JSON that is not out to do harm, arrays, base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from keras_rcnn.data.request import check_boxes
from keras_rcnn.serve.model import MAX_PROPOSALS
from keras_rcnn.serve.refusal import Refusal, shown

if TYPE_CHECKING:
    from starlette.requests import Request

# numbers, lists and objects of a JSON body; each takes up to 80 bytes of memory, however short it is written
MAX_VALUES = 4_000_000
# px, further than any photo reaches
_FAR = 1_000_000
# of bodies that are held at once, as a multiple of one's limit
_HELD = 4


class Bodies:
    """Reads bodies, and knows how many bytes of them are held.

    Args:
        most: int, bytes of one.
        seconds: float, that it may take to arrive.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds, self.held = most, seconds, 0

    async def read(self, request: Request) -> bytes:
        """A request's body; its bytes count as held until `release`.

        Raises:
            Refusal: it is longer than it may be, compressed, or does not arrive in time.
        """
        check_framing(request)
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self.most:
            raise self._too_long(f"{int(stated):,} bytes")
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.seconds):
                async for part in request.stream():
                    length += len(part)
                    if length > self.most:
                        raise self._too_long("a body")
                    if self.held + len(part) > _HELD * self.most:
                        raise Refusal(429, "Too many large requests at once: come again.", "memory", retry_after=1)
                    self.held += len(part)
                    request.state.held = length
                    parts.append(part)
        except TimeoutError as error:
            raise Refusal(
                408, f"{length} bytes of the body arrived within {self.seconds:g} s, and not its end.", "slow"
            ) from error
        return b"".join(parts)

    def release(self, request: Request) -> None:
        """A request is over."""
        self.held -= getattr(request.state, "held", 0)

    def _too_long(self, what: str) -> Refusal:
        return Refusal(413, f"{what} is more than {self.most:,} bytes, this service's limit.", "too_long")


def check_framing(request: Request) -> None:
    """Refuses what two programs could read differently, and bodies that grow when they are unpacked."""
    headers = request.headers
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other: send one.", "headers")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Refusal(415, f"Content-Encoding {shown(coding)} is not read: send the body as it is.", "headers")


# === JSON ===


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        Refusal: it is none, or one of a million parts.
    """
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > MAX_VALUES:
        raise Refusal(413, f"JSON of {values:,} values; at most {MAX_VALUES:,} are read: send photos as files.")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"JSON Parse error: not UTF-8 at byte {error.start}: {_hint(body)}") from error
    except RecursionError as error:
        raise Refusal(400, "JSON Parse error: lists or objects are nested too deep") from error
    except ValueError as error:
        raise Refusal(400, f"JSON Parse error: {shown(error)}: {_hint(body)}") from error
    if not isinstance(document, dict):
        raise Refusal(400, f"JSON Parse error: an object is wanted, not {kind_of_json(document)}: {_hint(body)}")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _hint(body: bytes) -> str:
    return f"the body begins with {shown(body[:20])}"


def kind_of_json(value: Any) -> str:
    """What JSON calls a value."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def image_bytes(value: Any, where: str) -> bytes:
    """`{"b64": TEXT}` -> bytes; a plain string is the bytes of its UTF-8, as TF Serving has it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if not isinstance(value, dict) or set(value) != {"b64"} or not isinstance(value["b64"], str):
        said = f"an object with {shown(', '.join(map(str, value)))}" if isinstance(value, dict) else kind_of_json(value)
        raise Refusal(400, f'{where}: {{"b64": "..."}} is wanted, a file in base64, not {said}.')
    return from_base64(value["b64"], where)


def from_base64(text: str, where: str) -> bytes:
    """The bytes that are written in base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"{where}: not base64 ({shown(error)}).") from error


def pixels(value: Any, where: str, max_pixels: int) -> np.ndarray:
    """Lists of numbers -> uint8 [height, width, 3]."""
    array = numbers(value, where)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise Refusal(400, f"{where}: [height, width, 3] is wanted, not the shape {list(array.shape)}.")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise Refusal(400, f"{where}: whole numbers from 0 to 255 are wanted.")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise Refusal(413, f"{where}: {array.shape[1]} x {array.shape[0]} px are more than {max_pixels:,}.")
    return array.astype(np.uint8)


def boxes(value: Any, where: str) -> np.ndarray:
    """Lists of numbers -> float32 [P, 4], boxes to look at."""
    array = numbers(value, where)
    if array.ndim == 2 and len(array) > MAX_PROPOSALS:
        raise Refusal(413, f"{where}: {len(array)} boxes; at most {MAX_PROPOSALS} are looked at.")
    if array.size and np.abs(array).max() > _FAR:
        raise Refusal(400, f"{where}: a box lies further than {_FAR:,} px away.")
    try:
        return check_boxes(array, where)
    except ValueError as error:
        raise Refusal(400, shown(error)) from error


def numbers(value: Any, where: str) -> np.ndarray:
    """Nested lists of numbers, all of one length, as an array."""
    if not isinstance(value, list):
        raise Refusal(400, f"{where}: a list is wanted, not {kind_of_json(value)}.")
    try:
        array = np.array(value, dtype=object)  # of texts, any other would be as wide as the longest
        types = {type(item) for item in array.ravel().tolist()}
        if types <= {int, float}:
            array = array.astype(np.int64 if types == {int} else np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refusal(400, f"{where}: lists that are nested too deep, or numbers that are too large.") from error
    if array.dtype == object:
        raise Refusal(400, f"{where}: numbers are wanted, in lists of one length.")
    if not np.isfinite(array).all():
        raise Refusal(400, f"{where}: a number is not finite.")
    return array


def score_of(text: str) -> float:
    """A least score that is written in an address."""
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise Refusal(400, f"score={shown(text)}: a number from 0 to 1 is wanted.")
    return score
