"""The core on the JAX backend. Keras fixes its backend on import, so this is a pytest in a process of its own."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest

needs_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax" or importlib.util.find_spec("jax") is None,
    reason="JAX is not installed, or is the backend already",
)


def run(*arguments):
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


@pytest.mark.slow
@needs_jax
def test_unit_goldens_on_jax():
    run("tests/ops")


@pytest.mark.slow
@needs_jax
def test_fit_and_detect_on_jax():
    run("tests/models/test_faster_rcnn.py", "-k", "overfits or once")


@needs_jax
@pytest.mark.slow
def test_golden_detections_on_jax():
    run("tests/models/test_torchvision_golden.py", "-k", "mobilenet")
