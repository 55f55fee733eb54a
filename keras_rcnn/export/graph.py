"""Photos in, detections out, as one TensorFlow graph: what `detect` does around the network, number for number.

Shapes: B photos, H x W pixels, P proposals, D detections.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_rcnn.data.matterport import MatterportPreprocessor
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.export import masks_by, matterport_graph, pillow
from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops import roi

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# what Pillow, and with it detect, refuses as a decompression bomb
MAX_PIXELS = 2 * (1024**3 // 4 // 3)
# of masks that are pasted, in bytes: a message of gRPC can have no more
MAX_BYTES = 2**31 - 1
# of a JPEG, where its EXIF orientation is looked for: two segments of full length
_EXIF_BYTES = 2 * 65536


# === Photos ===


def decode(contents: Tensor) -> Tensor:
    """Encoded JPEG or PNG, a scalar string -> uint8 [H, W, 3], turned by its EXIF orientation as `read_image` does.

    Bytes that are neither, are damaged, or have more than `MAX_PIXELS` are an InvalidArgumentError. Of a JPEG the
    EXIF tag is heeded, of a PNG not. 16-bit grey is rounded to 8 bits, alpha is dropped.
    """
    import tensorflow as tf

    is_jpeg = tf.strings.substr(contents, 0, len(JPEG)) == JPEG
    # a PNG has at least a header of 33 bytes
    is_png = (tf.strings.substr(contents, 0, len(PNG)) == PNG) & (tf.strings.length(contents) >= 33)
    known = tf.debugging.Assert(is_jpeg | is_png, ["A photo is sent as the bytes of a JPEG or PNG; these are neither."])
    with tf.control_dependencies([known]):
        contents = tf.identity(contents)
    return tf.cond(is_jpeg, lambda: _decode_jpeg(contents), lambda: _decode_png(contents))


def _decode_jpeg(contents: Tensor) -> Tensor:
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(contents)
    with tf.control_dependencies([_check_pixels(shape[0], shape[1])]):
        image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")  # as Pillow
    return _turned(image, exif_orientation(contents))


def _decode_png(contents: Tensor) -> Tensor:
    import tensorflow as tf

    header = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 16, 10), tf.uint8), tf.int32)
    header = tf.ensure_shape(header, [10])
    width, height = _number(header[0:4]), _number(header[4:8])
    with tf.control_dependencies([_check_pixels(height, width)]):
        contents = tf.identity(contents)

    def rounded() -> Tensor:  # v / 257; decode_png would cut the lower byte off, as it and Pillow do with 16-bit colour
        image = tf.cast(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), tf.int32)
        return tf.cast((image + 128) // 257, tf.uint8)

    is_grey16 = (header[8] == 16) & (header[9] == 0)
    return tf.cond(is_grey16, rounded, lambda: tf.io.decode_png(contents, channels=3))


def _check_pixels(height: Tensor, width: Tensor) -> Any:
    import tensorflow as tf

    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    good = (pixels > 0) & (pixels <= MAX_PIXELS)
    return tf.debugging.Assert(good, [f"A photo has 1 to {MAX_PIXELS} pixels; this one has", pixels])


def _number(digits: Tensor, base: int = 256) -> Tensor:
    """Bytes, the highest first -> int64."""
    import tensorflow as tf

    count = digits.shape[-1]
    return tf.reduce_sum(tf.cast(digits, tf.int64) * [base ** (count - 1 - i) for i in range(count)], axis=-1)


def exif_orientation(contents: Tensor) -> Tensor:
    """The EXIF orientation of a JPEG's bytes, int32 1 to 8; 1 if it has none."""
    import tensorflow as tf

    data = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, _EXIF_BYTES), tf.uint8), tf.int32)
    length = tf.size(data)

    def at(place: Tensor, count: int, little: Tensor | None = None) -> Tensor:
        """The number in `count` bytes at `place`, 0 beyond the end; `little`: whether its lowest byte is first."""
        place = tf.cast(place, tf.int64)[..., None] + tf.range(count, dtype=tf.int64)
        inside = (place >= 0) & (place < tf.cast(length, tf.int64))
        digits = tf.where(inside, tf.gather(data, tf.where(inside, place, 0)), 0)
        digits = tf.ensure_shape(digits, [*place.shape[:-1], count])
        high_first = _number(digits)
        return high_first if little is None else tf.where(little, _number(tf.reverse(digits, [-1])), high_first)

    def is_exif(place: Tensor) -> Tensor:
        return (at(place, 2) == 0xFFE1) & (at(place + 4, 4) == 0x45786966) & (at(place + 8, 2) == 0)  # "Exif\0\0"

    def goes_on(place: Tensor) -> Tensor:
        marker = at(place, 2)
        # segments with a length, up to the picture's data; a length under 2 is damage
        segment = (marker >= 0xFFC0) & (marker < 0xFFFF) & (marker != 0xFFDA) & (at(place + 2, 2) >= 2)
        return segment & tf.logical_not(is_exif(place))

    place = tf.while_loop(goes_on, lambda place: (place + 2 + at(place + 2, 2),), (tf.constant(2, tf.int64),))[0]
    tiff = place + 10
    little = at(tiff, 2) == 0x4949
    directory = tiff + at(tiff + 4, 4, little)
    count = tf.minimum(at(directory, 2, little), _EXIF_BYTES // 12)
    entries = directory + 2 + 12 * tf.range(count)
    type_code = at(entries + 2, 2, little)
    value = tf.where(type_code == 3, at(entries + 8, 2, little), at(entries + 8, 4, little))
    good = (at(entries, 2, little) == 0x0112) & ((type_code == 3) | (type_code == 4)) & (value >= 1) & (value <= 8)
    value = tf.reduce_max(tf.where(good & is_exif(place), value, 1))
    return tf.cast(tf.clip_by_value(value, 1, 8), tf.int32)  # without entries the maximum is the least number


def _turned(image: Tensor, orientation: Tensor) -> Tensor:
    import tensorflow as tf

    def flipped(*axes: int, transposed: bool = False) -> Callable[[], Tensor]:
        def turn() -> Tensor:
            turned = tf.reverse(image, axes) if axes else image
            return tf.transpose(turned, [1, 0, 2]) if transposed else turned

        return turn

    # from orientation 1: none, mirror, half turn, upside down, transpose, quarter right, transverse, quarter left
    ways = [
        flipped(),
        flipped(1),
        flipped(0, 1),
        flipped(0),
        flipped(transposed=True),
        flipped(0, transposed=True),
        flipped(0, 1, transposed=True),
        flipped(1, transposed=True),
    ]
    return tf.switch_case(orientation - 1, ways)


# === Preprocessing ===


def preprocess(preprocessor: Preprocessor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """`Preprocessor.batch` of photos of one size.

    Args:
        preprocessor: `Preprocessor`.
        pixels: uint8 [B, H, W, 3].

    Returns:
        `(images, size)`: float32 [B, H', W', 3], padded, and int32 [2], (height, width) in px before padding.
    """
    import tensorflow as tf

    old = tf.shape(pixels)[1:3]
    if isinstance(preprocessor, MatterportPreprocessor):
        return matterport_graph.preprocess(preprocessor, pixels)
    empty = tf.debugging.Assert(tf.reduce_min(old) > 0, ["A photo without pixels; height and width are", old])
    with tf.control_dependencies([empty]):
        size = resized_size(preprocessor, old)
    height, width = size[0], size[1]

    def normalised(values: Tensor) -> Tensor:
        return normalise(preprocessor, values)

    if preprocessor.resize == "detectron2":
        images = normalised(pillow.resize_pillow(pixels, size))
    else:
        # the cheaper axis first; only what is looked at is normalised
        across = tf.cast(size, tf.int64) * tf.cast(tf.stack([old[1], old[0]]), tf.int64)
        images = tf.cond(
            across[0] <= across[1],
            lambda: _resize_axis(_resize_axis(pixels, height, 1, normalised), width, 2),
            lambda: _resize_axis(_resize_axis(pixels, width, 2, normalised), height, 1),
        )
    if preprocessor.fixed_size is None:
        divisor = preprocessor.size_divisor
        padded = (size + divisor - 1) // divisor * divisor  # no negative numbers: ONNX would round these towards 0
    else:
        padded = tf.constant(preprocessor.fixed_size)
    padding = padded - size
    images = tf.pad(images, [[0, 0], [0, padding[0]], [0, padding[1]], [0, 0]])
    return tf.ensure_shape(images, [pixels.shape[0], None, None, 3]), size


def resized_size(preprocessor: Preprocessor, size: Tensor) -> Tensor:
    """`Preprocessor.size`, in the same double precision: int32 [2] (height, width) -> int32 [2]."""
    import tensorflow as tf

    sides = tf.cast(size, tf.float64)
    if preprocessor.resize == "detectron2":
        return pillow.pillow_size(preprocessor, sides)
    # divided before reduced, which is the same number: where a shape follows from it, OpenVINO 2026 turns a constant
    # divided by a minimum upside down
    scale = tf.minimum(tf.reduce_max(preprocessor.min_size / sides), tf.reduce_min(preprocessor.max_size / sides))
    limits = preprocessor.fixed_size
    if limits is not None:
        scale = tf.minimum(scale, tf.reduce_min(tf.constant(limits, tf.float64) / sides))
    resized = tf.maximum(tf.cast(sides * scale, tf.int32), 1)  # the cast truncates, as int() does
    return resized if limits is None else tf.minimum(resized, tf.constant(limits, tf.int32))


def normalise(preprocessor: Preprocessor, values: Tensor) -> Tensor:
    """Pixels in 0..255 -> what the detector takes, in its order of channels: float32 of the same shape."""
    import tensorflow as tf

    scale = 255.0 if preprocessor.resize == "detectron2" else 1.0
    mean, std = (tf.constant([value * scale for value in v], tf.float32) for v in (preprocessor.mean, preprocessor.std))
    values = tf.cast(values, tf.float32)
    values = (values - mean) / std if scale == 255.0 else (values / 255.0 - mean) / std
    return values if preprocessor.channels == "rgb" else tf.gather(values, [2, 1, 0], axis=-1)


def _resize_axis(
    values: Tensor, n: Tensor, axis: int, of_values: Callable[[Tensor], Tensor] = lambda values: values
) -> Tensor:
    """`data.preprocess._resize_axis` of [B, H, W, 3], applied to `of_values(values)`."""
    import tensorflow as tf

    old = tf.shape(values)[axis]
    ratio = tf.cast(tf.cast(old, tf.float32) / tf.cast(n, tf.float32), tf.float64)
    source = tf.cast(ratio * (tf.range(tf.cast(n, tf.float64), dtype=tf.float64) + 0.5) - 0.5, tf.float32)
    source = tf.maximum(source, 0.0)
    low = tf.minimum(tf.cast(source, tf.int32), old - 1)
    weight = tf.reshape(source - tf.cast(low, tf.float32), [-1, 1, 1] if axis == 1 else [1, -1, 1])
    first = of_values(tf.gather(values, low, axis=axis))
    second = of_values(tf.gather(values, tf.minimum(low + 1, old - 1), axis=axis))
    return first + (second - first) * weight


def scale_boxes(boxes: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """`data.preprocess.scale_boxes`: [..., 4] of an image of size `old` (height, width) -> of size `new`."""
    import tensorflow as tf

    factor = tf.cast(new, tf.float32) / tf.cast(old, tf.float32)
    return boxes * tf.stack([factor[1], factor[0], factor[1], factor[0]])


def restore(preprocessor: Preprocessor, boxes: Tensor, size: Tensor, old: Tensor) -> Tensor:
    """`Preprocessor.restore`: [..., 4] of a photo as the network saw it, `size` (height, width) -> of it as it was."""
    if isinstance(preprocessor, MatterportPreprocessor):
        return matterport_graph.restore(preprocessor, boxes, size, old)
    return scale_boxes(boxes, size, old)


# === Detections ===


def detect(
    network: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    preprocessor: Preprocessor,
    pixels: Tensor,
    proposals: Tensor | None = None,
    score: float = 0.0,
) -> dict[str, Tensor]:
    """Photos of one size -> the network's outputs, with boxes in px of the photos.

    Args:
        network: a detector, as a function of the dict of its inputs.
        preprocessor: `Preprocessor` of the detector.
        pixels: uint8 [B, H, W, 3].
        proposals: float32 [B, P, 4] in px of the photos, of a detector that wants such; zeros are padding.
        score: float; detections below it become padding.

    Returns:
        A dict: `boxes` [B, D, 4], `scores` [B, D], `labels` [B, D], with masks `masks` [B, D, 28, 28], and with
        keypoints `keypoints` [B, D, K, 3].
    """
    import tensorflow as tf

    images, size = preprocess(preprocessor, pixels)
    old = tf.shape(pixels)[1:3]
    once_each: Any = [tf.shape(pixels)[0], 1]  # TensorFlow's types know no tensor in a list
    inputs = {"images": images, "image_sizes": tf.tile(tf.cast(size, tf.float32)[None], once_each)}
    if proposals is not None:
        inputs["proposals"] = scale_boxes(proposals, old, size)
    outputs = dict(network(inputs))
    if score > 0:  # best first: what is left out lies at the end
        keep = outputs["scores"] >= score
        outputs["labels"] = tf.where(keep, outputs["labels"], -1)
        outputs["scores"] = tf.where(keep, outputs["scores"], 0.0)
        outputs["boxes"] = tf.where(keep[..., None], outputs["boxes"], 0.0)
    found: Tensor = outputs["labels"] >= 0
    boxes = tf.where(found[..., None], restore(preprocessor, outputs["boxes"], size, old), 0.0)
    if "keypoints" in outputs:
        points, twice = outputs["keypoints"], tf.tile(outputs["keypoints"][..., :2], [1, 1, 1, 2])
        points = tf.concat([restore(preprocessor, twice, size, old)[..., :2], points[..., 2:]], axis=-1)
        outputs["keypoints"] = tf.where(found[..., None, None], points, 0.0)
    return {**outputs, "boxes": boxes}


def without_doubles(proposals: Tensor, stride: int) -> Tensor:
    """Of proposals in the same cells of the feature map, which get the same answer, the first; the others become 0.

    `detect` leaves them out as well: which of them is shown would hang on the last bit of a score.

    Args:
        proposals: float32 [B, P, 4] in px of the resized photos.
        stride: of the feature map, in px.

    Returns:
        float32 [B, P, 4].
    """
    import tensorflow as tf

    shape = tf.shape(proposals)
    cells = roi.cells(tf.reshape(proposals, [-1, 4]), 1.0 / stride)
    photo = tf.repeat(tf.range(shape[0]), shape[1])
    _, index = tf.raw_ops.UniqueV2(x=tf.concat([photo[:, None], cells], axis=1), axis=[0])
    place = tf.range(tf.size(index))
    first = tf.math.unsorted_segment_min(place, index, tf.size(index))
    kept: Tensor = tf.reshape(tf.gather(first, index) == place, shape[:2])
    return tf.where(kept[..., None], proposals, 0.0)


def names(class_names: Sequence[str], labels: Tensor) -> Tensor:
    """Labels -> strings of the same shape, "" for padding."""
    import tensorflow as tf

    return tf.gather(tf.constant([*class_names, ""]), tf.where(labels < 0, len(class_names), labels))


def paste(
    masks: Tensor, boxes: Tensor, labels: Tensor, sizes: Tensor, preprocessor: Preprocessor | None = None
) -> Tensor:
    """`Preprocessor.pasted` of B photos, one detection after another.

    Args:
        masks: float32 [B, D, M, M], probabilities in the boxes.
        boxes: float32 [B, D, 4] in px of the photos.
        labels: int32 [B, D], -1 for padding.
        sizes: int32 [B, 2], (height, width) of the photos in px.
        preprocessor: `Preprocessor` whose rule it is; None: torchvision's.

    Returns:
        uint8 [B, N, H, W] of 0 and 1: N is the most detections of a photo, H and W the largest photo's.
    """
    import tensorflow as tf

    count = tf.maximum(tf.reduce_max(tf.reduce_sum(tf.cast(labels >= 0, tf.int32), axis=1)), 0)
    canvas = tf.maximum(tf.reduce_max(sizes, axis=0), 0)
    shape = tf.stack([tf.shape(masks)[0], count, canvas[0], canvas[1]])
    needed = tf.reduce_prod(tf.cast(shape, tf.int64))
    fits = tf.debugging.Assert(
        needed <= MAX_BYTES, ["Pasted masks of this shape are too large; export with masks='crops'. Shape:", shape]
    )
    with tf.control_dependencies([fits]):
        masks = masks[:, :count]
    size = masks.shape[2]
    times: Any = [1, count, 1]
    every = tf.tile(sizes[:, None], times)
    valid = labels[:, :count] >= 0
    probabilities = masks_by.probabilities_of(preprocessor)

    def paste_mask(args: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        mask, box, photo, exists = args
        return tf.cast((probabilities(mask, box, canvas, photo) >= 0.5) & exists, tf.uint8)

    each = (tf.reshape(masks, [-1, size, size]), tf.reshape(boxes[:, :count], [-1, 4]))
    each += (tf.reshape(every, [-1, 2]), tf.reshape(valid, [-1]))
    # TensorFlow cannot stack an empty list: where nothing is found, one mask too many is pasted and left out
    number = tf.shape(each[0])[0]
    each = [tf.pad(value, [[0, tf.maximum(1 - number, 0)]] + [[0, 0]] * (value.shape.rank - 1)) for value in each]
    mask_spec = tf.TensorSpec((None, None), tf.uint8)
    pasted = tf.map_fn(paste_mask, tuple(each), parallel_iterations=1, fn_output_signature=mask_spec)[:number]
    return tf.reshape(pasted, shape)
