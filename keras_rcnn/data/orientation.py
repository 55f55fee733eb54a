"""Batches of photos of one orientation, which need less padding."""

import numpy as np


def by_orientation(order: np.ndarray, upright: np.ndarray, batch_size: int) -> np.ndarray:
    """An order in which upright photos share batches with upright ones, and the others with the others.

    A batch is as large as its widest and its tallest photo: of one 320 x 480 px and one 480 x 320 px, a third is
    padding. Batches come as they fill up, as in Detectron2's and torchvision's training; what does not fill one comes
    last, together.

    Args:
        order: int `[n]`, indices of photos in a random order.
        upright: bool, for every index whether its photo is higher than it is wide.
        batch_size: int.

    Returns:
        int `[n]`, the same indices.

    Example:

    >>> by_orientation(np.array([0, 1, 2, 3, 4]), np.array([True, False, True, False, False]), 2)
    array([0, 2, 1, 3, 4])
    """
    batches, full, left = [], [], []
    for places in (np.flatnonzero(upright[order]), np.flatnonzero(~upright[order])):
        count = len(places) // batch_size * batch_size
        batches.append(places[:count].reshape(-1, batch_size))
        full.append(batches[-1][:, -1])
        left.append(places[count:])
    batches = np.concatenate(batches)[np.argsort(np.concatenate(full))]
    return order[np.concatenate([batches.ravel(), np.sort(np.concatenate(left))])]
