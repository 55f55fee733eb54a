"""The noise of float32: how it is measured, what it allows, and what it does not."""

import dataclasses

import keras
import numpy as np
import pytest
from pycocotools import mask as coco

from keras_rcnn.export import ParityError, Tolerance, parity
from keras_rcnn.export.noise import STEP, Noise, rounded_otherwise
from tests.export.detectors import detector, photos
from tests.export.test_parity import SIZE, answer, without

CAPS, IOU = Tolerance().caps(False), Tolerance().iou


def moved(amount, seed=0, rows=None, **keys):
    """`answer()` with differences of up to `amount` longer sides in boxes; `keys`: of `scores` and `masks`."""
    rng, found = np.random.default_rng(seed), answer()
    for key, value in {"boxes": amount * max(SIZE), **keys}.items():
        change = rng.uniform(-value, value, found[key].shape)
        found[key][:] = found[key] + (change if rows is None else np.where(np.isin(range(6), rows), change.T, 0).T)
    return found


def weights_of(model):
    return [np.array(keras.ops.convert_to_numpy(one)) for one in model.weights]


def noise(*runs):
    return Noise(answer(), SIZE, CAPS, IOU, runs)


# === The measurement ===


def test_weights_are_off_in_the_block_and_the_same_after_it():
    model = detector("mask")
    before, image = weights_of(model), photos()[2]
    expected = model.detect(image, score=0, masks="crops")
    with pytest.raises(KeyError), rounded_otherwise(model, 3):
        inside = weights_of(model)
        found = model.detect(image, score=0, masks="crops")
        raise KeyError
    for one, other, after in zip(before, inside, weights_of(model), strict=True):
        np.testing.assert_array_equal(after, one)
        assert (one == other).all() if one.dtype.kind != "f" else np.allclose(one, other, rtol=6 * STEP, atol=0)
    values, others = (np.concatenate([np.ravel(one) for one in some]) for some in (before, inside))
    relative = (others - values)[values != 0] / values[values != 0]
    assert 0.8 * STEP < relative.std() < 1.3 * STEP and abs(relative.mean()) < 0.1 * STEP
    assert len(found["scores"]) == len(expected["scores"]) and (found["scores"] != expected["scores"]).any()
    again = model.detect(image, score=0, masks="crops")
    for key in ("boxes", "scores", "masks"):
        np.testing.assert_array_equal(again[key], expected[key])
    with rounded_otherwise(model, 3):
        np.testing.assert_array_equal(model.detect(image, score=0, masks="crops")["scores"], found["scores"])


def test_worst_and_typical():
    found = noise(moved(0, scores=1e-4, rows=[2]), moved(1e-5, seed=1))
    assert 5e-6 < found.worst["box"] <= 1.01e-5 and 2e-5 < found.worst["score"] <= 1.01e-4
    assert found.worst["mask"] == 0 and not found.lost.any()
    assert found.typical["score"] == 0 and 0 < found.typical["box"] < found.worst["box"]
    assert found.facts["runs"] == 2 and found.facts["pixels"] == pytest.approx(found.worst["box"] * 200)


def test_another_detection_is_none_that_moved():
    gone = {key: np.delete(value, 3, axis=0) for key, value in moved(1e-5).items()}
    jumped = answer()
    jumped["boxes"][1] += 0.3  # of 200 px: three times the cap
    found = noise(gone, jumped)
    assert found.lost.tolist() == [False, True, False, True, False, False] and found.facts["unsteady"] == 2
    assert found.worst["box"] <= 1.01e-5


def test_nothing_found():
    empty = {key: value[:0] for key, value in answer().items()}
    found = Noise(empty, SIZE, CAPS, IOU, [empty, answer()])
    assert found.worst == {"box": 0, "score": 0, "mask": 0} and not len(found.lost)
    row = parity.compare(empty, answer(), SIZE, noise=found)
    assert row["extra"] == 0 and row["unsteady"] == 6 and not row["ok"]


# === What it allows ===


def test_limits():
    quiet, some, much = ({"box": value, "score": value, "mask": value} for value in (1e-6, 5e-5, 1.0))
    tolerance = Tolerance(box=1e-4, score=1e-4, mask=5e-4, multiple=4, box_cap=5e-4, score_cap=5e-3, mask_cap=0.05)
    assert tolerance.limits(False) == tolerance.limits(False, quiet) == {"box": 1e-4, "score": 1e-4, "mask": 5e-4}
    assert tolerance.limits(False, some) == {"box": 2e-4, "score": 2e-4, "mask": 5e-4}
    assert tolerance.limits(False, much) == {"box": 5e-4, "score": 5e-3, "mask": 0.05}
    assert tolerance.limits(True, much)["mask"] == tolerance.pasted_cap
    strict = dataclasses.replace(tolerance, box=1e-3)  # a cap that is less takes nothing away
    assert strict.limits(False, much)["box"] == strict.caps(False)["box"] == 1e-3


def test_a_multiple_of_the_noise_and_no_more():
    runs = [moved(5e-5, seed=i, scores=2e-4, masks=1e-3, rows=[0, 1]) for i in range(3)]
    fine = moved(2.2e-4, seed=9, scores=6e-4, masks=3e-3, rows=[0])
    assert not parity.compare(answer(), fine, SIZE)["ok"]
    row = parity.compare(answer(), fine, SIZE, noise=noise(*runs))
    assert row["ok"] and row["off"] == row["unsteady"] == 0 and row["score"] > 1e-4
    for key, value in (("boxes", 0.1), ("scores", 2e-3), ("masks", 1e-2)):
        far = answer()
        far[key][0] += value
        row = parity.compare(answer(), far, SIZE, noise=noise(*runs))
        assert row["off"] == 1 and not row["ok"], key
    # what is within the caps alone is not enough
    assert not parity.compare(answer(), far, SIZE, noise=noise(answer()))["ok"]


def test_all_may_not_be_as_far_as_the_farthest():
    runs = [moved(0, scores=3e-4, rows=[0], seed=i) for i in range(3)]
    one, all_ = answer(), answer()
    one["scores"][4] += 4e-4
    all_["scores"] += 4e-4
    assert parity.compare(answer(), one, SIZE, noise=noise(*runs))["ok"]
    row = parity.compare(answer(), all_, SIZE, noise=noise(*runs))
    assert row["off"] == 6 and not row["ok"]


def test_nan_is_out_of_all_limits():
    far = {"boxes": 1e-4, "scores": 1e-3, "masks": 1e-2}
    runs = [moved(far["boxes"], scores=far["scores"], masks=far["masks"], seed=i) for i in range(3)]
    for key in far:
        found = answer()
        found[key][2] = np.nan
        row = parity.compare(answer(), found, SIZE, noise=noise(*runs))
        assert row["off"] + row["missing"] and not row["ok"], key


# === Detections that noise makes others ===


def test_what_noise_hides_or_shows_may_be_missing_or_extra():
    many = Tolerance(unsteady=0.4)
    assert not parity.compare(answer(), without(2), SIZE)["ok"]
    row = parity.compare(answer(), without(2), SIZE, noise=noise(answer(), without(2)))
    assert row["ok"] and row["missing"] == 0 and row["unsteady"] == 1
    assert not parity.compare(answer(), without(1), SIZE, noise=noise(without(2)))["ok"]
    # one always may be, more by their share
    row = parity.compare(answer(), without([2, 3]), SIZE, noise=noise(without([2, 3])))
    assert row["unsteady"] == 2 and not row["ok"]
    assert parity.compare(answer(), without([2, 3]), SIZE, many, noise=noise(without([2, 3])))["ok"]
    shown = Noise(without(2), SIZE, CAPS, IOU, [answer()])
    row = parity.compare(without(2), answer(), SIZE, noise=shown)
    assert row["ok"] and row["extra"] == 0 and row["unsteady"] == 1
    other = answer()
    other["boxes"][2] += 1  # extra, but not what noise shows
    assert parity.compare(without(2), other, SIZE, noise=shown)["extra"] == 1


def test_what_noise_makes_another_may_be_that_other_one():
    run, third = answer(), answer()
    run["boxes"][2] += 2
    run["scores"][2] += 0.02
    third["boxes"][2] += 1
    found = noise(answer(), run)
    row = parity.compare(answer(), run, SIZE, noise=found)
    assert row["ok"] and row["off"] == 0 and row["unsteady"] == 1
    assert parity.compare(answer(), third, SIZE, noise=found)["off"] == 1


def test_pasted_masks():
    good = {**answer(), "masks": np.zeros((6, *SIZE), bool)}
    good["masks"][:, 20:60, 20:60] = True
    found = {**good, "masks": good["masks"].astype(np.uint8)}
    found["masks"][3, 20:25] = 0  # IoU 0.875
    assert not parity.compare(good, found, SIZE)["ok"]
    caps = Tolerance().caps(True)
    assert not parity.compare(good, found, SIZE, noise=Noise(good, SIZE, caps, IOU, [good]))["ok"]
    run = {**good, "masks": good["masks"].copy()}
    run["masks"][0, :, 20:22] = False
    run["masks"] = [coco.encode(np.asfortranarray(one.astype(np.uint8))) for one in run["masks"]]
    seen = Noise(good, SIZE, caps, IOU, [run])
    assert seen.worst["mask"] == pytest.approx(0.05)
    assert parity.compare(good, found, SIZE, noise=seen)["ok"]
    found["masks"][3, 20:32] = 0
    assert not parity.compare(good, found, SIZE, noise=seen)["ok"]


# === The whole check ===


@pytest.fixture
def counted(monkeypatch):
    """A model, and how often it is asked."""
    model = detector("mask")
    own, calls = model.detect, []

    def detect(image, **settings):
        calls.append(settings)
        return own(image, **settings)

    monkeypatch.setattr(model, "detect", detect)
    return model, calls


def run_of(model, change=0.0):
    own = type(model).detect

    def run(image, _):
        found = own(model, image, score=0, masks="crops")
        found["scores"] = found["scores"] + np.float32(change)
        return found

    return run


def test_it_is_not_measured_where_all_is_well(counted):
    model, calls = counted
    rows = parity.check(run_of(model), model, photos()[1:])
    assert len(calls) == 2 and [row["noise"] for row in rows] == [None, None]
    assert "noise" not in parity.table(rows) and "unsteady" not in parity.table(rows)


@pytest.mark.slow
def test_it_is_measured_where_something_is_wrong_and_shown(counted):
    model, calls = counted
    own = model.preprocessor
    with pytest.raises(ParityError) as caught:
        parity.check({"good": run_of(model), "bad": run_of(model, 0.01)}, model, photos()[1:])
    assert len(calls) == 2 * (1 + 3)  # more than noise can explain
    rows, text = caught.value.rows, str(caught.value)
    assert [(row["input"], row["ok"]) for row in rows] == [("good", True), ("bad", False)] * 2
    assert all(row["noise"]["runs"] == 3 and 0 < row["noise"]["score"] < 1e-4 for row in rows)
    lines = text.splitlines()
    assert [line.split()[2] for line in lines[2:8]] == ["good", "bad", "noise"] * 2
    assert "in 3 runs" in lines[-1] and "4 times that is allowed, at most 0.0005 of the longer side" in lines[-1]
    assert model.preprocessor is own
    calls.clear()
    with pytest.raises(ParityError):
        parity.check(run_of(model, 0.01), model, photos()[1:], tolerance=Tolerance(multiple=0))
    assert len(calls) == 2


@pytest.mark.slow
def test_few_that_are_wrong_are_measured_to_the_end(counted):
    model, calls = counted
    run = run_of(model)

    def one_off(image, given):
        found = run(image, given)
        found["scores"][0] -= 0.01
        return found

    with pytest.raises(ParityError):
        parity.check(one_off, model, photos()[2:], tolerance=Tolerance(runs=5))
    assert len(calls) == 1 + 5


@pytest.mark.slow
def test_a_model_that_amplifies_rounding_passes(counted):
    """With a limit that is under its noise."""
    model, _ = counted
    function = run_of(model)

    def run(image, given):
        with rounded_otherwise(model, 99):
            return function(image, given)

    strict = Tolerance(box=1e-9, score=1e-9, mask=1e-9)
    rows = parity.check(run, model, photos(), tolerance=strict)
    assert all(row["ok"] and row["noise"]["runs"] >= 3 and row["score"] > 1e-9 for row in rows)
    with pytest.raises(ParityError):
        parity.check(run, model, photos(), tolerance=dataclasses.replace(strict, multiple=0.01))
    with pytest.raises(ParityError):
        parity.check(run, model, photos(), tolerance=dataclasses.replace(strict, score_cap=1e-9))


def test_detect_is_what_is_exported(monkeypatch):
    """Not compiled by XLA, in all bits of float32, and with the export's preprocessor; all of it is undone."""
    import tensorflow as tf

    model = detector("faster")
    model.jit_compile = True
    own, other, seen = model.preprocessor, model.preprocessor.replace(min_size=96), []
    detect = type(model).detect

    def spy(self, *args, **settings):
        short = tf.config.experimental.tensor_float_32_execution_enabled()
        seen.append((self.jit_compile, self.preprocessor.min_size, short))
        return detect(self, *args, **settings)

    monkeypatch.setattr(type(model), "detect", spy)
    with pytest.raises(ParityError):
        parity.check(lambda image, _: {k: v[:0] for k, v in answer().items()}, model, photos()[2:], preprocessor=other)
    assert seen and set(seen) == {(False, 96, False)}
    assert model.jit_compile is True and model.preprocessor is own
    assert tf.config.experimental.tensor_float_32_execution_enabled()
