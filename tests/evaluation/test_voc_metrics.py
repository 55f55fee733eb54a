"""Against a slow twin that follows VOCevaldet.m line by line, and cases worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest

from keras_rcnn.data import load_voc
from keras_rcnn.evaluation.voc import average_precision, voc_metrics
from tests.shared import SHARED, needs_data


def devkit_ap(records, detections, label, threshold, eleven_point, one):
    """VOCevaldet.m and VOCap.m of the devkit in slow Python, loops and all."""
    ranked = [
        (-float(score), i, tuple(map(float, box)))
        for i, found in enumerate(detections)
        for score, name, box in zip(found["scores"], found["labels"], found["boxes"], strict=True)
        if name == label
    ]
    ranked = [ranked[k] for k in sorted(range(len(ranked)), key=lambda k: ranked[k][0])]
    done, objects = set(), 0
    for record in records:
        for j in range(len(record.labels)):
            objects += record.labels[j] == label and not (record.difficult[j] or record.crowd[j])
    tp, fp = [], []
    for _, i, box in ranked:
        record, best, which = records[i], -math.inf, None
        for j in range(len(record.labels)):
            if record.labels[j] != label:
                continue
            other = tuple(map(float, record.boxes[j]))
            w = min(box[2], other[2]) - max(box[0], other[0]) + one
            h = min(box[3], other[3]) - max(box[1], other[1]) + one
            if w > 0 and h > 0:
                union = (box[2] - box[0] + one) * (box[3] - box[1] + one)
                union += (other[2] - other[0] + one) * (other[3] - other[1] + one) - w * h
                if w * h / union > best:
                    best, which = w * h / union, j
        hit = miss = 0
        if best >= threshold:
            if not (record.difficult[which] or record.crowd[which]):
                hit, miss = (0, 1) if (i, which) in done else (1, 0)
                done.add((i, which))
        else:
            miss = 1
        tp.append(hit)
        fp.append(miss)
    if not objects:
        return math.nan
    points, t, f = [], 0, 0
    for hit, miss in zip(tp, fp, strict=True):
        t, f = t + hit, f + miss
        if t + f:
            points.append((t, t / (t + f)))
    if eleven_point:
        return sum(max([p for t, p in points if 10 * t >= k * objects], default=0) for k in range(11)) / 11
    recall = [0, *(t / objects for t, _ in points), 1]
    precision = [0, *(p for _, p in points), 0]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return sum((recall[k + 1] - recall[k]) * precision[k + 1] for k in range(len(recall) - 1))


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("eleven_point", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_same_as_the_slow_twin(make, seed, eleven_point, inclusive):
    dataset, detections = make.random(seed, images=25)
    for iou in (0.5, 0.75):
        ours = voc_metrics(dataset, detections, iou, eleven_point, inclusive)
        key = f"AP{100 * iou:g}"
        expected = [devkit_ap(dataset, detections, k, iou, eleven_point, float(inclusive)) for k in range(4)]
        assert [c[key] for c in ours["per_class"].values()] == pytest.approx(expected, nan_ok=True)
        assert ours[key] == pytest.approx(np.nanmean(expected))
        assert 0.05 < ours[key] < 0.95 and math.isnan(expected[3])


def test_average_precision_by_hand():
    """Right, wrong, right of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2."""
    ranked = np.array([True, False, True])
    assert average_precision(ranked, 4) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    # recall levels 0, 0.1, 0.2 at precision 1; 0.3, 0.4, 0.5 at 2/3
    assert average_precision(ranked, 4, eleven_point=True) == pytest.approx((3 + 3 * 2 / 3) / 11)
    # a wrong first one is lifted by what follows: the envelope
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert average_precision(np.zeros(0, bool), 3) == 0
    assert average_precision(np.zeros(0, bool), 3, eleven_point=True) == 0
    assert math.isnan(average_precision(np.zeros(2, bool), 0))


def test_three_of_ten_reach_recall_03():
    """0, 0.1, 0.2 and 0.3 are reached; 3 * 0.1 > 0.3 in floating point, which loses one of them."""
    assert average_precision(np.ones(3, bool), 10, eleven_point=True) == pytest.approx(4 / 11)
    assert average_precision(np.ones(7, bool), 10, eleven_point=True) == pytest.approx(8 / 11)


def test_duplicates_are_wrong_and_difficult_is_neither(make):
    boxes = [[0, 0, 20, 20], [100, 100, 140, 140], [50, 0, 70, 20]]
    record = make.record(boxes, [0, 0, 0], difficult=np.array([False, True, False]))
    dataset = make.data([record], ["cat", "dog"])
    once = make.found(boxes[:2], [0.9, 0.8], [0, 0])
    assert voc_metrics(dataset, [once]) == {
        "AP50": 0.5,
        "per_class": {"cat": {"AP50": 0.5}, "dog": {"AP50": pytest.approx(math.nan, nan_ok=True)}},
    }
    # difficult twice, then a duplicate of the first, then the last: right, -, -, wrong, right
    more = make.found([boxes[0], boxes[1], boxes[1], boxes[0], boxes[2]], [0.9, 0.8, 0.7, 0.6, 0.5], [0] * 5)
    assert voc_metrics(dataset, [more])["AP50"] == pytest.approx((1 + 2 / 3) / 2)


def test_the_better_scored_detection_takes_the_object(make):
    dataset = make.data([make.record([[0, 0, 100, 100]], [0])], ["cat"])
    found = make.found([[0, 0, 100, 100], [0, 0, 100, 70]], [0.5, 0.9], [0, 0])  # in any order
    assert voc_metrics(dataset, [found])["AP50"] == 1
    assert voc_metrics(dataset, [found], iou=0.9)["AP90"] == 0.5


def test_inclusive_widths_decide_a_close_case(make):
    """Pixels 0..10 x 0..9 of 0..10 x 0..19: 110 of 220 with the last pixel, 90 of 190 without."""
    dataset = make.data([make.record([[0, 0, 10, 19]], [0])], ["cat"])
    found = [make.found([[0, 0, 10, 9]], [0.5], [0])]
    assert voc_metrics(dataset, found, inclusive=True)["AP50"] == 1
    assert voc_metrics(dataset, found, inclusive=False)["AP50"] == 0


@needs_data
def test_load_voc_and_plain_widths_are_the_devkits_pixels():
    """The devkit's inclusive widths on the numbers in the XML files = plain widths on what `load_voc` makes of them."""
    dataset = load_voc(SHARED / "data" / "bccd", "val", on_bad="skip")[:20]
    rng = np.random.default_rng(0)
    shift = np.array([1, 1, 0, 0])
    ours, raw, theirs = [], [], []
    for record in dataset:
        boxes = (record.boxes + rng.normal(0, 8, record.boxes.shape)).round()
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = rng.random(len(boxes)).round(2)
        ours.append({"boxes": boxes, "scores": scores, "labels": record.labels})
        theirs.append(ours[-1] | {"boxes": boxes + shift})
        raw.append(dataclasses.replace(record, boxes=record.boxes + shift))
    result = voc_metrics(dataset, ours)
    expected = [devkit_ap(raw, theirs, label, 0.5, False, 1.0) for label in range(3)]
    assert [one["AP50"] for one in result["per_class"].values()] == pytest.approx(expected, nan_ok=True)
    assert 0.2 < result["AP50"] < 0.95


def test_refusals(make):
    dataset = make.data([make.record([], [])], ["cat"])
    with pytest.raises(ValueError, match="0 detections for the 1 images"):
        voc_metrics(dataset, [])
    with pytest.raises(ValueError, match="iou"):
        voc_metrics(dataset, [make.found([], [], [])], iou=50)
