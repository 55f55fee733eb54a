"""The precision of a detector's arithmetic, and whether this machine is faster with fewer bits."""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# flags in /proc/cpuinfo of the units that multiply bfloat16
_UNITS = ("avx512_bf16", "amx_bf16")


def policy(name: str) -> str:
    """Keras's dtype policy for a precision.

    Args:
        name: `"float32"`, `"bfloat16"` or `"float16"`, or the policies' own names, `"mixed_bfloat16"` and
            `"mixed_float16"`.

    Raises:
        ValueError: for another name.
    """
    if name in POLICIES.values():
        return name
    if name not in POLICIES:
        raise ValueError(f"precision = {name!r}: there are {', '.join((*POLICIES, *list(POLICIES.values())[1:]))}.")
    return POLICIES[name]


@contextlib.contextmanager
def precision(name: str | None) -> Iterator[None]:
    """Detectors that are made in the block compute in this precision.

    Convolutions and fully connected layers get fewer bits; weights, boxes, deltas, IoU, NMS, softmax and losses are
    float32 in each. Where the machine will not be faster for it, a warning says so.

    Args:
        name: see `policy`; None leaves Keras's current policy. `compile` scales the loss of mixed_float16, which is for
            GPUs without bfloat16.

    Raises:
        ValueError: for another name.

    Example:

    >>> with keras_rcnn.precision.precision("bfloat16"):
    ...     model = keras_rcnn.FasterRCNN(keras_rcnn.backbones.ResNet(50), num_classes=3)
    """
    import keras  # listing the presets does not wait for it

    before = keras.config.dtype_policy()
    if name is not None:
        chosen = policy(name)
        if chosen != "float32" and (doubt := _doubt(chosen)):
            logger.warning("%s: %s", name, doubt)
        keras.config.set_dtype_policy(chosen)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _doubt(chosen: str) -> str:
    """Why fewer bits are of no use here, or ''."""
    if _has_accelerator():
        return ""
    if chosen == "mixed_float16":
        return "CPUs have no fast float16; bfloat16 or float32 will be faster."
    if bfloat16_units() is False:
        return f"this CPU has no units for bfloat16 ({', '.join(_UNITS)}); float32 will be faster."
    return ""


def bfloat16_units() -> bool | None:
    """Whether this CPU multiplies bfloat16 in hardware; None where that cannot be told."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return any(unit in flags for unit in _UNITS)


def _has_accelerator() -> bool:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_physical_devices())
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return True
