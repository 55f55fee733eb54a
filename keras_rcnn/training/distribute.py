"""One training on several devices: the strategies, and a `fit` that takes the same step on each of them."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_rcnn.data.batches import Batches
from keras_rcnn.models import Detector
from keras_rcnn.training.cluster import read_cluster, wait_for_all
from keras_rcnn.training.keras_internals import sum_before_clipping
from keras_rcnn.training.loop import Loop

logger = logging.getLogger(__name__)

NAMES = ("mirrored", "multiworker", "jax")


def strategy(name: Literal["mirrored", "multiworker", "jax"] | None, wait: float = 600.0) -> Any:
    """What a detector is built, compiled and trained under.

    Args:
        name: `"mirrored"`: all GPUs of this machine. `"multiworker"`: those of all machines that `TF_CONFIG` names; to
            be called before anything else of TensorFlow. `"jax"`: all devices of the JAX backend. None: one device.
        wait: float, seconds in which all workers must have come.

    Returns:
        An object with `scope()`, a context.

    Raises:
        ValueError: no such strategy, or one of the other backend.
        ClusterError: `TF_CONFIG` is missing, wrong, or names a worker that does not come.

    Example:

    >>> devices = strategy("mirrored")
    >>> with devices.scope():
    ...     model = FasterRCNN(...)
    ...     model.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    >>> fit(model, batches, epochs=12, strategy=devices)
    """
    backend = keras.backend.backend()
    if name is None:
        return _OneDevice()
    if name not in NAMES:
        raise ValueError(f"strategy = {name!r}: there are {', '.join(NAMES)}, and None for one device.")
    if name == "jax":
        if backend != "jax":
            raise ValueError(
                f"The strategy jax needs Keras's JAX backend, but this is {backend}: set the environment variable "
                "KERAS_BACKEND=jax before Python starts."
            )
        return keras.distribution.DataParallel()
    if backend != "tensorflow":
        raise ValueError(
            f"The strategy {name} is TensorFlow's, but Keras's backend is {backend}: set KERAS_BACKEND=tensorflow, or "
            "take the strategy jax."
        )
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    cluster = read_cluster()
    wait_for_all(cluster, wait)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(f"The strategy multiworker must be made before TensorFlow is used: {error}") from error


def is_chief(devices: Any = None) -> bool:
    """Whether this process writes the files: all do, but of the workers of a cluster only the first."""
    return not _multiworker(devices) or read_cluster().chief


def fit(
    model: Detector,
    batches: Batches,
    epochs: int,
    initial_epoch: int = 0,
    initial_step: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    strategy: Any = None,
    verbose: int | str = 1,
) -> keras.callbacks.History:
    """Trains a compiled detector on `Batches`: as `model.fit` does, but from the middle of an epoch if need be, and
    taking on several devices the very step that one device would take.

    Each device gets its share of every batch of `batches.batch_size` images, and each worker reads only its own. Loss,
    optimizer, callbacks and logs are those of `model.fit`. In a cluster the chief alone runs the callbacks; what they
    do to the weights, the optimizer and `model.stop_training` is told to the others after each epoch.

    On one device, and on JAX, it is `model.fit`. It is a loop of ours (`Loop`) on several devices of TensorFlow, where
    Keras's divides batches evenly alone, clips each replica's gradients and fails in a cluster (3.15.1), and wherever
    an epoch goes on in its middle. The loop's steps are those of `model.fit` to the last bit.

    `TPUStrategy` would go the way of mirrored devices (untried): for static shapes give `batches` a `fixed_size`,
    `max_objects` and `drop_remainder=True`.

    Args:
        model: a `Detector`, built and compiled in the strategy's scope.
        batches: `Batches`, alike on all workers; its `epoch` is set here.
        epochs: int, the last epoch, as in `model.fit`.
        initial_epoch: int.
        initial_step: int, batches of that epoch that were done before. In a cluster the chief's weights, optimizer and
            position count.
        callbacks: list.
        strategy: what `strategy` returned, None for one device.
        verbose: as in `model.fit`.

    Returns:
        `keras.callbacks.History`.

    Raises:
        ValueError: batches that the devices cannot share.
        WorkerLost: a worker of the cluster has gone.
    """
    model.accept(batches)
    batches.epoch = initial_epoch
    count = _count(strategy)
    _check_shares(batches, count, strategy)
    if count > 1 and keras.backend.backend() == "tensorflow":
        sum_before_clipping(model.optimizer)
    with strategy.scope() if strategy is not None else contextlib.nullcontext():
        if not initial_step and (count == 1 or keras.backend.backend() != "tensorflow"):
            return model.fit(
                batches, epochs=epochs, initial_epoch=initial_epoch, callbacks=list(callbacks), verbose=verbose
            )
        cluster = read_cluster() if _multiworker(strategy) else None
        loop = Loop(model, batches, strategy if count > 1 else None, cluster)
        return loop.run(epochs, initial_epoch, initial_step, callbacks, verbose)


class _OneDevice:
    """The strategy None."""

    def scope(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _multiworker(devices: Any) -> bool:
    return type(devices).__name__ == "CollectiveAllReduceStrategy" or "MultiWorker" in type(devices).__name__


def _count(devices: Any) -> int:
    """How many devices take part."""
    if devices is None or isinstance(devices, _OneDevice):
        return 1
    if hasattr(devices, "num_replicas_in_sync"):
        return devices.num_replicas_in_sync
    return devices.device_mesh.devices.size


def _check_shares(batches: Batches, count: int, devices: Any) -> None:
    """Every device must get an image of every batch; on JAX, as many as the others."""
    sizes = sorted({len(batches.chosen(i)) for i in (0, len(batches) - 1)})
    same = keras.backend.backend() == "jax"
    for size in sizes:
        if size < count or (same and size % count):
            subject = "The last batch" if size != batches.batch_size else "A batch"
            how = f"a multiple of {count}" if same else f"at least {count}"
            raise ValueError(
                f"{subject} has {size} images for {count} devices: take a batch_size of {how}"
                + (", and drop_remainder=True." if size != batches.batch_size else ".")
            )
