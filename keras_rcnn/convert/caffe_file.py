"""Reads a .caffemodel without Caffe or protobuf: the few fields of its messages that carry weights.

A message is a row of fields, each a tag (number * 8 + wire type) and a value: 0 a varint, 1 eight bytes, 2 a length and
so many bytes (a string, a packed list or another message), 5 four bytes. All lengths are checked against the message
that they lie in before anything is made of them.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_rcnn.convert.errors import ConversionError
from keras_rcnn.convert.limits import Limits
from keras_rcnn.convert.torch_file import NOT_WEIGHTS, weights_file
from keras_rcnn.interfaces import FilePath

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
WIDTHS = {EIGHT: 8, FOUR: 4}
# NetParameter's field of its layers -> (the layer's name, its blobs): today's form, and the one before it
LAYERS = {100: (1, 7), 2: (4, 6)}
# the form of 2013 within the latter: a layer's field 1 is a message with (name, blobs)
OLDEST, OLDEST_FIELDS = 1, (1, 50)
SHAPE, SHAPE_DIM = 7, 1
OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
# Caffe's own limit of a blob's axes
MAX_AXES = 32
MAX_NAME = 1000
# of a list with a field a number, so many are looked at first, then twice as many
FIRST = 64
DATA = {5: ("<f4", FOUR), 8: ("<f8", EIGHT)}  # float, double


def read_caffemodel(
    path: FilePath, max_bytes: int | None = None, max_parts: int | None = None
) -> dict[str, list[np.ndarray]]:
    """The weights in a .caffemodel, in Caffe's own names and layouts.

    Args:
        path: str or path. Today's form of the file and both older ones are read; Caffe's HDF5 files are not.
        max_bytes: int, bytes that all arrays together may have. None: the environment's
            `KERAS_RCNN_MAX_WEIGHTS_BYTES`, or else 1 GiB, and no more than 8 times the file's size and 256 MiB.
        max_parts: int, fields that the file may have. None: the environment's `KERAS_RCNN_MAX_WEIGHTS_PARTS`, or else a
            million, which take seconds; VGG16 has a few hundred.

    Returns:
        A dict, layer name -> list of float32 arrays: of a convolution or an inner product the kernel and the bias.
        Layers without weights are left out. In files from before 2015 every array has four axes.

    Raises:
        ConversionError: if the file is truncated, malformed, something else or beyond the limits.
        FileNotFoundError: if there is no such file.

    Example:

    >>> read_caffemodel("VGG_ILSVRC_16_layers.caffemodel")["conv1_1"][0].shape
    (64, 3, 3, 3)
    """
    path = weights_file(path)
    if path.stat().st_size == 0:
        raise ConversionError(f"{path} is empty (0 bytes).")
    reader = _Reader(path, Limits(path, max_bytes, max_parts))
    reader.refuse_what_it_is_not()
    blobs = {}
    for number, wire, value in reader.fields(0, len(reader.data), "the network"):
        if number in LAYERS and wire == BYTES:
            name, arrays = reader.layer(value[0], value[1], *LAYERS[number], oldest=number == 2)
            if arrays and name in blobs:
                raise ConversionError(f"{path} is malformed: it has the weights of two layers named {name!r}.")
            if arrays:
                blobs[name] = arrays
    if not blobs:
        raise ConversionError(f"{path} holds no layers with weights. Is it a .caffemodel?")
    return blobs


class _Reader:
    """A file, what it may still cost, and what goes wrong in it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # VGG16 is half a gigabyte
        self.bytes = self.data.data  # faster than an array, byte by byte

    def refuse_what_it_is_not(self) -> None:
        head = self.data[:512].tobytes().lstrip().lower()
        for start, description in NOT_WEIGHTS:
            if head.startswith(start):
                description = "Caffe's HDF5 form; save it as .caffemodel with Caffe" if b"hdf" in start else description
                raise ConversionError(f"{self.path} is {description}: not a .caffemodel.")
        text = head.isascii() and b"\0" not in head
        if text and head.startswith((b"name:", b"layer", b"input", b"#")):
            raise ConversionError(f"{self.path} is a .prototxt, which describes a network; its weights are elsewhere.")

    def error(self, problem: str) -> ConversionError:
        """What to raise."""
        return ConversionError(f"{self.path} is truncated, or no .caffemodel: {problem}. Download it again.")

    def varint(self, at: int, end: int, place: str) -> tuple[int, int]:
        """`(value, where the next byte is)`."""
        value = 0
        for i in range(10):
            if at + i >= end:
                raise self.error(f"a number in {place} runs past byte {end}")
            byte = self.bytes[at + i]
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                return value, at + i + 1
        raise self.error(f"there is no number at byte {at} of {place}")

    def field(self, at: int, end: int, place: str) -> tuple[int, int, Any, int]:
        """`(number, wire type, value, where the next field is)`; the value of a varint, of others `(start, end)`."""
        self.limits.take_parts()
        start = at
        tag, at = self.varint(at, end, place)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in (VARINT, EIGHT, BYTES, FOUR):
            raise self.error(f"there is no field at byte {start} of {place}")
        if wire == VARINT:
            value, at = self.varint(at, end, place)
            return number, wire, value, at
        size = WIDTHS.get(wire)
        if size is None:
            size, at = self.varint(at, end, place)
        if at + size > end:
            raise self.error(
                f"field {number} of {place} has {size} bytes from byte {at}, but only {end - at} are there"
            )
        return number, wire, (at, at + size), at + size

    def fields(self, at: int, end: int, place: str) -> Iterator[tuple[int, int, Any]]:
        """Yields `(number, wire type, value)` of a whole message."""
        while at < end:
            number, wire, value, at = self.field(at, end, place)
            yield number, wire, value

    def layer(
        self, at: int, end: int, name_field: int, blobs_field: int, oldest: bool = False
    ) -> tuple[str, list[np.ndarray]]:
        """`(name, arrays)`."""
        name, places = "", []
        for number, wire, value in self.fields(at, end, f"the layer at byte {at}"):
            if oldest and number == OLDEST and wire == BYTES:
                return self.layer(value[0], value[1], *OLDEST_FIELDS)
            if number == name_field and wire == BYTES:
                if value[1] - value[0] > MAX_NAME:
                    raise self.error(f"the layer at byte {at} has a name of {value[1] - value[0]} bytes")
                name = self.data[slice(*value)].tobytes().decode("utf-8", "replace")
            elif number == blobs_field and wire == BYTES:
                places.append(value)
        return name, [
            self.blob(place[0], place[1], f"blob {i} of the layer {name!r}") for i, place in enumerate(places)
        ]

    def blob(self, at: int, end: int, place: str) -> np.ndarray:
        """A float32 array."""
        shape, old_shape, parts = None, {}, []
        while at < end:
            number, wire, value, at = self.field(at, end, place)
            if number == SHAPE and wire == BYTES:
                shape = self.dimensions(value[0], value[1], f"the shape of {place}")
            elif number in OLD_SHAPE and wire == VARINT:
                old_shape[number] = value
            elif number in DATA and wire == BYTES:
                parts.append(self.packed(value[0], value[1], DATA[number][0], place))
            elif number in DATA and wire == DATA[number][1]:
                part, at = self.unpacked(value[0], end, number, *DATA[number])
                parts.append(part)
        if shape is None:
            shape = [old_shape.get(number, 0) for number in OLD_SHAPE] if old_shape else None
        count = sum(len(part) for part in parts)
        if len(parts) > 1:
            self.limits.take_bytes(4 * count, place)
        if shape is None:
            shape = [count]
        if math.prod(shape) != count:
            raise self.error(f"{place} has the shape {shape}, and {count} numbers")
        data = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
        return data.reshape(shape)

    def packed(self, at: int, end: int, dtype: str, place: str) -> np.ndarray:
        """A list of numbers in one field, as float32."""
        if (end - at) % np.dtype(dtype).itemsize:
            raise self.error(f"{place} has {end - at} bytes of numbers, which is no whole count")
        self.limits.take_bytes((end - at) // np.dtype(dtype).itemsize * 4, place)
        return np.array(self.data[at:end]).view(dtype).astype(np.float32, copy=False)

    def unpacked(self, at: int, end: int, number: int, dtype: str, wire: int) -> tuple[np.ndarray, int]:
        """`(numbers, where the next field is)` of a list with a field a number, read at one go: at is the first's."""
        size = 1 + WIDTHS[wire]  # the tag has one byte
        rows = self.data[at - 1 : at - 1 + (end - at + 1) // size * size].reshape(-1, size)
        count, step = 1, FIRST
        while count < len(rows):  # in growing steps: a list may end at once, and another begin
            others = np.flatnonzero(rows[count : count + step, 0] != number * 8 + wire)
            count += int(others[0]) if len(others) else len(rows[count : count + step])
            if len(others):
                break
            step *= 2
        self.limits.take_bytes(4 * count, "unpacked numbers")
        return np.ascontiguousarray(rows[:count, 1:]).view(dtype)[:, 0].astype(np.float32), at - 1 + count * size

    def dimensions(self, at: int, end: int, place: str) -> list[int]:
        """The dimensions of a shape, packed or not."""
        sides = []
        if end - at > 11 * MAX_AXES:  # a number has ten bytes at most, and a tag
            raise self.error(f"{place} has more than {MAX_AXES} axes")
        for number, wire, value in self.fields(at, end, place):
            if number == SHAPE_DIM and wire == VARINT:
                sides.append(value)
            elif number == SHAPE_DIM and wire == BYTES:
                at, end = value
                while at < end:
                    dim, at = self.varint(at, end, place)
                    sides.append(dim)
        if len(sides) > MAX_AXES:
            raise self.error(f"{place} has more than {MAX_AXES} axes")
        return sides
