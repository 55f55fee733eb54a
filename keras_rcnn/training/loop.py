"""The training loop on TensorFlow, for what Keras's `fit` cannot do: clusters, uneven shares, half an epoch."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from keras_rcnn.data.ahead import read_ahead
from keras_rcnn.data.batches import Batches
from keras_rcnn.interfaces import Tensor
from keras_rcnn.models import Detector
from keras_rcnn.training.cluster import Cluster, WorkerLost, watched
from keras_rcnn.training.keras_internals import Accumulation, predicting_alone, unwrapped


class Loop:
    """`run` trains as `model.fit` does. See `distribute.fit`, which is what to call.

    The running totals of the epoch's metrics, `{name: float32 [total, count]}`, are in the callbacks'
    `params["totals"]`: in a cluster the variables of the metrics hold one worker's part.

    Args:
        model: compiled `Detector`.
        batches: `Batches`.
        strategy: of tf.distribute, None for one device or JAX.
        cluster: `Cluster`, None without one.
    """

    def __init__(self, model: Detector, batches: Batches, strategy: Any = None, cluster: Cluster | None = None) -> None:
        self.model, self.batches, self.cluster = model, batches, cluster
        self.chief = cluster is None or cluster.chief
        make = _TensorFlowStep if keras.backend.backend() == "tensorflow" else _WholeStep
        self.step = make(model, batches, strategy, cluster)
        self.position: tuple[int, int] | None = None  # epoch and batch under way

    def run(
        self, epochs: int, epoch: int, first: int, callbacks: Iterable[keras.callbacks.Callback], verbose: int | str
    ) -> keras.callbacks.History:
        """Trains; returns the `History`. `epoch` and `first`, its first batch, are where to begin."""
        try:
            return self._run(epochs, epoch, first, callbacks, verbose)
        except WorkerLost as error:
            error.position = self.position
            raise

    def _run(self, epochs: int, epoch: int, first: int, callbacks: Any, verbose: int | str) -> keras.callbacks.History:
        model, batches = self.model, self.batches
        epoch, first = self.step.begin(epoch, first)
        callbacks = keras.callbacks.CallbackList(
            list(callbacks) if self.chief else [],
            add_history=True,
            add_progbar=bool(verbose) and self.chief,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs,
            steps=len(batches),
            model=model,
        )
        model.stop_training, logs = False, None
        with self.step:
            callbacks.on_train_begin()
            for at in range(epoch, epochs):
                batches.epoch = at
                totals = callbacks.params["totals"] = {metric.name: np.zeros(2, np.float32) for metric in model.metrics}
                callbacks.on_epoch_begin(at)
                logs = self._epoch(callbacks, totals, first)
                first = 0
                batches.epoch = at + 1
                callbacks.on_epoch_end(at, logs)
                if self.step.end_epoch():
                    break
            model.optimizer.finalize_variable_values(model.trainable_weights)
            callbacks.on_train_end(logs)
        return model.history

    def _epoch(
        self, callbacks: keras.callbacks.CallbackList, totals: dict[str, np.ndarray], first: int
    ) -> dict[str, float]:
        logs = _means(totals) if first else {}  # a training may go on behind the epoch's last batch
        with contextlib.closing(self._data(first)) as data:
            for i, batch in data:
                self.position = (self.batches.epoch, i)
                callbacks.on_train_batch_begin(i)
                for name, values in self.step(i, batch).items():
                    totals[name] += values
                logs = _means(totals)
                callbacks.on_train_batch_end(i, logs)
                if self.step.stopped():
                    break
        return logs

    def _data(self, first: int) -> Generator[tuple[int, Any], None, None]:
        """`(i, what the step wants of batch i)`, read ahead by threads."""
        return read_ahead(lambda i: (i, self.step.read(i)), range(first, len(self.batches)), self.batches.workers)


def _means(totals: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(total / max(count, 1)) for name, (total, count) in totals.items()}


class _WholeStep:
    """The step of the JAX backend: Keras's own, on the whole batch, which its distribution divides."""

    def __init__(self, model: Detector, batches: Batches, strategy: Any, cluster: Cluster | None) -> None:
        self.model, self.batches = model, batches

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def begin(self, epoch: int, first: int) -> tuple[int, int]:
        return epoch, first

    def read(self, i: int) -> Any:
        return self.batches.shard(i)

    def __call__(self, i: int, data: Any) -> dict[str, np.ndarray]:
        self.model.train_on_batch(*data)
        return {m.name: np.array([keras.ops.convert_to_numpy(v) for v in m.variables]) for m in self.model.metrics}

    def stopped(self) -> bool:
        return self.model.stop_training

    def end_epoch(self) -> bool:
        return self.model.stop_training


class _TensorFlowStep:
    """One step of all replicas: each runs the loss on its images, and the gradients are those of the global batch."""

    def __init__(self, model: Detector, batches: Batches, strategy: Any, cluster: Cluster | None) -> None:
        import tensorflow as tf

        self.model, self.batches, self.cluster = model, batches, cluster
        self.strategy = strategy or tf.distribute.get_strategy()
        self.count = self.strategy.num_replicas_in_sync
        workers = 1 if cluster is None else len(cluster)
        here = self.count // workers
        self.ranks = range(here * (cluster.index if cluster else 0), here * ((cluster.index if cluster else 0) + 1))
        self.names = [metric.name for metric in model.metrics]
        optimizer = unwrapped(model.optimizer)
        on_several = self.count > 1 and optimizer.gradient_accumulation_steps
        self.accumulation = Accumulation(optimizer) if on_several else None
        self._runs = {}  # the step's graph; while gradients accumulate, one for the batches that update, one for others

    def __enter__(self) -> Self:
        self._evaluating = contextlib.ExitStack()
        if self.count > 1:
            self._evaluating.enter_context(predicting_alone(self.model))
        return self

    def __exit__(self, *error: Any) -> None:
        self._evaluating.close()

    def begin(self, epoch: int, first: int) -> tuple[int, int]:
        """The chief's weights, optimizer and position for all workers."""
        with watched(self.cluster):
            self.model.optimizer.build(self.model.trainable_variables)
        if self.cluster is not None:
            self._take_the_chiefs()
            epoch, first = (int(value) for value in self._sum([epoch, first] if self.cluster.chief else [0, 0]))
        return epoch, first

    def read(self, i: int) -> Any:
        return [self.batches.shard(i, rank, self.count, pad=False) for rank in self.ranks]

    def __call__(self, i: int, data: Any) -> dict[str, np.ndarray]:
        import tensorflow as tf

        size = self.batches.padded_size(self._largest(data), i)
        lengths = [len(part) for part in np.array_split(self.batches.chosen(i), self.count)]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

        def of_replica(context: Any) -> Any:
            rank = context.replica_id_in_sync_group
            x, y = data[rank - self.ranks[0]]
            x = {**x, "images": _enlarge(x["images"], size)}
            where = {"first": starts[rank], "images": np.float32(starts[-1])}
            return tf.nest.map_structure(tf.constant, (x, y, where))

        values = of_replica(_Only()) if self.count == 1 else self._distribute(of_replica)
        updates = self.accumulation is None or self.accumulation.next()
        run = self._runs[updates] = self._runs.get(updates) or self._compiled(values)
        with watched(self.cluster, f" in step {i + 1}"):
            sums = run(*values).numpy()
        return dict(zip(self.names, sums.reshape(-1, 2), strict=True))

    def stopped(self) -> bool:
        """Whether the chief's callbacks, or someone's, have ended the training."""
        if self.cluster is not None:
            self.model.stop_training = bool(self._sum([float(self.model.stop_training)])[0])
        return self.model.stop_training

    def end_epoch(self) -> bool:
        """What the chief's callbacks have done, for all workers; returns whether the training is over."""
        if self.cluster is not None:
            self._take_the_chiefs()
        return self.stopped()

    # === In the graph ===

    def _compiled(self, values: Any) -> Any:
        import tensorflow as tf

        if self.count > 1:
            return tf.function(self._all_replicas, reduce_retracing=True)

        # one graph for all shapes from the first batch on: graphs for the shapes that happen to come first would round
        # in another way, and a training that goes on meets others first
        signature = tf.nest.map_structure(
            lambda value: tf.TensorSpec([None] * min(value.shape.rank, 1) + value.shape[1:], value.dtype), values
        )
        if not self.batches.one_size:
            signature[0]["images"] = tf.TensorSpec([None, None, None, 3], tf.float32)
        return tf.function(self._all_replicas, input_signature=signature, jit_compile=bool(self.model.jit_compile))

    def _all_replicas(self, x: Any, y: Any, where: Any) -> Tensor:
        sums = self.strategy.run(self._replica, args=(x, y, where))
        return self.strategy.reduce("SUM", sums, axis=None)

    def _replica(self, x: Any, y: Any, where: Any) -> Tensor:
        import tensorflow as tf

        from keras_rcnn.ops.backend.replicas import images_from

        model = self.model
        for metric in model.metrics:
            metric.reset_state()  # what this step adds
        own = tf.cast(tf.shape(x["images"])[0], "float32")
        with tf.GradientTape() as tape, images_from(where["first"]):
            y_pred = model(x, training=True)
            # it is a mean over the replica's images, divided by the replicas: uneven shares weigh what they hold
            loss = model.compute_loss(x=x, y=y, y_pred=y_pred, training=True) * (own * self.count / where["images"])
            scaled = model.optimizer.scale_loss(loss)
        weights = model.trainable_weights
        model.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        totals = {metric.name: [tf.convert_to_tensor(value) for value in metric.variables] for metric in model.metrics}
        totals["loss"] = [loss * where["images"], own]
        return tf.stack([value for name in self.names for value in totals[name]])

    # === Between the workers ===

    def _largest(self, data: Any) -> tuple[int, ...]:
        """`(height, width)` that the images of the whole batch need."""
        sizes = np.max([x["images"].shape[1:3] for x, _ in data], axis=0)
        if self.cluster is not None and not self.batches.one_size:
            all_sizes = np.zeros((len(self.cluster), 2))
            all_sizes[self.cluster.index] = sizes
            sizes = self._sum(all_sizes.ravel()).reshape(-1, 2).max(axis=0)
        return tuple(int(side) for side in sizes)

    def _distribute(self, function: Callable[[Any], Any]) -> Any:
        return self.strategy.experimental_distribute_values_from_function(function)

    def _sum(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> np.ndarray:
        """The sum of what each worker brings, an array."""
        import tensorflow as tf

        values = np.asarray(values, dtype)
        own = self._distribute(
            lambda context: tf.constant(
                values if context.replica_id_in_sync_group == self.ranks[0] else np.zeros_like(values)
            )
        )
        with watched(self.cluster):
            return self.strategy.reduce("SUM", own, axis=None).numpy()

    def _take_the_chiefs(self) -> None:
        """Every variable as the chief has it: what its callbacks changed, or read from a checkpoint."""
        totals = {id(value) for metric in self.model.metrics for value in metric.variables}
        variables = [variable for variable in self.model.variables if id(variable) not in totals]
        variables += self.model.optimizer.variables
        for dtype, kinds in ((np.float32, "f"), (np.int64, "iu")):
            chosen = [variable for variable in variables if _dtype(variable).kind in kinds]
            values = [keras.ops.convert_to_numpy(variable).astype(dtype).ravel() for variable in chosen]
            values = np.concatenate(values or [np.zeros(0, dtype)])
            values = self._sum(values if self.cluster.chief else np.zeros_like(values), dtype)
            for variable in chosen:
                own, values = np.split(values, [int(np.prod(variable.shape))])
                if not self.cluster.chief:
                    variable.assign(own.reshape(variable.shape))


class _Only:
    """The context of the only replica."""

    replica_id_in_sync_group = 0


def _dtype(variable: keras.Variable) -> np.dtype:
    return np.dtype(keras.backend.standardize_dtype(variable.dtype))


def _enlarge(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Images [B, h, w, 3] with zeros at their right and bottom, [B, H, W, 3]."""
    more = [side - old for side, old in zip(size, images.shape[1:3], strict=True)]
    return np.pad(images, ((0, 0), (0, more[0]), (0, more[1]), (0, 0))) if any(more) else images
