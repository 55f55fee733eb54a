"""What TF Serving does with a SavedModel, small: PredictionService.Predict over gRPC, and :predict over REST.

And what both tell of a model's signatures. There is no tensorflow_model_server here; the messages are those of its own
protos, the documents those of its REST API.
"""

import base64
import contextlib
import json
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc


class Refused(Exception):
    """An answer that is none: a gRPC status, its HTTP code, and what is said."""


class Served:
    """The versions of one model. `metadata`: whether it tells of its signatures; `requests`: how often it was asked."""

    def __init__(self, name, versions, metadata=True):
        self.name, self.versions, self.metadata, self.requests = name, versions, metadata, 0

    def of(self, name, version):
        version = version or max(self.versions)
        if name != self.name or version not in self.versions:
            raise Refused("NOT_FOUND", 404, f"Servable not found for request: {name}/{version}")
        return self.versions[version]

    def describe(self, name, version):
        """For each signature the names of its inputs and outputs."""
        if not self.metadata:
            raise Refused("UNIMPLEMENTED", 501, "no metadata here")
        return {
            key: {"inputs": list(one.structured_input_signature[1]), "outputs": list(one.structured_outputs)}
            for key, one in self.of(name, version).items()
        }

    def predict(self, name, version, signature, inputs):
        self.requests += 1
        signatures = self.of(name, version)
        if signature not in signatures:
            raise Refused("INVALID_ARGUMENT", 400, f"Serving signature key {signature} not found.")
        specs = signatures[signature].structured_input_signature[1]
        if set(specs) != set(inputs):
            raise Refused("INVALID_ARGUMENT", 400, f"Expects {sorted(specs)}, got {sorted(inputs)}.")
        try:
            outputs = signatures[signature](
                **{key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
            )
        except tf.errors.OpError as error:
            raise Refused("INVALID_ARGUMENT", 400, error.message) from error
        return {key: value.numpy() for key, value in outputs.items()}


class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served):
        self.served = served

    def Predict(self, request, context):
        spec = request.model_spec
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        name = spec.signature_name or "serving_default"
        try:
            outputs = self.served.predict(spec.name, spec.version.value, name, inputs)
        except Refused as error:
            context.abort(grpc.StatusCode[error.args[0]], error.args[2])
        answer = predict_pb2.PredictResponse(model_spec=spec)
        for key, value in outputs.items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return answer

    def GetModelMetadata(self, request, context):
        spec, signatures = request.model_spec, get_model_metadata_pb2.SignatureDefMap()
        try:
            found = self.served.describe(spec.name, spec.version.value)
        except Refused as error:
            context.abort(grpc.StatusCode[error.args[0]], error.args[2])
        for name, sides in found.items():
            for side, keys in sides.items():
                for key in keys:
                    getattr(signatures.signature_def[name], side)[key].name = key
        answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
        answer.metadata["signature_def"].Pack(signatures)
        return answer


def rest_handler(served):
    class Rest(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = self.path.strip("/").split("/")  # v1/models/NAME[/versions/NUMBER]/metadata
            try:
                found = served.describe(parts[2], int(parts[4]) if len(parts) > 4 else 0)
                table = {
                    key: {side: {name: {} for name in names} for side, names in one.items()}
                    for key, one in found.items()
                }
                self.answer(200, {"metadata": {"signature_def": {"signature_def": table}}})
            except Refused as error:
                self.answer(error.args[1], {"error": error.args[2]})

        def do_POST(self):
            path, _, verb = self.path.partition(":")
            parts = path.strip("/").split("/")  # v1/models/NAME[/versions/NUMBER]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            version = int(parts[4]) if len(parts) > 4 else 0
            try:
                inputs = {key: decoded(value) for key, value in body["inputs"].items()}
                outputs = served.predict(parts[2], version, body.get("signature_name", "serving_default"), inputs)
                code, answer = 200, {"outputs": {key: plain(value) for key, value in outputs.items()}}
            except Refused as error:
                code, answer = error.args[1], {"error": error.args[2]}
            self.answer(code if verb == "predict" else 404, answer)

        def answer(self, code, answer):
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Rest


def decoded(value):
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    return [decoded(one) for one in value] if isinstance(value, list) else value


def plain(value):
    return np.char.decode(value.astype(bytes), "utf-8").tolist() if value.dtype == object else value.tolist()


@contextlib.contextmanager
def serving(name, versions, metadata=True):
    """Serves `{number: signatures}` on two free ports of this machine -> (address of gRPC, of REST)."""
    served = versions if isinstance(versions, Served) else Served(name, versions, metadata)
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Grpc(served), server)
    port = server.add_insecure_port("127.0.0.1:0")
    rest = ThreadingHTTPServer(("127.0.0.1", 0), rest_handler(served))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", f"http://127.0.0.1:{rest.server_port}"
    finally:
        server.stop(None).wait()
        rest.shutdown()
        rest.server_close()
