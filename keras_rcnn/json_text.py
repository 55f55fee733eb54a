"""JSON that people read."""

import json
import math
import os
from typing import Any

import numpy as np


def to_json(value: Any) -> str:
    """JSON with what fits into a line on one line, long lists of numbers or names filled; NaN becomes null.

    Raises:
        TypeError: for a value that JSON does not have.
    """
    return _lines(finite(value), "") + "\n"


def finite(value: Any) -> Any:
    """What JSON has for a value: lists for arrays, text for keys and paths, null for what is not finite.

    Args:
        value: dict, list, array, number, str, path or None, nested as it may be.
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return finite(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(value: Any, indent: str, width: int = 110) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(indent) + len(line) <= width:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(item, deeper)}" for key, item in value.items()]
    else:
        parts = [_lines(item, deeper) for item in value]
        if not any(isinstance(item, (dict, list)) for item in value):
            parts = _filled(parts, width - len(deeper))
    return "\n".join([line[0], ",\n".join(deeper + part for part in parts), indent + line[-1]])


def _filled(parts: list[str], width: int) -> list[str]:
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 < width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines
