"""What is fed to both sides: photos, objects with masks, boxes. Seeded, NumPy and Pillow alone."""

import numpy as np


def photos(paths, count, size, seed=0):
    """`count` photos, uint8 [h, w, 3]: those of the files, over and over, or without files drawn ones of `size`."""
    from PIL import Image

    if paths:
        arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        return [arrays[i % len(arrays)] for i in range(count)]
    return [drawn(*size, *objects(*size, seed=seed + i)[:1], seed=seed + i) for i in range(count)]


def drawn(height, width, boxes, seed=0):
    """A photo of clouds with an ellipse in each of the boxes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (max(height // 40, 2), max(width // 40, 2), 3)).astype(np.uint8)
    photo = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    for mask in masks_in_photo(boxes, height, width):
        photo[mask > 0] = 0.4 * photo[mask > 0] + 0.6 * rng.integers(0, 255, 3)
    photo += rng.normal(0, 8, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8)


def objects(height, width, count=12, seed=0, classes=90):
    """`(boxes, labels)`: float32 [n, 4] xyxy in pixels, sides from 1/16 to 1/2 of the photo's; int32 [n] from 0."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(1 / 16), np.log(1 / 2), (count, 2))) * (width, height)
    corners = rng.uniform(0, 1, (count, 2)) * ((width, height) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return boxes, rng.integers(0, classes, count).astype(np.int32)


def masks_in_photo(boxes, height, width):
    """The ellipses in the boxes as uint8 [n, height, width], as torchvision wants them."""
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes):
        mask[((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25] = 1
    return masks


def masks_in_boxes(boxes, size=112):
    """The same as uint8 [n, size, size] each over its box, as `Batches` gives them."""
    steps = (np.arange(size) + 0.5) / size - 0.5
    one = (steps[:, None] ** 2 + steps[None] ** 2 <= 0.25).astype(np.uint8)
    return np.repeat(one[None], len(boxes), axis=0)


def candidates(count, height, width, seed=0):
    """`(boxes, scores)` [count, 4], [count]: half of them around 60 objects, as an RPN proposes them, the others
    anywhere; no two scores are equal."""
    rng = np.random.default_rng(seed)
    around, _ = objects(height, width, 60, seed)
    near = around[rng.integers(0, len(around), count // 2)]
    sides = np.tile(near[:, 2:] - near[:, :2], 2)
    near = near + rng.normal(0, 0.12, near.shape) * sides
    far, _ = objects(height, width, count - count // 2, seed + 1)
    boxes = np.concatenate([near, far]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    scores = ((rng.permutation(count) + 0.5) / count).astype(np.float32)
    return boxes[rng.permutation(count)], scores


def class_scores(count, classes, seed=0):
    """float32 [count, classes]: softmax, without the background, which most of the regions are."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.7, (count, classes + 1))
    logits[:, -1] += 4.5
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (scores / scores.sum(axis=1, keepdims=True))[:, :-1].astype(np.float32)
