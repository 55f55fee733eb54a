"""What one field of an annotation file says, whatever type the tool wrote it in.

Every reader takes its numbers, flags, ids and names through these, so that a number as text is a number in each format,
and a list where a number should be is that field's fault and never a `TypeError`.
"""

import math
from typing import Any

FALSE = ("", "0", "false", "f", "no", "n", "none", "null", "off")
TRUE = ("1", "true", "t", "yes", "y", "on")


def number(value: Any, decimal: str = ".") -> float | None:
    """A field as a float: numbers, and text that `float()` reads; None for anything else (null, lists, true, "a").

    Args:
        value: What the file has.
        decimal: The decimal sign of text; with "," both signs are read.

    Returns:
        float, which may be NaN or infinite, or None.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if decimal == "," and isinstance(value, str):
        value = value.replace(",", ".")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def numbers(values: Any) -> list[float] | None:
    """A list's fields as floats; None if it is no list, or one of them is no number."""
    if not isinstance(values, (list, tuple)):
        return None
    kinds = set(map(type, values))
    if kinds <= {float} and isinstance(values, list):
        return values  # not copied: of a million lists more the garbage collector would take notice
    if not kinds <= {float, int}:
        values = [number(value) for value in values]
        return None if None in values else values
    try:
        return list(map(float, values))
    except OverflowError:
        return None


def flag(value: Any) -> bool | None:
    """A field as a bool: 1, "1", "1.0" and "true" are True, 0, "0", "false", "" and null False; None for the rest."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in FALSE or word in TRUE:
            return word in TRUE
    value = number(value)
    return None if value is None or math.isnan(value) else value != 0


def identity(value: Any) -> int | str | None:
    """An id by which 1, 1.0 and "1" are the same: int, or text; None for what is no id (null, lists, true)."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else str(value)
    text = str(value).strip()
    digits = text.removeprefix("-").removesuffix(".0")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 20 and (digits == "0" or digits[0] != "0")
    return int(float(text)) if plain and text.endswith(".0") else int(text) if plain else text


def name(value: Any) -> str | None:
    """A field as a name: text without blanks around it, or a number as text; None if it is empty or no name."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        text = str(value).strip()
        text.encode()  # half of a surrogate pair can neither be printed nor saved
    except ValueError:
        return None
    return text or None


def shown(value: Any, limit: int = 80) -> str:
    """A value as it is written in a message: `repr`, cut short."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"<a deeply nested {type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
