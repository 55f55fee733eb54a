"""Truncated SVD of a detector's fully connected layers (Fast R-CNN, section 3.1): fewer products a region."""

from collections.abc import Sequence
from typing import TypeVar

import keras
import numpy as np

from keras_rcnn.layers import BoxHead
from keras_rcnn.models.detector import Detector

AnyDetector = TypeVar("AnyDetector", bound=Detector)


def truncate_box_head(model: AnyDetector, ranks: Sequence[int | None]) -> AnyDetector:
    """A detector whose fully connected layers are replaced by their best approximations of low rank.

    A layer of kernel [u, v] = U S V^T becomes two, of t * (u + v) products instead of u * v: the first has the kernel
    U_t, the second S_t V_t^T and the bias. The paper's Fast R-CNN on VGG16 has t = 1024 for fc6 and 256 for fc7.

    Args:
        model: a detector with a `BoxHead` that is not truncated yet; it stays as it is.
        ranks: for each fully connected layer the rank t, or None to keep it whole.

    Returns:
        A new detector of the same class.

    Raises:
        ValueError: for another number of ranks, a rank that saves nothing, or a detector without such a head.

    Example:

    >>> small = keras_rcnn.models.truncate_box_head(model, (1024, 256))
    """
    head = model.parts["box_head"]
    if not isinstance(head, BoxHead) or head.ranks is not None:
        raise ValueError(f"{model.name} has no BoxHead of whole layers, but {type(head).__name__}.")
    if len(ranks) != len(head.fcs):
        raise ValueError(f"{len(ranks)} ranks for the {len(head.fcs)} fully connected layers of {model.name}.")
    for rank, fc in zip(ranks, head.fcs, strict=True):
        u, v = fc.kernel.shape
        most = u * v // (u + v)
        if rank is not None and not 1 <= rank <= most:
            raise ValueError(f"{fc.name} is {u} x {v}: a rank of 1 to {most} saves products, {rank} does not.")
    config = model.get_config()
    config["box_head"]["config"]["ranks"] = list(ranks)
    small = type(model).from_config(config)
    values = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for old, new in zip(_heads(model), _heads(small), strict=True):
        for rank, fc, factor, last in zip(ranks, old.fcs, new.factors, new.fcs, strict=True):
            if rank is not None:
                u, s, v = np.linalg.svd(keras.ops.convert_to_numpy(fc.kernel).astype(np.float32), full_matrices=False)
                values[factor.kernel.path] = u[:, :rank]
                values[last.kernel.path] = s[:rank, None] * v[:rank]
    for weight in small.weights:
        weight.assign(values[weight.path])
    return small


def _heads(model: Detector) -> list[BoxHead]:
    """The box heads: one, or a cascade's."""
    cascade = model.parts.get("cascade")
    return [model.parts["box_head"], *(cascade.heads if cascade is not None else ())]
