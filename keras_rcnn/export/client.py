"""A detector that runs behind TensorFlow Serving, asked over REST or gRPC."""

import base64
import json
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np

from keras_rcnn.data.images import read_image
from keras_rcnn.data.paste import paste_masks, paste_rle
from keras_rcnn.export.saved_model import contents_of

_PORTS = {"http": 8501, "https": 443, "grpc": 8500, "grpcs": 443}
# of gRPC, whose default refuses answers of more than 4 MB: masks are larger
_MESSAGES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class ServingError(OSError):
    """A server that cannot be reached or does not answer as asked; the message has its address and what it said."""


class ServedDetector:
    """A SavedModel that `keras_rcnn.export` wrote, in a TF Serving somewhere: `detect` as a detector has it.

    Args:
        url: `http://HOST:8501/NAME` for REST, `grpc://HOST:8500/NAME` for gRPC (`https`, `grpcs` with TLS); the ports
            are the defaults. With `/NUMBER` behind it, that version.
        timeout: seconds that a request may take.

    Example:

    >>> model = ServedDetector("grpc://localhost:8500/nuclei")
    >>> model.detect("photo.jpg", score=0.5)["boxes"]
    """

    def __init__(self, url, timeout=60.0):
        parts = urlsplit(url)
        path = parts.path.strip("/").split("/")
        try:
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            port = None
        version = path[1] if len(path) > 1 else None
        wrong = len(path) > 2 or not path[0] or (version is not None and not version.isdecimal())
        if port is None or not parts.hostname or wrong:
            raise ValueError(f"{url}: a served model is http://HOST:8501/NAME or grpc://HOST:8500/NAME[/VERSION]")
        self.url, self.timeout = url, timeout
        self.scheme, self.address, self.name = parts.scheme, f"{parts.hostname}:{port}", path[0]
        if ":" in parts.hostname:  # IPv6
            self.address = f"[{parts.hostname}]:{port}"
        self.version = version and int(version)

    def detect(self, images, score=0.5, masks=True, proposals=None):
        """What `Detector.detect` returns, of the served model.

        The files of JPEGs and PNGs are sent as they are, anything else as a PNG; a request for each photo.

        Args:
            images: a path, an array [H, W], [H, W, 3] or [H, W, 4], or a list of such.
            score: float; only detections with at least this score are returned.
            masks: of a detector with masks: True for boolean arrays of the photo's size, `"rle"` for COCO RLE,
                `"crops"` for the probabilities, each in its box, False for none. Of a model exported with pasted masks
                they are arrays in any case.
            proposals: of a detector that wants such: [P, 4] xyxy in px of the photo, for a list of photos a list.

        Returns:
            For a single photo a dict, for a list a list of dicts: `boxes`, `scores`, `labels`, `names` and `masks`.

        Raises:
            ServingError: the server cannot be reached, does not know the model, or reports an error.
            keras_rcnn.data.ImageError: for a file that is not a readable image; nothing is sent.
        """
        many = isinstance(images, (list, tuple))
        images, proposals = (images, proposals) if many else ([images], [proposals])
        proposals = proposals or [None] * len(images)
        found = [self._detect(*pair, score, masks) for pair in zip(images, proposals, strict=True)]
        return found if many else found[0]

    def _detect(self, photo, proposals, score, masks):
        image = read_image(photo)
        inputs = {"image_bytes": [contents_of(photo, image)]}
        if proposals is not None:
            inputs["proposals"] = np.reshape(np.float32(proposals), (1, -1, 4))
        outputs = {key: value[0] for key, value in self.predict(inputs).items()}
        keep = (outputs["labels"] >= 0) & (outputs["scores"] >= score)
        found = {key: np.float32(outputs[key])[keep] for key in ("boxes", "scores")}
        found["labels"] = outputs["labels"][keep].astype(np.int32)
        found["names"] = [_text(name) for name in outputs["names"][keep]]
        if "masks" in outputs and masks:
            values = outputs["masks"][keep[: len(outputs["masks"])]]
            if values.dtype.kind in "iub":  # pasted in the graph
                found["masks"] = values.astype(bool)
            elif masks == "crops":
                found["masks"] = np.float32(values)
            else:
                paste = paste_rle if masks == "rle" else paste_masks
                found["masks"] = paste(np.float32(values), found["boxes"], *image.shape[:2])
        return found

    def predict(self, inputs, signature="serving_default"):
        """One request to a signature.

        Args:
            inputs: dict of arrays or lists; encoded photos are `bytes`.
            signature: `"serving_default"`, `"images"` or `"features"`.

        Returns:
            A dict of arrays.

        Raises:
            ServingError: as in `detect`.
        """
        return (self._grpc if self.scheme.startswith("grpc") else self._rest)(inputs, signature)

    def _rest(self, inputs, signature):
        version = "" if self.version is None else f"/versions/{self.version}"
        address = f"{self.scheme}://{self.address}/v1/models/{self.name}{version}:predict"
        body = json.dumps({"signature_name": signature, "inputs": {key: _json(one) for key, one in inputs.items()}})
        request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.loads(response.read())
            outputs = answer["outputs"]
        except urllib.error.HTTPError as error:
            raise ServingError(f"{self.url}: {_reason(error)}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServingError(f"{self.url}: no answer of TF Serving: {reason}") from error
        return {key: np.array(value) for key, value in outputs.items()}

    def _grpc(self, inputs, signature):
        try:
            import grpc
            from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError(
                f"gRPC needs tensorflow-serving-api: pip install 'keras-rcnn-zoo[serving]' ({error}); http:// does not"
            ) from error
        import tensorflow as tf

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self.name, signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        if self.scheme == "grpcs":
            channel = grpc.secure_channel(self.address, grpc.ssl_channel_credentials(), _MESSAGES)
        else:
            channel = grpc.insecure_channel(self.address, _MESSAGES)
        with channel:
            try:
                answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, self.timeout)
            except grpc.RpcError as error:
                raise ServingError(f"{self.url}: {error.code().name}: {error.details()}") from error
        return {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}


def _json(value):
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_json(one) for one in value] if isinstance(value, (list, tuple)) else value


def _reason(error):
    """What the server said, or the status."""
    try:
        return f"{error.code} {json.loads(error.read())['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
