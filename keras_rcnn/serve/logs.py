"""The service's log: a JSON object a line, on stderr."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from keras_rcnn.printable import printable


class JSONLines(logging.Formatter):
    """A record as a line of JSON: `time` (UTC), `level`, `event`, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{moment}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        line["event"] = printable(record.getMessage())
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextlib.contextmanager
def json_log(stream: TextIO | None = None) -> Iterator[None]:
    """The service's and uvicorn's logs as lines of JSON, and nowhere else, for as long as the block runs.

    What Pillow warns of in damaged photos is left out: their senders are told.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONLines())
    levels = {"keras_rcnn.serve": logging.INFO, "uvicorn": logging.ERROR, "py.warnings": logging.ERROR}
    loggers = [(logging.getLogger(name), level) for name, level in levels.items()]
    before = [(logger.level, logger.propagate) for logger, _ in loggers]
    for logger, level in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for (logger, _), (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
