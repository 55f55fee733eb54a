"""The package as it is imported: names come when they are asked for, and Keras finds the classes of saved models."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.export.client import ServedDetector
from keras_rcnn.export.exported_detector import ExportedDetector
from keras_rcnn.export.litert_detector import LiteRTDetector
from keras_rcnn.export.openvino_detector import OpenVINODetector
from keras_rcnn.interfaces import BatchDetector, PhotoDetector
from keras_rcnn.registered import REGISTERED
from tests.models.tiny import batch, tiny_detector

ROOT = Path(__file__).resolve().parents[1]
# each takes longer to import than the rest of the package
HEAVY = {"PIL", "cv2", "jax", "keras", "matplotlib", "numpy", "pycocotools", "pydantic", "safetensors", "tensorflow"}


def fresh(code):
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# === Lazy ===


def test_the_import_is_free():
    code = (
        "import sys, keras_rcnn\nassert 'MaskRCNN' in dir(keras_rcnn) and 'layers' in dir(keras_rcnn)\n"
        f"print(*({HEAVY} & set(sys.modules)), *(name for name in sys.modules if name.startswith('keras_rcnn')))"
    )
    assert set(fresh(code)) == {"keras_rcnn", "keras_rcnn.registered"}


@pytest.mark.slow  # a process that imports TensorFlow
def test_names_come_when_they_are_asked_for():
    code = (
        "import keras_rcnn\nname = keras_rcnn.layers.RoIAlign.__name__\nfrom keras_rcnn import *\n"
        "missing = [public for public in keras_rcnn.__all__ if public not in globals()]\n"
        "print(name, MaskRCNN.__name__, train.__module__, missing)"
    )
    assert fresh(code) == ["RoIAlign", "MaskRCNN", "keras_rcnn.training.train", "[]"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MaskRCN'"):
        _ = keras_rcnn.MaskRCN


# === Saved models ===


def test_every_registered_class_is_known_before_its_import():
    for package in (
        "backbones",
        "bulk",
        "data",
        "evaluation",
        "export",
        "layers",
        "models",
        "ops",
        "survey",
        "training",
    ):
        for module in pkgutil.walk_packages([str(ROOT / "keras_rcnn" / package)], f"keras_rcnn.{package}."):
            importlib.import_module(module.name)
    registered = {
        key: value
        for key, value in keras.saving.get_custom_objects().items()
        if key.startswith("keras_rcnn>") and not value.__module__.startswith("tests.")
    }
    assert set(registered) == {f"keras_rcnn>{name}" for names in REGISTERED.values() for name in names}
    for module, names in REGISTERED.items():
        for name in names:
            assert getattr(importlib.import_module(f"keras_rcnn.{module}"), name) is registered[f"keras_rcnn>{name}"]


@keras.saving.register_keras_serializable("somebody")
class Doubled(keras.layers.Layer):
    """A layer of a user's own."""

    def call(self, x):
        return 2.0 * x


OWN_LAYER = """
@keras.saving.register_keras_serializable("somebody")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector, and a model of a user's own with a layer of ours, as .keras files; and what they answer."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    detector = tiny_detector()
    detector.save(folder / "detector.keras")
    x, _ = batch()
    np.savez(folder / "batch.npz", **{key: np.asarray(value) for key, value in x.items()})
    image = keras.Input((None, None, 3))
    own = keras.Model(image, Doubled()(keras_rcnn.backbones.FrozenBatchNormalization()(image)))
    own.save(folder / "own.keras")
    return folder, [
        float(np.sum(detector.predict_on_batch(x)["boxes"])),
        float(np.sum(own.predict_on_batch(x["images"]))),
    ]


@pytest.mark.slow  # two processes that import TensorFlow
@pytest.mark.parametrize("first", ["keras, keras_rcnn", "keras_rcnn, keras"])
def test_keras_loads_models_after_the_import_alone(saved, first):
    folder, expected = saved
    code = (
        f"import {first}, numpy as np, sys\nassert 'keras_rcnn.layers' not in sys.modules\n{OWN_LAYER}\n"
        f"from tests.models.tiny import TinyBackbone\nx = dict(np.load({str(folder / 'batch.npz')!r}))\n"
        f"detector = keras.saving.load_model({str(folder / 'detector.keras')!r})\n"
        f"own = keras.saving.load_model({str(folder / 'own.keras')!r})\n"
        "print(type(detector) is keras_rcnn.FasterRCNN)\n"
        "print(np.sum(detector.predict_on_batch(x)['boxes']), np.sum(own.predict_on_batch(x['images'])))"
    )
    same, *sums = fresh(code)
    assert same == "True"
    assert [float(value) for value in sums] == pytest.approx(expected, rel=1e-5)


# === Names ===


ROOMS = "app backbones bulk cli convert data evaluation export layers models ops serve survey training".split()


@pytest.mark.parametrize("name", ["keras_rcnn", *(f"keras_rcnn.{room}" for room in ROOMS)])
def test_no_public_name_hides_a_module(name):
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for public in set(package.__all__) & modules:
        assert getattr(package, public) is importlib.import_module(f"{name}.{public}")


def test_former_names_work_for_one_release():
    from keras_rcnn.presets import presets

    with pytest.warns(DeprecationWarning, match=r"keras_rcnn.list_presets\(\)") as caught:
        assert keras_rcnn.presets() == presets() == keras_rcnn.list_presets()
    assert {warning.filename for warning in caught} == {__file__}
    with (
        pytest.warns(DeprecationWarning, match=r"keras_rcnn.export_model\(\)"),
        pytest.raises(keras_rcnn.export.ExportError, match="format is one of"),
    ):
        keras_rcnn.export(None, "nowhere", format="coreml")


def test_train_takes_settings_or_a_dict_or_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("epochs = 0\n")
    with pytest.raises(keras_rcnn.training.RecipeError, match=r"recipe.py: .*epochs"):
        keras_rcnn.train(recipe, tmp_path / "out")
    with pytest.raises(keras_rcnn.training.RecipeError, match="epochs"):
        keras_rcnn.train({"epochs": 0}, tmp_path / "out")
    with pytest.raises(keras_rcnn.training.RecipeError, match="train"):
        keras_rcnn.train(keras_rcnn.training.Settings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# === Types: tests/typed.py has what pyright is to say ===


def typed():
    """Public functions and constructors, and the methods of detectors, by name."""
    found = {name: getattr(keras_rcnn, name) for name in keras_rcnn.__all__}
    for room in ("backbones", "bulk", "evaluation", "layers", "models"):
        module = getattr(keras_rcnn, room)
        found |= {f"{room}.{name}": getattr(module, name) for name in module.__all__}
    for name in ("callbacks", "checkpoint", "schedules"):
        module = importlib.import_module(f"keras_rcnn.training.{name}")
        own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        found |= {f"{name}.{key}": value for key, value in own.items() if inspect.getmodule(value) is module}
    for cls in (keras_rcnn.models.Detector, ServedDetector, LiteRTDetector, OpenVINODetector, ExportedDetector):
        own = {key: value for key, value in vars(cls).items() if not key.startswith(("_", "call", "make_"))}
        found |= {f"{cls.__name__}.{key}": value for key, value in own.items()}
    for name, value in found.items():
        if inspect.isclass(value) and "__init__" in vars(value):
            yield name, value.__init__
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in sorted(typed())])
def test_public_functions_are_annotated(function):
    signature = inspect.signature(function)
    parameters = [value for name, value in signature.parameters.items() if name not in ("self", "cls")]
    bare = [value.name for value in parameters if value.annotation is inspect.Parameter.empty]
    assert not bare and signature.return_annotation is not inspect.Signature.empty


def test_what_detects_is_a_detector():
    model, served = tiny_detector(), ServedDetector("http://localhost:8501/nuclei")
    assert isinstance(model, PhotoDetector) and issubclass(LiteRTDetector, PhotoDetector)
    assert isinstance(served, PhotoDetector)
    for cls in (keras_rcnn.models.Detector, ServedDetector):
        assert all(hasattr(cls, name) for name in ("detect", "has_masks", "wants_proposals"))
    assert isinstance(model, BatchDetector)


def test_type_checkers_are_told_that_there_are_types():
    assert (ROOT / "keras_rcnn" / "py.typed").exists()
    assert "keras_rcnn =\n    py.typed\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
