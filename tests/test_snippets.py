"""The Python of the README, of docs/pages and of the public docstrings, with a GPU in the list of devices."""

import doctest
import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.data import Dataset, Preprocessor
from tests.models.test_fast_rcnn import around
from tests.models.test_mask_rcnn import with_masks
from tests.models.tiny import STRIDES, TinyBackbone, tiny_detector
from tests.standing import CLASSES, pages, write_data, write_photos, write_runs

ROOT = Path(__file__).parents[1]

# what would take long here -> what stands in for it
SHORTER = {
    r"epochs=\d+": "epochs=1",
    r"keras_rcnn\.backbones\.(ResNet\(50\)|EfficientNetLite0\([^)]*\))": "backbone",
    r"num_classes=3\b": "num_classes=2, preprocessor=small",
    r"class_names=data\.class_names\)(?=\nmodel\.compile\(keras\.optimizers\.SGD)": (
        "class_names=data.class_names, preprocessor=small)"
    ),
    r"\"fasterrcnn_resnet50_fpn\"": '"nuclei_frcnn"',
    r"\(1024, 256\)": "(16,)",
    r"warmup_steps=\d+": "warmup_steps=2",
    # "compile and fit as above"
    r"\n\.\.\.  # compile": "\nmodel.compile(keras.optimizers.SGD(0.001)) # compile",
}

# on the pages of docs a preset of the zoo is a small detector; the README's is its own
SMALL = {"nuclei_mrcnn": "runs/masks", "nuclei_frcnn": "runs/mine", "fasterrcnn_resnet50_fpn": "runs/mine"}

# module -> why its example cannot run here; those of `export` are in tests/export
ELSEWHERE = {
    **dict.fromkeys(
        [f"backbones.{name}" for name in ("alexnet", "convnext", "imagenet", "zf", "vgg", "mobilenet_v3", "resnet")]
        + ["convert.torch_file", "convert.torchvision", "convert.caffe_file", "convert.caffe", "convert.detectron2"]
        + ["convert.numpy_pickles", "convert.keras_applications", "convert.keras_file", "convert.matterport"]
        + ["matterport_detectors"],
        "published weights, which cannot be had here",
    ),
    **dict.fromkeys(["training.cluster", "training.distribute"], "several machines or devices"),
    **dict.fromkeys(
        [f"export.{name}" for name in ("client", "onnx", "openvino", "litert_detector", "openvino_detector")],
        "files of other tests",
    ),
    "app.__init__": "Gradio; tests/app/test_page.py starts the page",
    "bulk.on_ray": "Ray, which tests/bulk has",
    "backbones.features": "ImageNet's weights; docs/pages/data.md has it without",
    **dict.fromkeys(
        [f"data.augment.{name}" for name in ("colours", "compose", "mixing", "turns", "views")],
        "an image with its objects; tests/data/test_augment.py has them",
    ),
    **dict.fromkeys(
        [f"evaluation.{name}" for name in ("confusion", "curves", "errors", "keypoints", "matches")],
        "detections of a data set; docs/pages/data.md has them",
    ),
    "hub_push": "a hub; tests/test_hub_push.py has one",
    "preset_thresholds": "detections of a data set; docs/pages/data.md has them",
    "training.silent": "a backbone of this package; tests/training/test_silent.py has one",
    "training.recipe": "a recipe of somebody's own",
    "training.interrupt": "parts of a training that is tested in tests/training",
    "training.averages": "parts of a training that is tested in tests/training",
    "training.pictures": "parts of a training that is tested in tests/training",
    "training.checkpoint": "parts of a training that is tested in tests/training",
    "training.plans.alternating": "minutes; tests/training/plans/test_alternating.py has it",
    "training.svms": "for an R-CNN; tests/models/test_fast_rcnn.py has it",
    "training.train": "minutes; docs/pages/training.md has it, shorter",
}


def standing(folder):
    """What examples speak of, in a folder with the files that they name."""
    write_photos(folder)
    data = write_data(folder)
    write_runs(folder, data)
    model = tiny_detector(class_names=CLASSES)
    model.compile(keras.optimizers.SGD(1e-3))
    small = Preprocessor(64, 96)
    return {
        "np": np,
        "keras": keras,
        "keras_rcnn": keras_rcnn,
        "backbone": TinyBackbone(),
        "small": small,
        "model": model,
        "data": Dataset(list(data[:4]), CLASSES),
        "dataset": with_masks(Dataset(list(data[:4]), CLASSES)),
        "val": Dataset(list(data[4:]), CLASSES),
        "validation": Dataset(list(data[4:]), CLASSES),
        "proposals": around(data),
        "batches": data.batches(small, batch_size=2),
        "images": np.zeros((1, 64, 96, 3), np.float32),
        "STRIDES": STRIDES,
    }


def shortened(code):
    for pattern, instead in SHORTER.items():
        code = re.sub(pattern, instead, code)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.stem)
def test_the_pages_python(page, tmp_path, monkeypatch, listed_gpu):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    if not blocks:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    names = standing(tmp_path)
    for block in blocks:
        if "ServedDetector" in block or "import ray" in block:
            continue  # tests/export has the server, tests/bulk has Ray
        if page.name != "README.md":
            for preset, small in SMALL.items():
                block = block.replace(f'"{preset}"', f'"{small}"')
        exec(compile(shortened(block), str(page), "exec"), names)  # noqa: S102


def modules():
    """Those with examples."""
    for path in sorted((ROOT / "keras_rcnn").rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            yield ".".join(path.relative_to(ROOT / "keras_rcnn").with_suffix("").parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(modules()))
def test_docstrings(name, tmp_path, monkeypatch, listed_gpu):
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    module = importlib.import_module(f"keras_rcnn.{name.removesuffix('.__init__')}")
    monkeypatch.chdir(tmp_path)
    names = {**standing(tmp_path), **{key: vars(module)[key] for key in vars(module) if not key.startswith("__")}}
    found = 0
    for test in doctest.DocTestFinder().find(module, module.__name__):
        for example in test.examples:
            found += 1
            exec(compile(shortened(example.source), f"{test.name}", "single"), names)  # noqa: S102
    assert found
