import numpy as np
import pytest

from keras_rcnn.data import augment
from keras_rcnn.data.masks import instance_mask, sample_mask

HEIGHT, WIDTH = 48, 64


def scene(n=4, seed=0):
    """An image whose objects are white on black, each its own rectangle with a notch; masks mark the same px."""
    rng = np.random.default_rng(seed)
    image, boxes, masks = np.zeros((HEIGHT, WIDTH, 3), np.uint8), [], []
    for i in range(n):
        x1, y1 = 2 + i * WIDTH // n, int(rng.integers(2, 20))
        x2, y2 = x1 + WIDTH // n - 4, y1 + int(rng.integers(12, 24))
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[y1:y2, x1:x2] = 1
        mask[y1 : y1 + 4, x1 : x1 + 5] = 0
        image[mask > 0] = 255
        boxes.append((x1, y1, x2, y2))
        masks.append(instance_mask(mask, HEIGHT, WIDTH, np.array(boxes[-1], np.float32)))
    return image, np.array(boxes, np.float32), np.arange(n, dtype=np.int32), masks


def painted(shape, boxes, masks):
    """The masks put back into an image of this shape, px by px."""
    canvas = np.zeros(shape[:2], bool)
    for (x1, y1, x2, y2), mask in zip(boxes.round().astype(int), masks):
        canvas[y1:y2, x1:x2] |= np.array(
            [[_at(mask, x + 0.5, y + 0.5) for x in range(x1, x2)] for y in range(y1, y2)], bool
        ).reshape(y2 - y1, x2 - x1)
    return canvas


def _at(mask, x, y):
    (height, width), (x1, y1, x2, y2) = mask.crop.shape, mask.frame
    if not (x1 <= x < x2 and y1 <= y < y2):
        return 0
    return mask.crop[int((y - y1) * height / (y2 - y1)), int((x - x1) * width / (x2 - x1))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "transform",
    [augment.HorizontalFlip(1), augment.VerticalFlip(1), augment.Rotate90(1)],
    ids=lambda t: type(t).__name__,
)
def test_image_boxes_and_masks_stay_together(transform, seed):
    image, boxes, labels, masks = transform(*scene(seed=seed), np.random.default_rng(seed))
    assert image.flags.c_contiguous and boxes.dtype == np.float32 and len(boxes) == len(labels) == len(masks) == 4
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    np.testing.assert_array_equal(painted(image.shape, boxes, masks), image[..., 0] > 127)
    for mask, box in zip(masks, boxes):
        np.testing.assert_array_equal(mask.frame, box)


def test_flips_by_hand():
    image = np.zeros((10, 20, 3), np.uint8)
    box = np.array([[2, 3, 8, 9]], np.float32)
    args = (image, box, np.zeros(1, np.int32), None, np.random.default_rng(0))
    np.testing.assert_array_equal(augment.HorizontalFlip(1)(*args)[1], [[12, 3, 18, 9]])
    np.testing.assert_array_equal(augment.VerticalFlip(1)(*args)[1], [[2, 1, 8, 7]])
    np.testing.assert_array_equal(augment.HorizontalFlip(0)(*args)[1], box)
    np.testing.assert_array_equal(box, [[2, 3, 8, 9]])  # the input is not touched


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 2), (3, 3), (0.5, 0.5), (0.25, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_scale_jitter_keeps_px_boxes_and_masks_together(low, high, seed):
    transform = augment.ScaleJitter(low, high, min_visible=0.0)
    image, boxes, labels, masks = transform(*scene(seed=seed), np.random.default_rng(seed))
    assert image.shape == (HEIGHT, WIDTH, 3) and len(boxes) == len(labels) == len(masks) > 0
    assert (
        (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all() and (boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    )
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes):
        size = 64
        ys = np.clip((y1 + (np.arange(size) + 0.5) / size * (y2 - y1)).astype(int), 0, HEIGHT - 1)
        xs = np.clip((x1 + (np.arange(size) + 0.5) / size * (x2 - x1)).astype(int), 0, WIDTH - 1)
        shown = image[np.ix_(ys, xs)][..., 0] > 127
        if min(x2 - x1, y2 - y1) >= 8:  # smaller ones are all border
            assert (shown != sample_mask(mask, (x1, y1, x2, y2), size)).mean() < 0.12
        inside[int(y1) : int(np.ceil(y2)) + 1, int(x1) : int(np.ceil(x2)) + 1] = True
    white = (image == 255).all(axis=-1)
    assert (white & ~inside).mean() < 0.01


def test_scale_jitter_of_one_changes_nothing():
    image, boxes, labels, masks = scene()
    again = augment.ScaleJitter(1, 1)(image, boxes, labels, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], boxes)


def test_scale_jitter_drops_what_is_hardly_visible():
    image, boxes, labels, _ = scene()
    counts = []
    for seed in range(30):
        args = (image, boxes, labels, None, np.random.default_rng(seed))
        loose = augment.ScaleJitter(3, 3, min_visible=0.0)(*args)
        args = (*args[:4], np.random.default_rng(seed))
        strict = augment.ScaleJitter(3, 3, min_visible=0.9)(*args)
        counts.append((len(loose[1]), len(strict[1])))
        assert set(strict[2]) <= set(range(4)) and len(strict[1]) == len(strict[2])
    loose, strict = np.array(counts).sum(axis=0)
    assert 0 < strict < loose < 120


def test_scale_jitter_without_objects():
    image, boxes, labels, _ = scene()
    answer = augment.ScaleJitter()(image, boxes[:0], labels[:0], [], np.random.default_rng(0))
    assert answer[1].shape == (0, 4) and answer[2].shape == (0,) and answer[3] == []
    with pytest.raises(ValueError, match="low"):
        augment.ScaleJitter(2, 1)


def test_color_jitter_by_hand():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)

    class Fixed:
        def __init__(self, *values):
            self.values = list(values)

        def uniform(self, low, high):
            return self.values.pop(0)

    def jittered(*changes):
        return augment.ColorJitter(1, 1, 1)(image, None, None, None, Fixed(*changes))[0].astype(float)

    grey = image @ [0.299, 0.587, 0.114]
    np.testing.assert_array_equal(jittered(0, 0, 0), image)
    np.testing.assert_allclose(jittered(0.5, 0, 0), np.clip(image * 1.5, 0, 255), atol=1)
    np.testing.assert_allclose(jittered(0, -1, 0), np.full_like(image, grey.mean().round()), atol=1)
    np.testing.assert_allclose(jittered(0, 0, -1), np.repeat(grey[..., None], 3, -1), atol=1)
    turned = augment.ColorJitter(0, 0, 0, hue=0.5)(image, None, None, None, Fixed(0, 0, 0, 1 / 3))[0]
    np.testing.assert_allclose(turned.astype(float), image[..., [2, 0, 1]], atol=1)  # red becomes green


def test_keeps_size():
    assert augment.standard().keeps_size
    assert not augment.Compose([augment.HorizontalFlip(), augment.Rotate90()]).keeps_size
    assert not augment.Compose([lambda *args: args[:4]]).keeps_size
