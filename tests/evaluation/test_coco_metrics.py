"""Ours against pycocotools run on JSON files, as its own demo does it, and against numbers worked out by hand."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from keras_rcnn.data import Dataset, Record, load_coco
from keras_rcnn.data.masks import full_mask
from keras_rcnn.evaluation.coco import coco_metrics, coco_results
from tests.shared import SHARED, needs_data

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def pycocotools_stats(dataset, results, iou_type, folder):
    """The twelve numbers of pycocotools' own summarize(), from an annotation file and a results file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = []
    for record in dataset:
        for i, (x1, y1, x2, y2) in enumerate(record.boxes.astype(float).tolist()):
            one = {"id": len(annotations) + 1, "image_id": record.image_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            one["category_id"] = dataset.category_ids[record.labels[i]]
            one["area"], one["iscrowd"] = float(record.areas[i]), int(record.crowd[i])
            if record.segmentations:
                segmentation = record.segmentations[i]
                if isinstance(segmentation, dict):
                    segmentation = segmentation | {"counts": segmentation["counts"].decode()}
                one["segmentation"] = segmentation
            annotations.append(one)
    images = [{"id": r.image_id, "height": r.height, "width": r.width} for r in dataset]
    categories = [{"id": i, "name": n} for i, n in zip(dataset.category_ids, dataset.class_names, strict=True)]
    (folder / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": {}})
    )
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "found.json")), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_twelve_numbers_are_those_of_pycocotools_on_files(make, tmp_path, seed, iou_type):
    dataset, detections = make.random(seed, masks=iou_type == "segm")
    theirs = pycocotools_stats(dataset, coco_results(dataset, detections, iou_type), iou_type, tmp_path)
    ours = coco_metrics(dataset, detections, iou_type)
    assert list(ours) == [*NAMES, "per_class"]
    assert [ours[name] for name in NAMES] == [
        x if x > -1 else pytest.approx(math.nan, nan_ok=True) for x in theirs.stats
    ]
    assert 0.05 < ours["AP"] < 0.95 and ours["AP"] < ours["AP50"]
    # classes: theirs go by category id, which is not the order of the labels here
    for name, category in zip(dataset.class_names, dataset.category_ids, strict=True):
        precision = theirs.eval["precision"][:, :, sorted(dataset.category_ids).index(category), 0, 2]
        expected = precision.mean() if precision.max() > -1 else math.nan
        assert ours["per_class"][name]["AP"] == pytest.approx(expected, nan_ok=True)
    assert math.isnan(ours["per_class"]["class 3"]["AP50"])


@needs_data
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_same_as_pycocotools_on_a_published_annotation_file(iou_type):
    """COCO's own file read by pycocotools and by `load_coco`: polygons, crowds, 80 classes with gaps in their ids."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = SHARED / "data" / "coco_open"
    path = folder / "annotations" / "instances_val2017.json"
    dataset = load_coco(path, folder / "val2017")
    rng = np.random.default_rng(0)
    detections = []
    for record in dataset:
        chosen = np.flatnonzero(rng.random(len(record.boxes)) < 0.85)
        sides = np.tile(record.boxes[chosen, 2:] - record.boxes[chosen, :2], 2)
        masks = [full_mask(record.segmentations[i], record.height, record.width) for i in chosen]
        masks = [np.roll(mask, rng.integers(-3, 4), axis=0).astype(bool) for mask in masks]
        found = {
            "boxes": record.boxes[chosen] + rng.normal(0, 0.06, sides.shape) * sides,
            "scores": rng.random(len(chosen)),
            "labels": np.where(rng.random(len(chosen)) < 0.1, 0, record.labels[chosen]),
            "masks": np.array(masks, bool).reshape(-1, record.height, record.width),
        }
        detections.append(found)
    ours = coco_metrics(dataset, detections, iou_type)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        theirs = COCOeval(truth, truth.loadRes(coco_results(dataset, detections, iou_type)), iou_type)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert [ours[name] for name in NAMES] == pytest.approx(list(theirs.stats), abs=1e-9)
    assert 0.4 < ours["AP"] < 0.8


def test_it_prints_nothing(make, capsys):
    coco_metrics(*make.random(0))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_half_of_the_objects_found_exactly(make):
    """One of two objects, exactly: precision 1 up to recall 0.5, which 51 of the 101 recall levels do not exceed."""
    boxes = [[0, 0, 20, 20], [100, 100, 120, 120]]
    dataset = make.data([make.record(boxes, [0, 0])], ["cat", "dog"])
    result = coco_metrics(dataset, [make.found(boxes[:1], [0.9], [0])])
    assert result["AP"] == result["AP50"] == result["APs"] == pytest.approx(51 / 101)
    assert result["AR1"] == result["AR100"] == result["ARs"] == 0.5
    assert all(math.isnan(result[name]) for name in ("APm", "APl", "ARm", "ARl"))
    assert result["per_class"]["cat"] == {"AP": pytest.approx(51 / 101), "AP50": pytest.approx(51 / 101)}
    assert math.isnan(result["per_class"]["dog"]["AP"])


def test_iou_of_07_counts_at_five_of_ten_thresholds(make):
    dataset = make.data([make.record([[0, 0, 100, 100]], [0])], ["cat"])
    result = coco_metrics(dataset, [make.found([[0, 0, 100, 72]], [0.9], [0])])
    assert (result["AP50"], result["AP75"]) == pytest.approx((1, 0))
    assert result["AP"] == pytest.approx(0.5)  # 0.50, 0.55, 0.60, 0.65, 0.70


def test_sizes_go_by_the_annotations_area_and_not_the_box(make):
    box = [[0, 0, 100, 100]]
    record = make.record(box, [0], areas=np.array([900], "float32"))
    result = coco_metrics(make.data([record], ["cat"]), [make.found(box, [0.9], [0])])
    assert result["APs"] == pytest.approx(1) and math.isnan(result["APl"])


def test_detections_in_a_crowd_are_not_wrong(make):
    crowd = make.record([[0, 0, 50, 50], [100, 0, 300, 200]], [0, 0], crowd=np.array([False, True]))
    found = make.found([[110, 10, 150, 60], [200, 20, 260, 80], [0, 0, 50, 50]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert coco_metrics(make.data([crowd], ["cat"]), [found])["AP"] == pytest.approx(1)
    crowd.crowd[:] = False  # the same without the crowd: two wrong ones come first
    assert coco_metrics(make.data([crowd], ["cat"]), [found])["AP"] < 0.5


def test_max_detections_reaches_beyond_a_hundred(make):
    """150 objects, all found: COCO's limit of 100 sees two thirds of them."""
    x, y = np.meshgrid(np.arange(15) * 20, np.arange(10) * 20)
    boxes = np.stack([x, y, x + 10, y + 10], -1).reshape(-1, 4)
    dataset = make.data([make.record(boxes, np.zeros(150))], ["nucleus"])
    found = [make.found(boxes, np.linspace(1, 0.1, 150), np.zeros(150))]
    limited, whole = coco_metrics(dataset, found), coco_metrics(dataset, found, max_detections=300)
    assert limited["AR100"] == pytest.approx(2 / 3) and limited["AP"] == pytest.approx(67 / 101)
    assert whole["AR300"] == 1 and whole["AP"] == pytest.approx(1) and "AR100" not in whole
    assert whole["AR10"] == pytest.approx(1 / 15)


def test_without_objects_or_detections(make):
    nothing = make.found([], [], [])
    empty = coco_metrics(make.data([make.record([], [])], ["cat"]), [nothing])
    assert all(math.isnan(empty[name]) for name in NAMES)
    wrong_only = coco_metrics(make.data([make.record([], [])], ["cat"]), [make.found([[0, 0, 9, 9]], [0.5], [0])])
    assert math.isnan(wrong_only["AP"])
    assert coco_metrics(make.data([make.record([[0, 0, 9, 9]], [0])], ["cat"]), [nothing])["AP"] == 0


def test_text_ids_and_padding(make):
    box = [[0, 0, 40, 40]]
    dataset = make.data([make.record(box, [0], image_id="b"), make.record(box, [1], image_id="a")], ["cat", "dog"])
    padded = make.found(box + [[0, 0, 0, 0]], [0.5, 0], [0, -1])
    assert coco_metrics(dataset, [padded, make.found(box, [0.5], [1])])["AP"] == pytest.approx(1)
    results = coco_results(dataset, [padded, make.found(box, [0.5], [1])])
    assert results == [
        {"image_id": "b", "category_id": 1, "score": 0.5, "bbox": [0, 0, 40, 40]},
        {"image_id": "a", "category_id": 2, "score": 0.5, "bbox": [0, 0, 40, 40]},
    ]


def test_masks_as_arrays_and_as_rles_score_the_same(make):
    from pycocotools import mask as rle

    dataset, detections = make.random(5, masks=True)
    expected = coco_metrics(dataset, detections, "segm")
    for found in detections:
        found["masks"] = [rle.encode(np.asfortranarray(mask.astype("uint8"))) for mask in found["masks"]]
    again = coco_metrics(dataset, detections, "segm")
    assert [again[name] for name in NAMES] == [expected[name] for name in NAMES]


def test_ground_truth_masks_as_files_and_arrays(make, tmp_path):
    from PIL import Image

    dataset, detections = make.random(5, masks=True)
    expected = coco_metrics(dataset, detections, "segm")
    for k, record in enumerate(dataset):
        for i, one in enumerate(record.segmentations):
            record.segmentations[i] = full_mask(one, record.height, record.width)
            if i % 2:
                Image.fromarray(record.segmentations[i] * 255).save(tmp_path / f"{k}_{i}.png")
                record.segmentations[i] = tmp_path / f"{k}_{i}.png"
    again = coco_metrics(dataset, detections, "segm")
    assert [again[name] for name in NAMES] == [expected[name] for name in NAMES]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([2])}, "label 2, but the dataset has 2 classes"),
        ({"scores": np.array([np.nan])}, "not finite"),
        ({"scores": np.array([0.5, 0.4])}, "2 scores"),
        ({"masks": np.zeros((1, 20, 30), bool)}, r"mask is \(20, 30\)"),
        ({"masks": np.zeros((2, 200, 300), bool)}, "2 masks for 1 boxes"),
        ({}, 'needs detections with "masks"'),
    ],
)
def test_detections_that_do_not_fit_are_refused(make, change, message):
    record = make.record([[0, 0, 9, 9]], [0], segmentations=[[[0, 0, 9, 0, 9, 9]]], image_id=17)
    with pytest.raises(ValueError, match=message) as error:
        coco_metrics(make.data([record], ["cat", "dog"]), [make.found([[0, 0, 9, 9]], [0.5], [0]) | change], "segm")
    assert "17" in str(error.value)


def test_what_else_is_refused(make):
    dataset = make.data([make.record([[0, 0, 9, 9]], [0])], ["cat"])
    found = [make.found([[0, 0, 9, 9]], [0.5], [0], masks=np.ones((1, 200, 300), bool))]
    with pytest.raises(ValueError, match="object 0 has no segmentation"):
        coco_metrics(dataset, found, "segm")
    with pytest.raises(ValueError, match="2 detections for the 1 images"):
        coco_metrics(dataset, found * 2)
    with pytest.raises(ValueError, match="max_detections"):
        coco_metrics(dataset, found, max_detections=5)
    with pytest.raises(ValueError, match="iou_type"):
        coco_metrics(dataset, found, "mask")


def test_more_masks_in_an_image_than_pycocotools_counts_in_a_byte():
    full = np.zeros((20, 400), np.uint8, order="F")
    masks, boxes = [], []
    for i in range(300):
        one = full.copy(order="F")
        one[: 1 + i % 20, i] = 1
        masks.append(mask_tools.encode(one))
        boxes.append([i, 0, i + 1, 1 + i % 20])
    boxes, labels = np.float32(boxes), np.zeros(300, np.int32)
    record = Record(np.zeros((20, 400, 3), np.uint8), 1, 20, 400, boxes=boxes, labels=labels, segmentations=masks)
    found = {"boxes": boxes, "labels": labels, "scores": np.linspace(1, 0.1, 300, dtype=np.float32), "masks": masks}
    result = coco_metrics(Dataset([record], ["line"]), [found], "segm", max_detections=300)
    assert result["AP"] == 1
