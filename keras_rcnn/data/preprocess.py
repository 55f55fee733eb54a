"""An image of any size -> what a model takes: normalised, resized, zero-padded into a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, cast

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_rcnn.data.images import pixel_limit, read_image
from keras_rcnn.data.paste import Rule, pasted
from keras_rcnn.data.pillow_resize import pillow_size, resize_pillow
from keras_rcnn.data.request import check_number, check_whole
from keras_rcnn.interfaces import MaskForm

# whose way it is that something is done
RULES = ("torchvision", "detectron2")


@keras.saving.register_keras_serializable(package="keras_rcnn")
class Preprocessor:
    """Normalises, resizes and pads images, number for number as torchvision's detection models do.

    The values are `(x / 255 - mean) / std`; then the shorter side is resized bilinearly to `min_size`, less if the
    longer one would exceed `max_size`; a batch is padded with 0 at the right and the bottom.

    Args:
        min_size: Shorter side in px.
        max_size: Largest longer side in px.
        mean: Three floats, of RGB in 0..1.
        std: Three floats, of RGB in 0..1.
        size_divisor: A batch's height and width are padded to a multiple of it: the largest stride of the model.
        fixed_size: `(height, width)` in px that every batch has, for compilers that want one shape (JAX, TPU, LiteRT);
            images are resized to fit into it. None: each batch is as large as its largest image.
        few_shapes: Whether batches are padded to one of the few sizes in `shapes`, so that a model that XLA compiles is
            compiled for no more than these. None: where the model is compiled (on JAX, or by `jit_compile=True`), and
            not elsewhere. It costs pixels (5 to 15 % for photos, under a fifth for any mixture of
            sizes), and more padding changes the
            features next to a photo's right and bottom edge, as it does for the smaller images of any batch.
        resize: `"torchvision"`, as above, or `"detectron2"`: uint8 is resized by Pillow, which antialiases, to sides
            that are rounded half up, and normalised afterwards, in 0..255.
        channels: Order of the channels that the model takes, `"rgb"` or `"bgr"`, as the weights of Caffe and Detectron2
            want it. Images, `mean` and `std` are RGB either way.
        paste: How a mask is laid onto the photo: `"torchvision"` pads it by a cell and resizes it to whole pixels,
            `"detectron2"` reads it at each pixel's centre within the box as it is.

    Example:

    ```python
    preprocessor = Preprocessor(min_size=320, max_size=640)
    x = preprocessor.batch([read_image("street.jpg")])   # {"images": [1, H, W, 3], "image_sizes": [1, 2]}
    ```
    """

    def __init__(
        self,
        min_size: int = 800,
        max_size: int = 1333,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size_divisor: int = 32,
        fixed_size: Sequence[int] | None = None,
        few_shapes: bool | None = None,
        resize: Literal["torchvision", "detectron2"] = "torchvision",
        channels: Literal["rgb", "bgr"] = "rgb",
        paste: Literal["torchvision", "detectron2"] = "torchvision",
    ) -> None:
        for name, value, known in (
            ("resize", resize, RULES),
            ("channels", channels, ("rgb", "bgr")),
            ("paste", paste, RULES),
        ):
            if value not in known:
                raise ValueError(f"{name} is {known[0]!r} or {known[1]!r}, not {value!r}.")
        self.resize, self.channels = resize, channels
        self.paste: Rule = paste
        for name, value in (("min_size", min_size), ("max_size", max_size), ("size_divisor", size_divisor)):
            check_whole(name, value, "px")
        self.min_size, self.max_size, self.size_divisor = int(min_size), int(max_size), int(size_divisor)
        for name, values in (("mean", mean), ("std", std)):
            if np.shape(values) != (3,):
                raise ValueError(f"{name} is three numbers, of RGB in 0..1, not {values!r}.")
            for value in values:
                check_number(name, value, 0 if name == "std" else -math.inf, open_low=name == "std")
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.fixed_size: tuple[int, int] | None = None
        if fixed_size is not None:
            if np.shape(fixed_size) != (2,):
                raise ValueError(f"fixed_size is (height, width) in px, or None, not {fixed_size!r}.")
            for side in fixed_size:
                check_whole("fixed_size", side, "height and width in px")
            height, width = map(int, fixed_size)
            self.fixed_size = height, width
        self.few_shapes = few_shapes
        if few_shapes not in (True, False, None):
            raise ValueError(f"few_shapes is True, False or None, got {few_shapes!r}")
        if self.fixed_size is not None:
            wanted = tuple(_up(side, self.size_divisor) for side in self.fixed_size)
            if wanted != self.fixed_size:
                raise ValueError(
                    f"fixed_size is (height, width) in multiples of {self.size_divisor}, got {self.fixed_size}; "
                    f"the next one is {wanted}"
                )

    def get_config(self) -> dict[str, Any]:
        return {
            "min_size": self.min_size,
            "max_size": self.max_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "size_divisor": self.size_divisor,
            "fixed_size": None if self.fixed_size is None else list(self.fixed_size),
            "few_shapes": self.few_shapes,
            "resize": self.resize,
            "channels": self.channels,
            "paste": self.paste,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocessor:
        return cls(**config)

    @classmethod
    def for_backbone(cls, backbone: Any, **settings: Any) -> Preprocessor:
        """One that normalises as a backbone's `mean` and `std` say; without them, by ImageNet's."""
        known = {key: getattr(backbone, key) for key in ("mean", "std") if hasattr(backbone, key)}
        return cls(**{**known, **settings})

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, e.g. `replace(min_size=400)`."""
        return type(self)(**{**self.get_config(), **changes})

    def at_size(self, size: int) -> Self:
        """A copy for photos whose shorter side becomes `size` px, as that of these becomes `min_size`.

        `max_size` and `fixed_size` grow or shrink in proportion, the latter to the next multiple of `size_divisor`.
        Where a `fixed_size` is smaller than `min_size`, it is its shorter side that photos come to, and that becomes
        `size`.

        Args:
            size: int, px.
        """
        factor = size / min([self.min_size, *(self.fixed_size or ())])
        sides = [math.ceil(side * factor - 1e-6) for side in self.fixed_size or ()]
        fixed = [_up(side, self.size_divisor) for side in sides] or None
        return self.replace(min_size=size, max_size=max(round(self.max_size * factor), 1), fixed_size=fixed)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """`(height, width)` in px that an image of this size is resized to."""
        if min(height, width) < 1:
            raise ValueError(f"an image of {width} x {height} px has no pixels")
        if self.resize == "detectron2":
            return pillow_size(height, width, self.min_size, self.max_size, self.fixed_size)
        scale = min(self.min_size / min(height, width), self.max_size / max(height, width))
        if self.fixed_size is not None:
            scale = min(scale, self.fixed_size[0] / height, self.fixed_size[1] / width)
        # Truncated, as torchvision does: some images get 799 px. A very long image keeps one px of height.
        sides = [max(int(side * scale), 1) for side in (height, width)]
        if self.fixed_size is not None:  # a side of fixed_size / side may come out one rounding short, never larger
            sides = [min(side, limit) for side, limit in zip(sides, self.fixed_size)]
        return sides[0], sides[1]

    def padded_size(self, sizes: Sequence[Sequence[int]], compiled: bool | None = False) -> tuple[int, int]:
        """`(height, width)` in px of the batch that holds images of these resized sizes.

        Args:
            sizes: List of `(height, width)`.
            compiled: Whether XLA compiles what takes the batch, for `few_shapes=None`.

        Raises:
            ValueError: If there are no sizes.
        """
        if not len(sizes):
            raise ValueError("There is no image in the batch, so it has no size. Give the size of at least one.")
        if self.fixed_size is not None:
            return self.fixed_size
        needed = cast(tuple[int, int], tuple(_up(max(sides), self.size_divisor) for sides in zip(*sizes)))
        if not (compiled if self.few_shapes is None else self.few_shapes):
            return needed
        fitting = [shape for shape in self.shapes if shape[0] >= needed[0] and shape[1] >= needed[1]]
        return min(fitting, key=lambda shape: (shape[0] * shape[1], shape), default=needed)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The `(height, width)` in px that `few_shapes` pads to: eight for single photos, upright and lying, and a
        square that holds a batch of both."""
        short, long = min(self.min_size, self.max_size), self.max_size
        # of long photos the longer side is `long` and the shorter one less than `short`
        if 3 * long <= 4 * short:
            ends = [(short * share, long) for share in (1, 0.75, 0.5, 0.25)]
        elif long <= 2 * short:
            ends = [(short, short * 4 / 3), *((short * share, long) for share in (1, 0.7, 0.4))]
        else:
            ends = [(short, side) for side in (short * 4 / 3, short * 16 / 9, (short * 16 / 9 * long) ** 0.5, long)]
        step = self.size_divisor
        sides = [(_up(math.ceil(a), step), _up(math.ceil(b), step)) for a, b in (*ends, (long, long))]
        return sorted({*sides, *((width, height) for height, width in sides)})

    def __call__(self, image: ArrayLike, size: Sequence[int] | None = None) -> np.ndarray:
        """Normalises and resizes one image.

        Args:
            image: uint8 `[h, w, 3]`, or floats in 0..1.
            size: `(height, width)` to resize to. None: `self.size(h, w)`.

        Returns:
            float32 `[height, width, 3]`.
        """
        image = np.asarray(image)
        size = size or self.size(*image.shape[:2])
        if self.resize == "detectron2":
            values = self._normalised(resize_pillow(image, *size).astype(np.float32), 255)
        else:
            values = image.astype(np.float32)
            if image.dtype == np.uint8:
                values /= np.float32(255)
            values = resize_bilinear(self._normalised(values, 1), *size)
        return values if self.channels == "rgb" else np.ascontiguousarray(values[..., ::-1])

    def _normalised(self, values: np.ndarray, scale: float) -> np.ndarray:
        """Float32 values in 0..`scale`, changed in place."""
        values -= (np.array(self.mean) * scale).astype(np.float32)
        values /= (np.array(self.std) * scale).astype(np.float32)
        return values

    def batch(
        self, images: Sequence[np.ndarray], padded_size: Sequence[int] | None = None, compiled: bool | None = False
    ) -> dict[str, np.ndarray]:
        """Images -> a model's input.

        Args:
            images: List of images, each what `read_image` takes.
            padded_size: `(height, width)` of the batch, at least as large as its images. None: `self.padded_size(...)`.
            compiled: As in `padded_size`.

        Returns:
            `{"images": float32 [B, H, W, 3], "image_sizes": float32 [B, 2]}`; the sizes are (height, width) in px of
            the resized images without their padding.
        """
        images = [read_image(image) for image in images]
        if not images:
            raise ValueError("a batch needs at least one image")
        sizes = [self.size(*image.shape[:2]) for image in images]
        height, width = padded_size or self.padded_size(sizes, compiled)
        if 0 < pixel_limit() < height * width:
            raise ValueError(
                f"a batch of {width} x {height} px an image is over the limit of {pixel_limit():,} px: take a smaller "
                f"size (min_size {self.min_size}, max_size {self.max_size}), or set KERAS_RCNN_MAX_PIXELS to "
                f"{height * width} in the environment (0 for no limit)"
            )
        answer = np.zeros((len(images), height, width, 3), np.float32)
        for i, (image, (height, width)) in enumerate(zip(images, sizes)):
            answer[i, :height, :width] = self(image, (height, width))
        return {"images": answer, "image_sizes": np.array(sizes, np.float32)}

    def place(self, boxes: ArrayLike, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """Boxes of the original image -> boxes of the preprocessed one: the reverse of `restore`."""
        return scale_boxes(boxes, original, resized)

    def restore(self, boxes: ArrayLike, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """Boxes of the resized image -> boxes of the original one; the same as `scale_boxes(boxes, resized, original)`.

        Args:
            boxes: `[..., 4]` in px of the resized image.
            original: `(height, width)` of the image as given.
            resized: `(height, width)` of the resized image.

        Returns:
            float32 `[..., 4]` in px of the image as given.
        """
        return scale_boxes(boxes, resized, original)

    def restore_points(self, points: np.ndarray, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """Keypoints `[..., 3]`, x, y and score or visibility, of the resized image -> of the original one; float32."""
        return _points_by(self.restore, points, original, resized)

    def place_points(self, points: np.ndarray, original: Sequence[int], resized: ArrayLike) -> np.ndarray:
        """The reverse of `restore_points`."""
        return _points_by(self.place, points, original, resized)

    def pasted(self, crops: np.ndarray, boxes: np.ndarray, size: tuple[int, int], form: MaskForm) -> Any:
        """Masks in their boxes, both of the original image, as `detect(masks=form)` answers them.

        Args:
            crops: float32 `[n, M, M]`, probabilities in the boxes.
            boxes: float32 `[n, 4]` in px.
            size: `(height, width)` of the image.
            form: True for bool `[n, height, width]`, `"rle"` for a list of COCO RLEs, `"crops"` for `crops`.
        """
        return pasted(crops, boxes, size, form, self.paste)


def scale_boxes(boxes: ArrayLike, old: Any, new: Any) -> np.ndarray:
    """Boxes of an image of size `old` (height, width) -> of the same image at size `new`; float32 `[..., 4]`."""
    height, width = np.float32(new[0]) / np.float32(old[0]), np.float32(new[1]) / np.float32(old[1])
    return np.asarray(boxes, np.float32) * np.array([width, height, width, height], np.float32)


def _points_by(
    move: Callable[..., np.ndarray], points: np.ndarray, original: Sequence[int], resized: ArrayLike
) -> np.ndarray:
    """Keypoints `[..., 3]` moved as `restore` or `place` moves boxes."""
    boxes = move(np.concatenate([points[..., :2]] * 2, axis=-1), original, resized)
    return np.concatenate([boxes[..., :2], points[..., 2:]], axis=-1).astype(np.float32)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """torchvision's bilinear resize (half-pixel centres, no antialias) of a float32 image `[h, w, c]`."""
    if height * image.shape[1] <= width * image.shape[0]:  # the cheaper axis first
        return _resize_axis(_resize_axis(image, height, 0), width, 1)
    return _resize_axis(_resize_axis(image, width, 1), height, 0)


def _resize_axis(image: np.ndarray, n: int, axis: int) -> np.ndarray:
    old = image.shape[axis]
    if n == old:
        return image
    # Rounded once to float32, as its kernel does: float32 all the way is off by 3e-5, float64 by 1e-4.
    ratio = np.float64(np.float32(old) / np.float32(n))
    source = np.maximum((ratio * (np.arange(n) + 0.5) - 0.5).astype(np.float32), 0)
    low = np.minimum(source.astype(np.intp), old - 1)
    weight = (source - low.astype(np.float32)).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    answer = image.take(low, axis)
    difference = image.take(np.minimum(low + 1, old - 1), axis)
    difference -= answer
    difference *= weight
    answer += difference
    return answer


def _up(side: int, divisor: int) -> int:
    return -(-side // divisor) * divisor
