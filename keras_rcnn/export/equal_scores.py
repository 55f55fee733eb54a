"""A parity check for runtimes that have another NMS than TensorFlow."""

import contextlib

from keras_rcnn.export import parity
from keras_rcnn.ops.backend import kernels_for


def check(run, model, photos=None, **settings):
    """`parity.check`; a model that fails is compared with a `detect` once more that ranks equal scores by index.

    Of boxes with exactly the same score TensorFlow's NMS takes any first, and what is suppressed depends on it.
    """
    try:
        return parity.check(run, model, photos, **settings)
    except parity.ParityError:
        with equal_scores_by_index(model):
            return parity.check(run, model, photos, **settings)


@contextlib.contextmanager
def equal_scores_by_index(model):
    """In the block `detect`, of one photo at a time, ranks equal scores by their index."""
    own, model.predict_function = model.predict_function, None
    try:
        with kernels_for("ranked"):
            yield
    finally:
        model.predict_function = own
