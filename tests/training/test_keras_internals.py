"""Keras's private parts that keras_internals.py uses are those that it was written for."""

import configparser
import hashlib
import inspect
from pathlib import Path

import keras
import pytest
from keras.optimizers import LossScaleOptimizer, Optimizer

from keras_rcnn.training import keras_internals

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends have other optimizers")

# the source of what is replaced, called or leant on -> its hash in the version that it was tried on
SOURCES = [
    (Optimizer.update_step, "18b4bb6048ac", "slow_down"),
    (Optimizer._var_key, "726df1150366", "slow_down"),
    (Optimizer.apply, "43097be63b91", "sum_before_clipping"),
    (Optimizer.apply_gradients, "d6487cf01422", "sum_before_clipping"),
    (Optimizer._all_reduce_sum_gradients, "953512efa56c", "sum_before_clipping"),
    (Optimizer._backend_apply_gradients, "48d6e24d5803", "Accumulation"),
    (Optimizer._backend_update_step, "00bd759c099a", "Accumulation"),
    (Optimizer._backend_increment_gradient_accumulators, "5e5ed334c33b", "Accumulation"),
    (Optimizer._clip_gradients, "152b956e23c9", "Accumulation"),
    (Optimizer._apply_weight_decay, "fee6526b6ad0", "Accumulation"),
    (Optimizer._update_model_variables_moving_average, "ae5df2205d65", "Accumulation"),
    (Optimizer._get_variable_index, "c4cd541aea39", "Accumulation"),
    (keras.layers.Layer._flatten_layers, "662dcf281bc3", "frozen"),
    (keras.Model.predict_step, "ce25c1301a87", "predicting_alone"),
    (keras.Model.make_predict_function, "a772a2efdd90", "predicting_alone"),
    (keras.Model.predict_on_batch, "05be67cba664", "predicting_alone"),
]


def digest(function):
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("function", "expected", "user"), SOURCES, ids=lambda value: getattr(value, "__qualname__", "")
)
def test_keras_is_as_it_was(function, expected, user):
    assert digest(function) == expected, (
        f"Keras {keras.__version__} has another {function.__qualname__} than {keras_internals.TRIED_ON}. See whether "
        f"keras_internals.{user} is still right (tests/training/test_optimizer.py and test_distribute.py), then write "
        f"{digest(function)!r} here and the new version into TRIED_ON."
    )


def test_the_attributes_are_there():
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, gradient_accumulation_steps=2)
    optimizer.build([keras.Variable([1.0], name="weight")])
    names = "_trainable_variables _model_variables_moving_average _accumulated_gradients _iterations"
    missing = [name for name in names.split() if not hasattr(optimizer, name)]
    assert not missing, f"Keras {keras.__version__} has no Optimizer.{missing}: see training/keras_internals.py"
    assert hasattr(LossScaleOptimizer(optimizer), "inner_optimizer")


def test_the_dependency_goes_no_further():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    major, minor = keras_internals.TRIED_ON.split(".")[:2]
    (bound,) = [line for line in config["options"]["install_requires"].split() if line.startswith("keras")]
    assert bound.endswith(f"<{major}.{int(minor) + 1}"), (
        f"{bound}: the patches were tried on {keras_internals.TRIED_ON}"
    )
