"""What `keras-rcnn check` measures and says, against slow twins and data made for it."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.cli.command_line import main
from keras_rcnn.data import Dataset, Record
from keras_rcnn.ops.anchors import cell_anchors, grid_anchors
from keras_rcnn.survey import (
    BUILT,
    View,
    best_anchor_iou,
    duplicates,
    kmeans_shapes,
    short_text,
    suggestions,
    survey,
    survey_text,
    write_page,
)
from keras_rcnn.survey.anchors import seen_boxes
from keras_rcnn.training import distribute
from keras_rcnn.training.settings import Settings
from keras_rcnn.training.train import _built
from tests.models.tiny import tiny_detector
from tests.reference import iou

STRIDES = [4, 8, 16, 32, 64]
VIEW = View(128, 192, [[4 * stride] for stride in STRIDES], (0.5, 1.0, 2.0), STRIDES, 100)


def dataset(count=6, seed=0, objects=5, side=(4, 60), names=("a", "b"), size=(96, 128)):
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        image = rng.integers(0, 255, (*size, 3), np.uint8)
        sides = rng.uniform(*side, (objects, 2))
        corners = rng.uniform(0, 1, (objects, 2)) * (np.array(size[::-1]) - sides)
        boxes = np.concatenate([corners, corners + sides], axis=1)
        records.append(Record(image, number, *size, boxes=boxes, labels=rng.integers(0, len(names), objects)))
    return Dataset(records, names)


def texts(result, level=None):
    return " ".join(finding.text for finding in result["findings"] if level in (None, finding.level))


def test_the_best_anchor_is_that_of_all():
    boxes, sizes, labels = seen_boxes(dataset(), VIEW)
    assert sizes.tolist() == [[128, 128 * 128 / 96]] * 30
    assert len(labels) == 30
    every = []
    for level, stride in zip(VIEW.sizes, STRIDES, strict=True):
        cells = cell_anchors(level, VIEW.aspect_ratios)
        grid = (-(-128 // stride), -(-171 // stride))
        every.append(np.asarray(grid_anchors(cells, grid, (128, 171), stride)))
    wanted = [max(iou(box, anchor) for anchor in np.concatenate(every)) for box in boxes[:12]]
    np.testing.assert_allclose(best_anchor_iou(boxes, sizes, VIEW)[:12], wanted, atol=1e-6)


def test_crowd_and_difficult_objects_are_not_trained_on():
    record = Record(np.zeros((64, 64, 3), np.uint8), 0, 64, 64, boxes=[[0, 0, 8, 8]] * 3, labels=[0, 0, 0])
    record.crowd[0], record.difficult[1] = True, True
    assert len(seen_boxes(Dataset([record], ["a"]), VIEW)[0]) == 1


def test_shapes_of_clusters():
    rng = np.random.default_rng(0)
    wanted = np.array([[10.0, 20.0], [40.0, 40.0], [90.0, 30.0]])
    sides = np.concatenate([shape * rng.uniform(0.95, 1.05, (50, 2)) for shape in wanted])
    found = kmeans_shapes(sides, 3)
    np.testing.assert_allclose(found, wanted[np.argsort(wanted.prod(axis=1))], rtol=0.03)
    assert len(kmeans_shapes(np.ones((9, 2)), 3)) == 1


def test_anchors_are_suggested_for_long_objects():
    rng = np.random.default_rng(0)
    records = []
    for number in range(20):
        height = rng.uniform(20, 40, 4)
        corners = rng.uniform(0, 100, (4, 2))
        boxes = np.concatenate([corners, corners + np.stack([5 * height, height], axis=1)], axis=1)
        records.append(Record(np.zeros((480, 640, 3), np.uint8), number, 480, 640, boxes=boxes, labels=[0] * 4))
    view = VIEW._replace(min_size=480, max_size=640)
    found = suggestions(Dataset(records, ["pen"]), view)
    assert min(found["aspect_ratios"]) == pytest.approx(0.2, abs=0.03)
    boxes, sizes, _ = seen_boxes(Dataset(records, ["pen"]), view)
    better = view._replace(
        sizes=[[found.get("anchor_scale", 4) * stride] for stride in STRIDES], aspect_ratios=found["aspect_ratios"]
    )
    assert best_anchor_iou(boxes, sizes, better).mean() > best_anchor_iou(boxes, sizes, view).mean() + 0.1
    assert "aspect_ratios" not in suggestions(Dataset(records, ["pen"]), view, BUILT)


def test_a_larger_photo_is_suggested_for_small_objects():
    small = dataset(size=(960, 1280), side=(15, 25))
    found = suggestions(small, VIEW._replace(min_size=448, max_size=640))
    assert found["min_size"] in (704, 800)
    assert found["max_size"] >= found["min_size"] * 1.3
    # a small photo has no more to show
    assert "min_size" not in suggestions(
        dataset(size=(96, 128), side=(4, 6)), VIEW._replace(min_size=448, max_size=640)
    )
    assert "min_size" not in suggestions(dataset(size=(960, 1280), side=(200, 400)), VIEW._replace(min_size=448))


def test_a_coarser_pyramid_is_suggested_for_large_objects():
    view = VIEW._replace(min_size=480, max_size=640)
    found = suggestions(dataset(size=(480, 640), side=(60, 300)), view)
    assert found["fpn_from"] == "C3" and found.get("anchor_scale", 4.0) >= 4.0
    assert "fpn_from" not in suggestions(dataset(size=(480, 640), side=(60, 300)), view, BUILT)
    assert "fpn_from" not in suggestions(dataset(size=(480, 640), side=(10, 50)), view)
    settings = Settings(
        auto=True, backbone_weights="random", fpn_channels=16, box_head_units=(8,), min_size=480, max_size=640
    )
    large = dataset(size=(480, 640), side=(60, 300))
    settings, model = _built(settings, large, None, distribute.strategy(None))
    assert settings.fpn_from == "C3" and model.parts["anchors"].strides == (8, 16, 32, 64)


def test_as_many_detections_as_objects():
    crowded = dataset(count=1, objects=130, side=(4, 8))
    found = suggestions(crowded, VIEW)
    assert found["max_detections"] == found["eval_max_detections"] == 200
    assert "max_detections=100" in texts(survey(crowded, None, VIEW), "warning")


def test_nothing_to_suggest_without_objects():
    empty = Dataset([Record(np.zeros((9, 9, 3), np.uint8), 0, 9, 9)], ["a"])
    assert suggestions(empty, VIEW) == {}
    assert "1 of 1 images have no objects" in texts(survey(empty, None, VIEW))


def test_photos_that_occur_twice(tmp_path):
    rng = np.random.default_rng(0)
    photos = [
        Image.fromarray(np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8))
        for _ in range(3)
    ]
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
    photos[0].save(tmp_path / "same.png")
    photos[1].resize((200, 150)).save(tmp_path / "smaller.jpg", quality=85)
    (tmp_path / "damaged.png").write_bytes(b"no image")

    def records(*names):
        sizes = {"smaller.jpg": (150, 200)}
        return [Record(tmp_path / name, name, *sizes.get(name, (96, 128))) for name in names]

    training = Dataset(records("0.png", "1.png", "2.png", "damaged.png"), ["a"])
    groups = duplicates({"train": training, "val": Dataset(records("same.png", "smaller.jpg"), ["a"])})
    named = sorted(sorted(f"{split} {name.rpartition('/')[2]}" for split, name in group) for group in groups)
    assert named == [["train 0.png", "val same.png"], ["train 1.png", "val smaller.jpg"]]


def test_findings_about_classes():
    training, validation = dataset(names=("a", "b")), dataset(names=("b", "c"), seed=1)
    training.records[0].boxes[1], training.records[0].labels[1] = (
        training.records[0].boxes[0],
        training.records[0].labels[0],
    )
    result = survey(training, validation, VIEW, compare_photos=False)
    assert "c: in the validation data only" in texts(result, "error")
    assert "Fewer than 20 objects to learn of" in texts(result, "warning")
    assert "a: not in the validation data" in texts(result, "warning")
    assert "train: 1 object is annotated twice" in texts(result, "warning")
    levels = [finding.level for finding in result["findings"]]
    assert levels == sorted(levels, key=("error", "warning", "note").index)
    assert "train: 6 images, 30 objects of 2 classes" in short_text(result)
    assert "typical width x height" in survey_text(result)


def test_the_view_of_a_detector():
    model = tiny_detector()
    view = View.of(model)
    assert (view.min_size, view.max_size) == (model.preprocessor.min_size, model.preprocessor.max_size)
    assert len(view.sizes) == len(view.strides)
    assert survey(dataset(), None, view)["anchors"]["mean_iou"] > 0


def test_the_page_shows_photos_and_words(tmp_path):
    data = dataset(names=("<a>", "b"))
    data.records[0].segmentations = [np.ones((96, 128), bool)] * 5
    page = write_page(tmp_path / "page.html", survey(data, None, VIEW), {"train": data}, photos=4).read_text()
    assert page.count("data:image/jpeg") == 4
    assert "&lt;a&gt;" in page
    assert "<a>" not in page


# === The command ===


@pytest.fixture
def folder(tmp_path):
    """COCO json with one bad box, and the same photo in both splits."""
    rng = np.random.default_rng(0)
    for split, bad in (("train", True), ("val", False)):
        (tmp_path / split).mkdir()
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "fig"}]}
        for number in range(3):
            seed = np.random.default_rng(0) if number == 0 else rng
            Image.fromarray(seed.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / split / f"{number}.png")
            content["images"].append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 60})
            width = 0 if bad and number == 2 else 20
            box = {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, width, 30]}
            content["annotations"].append(box)
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_the_command_lists_what_is_wrong(folder, capsys):
    arguments = ["--coco", folder / "train.json", "--images", folder / "train"]
    arguments += ["--val-coco", folder / "val.json", "--val-images", folder / "val"]
    arguments += ["--json", folder / "found.json", "--html", folder / "found.html"]
    assert main(["check", *map(str, arguments)]) == 1
    printed = capsys.readouterr().out
    assert "left out: 2.png, annotation 2: box [5.0, 5.0, 0.0, 30.0] has no width" in printed
    assert "1 photo is in both the training and the validation data" in printed
    found = json.loads((folder / "found.json").read_text())
    assert found["splits"]["train"]["objects"] == 2
    assert {finding["level"] for finding in found["findings"]} >= {"error", "warning"}
    assert (folder / "found.html").stat().st_size > 10_000


def test_the_command_without_faults(folder, capsys):
    assert main(["check", "--coco", str(folder / "val.json"), "--images", str(folder / "val")]) == 0
    assert "val.json" in capsys.readouterr().out
    assert main(["check"]) == 2


def test_a_training_takes_the_suggestions_that_nobody_has_set(caplog):
    crowded = dataset(count=3, objects=130, side=(4, 8), size=(96, 128))
    given = Settings(
        auto=True,
        backbone_weights="random",
        anchor_scale=3.0,
        aspect_ratios=(1.0,),
        fpn_channels=16,
        box_head_units=(8,),
    )
    caplog.set_level("INFO", "keras_rcnn.survey")
    settings, model = _built(given, crowded, None, distribute.strategy(None))
    assert settings.max_detections == model.parts["decoder"].max_detections == 200
    assert (settings.anchor_scale, settings.aspect_ratios) == (3.0, (1.0,))
    assert "Chosen for the data: max_detections=200" in caplog.text
    assert "train: 3 images, 390 objects of 2 classes" in caplog.text
    assert _built(given.replace(auto=False), crowded, None, distribute.strategy(None))[0].max_detections == 100
