"""The check itself: what it lets pass, and what it does not."""

import numpy as np
import pytest

from keras_rcnn.export import ExportError, ParityError, Tolerance, parity
from tests.export.detectors import detector, photos

SIZE = (100, 200)


def answer(count=6, seed=0):
    rng = np.random.default_rng(seed)
    corner = np.arange(count)[:, None] * 30.0 + rng.uniform(0, 3, (count, 2))
    return {
        "boxes": np.float32(np.concatenate([corner, corner + 20], axis=1)),
        "scores": np.float32(np.linspace(0.9, 0.3, count)),
        "labels": np.arange(count) % 2,
        "masks": np.float32(rng.uniform(size=(count, 28, 28))),
    }


def changed(key, i, value):
    found = {name: one.copy() for name, one in answer().items()}
    found[key][i] = value
    return found


def without(i):
    return {key: np.delete(value, i, axis=0) for key, value in answer().items()}


def test_the_same_is_the_same_in_any_order_and_with_padding():
    found = {key: np.concatenate([one[::-1], np.zeros_like(one[:2])]) for key, one in answer().items()}
    found["labels"][-2:] = -1
    row = parity.compare(answer(), found, SIZE)
    assert row["ok"] and row["detections"] == 6
    assert (row["missing"], row["extra"], row["box"], row["score"], row["mask"]) == (0, 0, 0, 0, 0)


def test_what_is_out_of_tolerance():
    good, boxes = answer(), answer()["boxes"]
    for found, key in (
        (changed("boxes", 2, boxes[2] + 0.03), "box"),
        (changed("scores", 2, good["scores"][2] + 2e-4), "score"),
        (changed("masks", 2, good["masks"][2] + 1e-3), "mask"),
        (changed("labels", 2, 1), "missing"),
        (changed("labels", 2, -1), "missing"),
        (without(5), "missing"),
    ):
        row = parity.compare(good, found, SIZE)
        assert not row["ok"] and row[key] > 0, key
    row = parity.compare(without(5), good, SIZE)
    assert not row["ok"] and row["extra"] == 1
    row = parity.compare(good, changed("boxes", 2, boxes[2] + 0.01), SIZE)  # of 200 px: 5e-5
    assert row["ok"] and 0.009 < row["pixels"] < 0.011


def test_the_last_one_shown_may_be_another():
    assert parity.compare(answer(), without(5), SIZE, cut=0.3)["ok"]
    assert not parity.compare(answer(), without(5), SIZE, cut=0.29)["ok"]


def test_a_looser_tolerance():
    lossy = Tolerance(box=0.05, score=0.1, mask=1.0, missing=0.2, least=0.5)
    assert parity.compare(answer(), without(5), SIZE, lossy)["ok"]  # its score is under 0.5
    assert parity.compare(answer(), changed("boxes", 2, answer()["boxes"][2] + 3), SIZE, lossy)["ok"]
    assert not parity.compare(answer(), without([0, 1]), SIZE, lossy)["ok"]


def test_a_share_may_be_out_of_tolerance():
    good, off = answer(), Tolerance(off=0.2)
    one = changed("scores", 0, 0.5)
    assert parity.compare(good, one, SIZE)["off"] == 1 and not parity.compare(good, one, SIZE)["ok"]
    assert parity.compare(good, one, SIZE, off)["ok"]
    one["masks"][:2] = 0
    row = parity.compare(good, one, SIZE, off)
    assert row["off"] == 2 and not row["ok"]


@pytest.mark.parametrize("key", ["boxes", "scores", "masks"])
def test_nan_is_out_of_tolerance(key):
    row = parity.compare(answer(), changed(key, 2, np.nan), SIZE, Tolerance(mask=1.0))
    assert row["off"] + row["missing"] and not row["ok"]


def test_pasted_masks_are_compared_by_iou():
    good = {**answer(), "masks": np.zeros((6, 100, 200), bool)}
    good["masks"][:, 20:60, 20:60] = True
    found = {**good, "masks": good["masks"].astype(np.uint8)}
    assert parity.compare(good, found, SIZE)["mask"] == 0
    found["masks"][3, 20:30] = 0
    row = parity.compare(good, found, SIZE)
    assert not row["ok"] and 0.24 < row["mask"] < 0.26


def test_nothing_found_by_both():
    empty = {key: one[:0] for key, one in answer().items()}
    assert parity.compare(empty, empty, SIZE)["ok"]
    assert parity.compare(empty, answer(), SIZE)["extra"] == 6


def test_a_model_against_itself_and_another():
    model = detector("faster")

    def run(image, _):
        return model.detect(image, score=0)

    rows = parity.check({"same": run, "again": run}, model, photos()[2:])
    assert [row["input"] for row in rows] == ["same", "again"] and all(row["ok"] for row in rows)
    with pytest.raises(ParityError, match="FAILED"):
        parity.check(lambda image, _: run(image[:, ::-1], None), model, photos()[2:])
    with pytest.raises(ExportError, match="at least one photo"):
        parity.check(run, model, [])
    name, photo = parity.demo_photos()[0]
    assert name == "immunohistochemistry" and photo.dtype == np.uint8


def test_a_share_is_of_all_photos():
    model = detector("faster")

    def one_off(image, _):
        found = model.detect(image, score=0)
        found["scores"][:1] -= 0.01 * (image.shape == photos()[2].shape)
        return found

    with pytest.raises(ParityError) as caught:
        parity.check(one_off, model, photos()[1:])
    rows = caught.value.rows
    assert [row["off"] for row in rows] == [0, 1] and [row["ok"] for row in rows] == [True, False]
    count = sum(row["detections"] for row in rows)
    assert count > rows[1]["detections"] > 0
    rows = parity.check(one_off, model, photos()[1:], tolerance=Tolerance(off=1.001 / count))
    assert [row["ok"] for row in rows] == [True, True]
    with pytest.raises(ParityError):
        parity.check(one_off, model, photos()[1:], tolerance=Tolerance(off=0.999 / count))
