"""What Prometheus is told: requests, refusals, photos, batches, seconds, the queue, and the process's memory."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "keras_rcnn_requests", "Requests that were answered", ["endpoint", "status"], registry=registry
        )
        self._seconds = Histogram(
            "keras_rcnn_request_seconds",
            "From a request's header to its answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._refused = Counter("keras_rcnn_refused", "Requests that were refused", ["reason"], registry=registry)
        self._photos = Counter("keras_rcnn_photos", "Photos that a model has run", ["model"], registry=registry)
        self._batches = Histogram(
            "keras_rcnn_batch_photos",
            "Photos in a batch",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self._model = Histogram(
            "keras_rcnn_model_seconds", "That a batch takes", ["model"], buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("keras_rcnn_waiting_photos", "Photos in the queue", ["model"], registry=registry)
        self.open = Gauge("keras_rcnn_open_requests", "Requests that are being answered", registry=registry)
        prometheus_client.ProcessCollector(registry=registry)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused."""
        self._refused.labels(reason).inc()

    def batch(self, model: str, photos: int, seconds: float) -> None:
        """A batch was run."""
        self._photos.labels(model).inc(photos)
        self._batches.labels(model).observe(photos)
        self._model.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return prometheus_client.generate_latest(self.registry)
