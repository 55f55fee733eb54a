"""Matches, curves, confusions and kinds of errors against pycocotools, TIDE's own program and examples by hand."""

import re

import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.data import Dataset
from keras_rcnn.evaluation import (
    best_thresholds,
    coco_metrics,
    confusion_matrix,
    detect_all,
    error_kinds,
    match_detections,
    precision_recall,
    write_report,
)
from keras_rcnn.evaluation.coco import _run
from keras_rcnn.evaluation.confusion import least_scores
from keras_rcnn.evaluation.curves import interpolated_precision
from keras_rcnn.evaluation.errors import KINDS, photo_kinds
from keras_rcnn.evaluation.worst import AMBER, GREEN, GREY, RED, photo_caption, photo_pair, worst_photos
from tests.shared import SHARED, needs_data


def without_difficult(dataset):
    """pycocotools knows no difficult objects."""
    for record in dataset:
        record.difficult[:] = False
    return dataset


# === Against pycocotools ===


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curves_are_those_of_pycocotools(make, seed, iou_type):
    dataset, detections = make.random(seed, masks=iou_type == "segm")
    without_difficult(dataset)
    evaluation = _run(dataset, detections, iou_type, 100)
    column = {category: k for k, category in enumerate(evaluation.params.catIds)}
    curves = precision_recall(match_detections(dataset, detections, iou_type))
    for name, category in zip(dataset.class_names, dataset.category_ids, strict=True):
        theirs = evaluation.eval["precision"][0, :, column[category], 0, -1]
        expected = np.where(theirs < 0, np.nan, theirs)
        np.testing.assert_allclose(curves[name].precision, expected, atol=1e-6)
    per_class = coco_metrics(dataset, detections, iou_type)["per_class"]
    ours = {name: curve.average_precision for name, curve in curves.items()}
    assert ours == pytest.approx({name: value["AP50"] for name, value in per_class.items()}, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_matches_are_those_of_pycocotools(make, iou_type):
    dataset, detections = make.random(4, masks=iou_type == "segm")
    without_difficult(dataset)
    evaluation = _run(dataset, detections, iou_type, 100)
    images = {record.image_id: i for i, record in enumerate(dataset)}
    labels = {category: k for k, category in enumerate(dataset.category_ids)}
    photos = {photo.record_index: photo for photo in match_detections(dataset, detections, iou_type).photos}
    seen = 0
    for case in filter(None, evaluation.evalImgs):
        if case["aRng"] != evaluation.params.areaRng[0]:
            continue
        photo = photos[images[case["image_id"]]]
        own = photo.labels == labels[case["category_id"]]
        found = case["dtMatches"][0] > 0
        np.testing.assert_array_equal((photo.objects[own] >= 0) | photo.ignored[own], found)
        np.testing.assert_array_equal(photo.ignored[own], case["dtIgnore"][0])
        seen += int(found.sum())
    assert seen > 20


@pytest.mark.parametrize("limit", [11, 100])
def test_the_limit_is_a_photos_and_a_classs(make, limit):
    dataset, detections = make.random(5, images=6, objects=40, false=30)
    without_difficult(dataset)
    curves = precision_recall(match_detections(dataset, detections, max_detections=limit))
    expected = coco_metrics(dataset, detections, max_detections=limit)["per_class"]["class 0"]["AP50"]
    assert curves["class 0"].average_precision == pytest.approx(expected, abs=1e-6)


# === Against a slow twin ===


def slow_matches(record, own, iou=0.5):
    """Object found by each detection, -1 for none, -2 for one that is ignored; in plain loops."""

    def area(box):
        return (box[2] - box[0]) * (box[3] - box[1])

    answers, taken = {}, set()
    for i in sorted(range(len(own["scores"])), key=lambda i: -own["scores"][i]):
        best, answers[i], lies = iou, -1, False
        for j, box in enumerate(np.float64(record.boxes)):
            if record.labels[j] != own["labels"][i]:
                continue
            mine = np.float64(own["boxes"][i])
            width = min(mine[2], box[2]) - max(mine[0], box[0])
            height = min(mine[3], box[3]) - max(mine[1], box[1])
            inter = max(width, 0) * max(height, 0)
            overlap = inter / (area(mine) if record.crowd[j] else area(mine) + area(box) - inter)
            if record.crowd[j] or record.difficult[j]:
                lies |= overlap >= iou
            elif overlap >= best and j not in taken:
                best, answers[i] = overlap, j
        taken.add(answers[i])
        if answers[i] < 0 and lies:
            answers[i] = -2
    return answers


@pytest.mark.parametrize("seed", range(4))
def test_a_slow_twin_matches_the_same(make, seed):
    dataset, detections = make.random(seed)
    for photo in match_detections(dataset, detections).photos:
        answers = slow_matches(list(dataset)[photo.record_index], detections[photo.record_index])
        ours = np.where(photo.ignored, -2, photo.objects)
        assert dict(zip(photo.places.tolist(), ours.tolist(), strict=True)) == answers
        for i, j in enumerate(photo.objects):
            assert j < 0 or photo.found_by[j] == i


# === Kinds of errors ===

SQUARE = [100, 100, 140, 140]


@pytest.mark.parametrize(
    ("boxes", "labels", "kinds"),
    [
        ([SQUARE], [0], ["right"]),
        ([SQUARE], [1], ["class"]),
        ([[100, 100, 140, 116]], [0], ["localisation"]),  # IoU 0.4
        ([[100, 100, 140, 116]], [1], ["both"]),
        ([SQUARE, [100, 100, 140, 130]], [0, 0], ["right", "duplicate"]),
        ([[0, 0, 40, 40]], [0], ["background"]),
        ([[100, 100, 140, 103]], [0], ["background"]),  # IoU 0.075
        ([], [], []),
    ],
)
def test_a_kind_by_hand(make, boxes, labels, kinds):
    dataset = make.data([make.record([SQUARE], [0])], ["fig", "date"])
    matches = match_detections(dataset, [make.found(boxes, [0.9, 0.8][: len(boxes)], labels)])
    assert photo_kinds(matches.photos[0]).tolist() == kinds
    errors = error_kinds(matches)
    counts = {kind: value["count"] for kind, value in errors["kinds"].items() if value["count"]}
    expected = {kind: kinds.count(kind) for kind in kinds if kind != "right"}
    if not {"right", "class", "localisation"} & set(kinds):
        expected["missed"] = 1
    assert counts == expected
    assert errors["AP"] == float("right" in kinds)


def test_gains_by_hand(make):
    """Four figs: one found; one by a box too low; one called a date; one missed; and a fig that is not there."""
    figs = [[0, 0, 40, 40], [60, 0, 100, 40], [120, 0, 160, 40], [180, 0, 220, 40]]
    dataset = make.data([make.record([*figs, [240, 0, 280, 40]], [0, 0, 0, 0, 1])], ["fig", "date"])
    boxes = [[0, 150, 40, 190], [0, 0, 40, 40], [60, 0, 100, 16], [120, 0, 160, 40], [240, 0, 280, 40]]
    matches = match_detections(dataset, [make.found(boxes, [0.9, 0.8, 0.7, 0.6, 0.95], [0, 0, 0, 1, 1])])

    def fig(levels):  # the mean of 101 precisions: so many levels of recall with each
        return sum(count * precision for count, precision in levels) / 101

    errors = error_kinds(matches)
    assert errors["AP"] == pytest.approx((fig([(26, 1 / 2)]) + 1) / 2)  # recall 0 to 0.25
    gains = {
        "class": fig([(26, 1 / 2), (25, 1 / 2)]),  # background, right, too low, right
        "localisation": fig([(51, 2 / 3)]),
        "background": fig([(26, 1)]),
        "missed": fig([(34, 1 / 2)]),  # one of three
        "both": fig([(26, 1 / 2)]),
        "duplicate": fig([(26, 1 / 2)]),
    }
    for kind, value in gains.items():
        assert errors["AP"] + errors["kinds"][kind]["dAP"] == pytest.approx((value + 1) / 2), kind
    assert errors["false_positives"] + errors["AP"] == pytest.approx((fig([(26, 1)]) + 1) / 2)
    assert errors["false_negatives"] + errors["AP"] == pytest.approx((fig([(101, 1 / 2)]) + 1) / 2)


def test_of_several_that_could_find_an_object_the_best_is_mended(make):
    dataset = make.data([make.record([SQUARE], [0])], ["fig", "date"])
    found = make.found([[100, 100, 140, 116], SQUARE], [0.9, 0.8], [0, 1])
    errors = error_kinds(match_detections(dataset, [found]))
    assert errors["kinds"]["localisation"] == {"dAP": 1.0, "count": 1, "shown": 1}
    assert errors["kinds"]["class"]["dAP"] == 0.0 and errors["kinds"]["missed"]["count"] == 0


# what tidecv 1.0.1 of TIDE's authors says about `tide_case(2)`: gain in percent, errors
TIDE = {
    "class": (4.249288178266834, 16),
    "localisation": (11.674472802322075, 47),
    "both": (2.557948030945191, 33),
    "duplicate": (1.2405170037454525, 32),
    "background": (9.410176119408252, 90),
    "missed": (7.673076274357786, 31),
}


def tide_case(make, seed):
    """Random data without crowds and without equal scores, with every kind of error."""
    dataset, detections = make.random(seed, images=25, classes=4, objects=14, false=12)
    rng = np.random.default_rng(seed)
    for record in dataset:
        record.crowd[:] = record.difficult[:] = False
    for found in detections:
        n = len(found["scores"])
        found["scores"] = np.sort(rng.random(n))[::-1].astype("float32")
        found["boxes"] = found["boxes"] + rng.normal(0, 6, (n, 1)).astype("float32") * (rng.random((n, 1)) < 0.5)
        found["labels"] = np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), found["labels"]).astype("int32")
    return make.data(list(dataset), ["a", "b", "c"]), detections


def test_gains_are_those_of_tides_own_program(make):
    errors = error_kinds(match_detections(*tide_case(make, 2)))
    assert 100 * errors["AP"] == pytest.approx(29.073820690355195)
    for kind in KINDS:
        gain, count = TIDE[kind]
        assert (100 * errors["kinds"][kind]["dAP"], errors["kinds"][kind]["count"]) == (pytest.approx(gain), count)
    assert 100 * errors["false_positives"] == pytest.approx(35.61264795650949)
    assert 100 * errors["false_negatives"] == pytest.approx(15.469811092685273)


def test_nothing_at_all(make):
    dataset = make.data([make.record([], [])], ["fig"])
    matches = match_detections(dataset, [make.found([], [], [])])
    assert np.isnan(error_kinds(matches)["AP"]) and best_thresholds(matches) == {}
    assert np.isnan(precision_recall(matches)["fig"].average_precision)
    assert confusion_matrix(matches).tolist() == [[0, 0], [0, 0]]


# === Thresholds ===


def test_a_class_that_is_hardly_found_has_none(make):
    """Its best F1 would be at a score at which nearly everything that is detected is wrong."""
    boxes = [[40 * i, 0, 40 * i + 30, 30] for i in range(9)]
    dataset = make.data([make.record(boxes[:1], [0])], ["fig"])
    # the ninth is right: F1 is 2/10
    found = make.found([*boxes[1:], boxes[0]], [0.1 - 0.01 * i for i in range(9)], [0] * 9)
    matches = match_detections(dataset, [found])
    assert precision_recall(matches)["fig"].best_f1 == pytest.approx(0.2) and best_thresholds(matches) == {}


def test_the_threshold_has_the_best_f1(make):
    boxes = [[40 * i, 0, 40 * i + 30, 30] for i in range(6)]
    dataset = make.data([make.record(boxes[:4], [0] * 4)], ["fig"])
    # right, right, wrong, right, wrong: F1 is 2/5, 4/6, 4/7, 6/8, 6/9
    found = make.found([boxes[i] for i in (0, 1, 4, 2, 5)], [0.9, 0.8, 0.7, 0.6, 0.25], [0] * 5)
    matches = match_detections(dataset, [found])
    curve = precision_recall(matches)["fig"]
    assert (curve.best_f1, curve.best_precision, curve.best_recall) == (0.75, 0.75, 0.75)
    assert best_thresholds(matches) == {"fig": pytest.approx((0.6 + 0.25) / 2)}
    assert confusion_matrix(matches, best_thresholds(matches)).tolist() == [[3, 1], [1, 0]]
    assert confusion_matrix(matches, 0.75).tolist() == [[2, 2], [0, 0]]
    np.testing.assert_allclose(
        interpolated_precision(np.array([True, False, True]), 4)[[0, 25, 26, 50, 51]], [1, 1, 2 / 3, 2 / 3, 0]
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_score_has_a_better_f1(make, seed):
    dataset, detections = make.random(seed)
    matches = match_detections(dataset, detections)
    for name, curve in precision_recall(matches).items():
        label = dataset.class_names.index(name)
        f1 = []
        for score in [curve.threshold or 0.5, *np.linspace(0, 1, 40)]:
            counts = confusion_matrix(matches, {**dict.fromkeys(dataset.class_names, 1.0), name: float(score)})
            right, wrong = counts[label, label], counts[:, label].sum() - counts[label, label]
            f1.append(2 * right / max(right + wrong + curve.objects, 1))
        assert f1[0] == pytest.approx(curve.best_f1) and max(f1) <= curve.best_f1 + 1e-9


# === Confusion ===


def test_confusion_by_hand(make):
    boxes = [[60 * i, 0, 60 * i + 40, 40] for i in range(5)]
    dataset = make.data([make.record(boxes[:4], [0, 0, 1, 1], crowd=[False, False, False, True])], ["fig", "date"])
    # a fig found twice, a fig called a date, a date missed, a date on a crowd, a fig that is not there
    found = make.found([boxes[i] for i in (0, 0, 1, 3, 4)], [0.9, 0.8, 0.7, 0.6, 0.55], [0, 0, 1, 1, 0])
    counts = confusion_matrix(match_detections(dataset, [found]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1], [2, 0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_every_object_and_detection_is_counted_once(make, seed):
    dataset, detections = make.random(seed)
    matches = match_detections(dataset, detections)
    counts = confusion_matrix(matches, 0.3)
    for label in range(len(dataset.class_names)):
        assert counts[label].sum() == matches.objects_of(label)
        shown = sum(
            ((photo.labels == label) & (photo.scores >= 0.3) & ~photo.ignored).sum() for photo in matches.photos
        )
        assert counts[:, label].sum() == shown


def test_wrong_arguments(make):
    dataset, detections = make.random(0)
    with pytest.raises(ValueError, match="iou must be over 0.1"):
        match_detections(dataset, detections, iou=0.1)
    with pytest.raises(ValueError, match="iou_type must be"):
        match_detections(dataset, detections, iou_type="mask")
    with pytest.raises(ValueError, match="score is a number"):
        confusion_matrix(match_detections(dataset, detections), 2)


# === The page ===


def report(make, tmp_path, dataset, detections, **options):
    text = write_report(tmp_path / "report.html", dataset, detections, **options).read_text()
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text)
    return text


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_the_page(make, tmp_path, iou_type):
    dataset, detections = make.random(1, masks=iou_type == "segm")
    names = ["<b>fig</b>", *dataset.class_names[1:]]
    text = report(
        make, tmp_path, make.data(list(dataset), names), detections, iou_type=iou_type, photos=5, title="A & B"
    )
    assert "<title>A &amp; B</title>" in text and "<b>fig</b>" not in text and "&lt;b&gt;fig&lt;/b&gt;" in text
    assert text.count("data:image/jpeg;base64,") == 5
    assert text.count('class="todo"') == 5 and text.count("<polyline") == 3
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert "difficult objects count in COCO&#x27;s AP" in text


def test_a_page_of_nothing_and_of_what_is_perfect(make, tmp_path):
    empty = make.data([make.record([], [])], ["fig"])
    text = report(make, tmp_path, empty, [make.found([], [], [])])
    assert "There are no objects in these photos" in text and "No photo has an error." in text
    dataset = make.data([make.record([SQUARE], [0])], ["fig"])
    text = report(make, tmp_path, dataset, [make.found([SQUARE], [0.9], [0])])
    assert "No kind of error costs any AP." in text and "No photo has an error." in text
    text = report(make, tmp_path, dataset, [make.found([], [], [])])
    assert "1 of 1 missed (fig 1), 0 wrong, 0 right" in text and "Nothing is found, whatever the score" in text


def test_many_classes_make_a_list_of_confusions(make, tmp_path):
    names = [f"class {i}" for i in range(30)]
    dataset = make.data([make.record([SQUARE], [3])], names)
    text = report(make, tmp_path, dataset, [make.found([SQUARE], [0.9], [7])])
    assert "<td>class 3</td><td>class 7</td><td>1</td>" in text


def test_the_worst_photos_come_first(make):
    dataset, detections = make.random(2)
    matches = match_detections(dataset, detections)
    least = least_scores(matches.class_names, 0.3)
    photos = worst_photos(matches, least, 24)
    errors = []
    for photo in photos:
        record, own = list(dataset)[photo.record_index], detections[photo.record_index]
        keep = own["scores"] >= 0.3
        answers = slow_matches(record, {key: own[key][keep] for key in ("boxes", "scores", "labels")})
        found = [j for j in answers.values() if j >= 0]
        missed = int((~(record.crowd | record.difficult)).sum()) - len(found)
        errors.append(missed + list(answers.values()).count(-1))
        assert photo_caption(record, photo, matches, least).endswith(f"{len(found)} right")
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0


def test_a_photo_is_drawn_beside_what_is_in_it(make):
    boxes = [[10, 10, 50, 50], [100, 100, 180, 180], [200, 20, 260, 80]]
    record = make.record(boxes, [0, 0, 0], crowd=[False, False, True])
    found = make.found([boxes[0], [200, 120, 280, 190]], [0.9, 0.8], [0, 0])
    matches = match_detections(make.data([record], ["fig"]), [found])
    picture = photo_pair(record, found, matches.photos[0], matches, least_scores(["fig"], 0.5))
    assert picture.shape == (200, 2 * 300 + 8, 3)
    for y, x, colour in ((49, 30, GREEN), (179, 140, AMBER), (79, 230, GREY), (49, 338, GREEN), (189, 548, RED)):
        assert tuple(picture[y, x]) == colour
    large = make.record(np.array(boxes) * 10, [0, 0, 0], size=(2000, 3000))
    small = make.found(found["boxes"] * 10, found["scores"], found["labels"])
    matches = match_detections(make.data([large], ["fig"]), [small])
    picture = photo_pair(large, small, matches.photos[0], matches, least_scores(["fig"], 0.5))
    assert picture.shape == (427, 2 * 640 + 8, 3)


# === A preset ===


@needs_data
@pytest.mark.slow
def test_a_presets_curves_are_those_of_pycocotools():
    val = keras_rcnn.load_coco(SHARED / "data" / "nuclei" / "val.json", SHARED / "data" / "nuclei" / "val")
    dataset = Dataset(list(val)[:8], val.class_names, val.category_ids)
    detections = detect_all(keras_rcnn.from_preset("nuclei_mrcnn"), dataset, progress=False)
    assert sum(len(own["boxes"]) for own in detections) > 100
    for iou_type in ("bbox", "segm"):
        expected = _run(dataset, detections, iou_type, 100).eval["precision"][0, :, 0, 0, -1]
        curve = precision_recall(match_detections(dataset, detections, iou_type))["nucleus"]
        np.testing.assert_allclose(curve.precision, expected, atol=1e-6)
        assert 0.3 < curve.threshold < 0.9 and curve.best_f1 > 0.6
