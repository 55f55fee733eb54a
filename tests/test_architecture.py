"""The house rules of the code: who may import whom, what every class must offer, what a library does not do."""

import ast
import configparser
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import keras
import pytest

import keras_rcnn
from keras_rcnn import layers
from keras_rcnn.backbones import ResNetRegions
from tests.models.tiny import TinyBackbone, tiny_detector

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_rcnn"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))

# room -> the rooms that it may import. ops <- layers <- models <- presets <- training <- cli; a new room is named here.
# All may import `interfaces`, the words of the annotations.
MAY_IMPORT = {
    "ops": set(),
    "skeletons": set(),
    "files": set(),
    "data": {"ops", "files", "skeletons"},
    "html_page": {"files"},
    "evaluation": {"data", "files", "html_page", "ops", "visualize", "skeletons"},
    "printable": set(),
    "visualize": {"data", "files", "printable", "skeletons"},
    "layers": {"ops", "skeletons"},
    "convert": set(),
    "unfinished": set(),
    "download": {"unfinished"},
    "backbones": {"ops", "layers", "convert", "download"},
    "models": {"ops", "layers", "data", "skeletons"},
    "torchvision_detectors": {"backbones", "data", "layers", "models"},
    "detectron2_detectors": {"backbones", "convert", "data", "layers", "models"},
    "matterport_detectors": {"backbones", "data", "layers", "models"},
    "classes": set(),
    "precision": set(),
    "registered": set(),
    "interfaces": set(),
    "renamed": set(),
    "json_text": set(),
    "preset_rules": set(),
    "preset_file": {"preset_rules"},
    "preset_builders": {"convert", "detectron2_detectors", "matterport_detectors", "models", "preset_file"},
    "preset_build": {"backbones", "classes", "convert", "layers", "models", "preset_builders", "preset_file"},
    "preset_summary": set(),
    "hub": {"download", "preset_file"},
    "preset_thresholds": {"files", "hub", "json_text", "preset_file"},
    "preset_weights": {"convert", "download", "models", "preset_file"},
    "pins": {"download", "files", "preset_rules"},
    "published": {"convert", "download", "pins", "preset_build", "preset_file"},
    "presets": {
        "backbones",
        "classes",
        "convert",
        "data",
        "download",
        "files",
        "hub",
        "json_text",
        "layers",
        "models",
        "precision",
        "preset_build",
        "preset_builders",
        "preset_file",
        "preset_summary",
        "preset_weights",
        "published",
        "renamed",
    },
    "model_card": set(),
    "hub_push": {"hub", "json_text", "model_card", "models", "preset_file", "presets"},
    "bulk": {"data", "evaluation", "files", "presets"},
    "survey": {"data", "html_page", "ops", "visualize"},
    "serve": {"data", "models", "printable"},
    "app": {"data", "layers", "models", "ops", "presets", "serve", "visualize"},
    "training": {
        "backbones",
        "convert",
        "data",
        "evaluation",
        "files",
        "json_text",
        "layers",
        "models",
        "ops",
        "precision",
        "presets",
        "skeletons",
        "survey",
        "visualize",
    },
}
# these see the whole package
ABOVE_ALL = {"__init__", "__main__", "cli", "export"}


def room_of(module):
    """`keras_rcnn.layers.fpn` -> `layers`."""
    parts = module.split(".")[1:]
    return parts[0] if parts else "__init__"


def imports(path):
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "keras_rcnn" or (PACKAGE.parent / node.module.replace(".", "/")).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_rooms_import_only_what_they_may(path):
    room = room_of(module_of(path))
    for imported in imports(path):
        first = imported.split(".")[0]
        assert first not in ("tests", "tools"), f"{name(path)} imports {imported}"
        if first == "keras_rcnn" and room not in ABOVE_ALL:
            assert room in MAY_IMPORT, f"{room}: say in tests/test_architecture.py what this room may import"
            target = room_of(imported)
            assert target in MAY_IMPORT[room] | {room, "interfaces"}, f"{name(path)} ({room}) imports {imported}"


def test_the_rules_have_no_circle():
    left = dict(MAY_IMPORT)
    while left:
        free = [room for room, needs in left.items() if not needs & set(left)]
        assert free, f"these rooms import each other: {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_library_neither_prints_nor_asserts(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"{name(path)} asserts in lines {asserts}"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    prints = [node.lineno for node in calls if node.func.id == "print"]
    assert not prints or "cli" in path.parts, f"{name(path)} prints in lines {prints}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, f"{name(path)}: split it by an idea of the domain"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_named_by_an_idea_and_say_it(path):
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name(path)} has no docstring"


def test_heavy_imports_wait_until_they_are_needed():
    """Reading annotations or drawing must not need what only some functions use."""
    heavy = ("tensorflow", "jax", "torch", "matplotlib", "pycocotools", "scipy")
    for path in SOURCES:
        if path.parent.name == "backend":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                found = [module for module in modules if module.split(".")[0] in heavy]
                assert not found, f"{name(path)} imports {found} at its top"


# === Public names ===


def packages():
    found = pkgutil.walk_packages([str(PACKAGE)], "keras_rcnn.")
    return ["keras_rcnn"] + [module.name for module in found if module.ispkg and module.name != "keras_rcnn.zoo"]


@pytest.mark.parametrize("package", packages())
def test_public_names_exist_and_are_explained(package):
    module = importlib.import_module(package)
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{package}.{public} has no docstring"


def test_public_names_are_sorted():
    order = sorted(keras_rcnn.__all__, key=lambda one: (not one.isupper(), not one[0].isupper(), one))
    assert keras_rcnn.__all__ == order  # as ruff has it: CONSTANTS, Classes, functions
    for public in keras_rcnn.__all__:
        assert hasattr(keras_rcnn, public)


# === Configs ===

# arguments of the constructors that have no default
REQUIRED = {
    "AnchorGenerator": {"sizes": [[32], [64]]},
    "RPNHead": {"num_anchors": 3},
    "BoxPredictor": {"num_classes": 4},
    "BoxRegressors": {"num_classes": 4},
    "BoxTargets": {"num_classes": 4},
    "ClassPredictor": {"num_classes": 4},
    "Features": {"model": keras.Model(pixels := keras.Input((None, None, 3)), {"C1": keras.layers.ReLU()(pixels)})},
    "MaskHead": {"num_classes": 4},
    "MaskTargets": {"num_classes": 4, "count": 8},
    "MatterportBoxTargets": {"num_classes": 4},
    "MatterportMaskHead": {"num_classes": 4},
    "MatterportMaskTargets": {"num_classes": 4, "count": 8},
    "MatterportRPNHead": {"num_anchors": 3},
    "MatterportResNet": {"depth": 50},
    "RegionCNN": {"backbone": TinyBackbone(), "neck": layers.SingleLevel("C5"), "warp": layers.RegionWarp(64)},
    "RegionSVMs": {"num_classes": 4},
    "ResNet": {"depth": 50},
    "ResNetRegions": {"pool": layers.RoIAlign(14, (16,))},
    "WarmupCosine": {"peak": 0.1, "steps": 100},
    "WarmupMultiStep": {"peak": 0.1, "boundaries": [50, 80]},
}


def configurable():
    rooms = (keras_rcnn.layers, keras_rcnn.backbones, keras_rcnn.data, keras_rcnn.training)
    found = {}
    for room in rooms:
        for public in room.__all__:
            value = getattr(room, public)
            if inspect.isclass(value) and hasattr(value, "get_config") and not issubclass(value, keras.utils.PyDataset):
                found[public] = value
    return found


def plain(config):
    return json.loads(json.dumps(config, sort_keys=True))


def other(value):
    """Another value of the same kind, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.01
    if isinstance(value, (tuple, list)) and value:
        changed = [other(one) for one in value]
        return None if None in changed else type(value)(changed)
    return None


@pytest.mark.parametrize("cls", configurable().values(), ids=lambda cls: cls.__name__)
def test_configs_are_the_constructors_arguments(cls):
    required = REQUIRED.get(cls.__name__, {})
    made = cls(**required)
    config = made.get_config()
    arguments = {
        key: one.default
        for key, one in inspect.signature(cls.__init__).parameters.items()
        if key != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    assert set(arguments) <= set(config), "an argument is not in get_config()"
    assert plain(cls.from_config(config).get_config()) == plain(config)
    if isinstance(made, (keras.Model, ResNetRegions)):
        return  # a backbone takes seconds to build, and has tests of its own
    for key, default in arguments.items():
        changed = other(required.get(key, default))
        if changed is None:
            continue
        try:
            made = cls(**{**required, key: changed})
        except ValueError:
            continue  # not every number will do for every argument
        config = made.get_config()
        assert plain(config[key]) == plain(changed), f"{key} is not kept"
        assert plain(cls.from_config(plain(config)).get_config()) == plain(config)


def test_a_detectors_config_is_json():
    model = tiny_detector()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(config)
    assert plain(again.get_config()) == plain(model.get_config())
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    arguments = set(inspect.signature(type(model).__init__).parameters) - {"self"}
    assert arguments == set(model.get_config())


# === Packaging ===


def setup_cfg():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_package_is_installed():
    listed = setup_cfg()["options"]["packages"].split()
    assert listed == sorted(listed)
    assert listed == sorted([*packages(), "keras_rcnn.zoo"])


def test_every_file_of_the_zoo_is_installed():
    patterns = setup_cfg()["options.package_data"]["keras_rcnn.zoo"].split()
    endings = {pattern.rsplit(".", 1)[-1] for pattern in patterns}
    files = [path for path in (ROOT / "zoo").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left_out = [name(path) for path in files if path.suffix.lstrip(".") not in endings]
    assert not left_out


def test_pre_commit_has_the_ruff_of_ci():
    ruff = re.search(r"^\s*ruff==(\S+)$", setup_cfg()["options.extras_require"]["test"], re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"rev: v(\S+)", hooks) == [ruff[1]]


def test_tools_are_thin():
    for path in sorted({*(ROOT / "tools").glob("*.py")} - {ROOT / "tools/mask_rcnn_to_coco.py"}):  # which users copy
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 24, f"{name(path)}: what it does belongs into tools/bench or tools/pages"
        assert ast.get_docstring(ast.parse(text)), f"{name(path)} has no docstring"
