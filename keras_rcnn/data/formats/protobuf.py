"""`tf.train.Example`, a protocol buffer, read without TensorFlow."""

import struct
from collections.abc import Iterator
from typing import Any

LONGEST = 10  # bytes of a number
MOST = 1_000_000  # numbers of one feature


def read_example(data: bytes) -> dict[str, list[Any]]:
    """The features of a serialised `tf.train.Example`.

    Args:
        data: Its bytes.

    Returns:
        `{name: list of bytes, of float or of int}`.

    Raises:
        ValueError: it is none.
    """
    features = {}
    for field, value in _fields(data):
        if field != 1 or not isinstance(value, memoryview):
            continue
        for part, entry in _fields(value):
            if part != 1 or not isinstance(entry, memoryview):
                continue
            pair = dict(_fields(entry))
            name, feature = pair.get(1), pair.get(2)
            if isinstance(name, memoryview) and isinstance(feature, memoryview):
                features[bytes(name).decode("utf-8", "replace")] = _values(feature)
    return features


def _values(feature: memoryview) -> list[Any]:
    values = []
    for kind, entries in _fields(feature):
        if not isinstance(entries, memoryview):
            continue
        for field, value in _fields(entries):
            if field != 1:
                continue
            if kind != 1 and len(values) + (len(value) if isinstance(value, memoryview) else 1) > 4 * MOST:
                raise ValueError("a feature of too many numbers")
            if kind == 1 and isinstance(value, memoryview):
                values.append(bytes(value))
            elif kind == 2 and isinstance(value, memoryview):
                if len(value) % 4:
                    raise ValueError("a list of floats is cut off")
                values += struct.unpack(f"<{len(value) // 4}f", value)
            elif kind == 3:
                values += _numbers(value) if isinstance(value, memoryview) else [_signed(value)]
    return values


def _numbers(data: memoryview) -> list[int]:
    numbers, place = [], 0
    while place < len(data):
        number, place = _number(data, place)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message as `(number, value)`: an int, or a view of bytes."""
    data, place = memoryview(data), 0
    while place < len(data):
        tag, place = _number(data, place)
        wire_type = tag & 7
        if wire_type == 0:
            value, place = _number(data, place)
        else:
            if wire_type == 2:
                length, place = _number(data, place)
            else:
                length = {1: 8, 5: 4}.get(wire_type)
            if length is None or place + length > len(data):
                raise ValueError(f"a field of kind {wire_type} at byte {place}, or one that is cut off")
            value, place = data[place : place + length], place + length
        yield tag >> 3, value


def _number(data: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for step in range(LONGEST):
        if place >= len(data):
            raise ValueError("it is cut off")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("a number of too many bytes")
