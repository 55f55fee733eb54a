"""Why a request is not answered: a status of HTTP, a reason for the client, a word for the metrics."""

import reprlib

from keras_rcnn.printable import printable

# of what a client sent, in a message
_SHOWN = 300


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: int, of HTTP.
        message: str, which is shown to the client: it names the value and the way out.
        reason: str, one of a few words, for the metrics.
        retry_after: int, seconds after which the client may come back; None: it need not.
    """

    def __init__(self, status: int, message: str, reason: str = "malformed", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.reason, self.retry_after = status, message, reason, retry_after


def shown(value: object) -> str:
    """The beginning of what a client sent, harmless in a log or a terminal."""
    text = str(value) if isinstance(value, (str, BaseException)) else reprlib.repr(value)
    return printable(text[:_SHOWN])[:_SHOWN]
