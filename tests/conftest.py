"""What tests of several rooms need."""

import gc
import logging
import os

# XLA compiles in half the time without the passes that make code fast; read when TensorFlow or JAX is imported
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import keras
import pytest

from tests.downloads import server  # noqa: F401 (a fixture)
from tests.hubs import hf, kaggle, no_proxy  # noqa: F401 (fixtures)

# TensorFlow's advice (of retracing, say) depends on which tests ran before: a test reads our own part of the log
logging.getLogger("tensorflow").propagate = False


@pytest.fixture
def listed_gpu(monkeypatch):
    """A GPU in TensorFlow's list of devices, where Keras's `jit_compile="auto"` looks; it is not there."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("on JAX everything is compiled in any case")
    import tensorflow as tf

    real = tf.config.list_physical_devices

    def listed(kind=None):
        fake = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
        return real(kind) + ([fake] if kind in (None, "GPU") else [])

    monkeypatch.setattr(tf.config, "list_physical_devices", listed)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items):
    """What one costly fixture serves runs in one of xdist's processes (`--dist loadgroup`), so that it is made once."""
    for item in items:
        fixtures = {name: found[-1] for name, found in item._fixtureinfo.name2fixturedefs.items()}
        ours = {name: one.scope for name, one in fixtures.items() if one.baseid.startswith("tests")}
        if "session" in ours.values():
            item.add_marker(pytest.mark.xdist_group(next(name for name, scope in ours.items() if scope == "session")))
        elif "module" in ours.values():
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(trylast=True)  # behind the fixtures' own ends
def pytest_runtest_teardown(item, nextitem):
    """Frees a module's models: Python counts objects before it looks for circles, and a model's few hold megabytes."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test printed or logged goes to xdist's first process as UTF-8, which has no half of a surrogate pair."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
