"""What a replica of a tf.distribute strategy has to know of the others.

On the other backends there is one: JAX distributes a single program over a global batch.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence

import keras

from keras_rcnn.interfaces import Tensor

_place = threading.local()


def num_replicas() -> int:
    """How many replicas take part in the step."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def global_sum(value: Tensor) -> Tensor:
    """Sums over the replicas; the value itself where there is one."""
    if num_replicas() == 1:
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


@contextlib.contextmanager
def images_from(index: int | Tensor) -> Iterator[None]:
    """This replica's images begin at this index of the global batch, for `image_noise` in the block."""
    _place.first = index
    try:
        yield
    finally:
        _place.first = None


def image_noise(shape: Sequence[int | Tensor], seed: int | keras.random.SeedGenerator) -> Tensor:
    """Uniform random numbers [B, N] that belong to the images of the global batch, whichever replicas they are on.

    The replicas have the same state of the generator: each draws what one device would draw up to its last image.
    """
    if num_replicas() == 1:
        return keras.random.uniform(shape, seed=seed)
    import tensorflow as tf

    count, length = shape
    first = getattr(_place, "first", None)
    if first is None:  # Keras's fit gives each replica as many
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * count
    return keras.random.uniform((first + count, length), seed=seed)[first:]
