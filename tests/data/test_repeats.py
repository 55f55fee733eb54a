"""Photos with rare classes more often, and sizes drawn batch by batch."""

import numpy as np
import pytest

from keras_rcnn.data import Dataset, Preprocessor, Record
from keras_rcnn.data.repeats import epoch_length, occurrences, repeat_factors, repeated

SMALL = Preprocessor(32, 48, size_divisor=16)


def dataset(labels, height=32, width=40):
    """A photo for each list of labels."""
    rng = np.random.default_rng(0)
    records = [
        Record(rng.integers(0, 256, (height, width, 3), np.uint8), i, height, width, [[2, 2, 20, 20]] * len(own), own)
        for i, own in enumerate(labels)
    ]
    return Dataset(records, ["common", "rare", "rarest", "absent"])


# 100 photos: the common class in 97 of them, the rare one in 4, the rarest in 1, and one photo without objects
LABELS = [[0, 0]] * 95 + [[0, 1, 1]] * 2 + [[1]] * 1 + [[1, 2]] + [[]]


def test_factors_are_the_papers():
    factors = repeat_factors(dataset(LABELS), 0.16)
    rare, rarest = np.sqrt(0.16 / 0.04), np.sqrt(0.16 / 0.01)
    np.testing.assert_allclose(factors, [1] * 95 + [rare] * 3 + [rarest] + [1])  # 2 and 4
    np.testing.assert_array_equal(repeat_factors(dataset(LABELS), 0.01), np.ones(100))
    for bad in (0, 1.5, "x"):
        with pytest.raises(ValueError, match="threshold is a number"):
            repeat_factors(dataset(LABELS), bad)


def test_crowds_do_not_count():
    record = Record(np.zeros((8, 8, 3), np.uint8), "a", 8, 8, [[1, 1, 5, 5]] * 2, [0, 1], crowd=[False, True])
    others = [Record(np.zeros((8, 8, 3), np.uint8), i, 8, 8, [[1, 1, 5, 5]], [0]) for i in range(3)]
    np.testing.assert_array_equal(repeat_factors(Dataset([record, *others], ["a", "b"]), 1.0), [1, 1, 1, 1])


def test_every_epoch_is_as_long_and_photos_come_as_often_as_they_should():
    factors = np.array([1.0] * 20 + [1.3, 2.5, 4.7] * 3)
    rng = np.random.default_rng(0)
    epochs = [repeated(factors, rng) for _ in range(3000)]
    assert {len(epoch) for epoch in epochs} == {epoch_length(factors)} == {46}  # 20 + 3 * 8.5 = 45.5
    counts = np.array([np.bincount(epoch, minlength=len(factors)) for epoch in epochs])
    wanted = factors * 46 / 45.5
    assert (counts >= np.floor(wanted)).all() and (counts <= np.ceil(wanted)).all()
    np.testing.assert_allclose(counts.mean(axis=0), wanted, atol=0.05)
    assert all((np.diff(epoch) >= 0).all() for epoch in epochs)
    np.testing.assert_array_equal(repeated(np.ones(7), rng), np.arange(7))


def test_occurrences_by_hand():
    np.testing.assert_array_equal(occurrences(np.array([3, 1, 3, 3, 0, 1])), [0, 0, 1, 2, 0, 1])
    assert occurrences(np.zeros(0, int)).shape == (0,)


def test_batches_repeat_rare_photos_and_augment_them_anew():
    def batches(**kwargs):
        return dataset(LABELS).batches(SMALL, 4, shuffle=True, augment=True, seed=3, repeat_threshold=0.16, **kwargs)

    first, again = batches(), batches(drop_remainder=True)
    assert len(first) == 27 and len(again) == 26  # 95 + 3 * 2 + 4 + 1 = 106 photos
    order = first.order(0)
    np.testing.assert_array_equal(np.bincount(order), [1] * 95 + [2] * 3 + [4] + [1])
    assert (order != first.order(1)).any() and (np.diff(order) < 0).any()
    for index in (5, 0, 25):
        for one, other in zip(first[index], again[index]):
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])
    mirrored = {first.sample(98, epoch, copy)[0].tobytes() for epoch in range(3) for copy in range(4)}
    assert len(mirrored) == 2  # not all alike
    shares = [first.shard(3, rank, 3)[0]["images"] for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), first[3][0]["images"])


def test_without_a_threshold_nothing_is_repeated():
    plain = dataset(LABELS).batches(SMALL, 4, shuffle=True, seed=3)
    np.testing.assert_array_equal(plain.order(2), np.random.default_rng([3, 2, 0]).permutation(100))
    assert (
        dataset(LABELS).batches(SMALL, 4, repeat_threshold=0.16).order(0)[-7:] == [97, 97, 98, 98, 98, 98, 99]
    ).all()


# === Sizes ===


def test_sizes_are_drawn_for_each_batch():
    sizes, preprocessor = (32, 48, 64), Preprocessor(40, 96, size_divisor=16)

    def batches(**kwargs):
        return dataset(LABELS).batches(preprocessor, 4, shuffle=True, seed=1, min_sizes=sizes, **kwargs)

    first, again = batches(), batches()
    drawn = []
    for index in range(len(first)):
        (x, y), (x2, _) = first[index], again[index]
        np.testing.assert_array_equal(x["images"], x2["images"])
        height, width = x["image_sizes"][0]
        assert (x["image_sizes"] == [height, width]).all()  # one size a batch
        assert width == int(40 * height / 32)
        drawn.append(height)
        scale = height / 32
        real = y["labels"] >= 0
        np.testing.assert_allclose(y["boxes"][real], np.tile([2, 2, 20, 20], (real.sum(), 1)) * scale, rtol=0.02)
    assert set(drawn) == set(sizes) and not first.one_size
    first.epoch = 1
    assert [first[index][0]["image_sizes"][0, 0] for index in range(len(first))] != drawn


def test_compiled_sizes_have_the_shapes_of_the_largest():
    batches = dataset(LABELS).batches(Preprocessor(40, 96, size_divisor=16), 4, min_sizes=(32, 48, 64))
    batches.compiled = True
    shapes = {batches[index][0]["images"].shape[1:3] for index in range(2, len(batches))}
    assert shapes <= set(Preprocessor(64, 96, size_divisor=16).shapes)


def test_sizes_within_a_fixed_size():
    fixed = Preprocessor(64, 96, size_divisor=16, fixed_size=(64, 96))
    batches = dataset(LABELS).batches(fixed, 4, min_sizes=(32, 64))
    assert {batches[i][0]["images"].shape for i in range(len(batches))} == {(4, 64, 96, 3)} and batches.one_size
    assert {batches[i][0]["image_sizes"][0, 0] for i in range(len(batches))} == {32, 64}
    with pytest.raises(ValueError, match="min_sizes"):
        dataset(LABELS).batches(fixed, min_sizes=())
    with pytest.raises(ValueError, match="min_size is a whole number"):
        dataset(LABELS).batches(fixed, min_sizes=(32, 0))
