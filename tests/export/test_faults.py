"""A wrong export is refused, by a quiet model's limits as by a noisy one's; a right one is not."""

import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.export import ParityError, equal_scores, parity
from tests.export import torchvision_six
from tests.export.faults import FAULTS, PASTED, exported, source
from tests.shared import gated, needs_golden

pytestmark = pytest.mark.slow

RIGHT = "right"
_, PHOTO = parity.demo_photos()[2]  # 130 x 120 px, 119 nuclei


def judged(model, photos, faults, masks="crops", **settings):
    """{fault, or `RIGHT`: its rows}, after the noise was measured as often as it may be."""
    runs = {name: exported(model, name, masks) for name in (RIGHT, *faults)}
    try:
        rows = parity.check(runs, model, photos, masks=True if masks == "pasted" else masks, **settings)
    except ParityError as error:
        rows = error.rows
    return {name: [row for row in rows if row["input"] == name] for name in runs}


def assert_refused(found):
    assert all(row["ok"] for row in found.pop(RIGHT))
    assert found
    passed = [name for name, rows in found.items() if all(row["ok"] for row in rows)]
    assert not passed, "\n".join(parity.table(found[name]) for name in passed)
    (runs,) = {row["noise"]["runs"] for rows in found.values() for row in rows}
    assert runs == parity.EXACT.runs


@pytest.fixture
def patient(monkeypatch):
    """The noise is measured as often as may be, even if hopeless."""
    monkeypatch.setattr(parity, "_FEW", np.inf)


@pytest.fixture(scope="module")
def nuclei():
    return keras_rcnn.from_preset("nuclei_mrcnn")


def test_a_quiet_model(nuclei, patient):
    assert_refused(judged(nuclei, [PHOTO, np.ascontiguousarray(PHOTO[:100, ::-1])], FAULTS))


def test_pasted_masks_of_a_quiet_model(nuclei, patient):
    assert_refused(judged(nuclei, [PHOTO], PASTED, masks="pasted"))


@pytest.fixture(scope="module")
def noisy():
    return torchvision_six.detector(torchvision_six.MASK, small=True)


@gated
@needs_golden
def test_a_noisy_model(noisy, patient):
    found = judged(noisy, torchvision_six.photos()[2:3], FAULTS, tolerance=equal_scores.FLOAT32)
    noise = [row["noise"] for row in found[RIGHT]]
    assert max(one["score"] for one in noise) > 1e-4 and max(one["mask"] for one in noise) > 1e-3
    assert_refused(found)


@needs_golden
def test_pasted_masks_of_a_noisy_model(noisy, patient):
    assert_refused(judged(noisy, torchvision_six.photos()[3:], PASTED, masks="pasted"))


def test_nothing_is_left_of_a_wrong_file(nuclei, tmp_path):
    darker = source("normalise", "255.0 - mean)", "255.0 - mean - 1 / 255)")
    with darker(nuclei), pytest.raises(ParityError, match="noise"):
        keras_rcnn.export_model(nuclei, tmp_path / "new" / "served", photos=[PHOTO])
    assert not list(tmp_path.iterdir())
