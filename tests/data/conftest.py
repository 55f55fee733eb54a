"""The photos that the tests of users' files are about."""

import numpy as np
import pytest
from PIL import Image

from tests.data.user_files import BOXES


@pytest.fixture
def folder(tmp_path):
    """`photos/000.jpg` and `photos/001.jpg`, of 160 x 120 px."""
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(BOXES):
        noise = np.random.default_rng(i).integers(0, 255, (120, 160, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.jpg")
    return tmp_path
