"""Kernels for one backend, each beside a portable twin in the parent package; a test holds the two equal."""

import contextlib
import contextvars
import importlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import keras

Function = TypeVar("Function", bound=Callable[..., Any])

_runtime: contextvars.ContextVar[str | None] = contextvars.ContextVar("runtime", default=None)


def kernel(name: str, portable: Function) -> Function:
    """The function of this name that runs here: the one of the runtime that the graph is for, else the portable twin.

    The runtime is the one that `kernels_for` names; else XLA, if it compiles what is being traced (on JAX always, on
    TensorFlow for `jit_compile=True` and on TPUs); else Keras's backend.

    Args:
        name: of the function, in a module of this package.
        portable: the function in keras.ops alone.
    """
    for runtime in (_runtime.get(), _backend()):
        function = runtime and getattr(importlib.import_module(f"{__name__}.{runtime}"), name, None)
        if function:
            return function
    return portable


def _backend() -> Literal["xla", "tensorflow"] | None:
    """The module with the kernels of what is being traced or run, None for none."""
    if keras.backend.backend() == "jax":
        return "xla"
    if keras.backend.backend() != "tensorflow":
        return None
    return "xla" if _xla_compiles() else "tensorflow"


def _xla_compiles() -> bool:
    """Whether XLA will compile the graph that is being traced: of a `tf.function(jit_compile=True)` or on a TPU."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # TensorFlow's public API does not say

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


@contextlib.contextmanager
def kernels_for(runtime: str) -> Iterator[None]:
    """Graphs traced in the block get the kernels of a runtime: `"litert"` or `"onnx"`. They are the same functions,
    made of operators that the runtime has."""
    token = _runtime.set(runtime)
    try:
        yield
    finally:
        _runtime.reset(token)


# === Whether a model is compiled ===

_asked = contextvars.ContextVar("asked", default=False)


def compiled_by_default() -> bool:
    """Whether Keras's `jit_compile="auto"` may compile the layers that compute on boxes and regions.

    On TensorFlow they are compiled on request only: its own kernels take photos of any size without compiling anew. JAX
    compiles everything.
    """
    return keras.backend.backend() != "tensorflow" or _asked.get()


@contextlib.contextmanager
def compiled_on_request() -> Iterator[None]:
    """In the block `compiled_by_default` is True: somebody has asked for `jit_compile=True`, which works."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)
