"""R-CNN's warp against a slow twin that follows the paper's code (rcnn_im_crop.m) step by step."""

import numpy as np
import pytest

from keras_rcnn.ops.warp import MODES, warp_regions


def half_up(x):
    return int(np.floor(np.float32(x) + np.float32(0.5)))


def resized(image, height, width):
    """imresize(..., 'bilinear', 'antialiasing', false) of a small image, a pixel at a time."""
    answer = np.zeros((height, width, image.shape[2]), np.float64)
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            x = min(max((j + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            answer[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return answer


def crop(image, box, size, context, mode):
    x1, y1, x2, y2 = map(float, box)
    half_width, half_height = (x2 - x1) / 2, (y2 - y1) / 2
    centre = (x1 + half_width, y1 + half_height)
    if mode != "warp":
        half_width = half_height = max(half_width, half_height)
    scale = size / (size - 2 * context)
    left, right = half_up(centre[0] - half_width * scale), half_up(centre[0] + half_width * scale)
    top, bottom = half_up(centre[1] - half_height * scale), half_up(centre[1] + half_height * scale)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    seen = [max(left, 0), max(top, 0), min(right, image.shape[1]), min(bottom, image.shape[0])]
    if mode == "square_without_context":
        inner = [half_up(x1), half_up(y1), half_up(x2), half_up(y2)]
        seen = [*np.maximum(seen[:2], inner[:2]), *np.minimum(seen[2:], inner[2:])]
    answer = np.zeros((size, size, image.shape[2]))
    if seen[2] <= seen[0] or seen[3] <= seen[1]:
        return answer
    pad_x = half_up((seen[0] - left) * size / (right - left))
    pad_y = half_up((seen[1] - top) * size / (bottom - top))
    width = min(max(half_up((seen[2] - seen[0]) * size / (right - left)), 1), size - pad_x)
    height = min(max(half_up((seen[3] - seen[1]) * size / (bottom - top)), 1), size - pad_y)
    window = image[seen[1] : seen[3], seen[0] : seen[2]]
    answer[pad_y : pad_y + height, pad_x : pad_x + width] = resized(window, height, width)
    return answer


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("context", [0, 3])
def test_warp_equals_the_twin(mode, context):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 40, 56, 3)).astype(np.float32)
    sizes = np.float32([[40, 56], [33, 47]])
    images[1, 33:] = images[1, :, 47:] = 0
    corner = rng.integers(-6, 40, (2, 12, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 30, (2, 12, 2))], axis=2).astype(np.float32)
    boxes[0, 0] = [0, 0, 56, 40]
    boxes[0, 1] = [50, 35, 56, 40]
    boxes[0, 2] = [200, 200, 210, 220]  # outside
    crops = np.asarray(warp_regions(images, boxes, sizes, 16, context, mode))
    assert crops.shape == (2, 12, 16, 16, 3)
    for b in range(2):
        height, width = sizes[b].astype(int)
        for r in range(12):
            expected = crop(images[b, :height, :width], boxes[b, r], 16, context, mode)
            np.testing.assert_allclose(crops[b, r], expected, atol=2e-5, err_msg=f"{b} {r} {boxes[b, r]}")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="square"):
        warp_regions(np.zeros((1, 8, 8, 3)), np.zeros((1, 1, 4)), np.float32([[8, 8]]), 4, 0, "tile")
