"""Kernels for one backend, each beside a portable twin in the parent package; a test holds the two equal."""

import contextlib
import contextvars
import importlib

import keras

_runtime = contextvars.ContextVar("runtime", default=None)


def kernel(name, portable):
    """The function of this name that runs here: the one of the runtime that is exported for, else of Keras's backend,
    else the portable twin.

    Args:
        name: of the function, in a module of this package.
        portable: the function in keras.ops alone.
    """
    runtime = _runtime.get()
    backend = "tensorflow" if keras.backend.backend() == "tensorflow" else None
    for module in (runtime, backend):
        found = module and getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
        if found:
            return found
    return portable


@contextlib.contextmanager
def kernels_for(runtime):
    """Graphs traced in the block get the kernels of a runtime: `"litert"` or `"onnx"`. They are the same functions,
    made of operators that the runtime has."""
    token = _runtime.set(runtime)
    try:
        yield
    finally:
        _runtime.reset(token)
