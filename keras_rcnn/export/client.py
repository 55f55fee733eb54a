"""A detector that runs behind TensorFlow Serving or `keras-rcnn serve`, asked over REST or gRPC."""

import base64
import contextlib
import http.client
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, overload
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.images import read_image
from keras_rcnn.data.paste import pasted
from keras_rcnn.data.request import check_request, check_whole
from keras_rcnn.export.answers import AnswerError, photos_of
from keras_rcnn.export.rest import TooLongError, fetch
from keras_rcnn.export.saved_model import contents_of
from keras_rcnn.interfaces import AnyPhoto, Detections, MaskForm, Photo
from keras_rcnn.printable import printable

_PORTS = {"http": 8501, "https": 443, "grpc": 8500, "grpcs": 443}
# bytes of an answer; the crops of 100 masks are 1.5 MB of json, or 0.3 MB over gRPC, pasted ones 1 MB a megapixel each
MAX_ANSWER = 256 * 2**20
_SIGNATURE = "serving_default"


class ServingError(OSError):
    """A server that cannot be reached or does not answer as asked; the message has its address and what it said.

    Attributes:
        refused: whether the server has understood the request, and refused it.
    """

    refused = False


class ServedDetector:
    """A detector behind `keras-rcnn serve`, or its SavedModel in a TF Serving: `detect` as a detector has it.

    `keras_rcnn.evaluate` takes it, too. What the server answers is checked: it ends in detections or a `ServingError`.

    Args:
        url: `http://HOST:8501/NAME` for REST, `grpc://HOST:8500/NAME` for gRPC (`https`, `grpcs` with TLS); the ports
            are the defaults. With `/NUMBER` behind it, that version.
        timeout: seconds that a request may take.
        max_answer: int, bytes of an answer that are read at most; a longer one is refused. Read from json, numbers take
            up to ten times as much memory. Pasted masks of large photos may need more than the default of 256 MB.
        token: str that `keras-rcnn serve`, or a proxy, wants as `Authorization: Bearer TOKEN`; for REST only.

    Example:

    >>> model = ServedDetector("grpc://localhost:8500/nuclei")
    >>> model.detect("photo.jpg", score=0.5)["boxes"]
    """

    def __init__(self, url: str, timeout: float = 60.0, max_answer: int = MAX_ANSWER, token: str | None = None) -> None:
        parts = urlsplit(url)
        path = parts.path.strip("/").split("/")
        try:
            port = _PORTS.get(parts.scheme) and (parts.port or _PORTS[parts.scheme])
        except ValueError:
            port = None
        version = path[1] if len(path) > 1 else None
        wrong = len(path) > 2 or not path[0] or (version is not None and not version.isdecimal())
        if port is None or not parts.hostname or wrong:
            raise ValueError(f"{url}: a served model is http://HOST:8501/NAME or grpc://HOST:8500/NAME[/VERSION]")
        if isinstance(timeout, (bool, str)) or not 0 < timeout < math.inf:
            raise ValueError(f"timeout is a number of seconds over 0, not {timeout!r}.")
        check_whole("max_answer", max_answer, "bytes")
        if token is not None and (parts.scheme not in ("http", "https") or not re.fullmatch(r"[\x21-\x7e]+", token)):
            raise ValueError("token is a text without spaces, for http:// and https:// only.")
        self.url, self.timeout, self.max_answer, self._token = url, timeout, int(max_answer), token
        self.scheme, self.address, self.name = parts.scheme, f"{parts.hostname}:{port}", path[0]
        if ":" in parts.hostname:  # IPv6
            self.address = f"[{parts.hostname}]:{port}"
        self.version = version and int(version)
        self._known = None

    @property
    def wants_proposals(self) -> bool | None:
        """Whether proposals are to be sent along; None if the server does not tell."""
        return self._has("inputs", "proposals")

    @property
    def has_masks(self) -> bool | None:
        """Whether the answers have masks; None if the server does not tell."""
        return self._has("outputs", "masks")

    @overload
    def detect(
        self,
        images: Photo,
        score: float = ...,
        batch_size: int | None = ...,
        masks: MaskForm = ...,
        proposals: ArrayLike | None = ...,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        images: list[AnyPhoto] | tuple[AnyPhoto, ...],
        score: float = ...,
        batch_size: int | None = ...,
        masks: MaskForm = ...,
        proposals: list[ArrayLike] | None = ...,
    ) -> list[Detections]: ...

    def detect(
        self,
        images: Any,
        score: float = 0.5,
        batch_size: int | None = None,
        masks: MaskForm = True,
        proposals: Any = None,
    ) -> Any:
        """What `Detector.detect` returns, of the served model.

        The files of JPEGs and PNGs are sent as they are, anything else as a PNG.

        Args:
            images: a path, an array [H, W], [H, W, 3] or [H, W, 4], or a list of such.
            score: float from 0 to 1; only detections with at least this score are returned.
            batch_size: int from 1, photos in a request; None takes 1. The server runs them one after another.
            masks: of a detector with masks: True for boolean arrays of the photo's size, `"rle"` for COCO RLE,
                `"crops"` for the probabilities, each in its box, False for none. Of a model exported with pasted masks
                they are arrays in any case.
            proposals: of a detector that wants such: [P, 4] xyxy in px of the photo, for a list of photos a list.

        Returns:
            For a single photo a dict, for a list a list of dicts: `boxes`, `scores`, `labels`, `names` and `masks`.

        Raises:
            ValueError: for an argument that is not as above; nothing is sent.
            ServingError: the server cannot be reached, does not know the model, reports an error, or answers something
                that is not a detector's.
            keras_rcnn.data.ImageError: for a file that is not a readable image; nothing of its request is sent.
        """
        many = isinstance(images, (list, tuple))
        images, proposals = check_request(images, score=score, batch_size=batch_size, masks=masks, proposals=proposals)
        step, results = int(batch_size or 1), []
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            results += self._detect(images[part], proposals and proposals[part], score, masks)
        return results if many else results[0]

    def _detect(
        self, photos: Sequence[Photo], proposals: Sequence[np.ndarray] | None, score: float, masks: MaskForm
    ) -> list[Detections]:
        images = [read_image(photo) for photo in photos]
        inputs: dict[str, Any] = {"image_bytes": [contents_of(*pair) for pair in zip(photos, images, strict=True)]}
        if proposals is not None:
            inputs["proposals"] = _padded(proposals)
        try:
            outputs = self.predict(inputs)
        except ServingError as error:
            raise self._explained(error, proposals) from error
        sizes = [image.shape[:2] for image in images]
        try:
            answers = photos_of(outputs, sizes)
        except AnswerError as error:
            raise self._wrong(error) from error
        self._known = {"inputs": set(inputs), "outputs": set(outputs)}
        return [_shown(detections, size, score, masks) for detections, size in zip(answers, sizes, strict=True)]

    def predict(self, inputs: Mapping[str, Any], signature: str = _SIGNATURE) -> dict[str, np.ndarray]:
        """One request to a signature.

        Args:
            inputs: dict of arrays or lists; encoded photos are `bytes`.
            signature: `"serving_default"`, `"images"` or `"features"`.

        Returns:
            A dict of arrays; what is in them is the server's.

        Raises:
            ServingError: as in `detect`.
        """
        return (self._grpc if self.scheme.startswith("grpc") else self._rest)(inputs, signature)

    # === What the model is ===

    def _has(self, side: str, key: str) -> bool | None:
        if self._known is None:
            with contextlib.suppress(ServingError, KeyError, TypeError, AttributeError):
                self._known = (self._grpc_metadata if self.scheme.startswith("grpc") else self._rest_metadata)()
        return None if self._known is None else key in self._known[side]

    def _explained(self, error: ServingError, proposals: Sequence[np.ndarray] | None) -> ServingError:
        """A refusal with what is the matter, if it is the proposals."""
        if error.refused and self._has("inputs", "proposals") == (proposals is None):
            reason = "wants proposals: detect(..., proposals=...)"
            if proposals is not None:
                reason = "finds its proposals itself: leave proposals out"
            return ServingError(f"{self.url}: the model {reason}. The server says: {error}")
        return error

    def _wrong(self, reason: str | Exception) -> ServingError:
        return ServingError(f"{self.url}: not the answer of a detector: {printable(reason)[:500]}")

    # === REST ===

    def _rest_url(self) -> str:
        version = "" if self.version is None else f"/versions/{self.version}"
        return f"{self.scheme}://{self.address}/v1/models/{self.name}{version}"

    def _rest(self, inputs: Mapping[str, Any], signature: str) -> dict[str, np.ndarray]:
        body = json.dumps({"signature_name": signature, "inputs": {key: _json(array) for key, array in inputs.items()}})
        answer = self._asked(f"{self._rest_url()}:predict", body.encode())
        outputs = answer.get("outputs") if isinstance(answer, dict) else None
        if not isinstance(outputs, dict):
            raise self._wrong(f"json without a table of outputs: {_short(answer)}")
        return {key: self._array(key, value) for key, value in outputs.items()}

    def _rest_metadata(self) -> dict[str, set[str]]:
        answer = self._asked(f"{self._rest_url()}/metadata")
        signature = answer["metadata"]["signature_def"]["signature_def"][_SIGNATURE]
        return {side: set(signature[side]) for side in ("inputs", "outputs")}

    def _asked(self, address: str, body: bytes | None = None) -> Any:
        """The json that is answered."""
        try:
            status, reason, content = fetch(
                address, body, timeout=self.timeout, most=self.max_answer, token=self._token
            )
            if status != 200:
                error = ServingError(f"{self.url}: {status} {_said(content) or printable(reason)[:500]}")
                error.refused = status == 400
                raise error
            return json.loads(content)
        except ServingError:
            raise
        except TooLongError as error:
            raise self._too_long() from error
        except RecursionError as error:
            raise self._wrong("json that is nested too deep") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = printable(getattr(error, "reason", None) or error)[:500] or type(error).__name__
            raise ServingError(f"{self.url}: no answer of TF Serving: {said}") from error

    def _too_long(self, said: str = "") -> ServingError:
        size = f"{self.max_answer} bytes"
        if self.max_answer >= 2**20:
            size = f"{self.max_answer / 2**20:.0f} MB"
        return ServingError(f"{self.url}: the answer is longer than {size}{said}; max_answer= is this limit")

    def _array(self, key: str, value: Any) -> np.ndarray:
        """json's lists as an array of integers, floats, bools, or (as objects) texts."""
        try:
            array = np.array(value, dtype=object)
            types = {type(item) for item in array.ravel().tolist()}
            if types == {str}:
                return array
            for allowed, dtype in (({bool}, bool), ({int}, np.int64), ({int, float}, np.float64)):
                if types <= allowed:
                    return array.astype(dtype)
            reason = " and ".join(sorted(type_.__name__ for type_ in types))
            reason = "lists of several lengths" if list in types else reason
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            reason = error
        raise self._wrong(f"{key} is no array of numbers or texts: {reason}")

    # === gRPC ===

    @contextlib.contextmanager
    def _channel(self) -> Iterator[Any]:
        """A channel, of which errors are ServingErrors."""
        try:
            import grpc
            import tensorflow_serving.apis  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"gRPC needs tensorflow-serving-api: pip install 'keras-rcnn-zoo[serving]' ({error}); http:// does not"
            ) from error
        # its default refuses answers of more than 4 MB
        limits = [
            ("grpc.max_receive_message_length", min(self.max_answer, 2**31 - 1)),
            ("grpc.max_send_message_length", -1),
        ]
        if self.scheme == "grpcs":
            channel = grpc.secure_channel(self.address, grpc.ssl_channel_credentials(), limits)
        else:
            channel = grpc.insecure_channel(self.address, limits)
        with channel:
            try:
                yield channel
            except grpc.RpcError as error:
                code, details = error.code(), printable(error.details())[:500]
                if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
                    raise self._too_long(f" ({details})") from error
                failed = ServingError(f"{self.url}: {code.name}: {details}")
                failed.refused = code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
                raise failed from error

    def _grpc(self, inputs: Mapping[str, Any], signature: str) -> dict[str, np.ndarray]:
        with self._channel() as channel:
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

            request = predict_pb2.PredictRequest()
            self._describe(request.model_spec, signature)
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, self.timeout)
        return {key: self._tensor(tf, key, value) for key, value in answer.outputs.items()}

    def _grpc_metadata(self) -> dict[str, set[str]]:
        with self._channel() as channel:
            from tensorflow_serving.apis import get_model_metadata_pb2, prediction_service_pb2_grpc

            request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
            self._describe(request.model_spec)
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answer = stub.GetModelMetadata(request, self.timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(signatures):
            raise KeyError("signature_def")
        signature = signatures.signature_def[_SIGNATURE]
        return {"inputs": set(signature.inputs), "outputs": set(signature.outputs)}

    def _describe(self, spec: Any, signature: str = "") -> None:
        spec.name, spec.signature_name = self.name, signature
        if self.version is not None:
            spec.version.value = self.version

    def _tensor(self, tf: ModuleType, key: str, value: Any) -> np.ndarray:
        """An array; a message of a few bytes may claim to be of any size."""
        try:
            sides = [side.size for side in value.tensor_shape.dim]
            size = math.prod(sides) * np.dtype(tf.dtypes.as_dtype(value.dtype).as_numpy_dtype).itemsize
            if value.tensor_shape.unknown_rank or min(sides, default=0) < 0 or size > self.max_answer:
                raise self._wrong(f"{key} has the shape {sides}")
            return tf.make_ndarray(value)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise self._wrong(f"{key} is no array: {error}") from error


def _padded(proposals: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of each photo as float32 [B, P, 4], P at least 1: of none, json would not know that they are of four."""
    padded = np.zeros((len(proposals), max(1, *map(len, proposals)), 4), np.float32)
    for row, boxes in zip(padded, proposals, strict=True):
        row[: len(boxes)] = boxes
    return padded


def _shown(detections: Mapping[str, Any], size: tuple[int, ...], score: float, masks: MaskForm) -> Detections:
    """One photo's detections from `score` on, with masks as they are asked for."""
    keep = np.flatnonzero(detections["scores"] >= score)
    shown: Any = {key: detections[key][keep] for key in ("boxes", "scores", "labels")}
    shown["names"] = [detections["names"][i] for i in keep]
    if "keypoints" in detections:
        shown["keypoints"] = detections["keypoints"][keep]
    if "masks" in detections and masks:
        values = detections["masks"][keep]
        in_graph = values.dtype == bool
        shown["masks"] = values if in_graph else pasted(values, shown["boxes"], size, masks)
    return shown


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _said(content: bytes) -> str:
    """What the server says of an error, if it does."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        return printable(json.loads(content)["error"])[:500]
    return ""


def _short(value: Any) -> str:
    """The beginning of what json has."""
    words = {dict: "an object", list: "a list", str: "a text"}
    return words.get(type(value)) or printable(value)[:50]
