"""What the tests of layers share: a layer on numpy arrays, and random ground truth."""

import keras
import numpy as np
from keras import ops


def run(layer, *inputs, **arguments):
    """The layer's outputs as numpy, once their shapes and dtypes are seen to be those that it announces."""
    outputs = keras.tree.map_structure(ops.convert_to_numpy, layer(*inputs, **arguments))
    symbols = keras.tree.map_structure(
        lambda v: keras.KerasTensor(v.shape, dtype=v.dtype.name) if hasattr(v, "dtype") else v, inputs
    )
    announced = layer.compute_output_spec(*symbols, **arguments)
    keras.tree.assert_same_structure(announced, outputs)
    for said, got in zip(keras.tree.flatten(announced), keras.tree.flatten(outputs), strict=True):
        assert len(said.shape) == got.ndim
        assert all(one in (None, other) for one, other in zip(said.shape, got.shape)), (said.shape, got.shape)
        assert said.dtype == got.dtype.name
    return outputs


def close(ours, theirs, tolerance=1e-4):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def random_boxes(rng, *shape, height=96, width=128, smallest=4, largest=60):
    """Boxes of whole pixels, some of which stick out of the image: [*shape, 4]. Their IoUs are exact in float32."""
    corner = rng.integers(-10, [width - 10, height - 10], (*shape, 2))
    return np.concatenate([corner, corner + rng.integers(smallest, largest, (*shape, 2))], -1).astype(np.float32)


def ground_truth(rng, images=3, count=5, classes=4):
    """Boxes [B, G, 4] and labels [B, G]: full, with padding, and, if there is a third image, without any object."""
    boxes, labels = random_boxes(rng, images, count), rng.integers(0, classes, (images, count)).astype(np.int32)
    for i, n in enumerate([count, count - 2, 0][:images]):
        boxes[i, n:], labels[i, n:] = 0, -1
    return boxes, labels
