"""Transforms that cut, turn and mix: px, boxes and masks against slow second implementations on full-size arrays."""

import numpy as np
import pytest

from keras_rcnn.data import Dataset, Preprocessor, Record, augment
from keras_rcnn.data.augment import PROPOSAL
from keras_rcnn.data.augment.objects import cells, covers, pixels, trimmed
from keras_rcnn.data.masks import InstanceMask
from tests.data.test_augment import HEIGHT, WIDTH, scene

ALL = {
    "hflip": augment.HorizontalFlip(1),
    "vflip": augment.VerticalFlip(1),
    "rot90": augment.Rotate90(1),
    "rotate": augment.Rotate(180),
    "color": augment.ColorJitter(),
    "photometric": augment.Photometric(1, 1, 1, 1, 1),
    "scale": augment.ScaleJitter(0.2, 3),
    "lsj": augment.LargeScaleJitter(0.5, 2.0),
    "crop": augment.ObjectCrop(1, 0.1),
    "mosaic": augment.Mosaic(1),
    "copy_paste": augment.CopyPaste(1),
}
GEOMETRIC = ["hflip", "vflip", "rot90", "rotate", "lsj", "crop", "mosaic", "copy_paste"]


def called(transform, sample, seed=0, other=None):
    """A transform's answer; one that mixes photos gets `other`, or the sample itself."""
    mixes = getattr(transform, "photos", 1) > 1
    others = {"others": lambda: other or sample} if mixes else {}
    return transform(*sample, np.random.default_rng(seed), **others)


def full(mask, shape):
    """A mask as bool `[h, w]`, px by px."""
    (height, width), canvas = shape, np.zeros(shape, bool)
    crop, (x1, y1, x2, y2) = mask
    for y in range(height):
        for x in range(width):
            if x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2:
                row = int((y + 0.5 - y1) * crop.shape[0] / (y2 - y1))
                canvas[y, x] = crop[row, int((x + 0.5 - x1) * crop.shape[1] / (x2 - x1))]
    return canvas


def box_of(canvas):
    ys, xs = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
    return [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]


def untouchable(sample):
    """The sample, its arrays read-only: transforms share photos with the cache."""
    image, boxes, labels, masks = sample
    for values in (image, boxes, labels, *(part for mask in masks or () for part in mask)):
        values.setflags(write=False)
    return sample


# === All of them ===


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("seed", range(6))
def test_px_boxes_and_masks_stay_together(name, seed):
    image, boxes, labels, masks = called(ALL[name], untouchable(scene(seed=seed)), seed, scene(seed=seed + 50))
    height, width = image.shape[:2]
    assert image.flags.c_contiguous and image.dtype == np.uint8
    assert boxes.dtype == np.float32 and len(boxes) == len(labels) == len(masks) > 0
    assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
    canvases = np.array([full(mask, (height, width)) for mask in masks])
    for box, canvas in zip(boxes, canvases):
        # a mask whose cells are smaller or larger than px has its edge within one
        np.testing.assert_allclose(box, box_of(canvas), atol=1.01 if name in ("lsj", "mosaic") else 1e-4)
    painted, white = canvases.any(axis=0), image[..., 0] > 190
    # every object's px are white, but for those at its edge; what is white is an object, but for slivers left out
    assert (
        (painted & ~white).sum() <= 0.25 * painted.sum()
        if name in ("rotate", "lsj", "mosaic")
        else not (painted & ~white).any()
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (48, 64)])
def test_photos_without_objects_and_of_one_px(name, size):
    sample = (np.full((*size, 3), 99, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), [])
    for seed in range(8):
        image, boxes, labels, masks = called(ALL[name], untouchable(sample), seed)
        assert boxes.shape == (0, 4) and boxes.dtype == np.float32 and labels.shape == (0,) and masks == []
        assert image.size and image.dtype == np.uint8


@pytest.mark.parametrize("name", ALL)
def test_an_object_of_one_px(name):
    image, box = np.full((1, 1, 3), 99, np.uint8), np.array([[0, 0, 1, 1]], np.float32)
    sample = (image, box, np.zeros(1, np.int32), [InstanceMask(np.ones((1, 1), np.uint8), box[0])])
    for seed in range(8):
        _, boxes, labels, masks = called(ALL[name], sample, seed)
        assert len(boxes) == len(labels) == len(masks) and np.isfinite(boxes).all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "copy_paste"])
def test_without_masks(name):
    image, boxes, labels, _ = scene()
    answer = called(ALL[name], (image, boxes, labels, None), 3)
    assert answer[3] is None and len(answer[1]) == len(answer[2])
    assert (answer[1][:, 2:] > answer[1][:, :2]).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("with_masks", [True, False])
def test_proposals_move_as_boxes_do(name, with_masks):
    """A proposal at each object: of those that are whole in the picture it is at the object still."""
    if name == "copy_paste" and not with_masks:
        pytest.skip("needs masks")
    image, boxes, labels, masks = scene()
    twice = np.concatenate([labels, np.full(len(labels), PROPOSAL, np.int32)])
    nothing = [InstanceMask(np.zeros((1, 1), np.uint8), box) for box in boxes]
    sample = (image, np.concatenate([boxes, boxes]), twice, masks + nothing if with_masks else None)
    for seed in range(5):
        _, moved, kept, parts = called(ALL[name], sample, seed)
        assert parts is None or len(parts) == len(moved) == len(kept)
        marked = moved[kept == PROPOSAL]
        if name == "copy_paste":
            np.testing.assert_array_equal(marked, boxes)
        elif name in ("rotate", "lsj") and with_masks:
            assert name == "lsj" or len(marked)  # not the mask's box
        else:
            whole = moved[kept != PROPOSAL]
            distance = np.abs(whole[:, None] - marked[None]).max(axis=-1).min(axis=1)
            assert (distance < 1e-3).sum() >= 1 or not len(whole)


@pytest.mark.parametrize("name", ALL)
def test_the_generator_alone_decides(name):
    sample = scene()
    first, again = (called(ALL[name], sample, 5, scene(seed=9)) for _ in range(2))
    for one, other in zip(first[:3], again[:3]):
        np.testing.assert_array_equal(one, other)
    changed = [called(ALL[name], sample, seed, scene(seed=9))[0] for seed in range(5)]
    assert name in ("hflip", "vflip") or any(
        a.shape != changed[0].shape or (a != changed[0]).any() for a in changed[1:]
    )


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("color", "scale", "lsj")])
def test_a_probability_of_0_changes_nothing(name):
    never = {"photometric": augment.Photometric(0, 0, 0, 0, 0), "rotate": augment.Rotate(15, p=0)}
    transform = never.get(name) or type(ALL[name])(p=0)
    image, boxes, labels, masks = sample = scene()
    answer = called(transform, sample)
    assert answer[0] is image and answer[1] is boxes and answer[2] is labels and answer[3] is masks
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        type(ALL[name])(**{"blur" if name == "photometric" else "p": 1.5})


# === Masks in px ===


def test_what_a_mask_covers_by_px_and_by_cell():
    rng = np.random.default_rng(0)
    for _ in range(30):
        crop = (rng.random(rng.integers(1, 9, 2)) > 0.4).astype(np.uint8)
        corner = rng.uniform(-4, 12, 2)
        mask = InstanceMask(crop, np.array([*corner, *(corner + rng.uniform(1, 14, 2))], np.float32))
        np.testing.assert_array_equal(pixels(mask, (0, 0, 20, 15)), full(mask, (15, 20)))
        canvas = rng.random((15, 20)) > 0.5
        values, (x1, y1, x2, y2) = cells(mask, canvas), mask.frame
        for row, column in np.ndindex(crop.shape):
            y = int(np.floor(y1 + (row + 0.5) * (y2 - y1) / crop.shape[0]))
            x = int(np.floor(x1 + (column + 0.5) * (x2 - x1) / crop.shape[1]))
            assert values[row, column] == (0 <= y < 15 and 0 <= x < 20 and canvas[y, x])


def test_trimmed_masks_by_hand():
    crop = np.zeros((4, 6), np.uint8)
    crop[1:3, 2:5] = 1
    mask = InstanceMask(crop, np.array([10, 20, 22, 28], np.float32))  # cells of 2 x 2 px
    part = trimmed(mask, (0, 0, 100, 100))
    np.testing.assert_array_equal(part.frame, [14, 22, 20, 26])
    np.testing.assert_array_equal(part.crop, np.ones((2, 3)))
    np.testing.assert_array_equal(trimmed(mask, (0, 0, 17, 24)).frame, [14, 22, 16, 24])
    assert trimmed(mask, (0, 0, 14, 100)) is None and trimmed(mask, (60, 60, 90, 90)) is None


def test_shares_in_windows_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 10]], np.float32)
    np.testing.assert_allclose(covers(boxes, np.array([[0, 0, 5, 10], [5, 0, 20, 20]])), [[0.5, 0], [0.5, 1]])


# === Rotate ===


class Angle:
    """A generator that answers one angle in degrees."""

    def __init__(self, degrees):
        self.degrees = degrees

    def random(self):
        return 0.0

    def uniform(self, low, high):
        return self.degrees


def test_a_quarter_turn_by_hand():
    image = np.zeros((40, 40, 3), np.uint8)
    image[4:10, 20:36] = 255
    box = np.array([[20, 4, 36, 10]], np.float32)
    mask = InstanceMask(np.ones((6, 16), np.uint8), box[0])
    turned, boxes, _, masks = augment.Rotate(180)(image, box, np.zeros(1, np.int32), [mask], Angle(90))
    # (x, y) -> (40 - y, x), clockwise as y points down
    np.testing.assert_allclose(boxes, [[30, 20, 36, 36]], atol=1e-4)
    np.testing.assert_array_equal(turned[..., 0] > 127, full(masks[0], (40, 40)))
    _, boxes, _, _ = augment.Rotate(180)(image, box, np.zeros(1, np.int32), None, Angle(90))
    np.testing.assert_allclose(boxes, [[30, 20, 36, 36]], atol=1e-4)


@pytest.mark.parametrize("degrees", [-170, -33, 8, 45, 77, 120])
def test_boxes_without_masks_are_those_of_turned_ellipses(degrees):
    box = np.array([[80, 90, 140, 110]], np.float32)
    image, labels = np.zeros((200, 200, 3), np.uint8), np.zeros(1, np.int32)
    _, boxes, _, _ = augment.Rotate(180)(image, box, labels, None, Angle(degrees))
    t, angle = np.linspace(0, 2 * np.pi, 100_001), np.deg2rad(degrees)
    x, y = 110 + 30 * np.cos(t) - 100, 100 + 10 * np.sin(t) - 100
    x, y = np.cos(angle) * x - np.sin(angle) * y + 100, np.sin(angle) * x + np.cos(angle) * y + 100
    np.testing.assert_allclose(boxes, [[x.min(), y.min(), x.max(), y.max()]], atol=1e-3)
    circle = np.array([[90, 90, 110, 110]], np.float32)
    np.testing.assert_allclose(augment.Rotate(180)(image, circle, labels, None, Angle(degrees))[1], circle, atol=1e-3)


@pytest.mark.parametrize("degrees", [-100, 17, 45])
def test_turned_masks_px_by_px(degrees):
    image, boxes, labels, masks = scene(seed=2)
    _, _, kept, turned = augment.Rotate(180, min_visible=0)(image, boxes, labels, masks, Angle(degrees))
    angle, c = -np.deg2rad(degrees), np.array([WIDTH, HEIGHT]) / 2
    for label, mask in zip(kept, turned):
        before, expected = full(masks[label], (HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH), bool)
        for y, x in np.ndindex(HEIGHT, WIDTH):
            u, v = x + 0.5 - c[0], y + 0.5 - c[1]
            u, v = np.cos(angle) * u - np.sin(angle) * v + c[0], np.sin(angle) * u + np.cos(angle) * v + c[1]
            expected[y, x] = 0 <= u < WIDTH and 0 <= v < HEIGHT and before[int(v), int(u)]
        assert (full(mask, (HEIGHT, WIDTH)) != expected).sum() <= 3  # ties at the edges of px


def test_turned_objects_that_leave_the_picture_are_dropped():
    image, labels = np.zeros((40, 200, 3), np.uint8), np.zeros(2, np.int32)
    boxes = np.array([[0, 10, 20, 30], [95, 15, 105, 25]], np.float32)
    masks = [InstanceMask(np.ones((20, 20), np.uint8), boxes[0]), InstanceMask(np.ones((10, 10), np.uint8), boxes[1])]
    for given in (masks, None):
        _, left, _, _ = augment.Rotate(180)(image, boxes, labels, given, Angle(90))
        np.testing.assert_allclose(left, [[95, 15, 105, 25]], atol=1e-4)


# === ObjectCrop ===


@pytest.mark.parametrize("seed", range(20))
def test_crops_are_windows_with_an_object(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((60, 90, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(60)[:, None], np.arange(90)  # px tell where they are from
    corner = rng.integers(0, [70, 40], (3, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 20, (3, 2))], axis=1).astype(np.float32)
    cut, kept, labels, _ = augment.ObjectCrop(1)(image, boxes, np.arange(3), None, rng)
    y, x = cut[0, 0, :2].astype(int)
    height, width = cut.shape[:2]
    np.testing.assert_array_equal(cut, image[y : y + height, x : x + width])
    shares = covers(boxes, np.array([[x, y, x + width, y + height]]))[0]
    np.testing.assert_array_equal(labels, np.flatnonzero(shares >= 0.25))
    assert len(labels) and 0.29 * 90 <= width <= 90 and 0.29 * 60 <= height <= 60
    assert 0.48 <= (width / 90) / (height / 60) <= 2.1
    expected = np.clip(boxes[labels] - [x, y, x, y], 0, [width, height, width, height])
    np.testing.assert_array_equal(kept, expected)


# === CopyPaste ===


@pytest.mark.parametrize("seed", range(8))
def test_pasted_photos_px_by_px(seed):
    base, other = scene(5, seed), scene(3, seed + 100)
    base[0][...] //= 2  # objects of 127, and the pasted ones of 255
    other[2][...] += 10
    image, boxes, labels, masks = called(augment.CopyPaste(1, min_visible=0.3), base, seed, other)
    shape, added = (HEIGHT, WIDTH), int((labels >= 10).sum())
    pasted = (image == 255).all(axis=-1)
    covered = np.any([full(mask, shape) for mask in masks[-added:]], axis=0)
    expected = np.where(covered[..., None], other[0], base[0])
    np.testing.assert_array_equal(image, expected)  # both photos have one size, so nothing is shifted
    np.testing.assert_array_equal(pasted, covered)
    left = []
    for i, mask in enumerate(base[3]):
        before = full(mask, shape)
        after = before & ~covered
        if after.sum() >= 0.3 * before.sum():
            left.append((i, box_of(after), after))
    count = len(left)
    np.testing.assert_array_equal(labels[:count], [i for i, _, _ in left])
    np.testing.assert_array_equal(boxes[:count], np.array([box for _, box, _ in left]).reshape(-1, 4))
    for mask, (_, _, after) in zip(masks, left):
        np.testing.assert_array_equal(full(mask, shape), after)
    for box, mask in zip(boxes[count:], masks[count:]):
        np.testing.assert_array_equal(box, box_of(full(mask, shape)))


def test_pasted_photos_of_another_size_are_fitted():
    base, other = scene(), tuple(scene(1))
    large = (np.repeat(np.repeat(other[0], 3, 0), 3, 1), other[1] * 3, other[2] + 7)
    large = (*large, [InstanceMask(crop, frame * 3) for crop, frame in other[3]])
    _, boxes, labels, masks = called(augment.CopyPaste(1), base, 0, large)
    np.testing.assert_allclose(boxes[labels == 7], other[1], atol=1e-4)  # as large as in the small photo
    np.testing.assert_allclose(masks[-1].frame, other[1][0], atol=1e-4)


def test_mixing_says_what_is_missing():
    image, boxes, labels, masks = scene()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="there are none"):
        augment.CopyPaste(1)(image, boxes, labels, None, rng, others=scene)
    for transform in (augment.CopyPaste(1), augment.Mosaic(1), augment.Compose([augment.Mosaic(1)])):
        with pytest.raises(ValueError, match="takes other photos of a data set"):
            transform(image, boxes, labels, masks, rng)


# === Mosaic ===


@pytest.mark.parametrize("seed", range(6))
def test_mosaics_are_four_photos(seed):
    shades = iter((80, 160, 240))

    def photo(shade, height=50, width=70):
        boxes = np.array([[10, 10, 30, 40], [40, 20, 60, 45]], np.float32)
        return np.full((height, width, 3), shade, np.uint8), boxes, np.full(2, shade, np.int32), None

    others = lambda: photo(next(shades), 90, 40)  # noqa: E731
    image, boxes, labels, _ = augment.Mosaic(1)(*photo(1), np.random.default_rng(seed), others=others)
    assert image.shape == (50, 70, 3) and set(np.unique(image)) == {1, 80, 160, 240}
    x = int((image[0, :, 0] == 1).sum())
    y = int((image[:, 0, 0] == 1).sum())
    assert 0.29 * 70 <= x <= 0.71 * 70 and 0.29 * 50 <= y <= 0.71 * 50
    corners = {1: (0, 0, x, y), 80: (x, 0, 70, y), 160: (0, y, x, 50), 240: (x, y, 70, 50)}
    for shade, (x1, y1, x2, y2) in corners.items():
        assert (image[y1:y2, x1:x2] == shade).all()
        own = boxes[labels == shade]
        assert (own >= [x1, y1, x1, y1]).all() and (own <= [x2, y2, x2, y2]).all()
    assert len(boxes)


# === Photometric ===


def test_other_cameras_by_formula():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)

    def changed(name, source=image, seed=0):
        odds = dict.fromkeys(("blur", "noise", "gamma", "grey", "jpeg"), 0) | {name: 1}
        return augment.Photometric(**odds)(source, None, None, None, np.random.default_rng(seed))[0].astype(float)

    draws = np.random.default_rng(0).random(9)[5:]  # after five that say which apply
    np.testing.assert_allclose(changed("gamma"), 255 * (image / 255) ** (1.5 ** (2 * draws[2] - 1)), atol=0.51)
    np.testing.assert_allclose(changed("grey"), np.repeat((image @ [0.299, 0.587, 0.114])[..., None], 3, -1), atol=1)
    flat = np.full((200, 200, 3), 128, np.uint8)
    noise = changed("noise", flat) - 128
    assert abs(noise.std() - (2 + 10 * draws[1])) < 0.1 and abs(noise.mean()) < 0.1
    np.testing.assert_array_equal(changed("blur", flat), flat)
    sigma = 0.3 + 1.2 * draws[0]
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    profile = np.exp(-((np.arange(21) - 10) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(
        changed("blur", point)[10, :, 0] / 255, profile * profile[10] / profile.sum() ** 2, atol=0.01
    )
    difference = np.abs(
        changed("jpeg", np.repeat(np.repeat(image[:8, :8], 8, 0), 8, 1)) - image[:8, :8].repeat(8, 0).repeat(8, 1)
    )
    assert 0 < difference.mean() < 30
    coloured = np.zeros((16, 16, 3), np.uint8)
    coloured[..., 0] = 200
    assert np.argmax(changed("jpeg", coloured).mean(axis=(0, 1))) == 0  # red stays red


# === Compose and Batches ===


def test_other_photos_go_through_the_transforms_before():
    calls = []

    def noted(image, boxes, labels, masks, rng):
        calls.append(int(labels[0]))
        return image, boxes, labels, masks

    chain = augment.Compose([noted, augment.Mosaic(1), lambda *args: args[:4]])
    assert chain.photos == 4 and not chain.needs_masks
    labels = iter(range(1, 4))
    image, boxes, _, _ = scene(1)

    def others():
        return image, boxes, np.full(1, next(labels), np.int32), None

    chain(image, boxes, np.zeros(1, np.int32), None, np.random.default_rng(0), others=others)
    assert calls == [0, 1, 2, 3]
    assert augment.Compose([augment.Mosaic(), augment.CopyPaste()]).photos == 8
    assert augment.Compose([]).photos == 1 and augment.Compose([augment.CopyPaste()]).needs_masks


def dataset(count=6):
    records = []
    for i in range(count):
        image, boxes, labels, masks = scene(1 + i % 3, i)
        image = image // 2 + 20 * i
        full_masks = [full(mask, (HEIGHT, WIDTH)).astype(np.uint8) for mask in masks]
        records.append(Record(image, i, HEIGHT, WIDTH, boxes, labels, segmentations=full_masks))
    return Dataset(records, ["a", "b", "c"])


SMALL = Preprocessor(48, 64, size_divisor=16)
MIXED = [augment.HorizontalFlip(), augment.LargeScaleJitter(0.5, 1.5), augment.CopyPaste(1), augment.Mosaic(1)]


def test_mixed_batches_follow_from_seed_epoch_and_index():
    def batches(seed=1, **kwargs):
        mixed = augment.Compose(MIXED)
        return dataset().batches(SMALL, batch_size=2, shuffle=True, augment=mixed, masks=True, seed=seed, **kwargs)

    first, again, cached = batches(), batches(), batches(cache=True)
    assert first.max_objects == 3 * 8
    for epoch in range(2):
        first.epoch = again.epoch = cached.epoch = epoch
        for index in reversed(range(3)):
            cached[index]
        for index in range(3):
            for one, other in ((first, again), (first, cached)):
                (x, y), (x2, y2) = one[index], other[index]
                for key, value in {**x, **y}.items():
                    np.testing.assert_array_equal(value, {**x2, **y2}[key])
    assert (first[0][0]["images"] != batches(seed=2)[0][0]["images"]).any()
    shares = [first.shard(1, rank, 2)[0]["images"] for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(shares), first[1][0]["images"])


def test_batches_refuse_what_needs_masks():
    with pytest.raises(ValueError, match="masks=True"):
        dataset().batches(SMALL, augment=augment.Compose(MIXED))
