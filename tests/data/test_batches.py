import threading
import tracemalloc

import keras
import numpy as np
import pytest

from keras_rcnn.data import Batches, DataError, Dataset, Preprocessor, Record, as_tf_dataset, augment
from keras_rcnn.data.orientation import by_orientation

SMALL = Preprocessor(32, 64, mean=(0, 0, 0), std=(1, 1, 1), size_divisor=8)


def dataset(n=6, sizes=((20, 30), (30, 20), (25, 25)), objects=3, masks=False):
    rng, records = np.random.default_rng(0), []
    for i in range(n):
        height, width = sizes[i % len(sizes)]
        count = i % (objects + 1)
        corners = rng.uniform(0, 8, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 11, (count, 2))], axis=1)
        segmentations = None
        if masks:
            segmentations = [np.ones((height, width), np.uint8)] * count
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = rng.integers(0, 2, count)
        records.append(Record(image, i, height, width, boxes=boxes, labels=labels, segmentations=segmentations))
    return Dataset(records, ["cat", "dog"])


def same(a, b):
    assert keras.tree.map_structure(lambda v: v.shape, a) == keras.tree.map_structure(lambda v: v.shape, b)
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


def test_shapes_padding_and_values():
    data = dataset()
    batches = data.batches(SMALL, batch_size=4)
    assert len(batches) == 2 and batches.max_objects == 3
    x, y = batches[0]
    assert (
        x["images"].dtype == x["image_sizes"].dtype == y["boxes"].dtype == np.float32 and y["labels"].dtype == np.int32
    )
    assert y["boxes"].shape == (4, 3, 4) and y["labels"].shape == (4, 3)
    np.testing.assert_array_equal(x["image_sizes"], [SMALL.size(r.height, r.width) for r in data[:4]])
    assert y["labels"][0].tolist() == [-1] * 3 and not y["boxes"][0].any()  # an image without objects
    for i in range(4):
        r, count = data[i], len(data[i].boxes)
        height, width = x["image_sizes"][i]
        expected = r.boxes * np.array([width / r.width, height / r.height] * 2)
        np.testing.assert_allclose(y["boxes"][i, :count], expected, rtol=1e-5)
        assert y["labels"][i, :count].tolist() == r.labels.tolist() and (y["labels"][i, count:] == -1).all()
        assert not y["boxes"][i, count:].any()
        np.testing.assert_array_equal(x["images"][i, : int(height), : int(width)], SMALL(r.image))
    assert len(batches[1][1]["boxes"]) == 2 and len(batches[-1][1]["boxes"]) == 2
    assert len(data.batches(SMALL, batch_size=4, drop_remainder=True)) == 1
    with pytest.raises(IndexError):
        batches[2]


def test_upright_photos_share_batches():
    """As Detectron2's and torchvision's training, told apart by height / width over 1."""
    rng = np.random.default_rng(0)
    upright = rng.random(103) < 0.3
    order = rng.permutation(103)
    grouped = by_orientation(order, upright, 4)
    assert sorted(grouped) == list(range(103))
    full = 4 * (upright.sum() // 4 + (~upright).sum() // 4)
    batches = grouped[:full].reshape(-1, 4)
    assert (upright[batches] == upright[batches[:, :1]]).all()
    places = np.argsort(order)
    assert (np.diff(places[batches]) > 0).all() and (np.diff(places[batches[:, -1]]) > 0).all()
    for one in (upright, ~upright):  # each kind keeps its order
        assert (np.diff(places[grouped[:full][one[grouped[:full]]]]) > 0).all()
    np.testing.assert_array_equal(by_orientation(order, np.zeros(103, bool), 4), order)
    np.testing.assert_array_equal(by_orientation(order, upright, 1), order)
    assert by_orientation(order[:0], upright, 2).shape == (0,)


def test_order_and_augmentation_follow_from_seed_epoch_and_index():
    data = dataset(20)
    recipe = augment.Compose([augment.HorizontalFlip(), augment.ScaleJitter(), augment.ColorJitter()])

    def made(seed=1, **kwargs):
        return data.batches(SMALL, batch_size=3, shuffle=True, augment=recipe, seed=seed, **kwargs)

    one, two = made(workers=1), made(workers=4)
    results = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: two[i]})) for i in reversed(range(len(two)))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(len(one)):
        same(one[i], results[i])
    assert sorted(one.order(0)) == list(range(20)) and (one.order(0) != one.order(1)).any()
    assert (made(seed=2).order(0) != one.order(0)).any()
    resumed = made()
    resumed.epoch = 3
    for _ in range(3):
        one.on_epoch_begin()
        one.on_epoch_end()
        one.on_epoch_end()  # Keras calls it a second time in places
    assert one.epoch == 3
    same(one[2], resumed[2])


def test_the_same_record_is_augmented_anew_each_epoch():
    batches = dataset(8, sizes=((24, 24),)).batches(SMALL, batch_size=8, augment=True)
    first = batches[0][0]["images"]
    batches.epoch = 1
    again = batches[0][0]["images"]
    flipped = [not np.array_equal(a, b) for a, b in zip(first, again)]
    assert 0 < sum(flipped) < 8
    for a, b, moved in zip(first, again, flipped):
        np.testing.assert_allclose(a, b[:, ::-1] if moved else b, atol=1e-6)


def test_crowd_and_difficult_are_no_targets():
    r = Record(
        np.zeros((20, 20, 3), np.uint8), 0, 20, 20,
        boxes=[[1, 1, 9, 9], [2, 2, 9, 9], [3, 3, 9, 9]], labels=[0, 1, 0],
        crowd=[True, False, False], difficult=[False, True, False],
    )  # fmt: skip
    data = Dataset([r], ["a", "b"])
    assert data.batches(SMALL)[0][1]["labels"].tolist() == [[0]]
    assert data.batches(SMALL, difficult=True)[0][1]["labels"].tolist() == [[1, 0]]
    assert data.batches(SMALL, max_objects=5)[0][1]["labels"].tolist() == [[0, -1, -1, -1, -1]]


def test_more_objects_than_max_objects():
    boxes = np.array([[i, i, i + 5, i + 5] for i in range(12)], np.float32)
    r = Record(np.zeros((20, 20, 3), np.uint8), 0, 20, 20, boxes=boxes, labels=np.arange(12))
    data = Dataset([r], [str(i) for i in range(12)])
    batches = data.batches(SMALL, max_objects=4)
    labels = batches[0][1]["labels"][0]
    assert len(set(labels.tolist())) == 4
    np.testing.assert_allclose(batches[0][1]["boxes"][0, :, 0], labels * 32 / 20, rtol=1e-6)
    batches.epoch = 1
    assert batches[0][1]["labels"][0].tolist() != labels.tolist()


def test_masks_fill_their_frames():
    height, width = 40, 60
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 8:48] = 1
    mask[10:20, 8:28] = 0  # the top-left quarter of the box is empty
    r = Record(
        np.repeat(mask[..., None] * np.uint8(255), 3, -1), 0, height, width,
        boxes=[[8, 10, 48, 30]], labels=[0], segmentations=[mask],
    )  # fmt: skip
    data = Dataset([r], ["a"])
    x, y = data.batches(Preprocessor(80, 200, (0, 0, 0), (1, 1, 1), 8), masks=True, mask_size=28)[0]
    assert y["masks"].shape == (1, 1, 28, 28) and y["masks"].dtype == np.uint8
    np.testing.assert_array_equal(y["mask_frames"], [[[16, 20, 96, 60]]])
    np.testing.assert_array_equal(y["mask_frames"], y["boxes"])
    expected = np.ones((28, 28), np.uint8)
    expected[:14, :14] = 0
    np.testing.assert_array_equal(y["masks"][0, 0], expected)
    x, y = data.batches(SMALL, masks=True, mask_size=28, augment=augment.HorizontalFlip(1))[0]
    np.testing.assert_array_equal(y["masks"][0, 0], expected[:, ::-1])
    left, top, right, bottom = y["mask_frames"][0, 0].round().astype(int)
    assert x["images"][0, top + 2 : bottom - 2, left + 2 : (left + right) // 2 - 2].min() == 1


def test_masks_that_are_missing_are_named():
    with pytest.raises(DataError, match="image 1: 1 objects have no mask"):
        dataset().batches(SMALL, masks=True)


def test_300_instances_stay_small():
    height, width, n = 1500, 2000, 300
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [width - 60, height - 60], (n, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (n, 2))], axis=1)
    boxes[0] = (0, 0, width, height)
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    image = np.zeros((height, width, 3), np.uint8)
    r = Record(image, 0, height, width, boxes=boxes, labels=np.zeros(n), segmentations=polygons)
    recipe = augment.Compose([augment.HorizontalFlip(1), augment.ScaleJitter(1, 2)])
    batches = Dataset([r], ["a"]).batches(Preprocessor(256, 512), batch_size=1, masks=True, augment=recipe)
    tracemalloc.start()
    _, y = batches[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert y["masks"].shape == (1, 300, 112, 112) and y["masks"][0, 0].mean() > 0.9
    assert peak < 200e6  # full-size they would be 900 MB


def test_cache_is_bounded_and_changes_nothing(tmp_path):
    from PIL import Image

    records = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(path)
        records.append(Record(str(path), i, 20, 20))
    data = Dataset(records, ["a"])
    plain = data.batches(SMALL, augment=True)
    cached = data.batches(SMALL, augment=True, cache=3 * 20 * 20 * 3)
    for _ in range(2):
        for i in range(3):
            same(plain[i], cached[i])
    assert len(cached._cache) == 3
    assert len(data.batches(SMALL, cache=True)[0][0]["images"]) == 2


def test_fixed_size():
    batches = dataset().batches(SMALL, fixed_size=(64, 64))
    assert {batches[i][0]["images"].shape for i in range(len(batches))} == {(2, 64, 64, 3)}


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="batch_size"):
        Batches(dataset(), SMALL, batch_size=0)
    with pytest.raises(DataError, match="do not fill"):
        Batches(dataset(), SMALL, batch_size=7, drop_remainder=True)


class Probe(keras.Model):
    """Remembers what fit gives it."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), name="scale")
        self.seen = []

    def call(self, x):
        return x["image_sizes"] * self.scale

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.seen.append((x["images"].shape, y["labels"].numpy().tolist()))
        return keras.ops.mean(y_pred)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("recipe", [None, augment.Rotate90()], ids=["plain", "rotated"])
@pytest.mark.parametrize("n", [2, 12])
def test_fit_takes_batches_of_varying_size(workers, recipe, n):
    # Two landscape batches first: Keras reads its shapes off the first two.
    data = dataset(n, sizes=((20, 30),) * 4 + ((30, 20),) * 4 + ((24, 24),) * 4)
    batches = data.batches(SMALL, augment=recipe, workers=workers)
    model = Probe()
    model.compile(optimizer="sgd", run_eagerly=True)
    model.fit(batches, epochs=3, shuffle=False, verbose=0)
    assert batches.epoch == 3
    plain = data.batches(SMALL, augment=recipe)
    expected = []
    for plain.epoch in range(3):
        expected += [plain[i][1]["labels"].tolist() for i in range(len(plain))]
    assert [labels for _, labels in model.seen[-len(expected) :]] == expected


def test_padding_for_keras_costs_one_step_at_most():
    plain = dataset(12).batches(SMALL)
    for i in range(len(plain)):
        sizes = plain[i][0]["image_sizes"]
        needed = SMALL.padded_size(sizes.astype(int))
        extra = np.subtract(plain[i][0]["images"].shape[1:3], needed)
        assert (extra >= 0).all() and (extra <= (8 if i < 2 else 0)).all()


def test_a_compiled_model_sees_few_shapes():
    rng = np.random.default_rng(0)
    data = dataset(90, sizes=[tuple(rng.integers(20, 90, 2)) for _ in range(90)])
    preprocessor = Preprocessor(64, 104, size_divisor=8)
    for shuffle in (False, True):
        batches = data.batches(preprocessor, shuffle=shuffle)
        exact = {batches[i][0]["images"].shape for i in range(len(batches))}
        batches.compiled = True
        padded = [batches[i][0]["images"].shape for i in range(len(batches))]
        assert {shape[1:3] for shape in padded[2:]} <= set(preprocessor.shapes)
        assert len(set(padded)) <= len(preprocessor.shapes) + 2 < len(exact)


def test_tf_dataset():
    data = dataset(7, masks=True)
    batches = data.batches(SMALL, shuffle=True, masks=True, mask_size=14, workers=3)
    expected = []
    for batches.epoch in range(2):
        expected += [batches[i] for i in range(len(batches))]
    batches.epoch = 0
    tf_dataset = as_tf_dataset(batches)
    assert int(tf_dataset.cardinality()) == 4
    assert tuple(tf_dataset.element_spec[0]["images"].shape) == (None, None, None, 3)
    found = [batch for _ in range(2) for batch in tf_dataset.as_numpy_iterator()]
    assert len(found) == len(expected) == 8
    for a, b in zip(found, expected):
        same(a, b)
