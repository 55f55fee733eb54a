"""Photos in and detections out as Matterport's Mask_RCNN has them: centred on a canvas, and whole pixels."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.paste import pasted
from keras_rcnn.data.preprocess import Preprocessor, scale_boxes
from keras_rcnn.data.request import check_number
from keras_rcnn.interfaces import MaskForm
from keras_rcnn.ops.matterport import CANVAS_DIVISOR, Canvas

MODES = ("square", "pad64", "none")
# from a box's last pixel to where the box ends
_ENDS = np.array([0, 0, 1, 1], np.float32)


@keras.saving.register_keras_serializable(package="keras_rcnn")
class MatterportPreprocessor(Preprocessor):
    """Resizes, pads and subtracts the mean, number for number as Matterport's Mask_RCNN does.

    A photo is made larger until its shorter side is `min_size`, and never smaller (but see `"square"`); resized as
    scikit-image does it, where the outermost pixels are mixed with black; put into the middle of a black canvas; then
    the mean is subtracted. So the canvas is minus the mean around the photo.

    Args:
        min_size: least shorter side in px (IMAGE_MIN_DIM).
        max_size: side of the canvas in px in the mode `"square"`, which photos are made smaller to fit into
            (IMAGE_MAX_DIM), a multiple of 64. The other modes do not look at it.
        mode: the canvas (IMAGE_RESIZE_MODE): `"square"` of `max_size`; `"pad64"`, each side up to the next multiple of
            64; `"none"`, neither resized nor padded, for photos with sides that 64 divides.
        min_scale: the least factor by which photos are made larger, 0 for none (IMAGE_MIN_SCALE).
        mean_pixel: three floats, of RGB in 0..255 (MEAN_PIXEL).
        few_shapes: as in `Preprocessor`; more padding is right of and below the canvas.

    Raises:
        ValueError: for arguments that are not as above, and for a photo that `"none"` cannot take.

    Example:

    >>> x = MatterportPreprocessor(min_size=400, max_size=512).batch(["street.jpg"])  # images [1, 512, 512, 3]
    """

    def __init__(
        self,
        min_size: int = 800,
        max_size: int = 1024,
        mode: Literal["square", "pad64", "none"] = "square",
        min_scale: float = 0.0,
        mean_pixel: Sequence[float] = (123.7, 116.8, 103.9),
        few_shapes: bool | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}.")
        check_number("min_scale", min_scale, 0)
        if np.shape(mean_pixel) != (3,):
            raise ValueError(f"mean_pixel is three numbers, of RGB in 0..255, not {mean_pixel!r}.")
        self.mode: Literal["square", "pad64", "none"] = mode
        self.min_scale, self.mean_pixel = float(min_scale), tuple(map(float, mean_pixel))
        super().__init__(
            min_size=min_size,
            max_size=max_size,
            mean=[value / 255 for value in self.mean_pixel],
            std=[1 / 255] * 3,
            size_divisor=CANVAS_DIVISOR,
            fixed_size=(max_size, max_size) if mode == "square" else None,
            few_shapes=few_shapes,
        )

    def get_config(self) -> dict[str, Any]:
        config = {"min_size": self.min_size, "max_size": self.max_size, "mode": self.mode}
        config |= {"min_scale": self.min_scale, "mean_pixel": list(self.mean_pixel)}
        return {**config, "few_shapes": self.few_shapes}

    @property
    def canvas(self) -> Canvas:
        """The canvas as `MatterportProposals` and `MatterportDecoder` are told it."""
        return self.max_size if self.mode == "square" else self.mode

    def at_size(self, size: int) -> Self:
        """A copy with the shorter side `size`. The canvas of `"square"` stays: it is a part of the network."""
        return self.replace(min_size=size)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """`(height, width)` in px that a photo of this size is resized to."""
        if min(height, width) < 1:
            raise ValueError(f"an image of {width} x {height} px has no pixels")
        if self.mode == "none":
            if height % CANVAS_DIVISOR or width % CANVAS_DIVISOR:
                raise ValueError(
                    f"The mode 'none' takes photos with sides that {CANVAS_DIVISOR} divides, not one of {width} x "
                    f"{height} px. 'pad64' and 'square' take any."
                )
            return height, width
        scale = max(1, self.min_size / min(height, width), self.min_scale)
        if self.mode == "square" and round(max(height, width) * scale) > self.max_size:
            scale = self.max_size / max(height, width)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def corner(self, resized: ArrayLike) -> tuple[int, int]:
        """`(top, left)` in px of a photo of this resized `(height, width)` on its canvas."""
        height, width = np.asarray(resized).astype(int).tolist()
        if self.mode == "square":
            return (self.max_size - height) // 2, (self.max_size - width) // 2
        return -height % CANVAS_DIVISOR // 2, -width % CANVAS_DIVISOR // 2

    def __call__(self, image: ArrayLike, size: Sequence[int] | None = None) -> np.ndarray:
        """Resizes one photo, uint8 or floats in 0..1 `[h, w, 3]`, and subtracts the mean; float32."""
        image = np.asarray(image)
        whole = image.dtype == np.uint8
        height, width = size or self.size(*image.shape[:2])
        if image.shape[:2] != (height, width):
            resized = resize_as_skimage(image, height, width)
            image = resized.astype(np.uint8) if whole else resized
        return (image * np.float64(1 if whole else 255) - self.mean_pixel).astype(np.float32)

    def batch(
        self, images: Sequence[np.ndarray], padded_size: Sequence[int] | None = None, compiled: bool | None = False
    ) -> dict[str, np.ndarray]:
        """As `Preprocessor.batch`, each photo in the middle of its canvas. Where canvases differ, they lie in the upper
        left of the batch's."""
        x = super().batch(images, padded_size, compiled)
        for image, resized in zip(x["images"], x["image_sizes"]):
            height, width = resized.astype(int)
            top, left = self.corner(resized)
            photo = image[:height, :width].copy()
            image[:] = np.float32(np.negative(self.mean_pixel))
            image[top : top + height, left : left + width] = photo
        return x

    def place(self, boxes: ArrayLike, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """Boxes of the photo -> boxes of the canvas, as `Preprocessor.place`; zeros stay zeros."""
        top, left = self.corner(resized)
        boxes = scale_boxes(boxes, original, resized)
        exists = np.any(boxes != 0, axis=-1, keepdims=True)
        return boxes + np.where(exists, np.array([left, top, left, top], np.float32), np.float32(0))

    def restore(self, boxes: ArrayLike, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """Boxes of the canvas -> boxes of the photo in whole pixels, as `Preprocessor.restore`."""
        top, left = self.corner(resized)
        shift = np.array([left, top, left, top], np.float32)
        last_old, last_new = (np.maximum(np.asarray(side, np.float32)[::-1] - 1, 1e-6) for side in (resized, original))
        factor = np.tile(last_new / last_old, 2)
        return np.around((np.asarray(boxes, np.float32) - shift - _ENDS) * factor + _ENDS)

    def pasted(self, crops: np.ndarray, boxes: np.ndarray, size: tuple[int, int], form: MaskForm) -> Any:
        """As `Preprocessor.pasted`, by Matterport's rule: each mask is resized to its box as photos are."""
        return pasted(crops, boxes, size, form, _mask_parts)


def _mask_parts(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each mask the corner (y, x) and the probabilities [h, w] of its part inside the image."""
    for mask, box in zip(masks, np.rint(boxes).astype(int).tolist(), strict=True):
        x1, y1, x2, y2 = box
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            yield 0, 0, np.zeros((0, 0), np.float32)
            continue
        whole = resize_as_skimage(mask[..., None], y2 - y1, x2 - x1)[..., 0].astype(np.float32)
        yield top, left, whole[top - y1 : bottom - y1, left - x1 : right - x1]


def resize_as_skimage(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`skimage.transform.resize(order=1, mode="constant", preserve_range=True, anti_aliasing=False)` of 0.19 and later,
    to the last bit: the outermost pixels are mixed with zeros, then values are clipped to those that there were.

    Args:
        image: `[h, w, c]`.
        height, width: int, px.

    Returns:
        float64 `[height, width, c]`.
    """
    lowest, highest = float(image.min()), float(image.max())
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    (y0, y1), weights_y = _neighbours(image.shape[0], height)
    (x0, x1), weights_x = _neighbours(image.shape[1], width)
    answer = np.zeros((height, width, image.shape[2]))
    for y, weight_y in zip((y0, y1), weights_y):
        rows = padded[y] * weight_y[:, None, None]
        for x, weight_x in zip((x0, x1), weights_x):
            answer += rows[:, x] * weight_x[:, None]
    if not lowest <= 0 <= highest and answer.min() <= 0 <= answer.max():
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    return np.clip(answer, lowest, highest, out=answer)


def _neighbours(old: int, new: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The two neighbours of each new pixel among the old ones, which begin at 1, and their weights."""
    source = (np.arange(new) + 0.5) * (old / new) - 0.5
    low = np.floor(source)
    fraction = source - low
    low = low.astype(np.intp) + 1
    return (low, low + 1), (1 - fraction, 1 - (1 - fraction))
