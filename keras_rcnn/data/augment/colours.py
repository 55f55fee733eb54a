"""Other colours, and worse photos; boxes and masks stay as they are."""

import statistics

import cv2
import numpy as np

from keras_rcnn.data.augment.objects import Masks, Sample
from keras_rcnn.data.request import check_number

_GREY = np.array([0.299, 0.587, 0.114])
# a normal distribution in 256 equally likely steps: a random byte and this table are ten times as fast as exact values
_NORMAL = np.array([statistics.NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)


class ColorJitter:
    """Changes brightness, contrast and saturation, each by a factor within `1 - x .. 1 + x`, and the hue.

    Args:
        brightness, contrast, saturation: x.
        hue: the most that colours are turned about the grey axis either way, in whole turns: 0.5 is any hue. For
            photos whose colour says little, such as those of stained tissue.
    """

    keeps_size = True

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.0
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            check_number(name, value, 0, 1)
        check_number("hue", hue, 0, 0.5, "in whole turns")
        self.ranges, self.hue = (brightness, contrast, saturation), hue

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        brightness, contrast, saturation = (1 + rng.uniform(-x, x) for x in self.ranges)
        mean = float(image.reshape(-1, 3).mean(axis=0) @ _GREY)
        mix = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * _GREY  # all three in one pass over the px
        if self.hue:
            mix = mix @ _turned_colours(2 * np.pi * rng.uniform(-self.hue, self.hue))
        offset = np.full((3, 1), brightness * (1 - contrast) * mean)
        return cv2.transform(image, np.hstack([brightness * contrast * mix, offset])), boxes, labels, masks


class Photometric:
    """What other cameras make of a photo: blur, noise, gamma, grey instead of colours, JPEG's blocks, in this order.

    Args:
        blur: How often the photo is blurred, by a Gaussian with a standard deviation of 0.3 to 1.5 px.
        noise: How often it gets Gaussian noise, with a standard deviation of 2 to 12 of 255 levels.
        gamma: How often its values are raised to a power between 2/3 and 3/2.
        grey: How often it loses its colours.
        jpeg: How often it is compressed, at a quality of 30 to 90.

    Example:

    >>> Photometric(blur=0.5, grey=0)(image, boxes, labels, masks, np.random.default_rng(0))
    """

    keeps_size = True

    def __init__(
        self, blur: float = 0.2, noise: float = 0.2, gamma: float = 0.3, grey: float = 0.1, jpeg: float = 0.2
    ) -> None:
        self.odds = {"blur": blur, "noise": noise, "gamma": gamma, "grey": grey, "jpeg": jpeg}
        for name, value in self.odds.items():
            check_number(name, value, 0, 1, "a probability")

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: Masks, rng: np.random.Generator
    ) -> Sample:
        # all are drawn, whichever apply, so that one of them changes nothing about the others
        blur, noise, gamma, grey, jpeg = (rng.random() < odds for odds in self.odds.values())
        spread, level, power, quality = rng.random(4)
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), 0.3 + 1.2 * spread)
        if noise:
            grains = np.frombuffer(rng.bytes(image.size), np.uint8)
            levels = np.rint(_NORMAL * (2 + 10 * level)).astype(np.int16)
            image = cv2.add(image, levels[grains].reshape(image.shape), dtype=cv2.CV_8U)
        if gamma:
            values = (np.arange(256) / 255) ** 1.5 ** (2 * power - 1)
            image = cv2.LUT(image, np.rint(255 * values).astype(np.uint8))
        if grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if jpeg:
            options = [cv2.IMWRITE_JPEG_QUALITY, round(30 + 60 * quality)]
            _, compressed = cv2.imencode(".jpg", image[..., ::-1], options)
            image = np.ascontiguousarray(cv2.imdecode(compressed, cv2.IMREAD_COLOR)[..., ::-1])
        return image, boxes, labels, masks


def _turned_colours(angle: float) -> np.ndarray:
    """The rotation [3, 3] of RGB about the grey axis; grey stays, red becomes green at a third of a turn."""
    cos, sin = np.cos(angle), np.sin(angle) / np.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cos * np.eye(3) + (1 - cos) / 3 * np.ones((3, 3)) + sin * cross
