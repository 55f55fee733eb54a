"""Sampling a fixed number of positives and negatives out of many candidates."""

from keras import ops, random

from keras_rcnn.interfaces import Tensor
from keras_rcnn.ops.backend.replicas import image_noise


def sample(
    positive: Tensor,
    negative: Tensor,
    count: int,
    positive_fraction: float,
    seed: int | random.SeedGenerator | None = None,
    fill: bool = True,
) -> tuple[Tensor, Tensor]:
    """Chooses at most `count` candidates, at most `positive_fraction` of them positive (Fast R-CNN, section 2.3).

    Args:
        positive: bool [B, N].
        negative: bool [B, N], disjoint from `positive`.
        count: int, the number to choose; negatives fill what positives leave.
        positive_fraction: float, the largest share of positives.
        seed: a `keras.random.SeedGenerator` or int for a random choice; None takes the first in index order.
        fill: False for no more negatives than keep the positives' share at `positive_fraction`.

    Returns:
        `(positive, negative)`: bool [B, N], the chosen ones.
    """
    most_positive = int(count * positive_fraction)
    shape = ops.shape(positive)
    order = ops.broadcast_to(ops.cast(ops.arange(shape[1]), "float32"), shape)
    if seed is not None:
        order = image_noise(shape, seed)
    positive = _first(positive, order, most_positive, min(most_positive, _static(positive)))
    chosen = ops.sum(ops.cast(positive, "int32"), axis=1, keepdims=True)
    left = count - chosen
    if not fill:
        in_all = ops.cast(ops.cast(chosen, "float32") * (1 / positive_fraction), "int32")
        left = ops.minimum(left, in_all - chosen)
    return positive, _first(negative, order, left, min(count, _static(positive)))


def _static(x: Tensor) -> int:
    return x.shape[1] if x.shape[1] is not None else 2**31


def _first(mask: Tensor, order: Tensor, limit: int | Tensor, most: int) -> Tensor:
    """The `limit` (int or [B, 1]; never more than `most`) members of `mask` that are lowest in `order`."""
    if most < 1:
        return ops.zeros_like(mask)
    # the k-th smallest value among the members is the threshold; random ties have no practical weight
    key = ops.where(mask, order, float("inf"))
    length = ops.shape(key)[1]
    top = -ops.top_k(-_pad(key, most), most)[0]
    limit = ops.broadcast_to(ops.cast(limit, "int32"), (ops.shape(key)[0], 1))
    threshold = ops.take_along_axis(top, ops.clip(limit - 1, 0, most - 1), axis=1)
    chosen = ops.logical_and(mask, ops.logical_and(key <= threshold, limit > 0))
    return chosen[:, :length]


def _pad(key: Tensor, most: int) -> Tensor:
    """Room for top_k where there may be fewer than `most` candidates."""
    if key.shape[1] is not None and key.shape[1] >= most:
        return key
    return ops.pad(key, ((0, 0), (0, most)), constant_values=float("inf"))


def select(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of `count` members: those of `first` in index order, then those of `second`.

    Args:
        first: bool [B, N].
        second: bool [B, N], disjoint from `first`.
        count: int.

    Returns:
        `(indices, valid)`: int32 and bool [B, count]; where there are fewer, the rest is index 0 and not valid.
    """
    n = ops.shape(first)[1]
    position = ops.cast(ops.arange(n), "int32")[None]
    nothing = -(2**30)
    rank = ops.where(first, -position, ops.where(second, -position - 2**28, nothing))
    if first.shape[1] is None or first.shape[1] < count:
        rank = ops.pad(rank, ((0, 0), (0, count)), constant_values=nothing)
    rank, index = ops.top_k(rank, count)
    valid = rank > nothing
    return ops.where(valid, ops.cast(index, "int32"), 0), valid
