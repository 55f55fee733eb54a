"""A training of a tiny detector as a program, for the tests that need processes: devices, workers, kill -9.

`python -m tests.training.runner '{"strategy": ..., "out": ..., ...}'` writes OUT.npz (the weights, their averages)
and OUT.txt (the losses of the batches that this process has seen). See `SETTINGS`.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

SETTINGS = {
    "strategy": None,
    "out": None,
    "epochs": 1,
    "images": 7,
    "batch_size": 4,
    "same_size": False,
    "wait": 300,
    "optimizer": {},
    "backbone_rate": 1.0,
    # plain `model.fit`, and batches in order and as they are
    "keras": False,
    # a checkpoint file, and how often it is written
    "checkpoint": None,
    "steps": 2,
    # [worker, epoch, batch]: there it kills itself, as kill -9 does, once
    "kill": None,
    "rejoin": False,
}


def main(settings):
    settings = {**SETTINGS, **settings}
    out = Path(settings["out"])
    import keras

    tensorflow = keras.backend.backend() == "tensorflow"
    if tensorflow:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        if settings["strategy"] == "mirrored":
            two = [tf.config.LogicalDeviceConfiguration()] * 2
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    from keras_rcnn.training import Checkpoint
    from keras_rcnn.training.cluster import WorkerLost, read_cluster, rejoin
    from keras_rcnn.training.distribute import fit, is_chief, strategy
    from keras_rcnn.training.keras_internals import slow_down, sum_before_clipping

    if settings["strategy"] == "mirrored":
        devices = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        devices = strategy(settings["strategy"], wait=settings["wait"])
    chief = is_chief(devices)
    me = read_cluster().index if settings["strategy"] == "multiworker" else 0
    from tests.models.tiny import shapes, tiny_detector

    keras.utils.set_random_seed(0)
    try:
        with devices.scope():
            model = tiny_detector()
            options = {"momentum": 0.9, "clipnorm": 0.5, **settings["optimizer"]}
            optimizer = keras.optimizers.SGD(0.05, **options)
            slow_down(optimizer, model.parts["backbone"].variables, settings["backbone_rate"])
            model.compile(optimizer, jit_compile=False if tensorflow else "auto")
        rng = np.random.default_rng(0)  # biases, too, are not nearly 0: rounding would be all that is in them
        model.set_weights([w + rng.normal(0, 0.05, w.shape).astype(w.dtype) for w in model.get_weights()])
        data = shapes(settings["images"])
        if not settings["same_size"]:
            _crop(data)
        random = not settings["keras"]
        batches = data.batches(
            model.preprocessor, settings["batch_size"], shuffle=random, augment=random, seed=1, workers=1
        )
        losses, callbacks = _losses(keras, settings, me, out), []
        epoch, step = 0, 0
        if settings["checkpoint"]:
            callbacks.append(Checkpoint(settings["checkpoint"], batches, minutes=None, steps=settings["steps"]))
            if chief:
                epoch, step = callbacks[0].restore(model) or (0, 0)
        if me != 0 and settings["kill"] and settings["kill"][0] == me:
            _kill_in_reading(batches, settings["kill"], out)
        if settings["keras"]:
            sum_before_clipping(model.optimizer)
            model.fit(batches, epochs=settings["epochs"], callbacks=[losses], verbose=0)
        else:
            fit(model, batches, settings["epochs"], epoch, step, [*callbacks, losses], devices, verbose=0)
    except WorkerLost:
        if not settings["rejoin"]:
            raise
        rejoin()
    if chief:
        averages = model.optimizer._model_variables_moving_average if model.optimizer.use_ema else []
        np.savez(out.with_suffix(".npz"), *model.get_weights(), *map(keras.ops.convert_to_numpy, averages))


def _crop(data):
    """Images of several sizes, so that the padding of a batch depends on all of its images; one has no objects."""
    for i, record in enumerate(data):
        record.width = 128 - 32 * (i % 3)
        record.image = record.image[:, : record.width]
        record.boxes[:, ::2] = np.minimum(record.boxes[:, ::2], record.width)
        kept = (record.boxes[:, 2] - record.boxes[:, 0] > 4) & (i != 4)
        record.boxes, record.labels = record.boxes[kept], record.labels[kept]
        record.crowd, record.difficult = record.crowd[kept], record.difficult[kept]


def _losses(keras, settings, me, out):
    class Losses(keras.callbacks.Callback):
        """Writes the running loss of each batch to a file, one line each, and dies where it is told to."""

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            with out.with_suffix(".txt").open("a") as file:
                file.write(f"{json.dumps([self.epoch, batch, logs])}\n")
            if settings["kill"] == [me, self.epoch, batch]:
                _die_once(out)

    return Losses()


def _kill_in_reading(batches, kill, out):
    """A worker without callbacks: it dies as it reads the batch."""
    read = batches.shard

    def shard(index, *arguments, **options):
        if [batches.epoch, index] == kill[1:]:
            _die_once(out)
        return read(index, *arguments, **options)

    batches.shard = shard


def _die_once(out):
    mark = out.with_suffix(".killed")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
