"""Our side of `infer` and `train`, on the Keras backend that the process was started with."""

import math
import sys
from pathlib import Path

import numpy as np

from bench import inputs
from bench.measure import fastest, resident_mb
from bench.weights import seeded_weights

ROOT = Path(__file__).resolve().parents[2]


def start(job):
    """Imports what this side measures with; returns the resident memory after that, in MB."""
    sys.path.insert(0, str(ROOT))
    if job.backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(job.threads or 0)
        tf.config.list_physical_devices()
    elif job.backend == "jax":
        import jax

        jax.devices()
    import keras

    import keras_rcnn  # noqa: F401

    if keras.backend.backend() != job.backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}, not {job.backend}")
    return resident_mb()


def infer(job):
    """`model.detect` on decoded photos, and its graph alone on what the preprocessor made of them."""
    import keras

    keras.config.set_dtype_policy(job.precision)
    model = detector(job)
    if job.jit != "auto":
        model.jit_compile = job.jit == "yes"
    images = inputs.photos(job.photo, job.batch, job.size)
    x = model.preprocessor.batch(images, compiled=model.jit_compile)

    def detect():
        found = model.detect(images, score=0.0, batch_size=job.batch)[0]
        return {"found": len(found["scores"]), "scores": [round(float(s), 4) for s in found["scores"][:5]]}

    return {
        "calls": {"photos": detect, "graph": lambda: len(model.predict_on_batch(x)["scores"])},
        "input": list(x["images"].shape),
        "compiled": bool(model.jit_compile),
        "flops": lambda: counted_flops(model, x),
        "parameters": count_trainable(model),
    }


def train(job):
    """A step of SGD, `model.train_on_batch`, on objects with masks."""
    import keras

    keras.config.set_dtype_policy(job.precision)
    model = detector(job)
    jit = {"yes": True, "no": False, "auto": "auto"}[job.jit]
    model.compile(keras.optimizers.SGD(job.rate, momentum=0.9), jit_compile=jit)
    height, width = job.size
    preprocessor = model.preprocessor.replace(min_size=min(job.size), max_size=max(job.size))
    x = preprocessor.batch(inputs.photos(None, job.batch, job.size), padded_size=_whole(height, width))
    truth = [inputs.objects(height, width, seed=i) for i in range(job.batch)]
    y = {"boxes": np.stack([boxes for boxes, _ in truth]), "labels": np.stack([labels for _, labels in truth])}
    if model.has_masks:
        y["masks"] = np.stack([inputs.masks_in_boxes(boxes) for boxes, _ in truth])
        y["mask_frames"] = y["boxes"].copy()

    def step():
        return {"loss": round(float(model.train_on_batch(x, y, return_dict=True)["loss"]), 4)}

    return {
        "calls": {"step": step},
        "input": list(x["images"].shape),
        "compiled": bool(model.jit_compile),
        "flops": lambda: counted_flops(model, {**x, **y}, training=True),
        "parameters": count_trainable(model),
    }


def detector(job):
    """The detector of torchvision's name with the weights of the job, or seeded ones."""
    from keras_rcnn.convert import assign, convert_torchvision, read_torch_file
    from keras_rcnn.torchvision_detectors import torchvision_detector

    state = read_torch_file(job.weights) if job.weights else seeded_weights(job.model)
    model = torchvision_detector(job.model)
    assign(model, convert_torchvision(job.model, of_model(state, job.model)))
    return model


def of_model(state, model):
    """Mask R-CNN's weights serve a Faster R-CNN without their mask head."""
    return {k: v for k, v in state.items() if "mask" in model or ".mask_" not in k}


def count_trainable(model):
    """Numbers that the optimizer moves."""
    return sum(math.prod(one.shape) for one in model.trainable_weights)


def _whole(height, width, divisor=32):
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


# === Work ===


def counted_flops(model, x, training=False):
    """Floating-point operations of the convolutions and dense layers of one call, by their shapes; a multiplication and
    an addition are two. Training is taken as three times the forward pass (the gradients by features and by weights are
    as much again each), less the gradient by the image.

    Args:
        model: `Detector`.
        x: dict of arrays, what the graph takes.
        training: whether the training graph's is meant.
    """
    import keras

    counts, kinds = [], keras.layers
    wrapped = (kinds.Conv2D, kinds.DepthwiseConv2D, kinds.Conv2DTranspose, kinds.Dense)
    owners = {next(c for c in kind.__mro__ if "call" in vars(c)) for kind in wrapped}
    originals = {owner: owner.call for owner in owners}

    def counting(original):
        def call(layer, value, *args, **kwargs):
            answer = original(layer, value, *args, **kwargs)
            # each weight is used once for every place: of the output, of a transposed convolution's input
            transposed = isinstance(layer, kinds.Conv2DTranspose)
            places = math.prod((value if transposed else answer).shape[:-1])
            counts.append(2 * places * math.prod(layer.kernel.shape))
            return answer

        return call

    def run(given):
        with keras.StatelessScope():  # what a trace does to the seeds is forgotten
            if training:
                return model.training_graph(given, training=True)
            return model(given)

    graph = model.training_graph if training else model
    given = {one.name: np.asarray(x[one.name]).astype(one.dtype) for one in graph.inputs}
    try:
        for owner in owners:
            owner.call = counting(originals[owner])
        _trace(run, given)
    finally:
        for owner, original in originals.items():
            owner.call = original
    # the first layer's input is the image, which needs no gradient
    return 3 * sum(counts) - counts[0] if training else sum(counts)


def _trace(function, given):
    """Runs a function on the shapes of arrays alone."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.eval_shape(function, given)
    import tensorflow as tf

    specs = {key: tf.TensorSpec(value.shape, value.dtype) for key, value in given.items()}
    return tf.function(function).get_concrete_function(specs)


def matmul_rate(job):
    """Floating-point operations a second of a product of square matrices, at the job's precision."""
    dtype = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[job.precision]
    if job.backend == "jax":
        import jax

        side = 8192 if jax.default_backend() != "cpu" else 2048
        matrix = jax.random.normal(jax.random.key(0), (side, side), dtype=dtype)
        product = jax.jit(jax.numpy.matmul)
        return 2 * side**3 / fastest(lambda: product(matrix, matrix).block_until_ready())
    import tensorflow as tf

    side = 8192 if tf.config.list_physical_devices("GPU") else 2048
    matrix = tf.cast(tf.random.normal((side, side)), dtype)
    product = tf.function(lambda a: tf.matmul(a, a), jit_compile=job.jit == "yes")
    return 2 * side**3 / fastest(lambda: product(matrix)[0, 0].numpy())


# === Devices ===


def device(job):
    """`(name, peak memory in MB or None)` of what the graphs run on."""
    if job.backend == "jax":
        import jax

        first = jax.local_devices()[0]
        stats = first.memory_stats() or {}
        peak = stats.get("peak_bytes_in_use")
        return first.device_kind, None if peak is None else round(peak / 1024**2)
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return "cpu", None
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return tf.config.experimental.get_device_details(found[0]).get("device_name", "GPU"), round(peak / 1024**2)
