"""One service that several files ask, and the detectors behind it."""

import pytest

from tests.export.conftest import exported  # noqa: F401 (a fixture)
from tests.export.detectors import detector
from tests.serve.service import running


@pytest.fixture(scope="session")
def detectors():
    """A detector with masks, and one that is told where to look."""
    return {kind: detector(kind) for kind in ("mask", "fast")}


@pytest.fixture(scope="session")
def service(detectors):
    """They are served together, with small limits."""
    limits = {"max_body": 2**20, "max_pixels": 300_000, "max_images": 4}
    with running(detectors, **limits) as service:
        yield service
