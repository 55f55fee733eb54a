"""What a service takes at most: photos in a batch, in the queue and in a request, bytes, pixels, seconds."""

import os
from dataclasses import dataclass, field

from keras_rcnn.data.request import check_number, check_whole


def _cores() -> int:
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The limits of a service.

    Args:
        max_batch: int, photos of several requests that a model runs at once, at most; only photos that are padded to
            the same size share a batch, so that no answer depends on its neighbours.
        max_wait_ms: float, milliseconds that a photo waits for others that are being read.
        queue: int, photos that may wait for a model; a request for which there is no room is answered by 429.
        max_body: int, bytes of a request's body.
        max_pixels: int, width times height of a photo.
        max_images: int, photos of a request.
        timeout: float, seconds that a request may take, and its body to arrive.
        workers: int, threads that read photos and write answers; each model has a thread of its own.

    Raises:
        ValueError: for a value that is none of these.

    Example:

    >>> keras_rcnn.serve.ServeSettings(max_batch=8, queue=128, timeout=10).max_images
    16
    """

    max_batch: int = 4
    max_wait_ms: float = 5.0
    queue: int = 64
    max_body: int = 32 * 2**20
    max_pixels: int = 25_000_000
    max_images: int = 16
    timeout: float = 30.0
    workers: int = field(default_factory=_cores)

    def __post_init__(self) -> None:
        for name, what in (
            ("max_batch", "photos"),
            ("queue", "photos"),
            ("max_body", "bytes"),
            ("max_pixels", "px"),
            ("max_images", "photos"),
            ("workers", "threads"),
        ):
            check_whole(name, getattr(self, name), what)
        check_number("max_wait_ms", self.max_wait_ms, 0, 10_000, "milliseconds")
        check_number("timeout", self.timeout, 0, 86_400, "seconds", open_low=True)
        if self.max_images > self.queue:
            raise ValueError(
                f"max_images={self.max_images}, but queue={self.queue}: a request of so many photos would never find "
                "room. Make the queue at least as long."
            )
