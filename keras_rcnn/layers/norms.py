"""The normalisation of necks and heads, which unlike a backbone's is never frozen."""

from typing import Literal

import keras

Norm = Literal["batch", "group"]


def check_norm(norm: str | None, owner: str) -> None:
    """Raises a ValueError, in the words of the layer `owner`, for what is no norm."""
    if norm not in ("batch", "group", None):
        raise ValueError(f"{owner} norm is 'batch', 'group' or None, not {norm!r}.")


def normalization(norm: Norm, name: str, dtype: str | keras.DTypePolicy | None = None) -> keras.layers.Layer:
    """BatchNormalization, or GroupNormalization in 32 groups, as all published detectors have it."""
    if norm == "group":
        return keras.layers.GroupNormalization(32, epsilon=1e-5, dtype=dtype, name=name)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
