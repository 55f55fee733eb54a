"""Selective search, its cache and processes, files of proposals, their recall and their way into batches."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_rcnn import cli
from keras_rcnn.data import (
    DataError,
    Dataset,
    Preprocessor,
    ProposalSet,
    Record,
    as_tf_dataset,
    augment,
    compute_proposals,
    load_coco,
    load_proposals,
    load_voc,
    proposal_recall,
    proposals,
    save_proposals,
    selective_search,
)
from keras_rcnn.data import search as worker_file
from keras_rcnn.data.overlap import pairwise_iou
from tests.shared import SHARED, needs_data

PLAIN = Preprocessor(48, 96, mean=(0, 0, 0), std=(1, 1, 1), size_divisor=8)


def picture(seed=0, height=96, width=128):
    """Three rectangles on a noisy ground, and their boxes."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
    boxes = []
    for i, color in enumerate([(220, 30, 30), (30, 30, 220), (240, 240, 30)]):
        x, y = 4 + i * width // 3 + int(rng.integers(0, 6)), int(rng.integers(5, height // 3))
        w, h = int(rng.integers(22, width // 3 - 8)), int(rng.integers(24, height // 2))
        image[y : y + h, x : x + w] = color
        boxes.append([x, y, x + w, y + h])
    return image, np.array(boxes, np.float32)


@pytest.fixture
def data(tmp_path):
    """Four pictures in files."""
    records = []
    for i in range(4):
        image, boxes = picture(i)
        path = tmp_path / "images" / f"p{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        records.append(Record(str(path), i + 1, *image.shape[:2], boxes=boxes, labels=[0, 1, 0]))
    return Dataset(records, ["a", "b"], name="pictures")


@pytest.fixture
def searched(monkeypatch):
    """The image ids that were searched, not read from a cache."""
    seen, search = [], proposals._Searchers.search

    def counted(self, record, settings):
        seen.append(record.image_id)
        return search(self, record, settings)

    monkeypatch.setattr(proposals._Searchers, "search", counted)
    return seen


def equal(a, b):
    assert list(a) == list(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


# === Selective search ===


def test_boxes_are_found_in_px_of_the_image_without_doubles():
    image, truth = picture()
    boxes = selective_search(image)
    assert boxes.dtype == np.float32 and len(boxes) > 5
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [128, 96]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 20).all() and len(np.unique(boxes, axis=0)) == len(boxes)
    assert pairwise_iou(truth, boxes).max(axis=1).min() > 0.85
    np.testing.assert_array_equal(selective_search(image, max_boxes=3), boxes[:3])
    assert len(selective_search(image, min_size=40)) < len(boxes)


def test_two_runs_give_the_same_boxes_and_another_seed_another_order():
    image, _ = picture()
    first = selective_search(image)
    np.testing.assert_array_equal(selective_search(image), first)
    other = selective_search(image, seed=7)
    assert not np.array_equal(other, first)
    assert {tuple(box) for box in other.tolist()} == {tuple(box) for box in first.tolist()}


def test_quality_finds_more():
    image, _ = picture()
    assert len(selective_search(image, "quality")) > len(selective_search(image, "fast"))
    with pytest.raises(ValueError, match="'fast' or 'quality', got 'best'"):
        selective_search(image, "best")


def test_a_large_image_is_shrunk_and_its_boxes_are_not():
    image, _ = picture()
    large = np.repeat(np.repeat(image, 3, axis=0), 2, axis=1)  # 256 x 288 px
    np.testing.assert_allclose(
        selective_search(large, width=128, min_size=1),
        # within 128 x 256 px it is 128 x 144
        worker_file.search(_resized(large, 128, 144), min_size=1, width=None) * 2,
        atol=1e-4,
    )
    boxes = selective_search(large, width=128)
    assert boxes[:, 2].max() > 200 and boxes[:, 3].max() > 200 and (boxes <= [256, 288, 256, 288]).all()
    assert worker_file.working_size(400, 300, 500) == (400, 300)  # never enlarged
    assert worker_file.working_size(768, 1024, 500) == (375, 500)
    assert worker_file.working_size(4000, 400, 500) == (1000, 100)
    assert worker_file.working_size(4000, 400, None) == (4000, 400)


def _resized(image, width, height):
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def test_an_image_of_one_color_is_one_box():
    np.testing.assert_array_equal(selective_search(np.full((50, 60, 3), 80, np.uint8)), [[0, 0, 60, 50]])
    nothing = selective_search(np.full((10, 60, 3), 80, np.uint8))  # less than min_size
    assert nothing.shape == (0, 4) and nothing.dtype == np.float32
    assert selective_search(np.zeros((1, 1, 3), np.uint8), min_size=1).tolist() == [[0, 0, 1, 1]]


# === A data set ===


def test_processes_find_what_this_one_finds(data):
    found = compute_proposals(data, workers=2, progress=False)
    assert list(found) == [1, 2, 3, 4] and len(found) == 4
    for record in data:
        np.testing.assert_array_equal(found[record], selective_search(record.image))
        assert found[record] is found[record.image_id]
    arrays = Dataset([Record(r.read(), r.image_id, r.height, r.width) for r in data], ["a"])
    equal(compute_proposals(arrays, workers=1, progress=False), found)


def test_the_worker_imports_neither_keras_nor_the_package():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='worker'); "
        "print([m for m in ('keras', 'tensorflow', 'keras_rcnn') if m in sys.modules])"
    )
    run = [sys.executable, "-P", "-c", code, worker_file.__file__]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_cache_is_used_until_something_changes(data, tmp_path, searched):
    def run(dataset=data, **settings):
        searched.clear()
        return compute_proposals(dataset, cache=tmp_path / "cache", workers=2, progress=False, **settings)

    first = run()
    assert sorted(searched) == [1, 2, 3, 4]
    equal(run(), first)
    assert searched == []
    assert len(run(max_boxes=2)[1]) == 2 and len(searched) == 4
    for changed in ({"mode": "quality"}, {"min_size": 30}, {"width": 100}, {"seed": 3}):
        run(data[:1], **changed)
        assert searched == [1], changed
    image, _ = picture(17)
    Image.fromarray(image).save(data[2].image)  # another image of the same name
    again = run()
    assert searched == [3]
    np.testing.assert_array_equal(again[3], selective_search(image))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".npz"]


def test_a_run_that_was_killed_goes_on_where_it_was(data, tmp_path, searched):
    first = compute_proposals(data, cache=tmp_path, workers=1, progress=False)
    kept, damaged, *lost = sorted(tmp_path.glob("*.npz"))
    [path.unlink() for path in lost]
    damaged.write_bytes(damaged.read_bytes()[:100])
    searched.clear()
    before = kept.stat().st_mtime_ns
    equal(compute_proposals(data, cache=tmp_path, workers=1, progress=False), first)
    assert len(searched) == 3 and kept.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.npz"))) == 4


def test_the_same_image_twice_shares_its_file(data, tmp_path):
    records = [Record(data[0].image, i, data[0].height, data[0].width) for i in range(6)]
    found = compute_proposals(Dataset(records, ["a"]), cache=tmp_path, workers=3, progress=False)
    assert len(list(tmp_path.glob("*.npz"))) == 1 and len({len(boxes) for boxes in found.values()}) == 1


def test_images_where_nothing_is_found_are_counted_once(caplog):
    records = [Record(np.full((10, 10 + i, 3), 80, np.uint8), i, 10, 10 + i) for i in range(3)]
    image, _ = picture()
    dataset = Dataset([*records, Record(image, 9, *image.shape[:2])], ["a"])
    with caplog.at_level(logging.WARNING, "keras_rcnn"):
        found = compute_proposals(dataset, workers=1, progress=False)
    assert [len(found[i]) for i in range(3)] == [0, 0, 0] and len(found[9])
    assert found[0].shape == (0, 4)
    assert len(caplog.records) == 1 and "no proposals in 3 of 4 images: image 0; image 1" in caplog.text


def test_what_goes_wrong_names_the_image(data, tmp_path, monkeypatch):
    for name, value in (("mode", "slow"), ("workers", 0), ("max_boxes", 0), ("min_size", -1), ("width", 3)):
        with pytest.raises(ValueError, match=name):
            compute_proposals(data, **{name: value})
    with proposals._Searchers(1) as searchers:
        with pytest.raises(RuntimeError, match=r"p0\.png: selective search failed: ValueError: mode must be"):
            searchers.search(data[0], {"mode": "slow"})
        assert len(searchers.search(data[0], {}))  # the process lives on
    monkeypatch.setattr(worker_file, "__file__", str(tmp_path / "gone.py"))
    with pytest.raises(RuntimeError, match=r"\.png: the process that searches it ended with code 2"):
        compute_proposals(data, workers=2, progress=False)


# === Files ===


@pytest.mark.parametrize("ending", ["npz", "json"])
def test_what_is_saved_is_loaded(data, tmp_path, ending):
    found = compute_proposals(data, workers=1, progress=False)
    found = ProposalSet({**found, 2: np.zeros((0, 4))})
    path = tmp_path / "new folder" / f"proposals.{ending}"
    save_proposals(path, found)
    again = load_proposals(path, data)
    equal(again, found)
    assert again[2].shape == (0, 4) and again[1].dtype == np.float32
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_names_may_be_ids_files_or_paths(data, tmp_path):
    boxes = {i: np.array([[i, 1, 30, 40]], np.float32) for i in (1, 2, 3, 4)}
    for name in (lambda i: str(i), lambda i: f"p{i - 1}.png", lambda i: f"images/p{i - 1}.png"):
        np.savez(tmp_path / "p.npz", **{name(i): values for i, values in boxes.items()})
        equal(load_proposals(tmp_path / "p.npz", data), boxes)
    odd = Dataset([Record(np.zeros((9, 9, 3), np.uint8), "file", 9, 9)], ["a"])
    save_proposals(tmp_path / "odd.npz", ProposalSet({"file": [[1, 2, 3, 4]]}))
    assert load_proposals(tmp_path / "odd.npz", odd)["file"].tolist() == [[1, 2, 3, 4]]


def test_scores_order_the_boxes(data, tmp_path):
    rows = [[1, 1, 10, 10, 0.2], [2, 2, 20, 20, 0.9], [3, 3, 30, 30, 0.5]]
    np.savez(tmp_path / "p.npz", **{str(i): np.array(rows) for i in (1, 2, 3, 4)})
    results = [
        {"image_id": i, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for i in (1, 2, 3, 4)
        for x1, y1, x2, y2, score in rows
    ]
    (tmp_path / "p.json").write_text(json.dumps(results))
    for name in ("p.npz", "p.json"):
        found = load_proposals(tmp_path / name, data)
        assert found[3].tolist() == [[2, 2, 20, 20], [3, 3, 30, 30], [1, 1, 10, 10]]


GOOD = {str(i): [[10, 20, 60, 80], [50.5, 4, 128, 96]] for i in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({key: GOOD[key] for key in "12"}, r"no proposals for 2 of the 4 images.*needs an empty .*\n.*p2\.png"),
        ({}, "no proposals for 4 of the 4 images"),
        ({**GOOD, "77": []}, "1 of 5 names are no image id and no file name of pictures.*\n  77"),
        ({**GOOD, "3": [[10, 20, 60, 80], [100, 10, 150, 50]]}, r"1 of 8 boxes do not fit .*xywh.*\n  3: .*128 x 96"),
        ({**GOOD, "3": [[10, 20, 10, 80]]}, "no width"),
        ({**GOOD, "3": [[10, 20, float("nan"), 80]]}, r"p\.json, 3: box number 0, .* is not finite"),
        ({**GOOD, "3": [[10, 20, 60]]}, r"p\.json, 3: shape \(1, 3\), expected \[n, 4\]"),
        ({**GOOD, "3": [10, 20, 60, 80]}, r"shape \(4,\)"),
        ({**GOOD, "3": [[10, 20, 60], [1, 2]]}, "not an array"),
        ({**GOOD, "3": [["a", "b", "c", "d"]]}, "no numbers"),
        ({key: [[70, 50, 20, 30], [60, 10, 60, 70]] for key in "1234"}, "8 boxes make no sense as xyxy.*look like"),
        ([{"image_id": 1, "box": [1, 2, 3, 4]}], "result number 0 is no object with"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "is not .x, y, width, height"),
        ([{"image_id": int(i), "bbox": [70, 50, 110, 90]} for i in "1234"], "4 of 4 boxes make no sense as xywh"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}, {"image_id": 2, "bbox": [1, 2, 3, 4]}], "has no 'score'"),
        ("text", "expected COCO's list of results"),
    ],
)
def test_files_that_do_not_fit_are_refused(data, tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        load_proposals(path, data)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read_are_refused(data, tmp_path):
    for name, content in (("p.npz", b"PK no"), ("p.json", b"{"), ("p.txt", b""), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_proposals(tmp_path / name, data)
    for name in ("gone.npz", "gone.json"):
        with pytest.raises(DataError, match="cannot be read"):
            load_proposals(tmp_path / name, data)
    np.savez(tmp_path / "objects.npz", **{"1": np.array([None, "x"], object)})
    with pytest.raises(DataError, match="plain arrays"):
        load_proposals(tmp_path / "objects.npz", data)
    with pytest.raises(DataError, match="npz or .json"):
        save_proposals(tmp_path / "p.csv", ProposalSet({}))
    with pytest.raises(DataError, match="1 and '1'"):
        save_proposals(tmp_path / "p.npz", ProposalSet({1: [], "1": []}))


def test_names_that_could_be_two_images_are_refused(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    records = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "x.png")
        records.append(Record(str(tmp_path / folder / "x.png"), f"{folder}-x", 20, 20))
    dataset = Dataset(records, ["c"])
    for names, message in ((["x.png"], "more than one image"), (["a/x.png", f"{records[0].image}"], "the same image")):
        (tmp_path / "p.json").write_text(json.dumps({name: [] for name in names}))
        with pytest.raises(DataError, match=message):
            load_proposals(tmp_path / "p.json", dataset)
    (tmp_path / "p.json").write_text(json.dumps({"b/x.png": [], "a/x.png": [[1, 1, 21.5, 9]]}))
    assert load_proposals(tmp_path / "p.json", dataset)["a-x"].tolist() == [[1, 1, 20, 9]]  # clipped


def test_a_set_of_anything_else_is_refused(data):
    for boxes, message in (([[1, 2, 3]], "shape"), ([[1, 2, np.inf, 4]], "finite"), (np.zeros((2, 2, 4)), "shape")):
        with pytest.raises(DataError, match=f"image 'x'.*{message}"):
            ProposalSet({"x": boxes})
    assert "2 images, 1 boxes" in repr(ProposalSet({1: [[1, 2, 3, 4]], 2: []}))


# === Recall ===


def test_recall_by_hand():
    blank = np.zeros((100, 100, 3), np.uint8)
    one = Record(
        blank, 1, 100, 100, boxes=[[0, 0, 10, 10], [50, 50, 70, 70], [0, 50, 40, 90], [60, 0, 90, 30]],
        labels=[0, 0, 0, 0], crowd=[False, False, True, False], difficult=[False, False, False, True],
    )  # fmt: skip
    two = Record(blank, 2, 100, 100, boxes=[[20, 20, 40, 40]], labels=[0])
    none = Record(blank, 3, 100, 100)
    dataset = Dataset([one, two, none], ["a"])
    found = ProposalSet(
        {
            1: [[0, 0, 10, 20], [50, 50, 70, 66], [0, 0, 10, 10]],  # IoU 0.5 with the 1st, 0.8 with the 2nd, 1
            2: [[30, 20, 50, 40]],  # 200 of 600 px^2
            3: [],
        }
    )
    recall = proposal_recall(dataset, found, thresholds=(0.3, 0.5, 0.7), limits=(1, 2, 3))
    assert recall["images"] == 3 and recall["objects"] == 3
    assert recall["boxes"] == pytest.approx({1: 2 / 3, 2: 1.0, 3: 4 / 3})
    assert recall["recall"][0.3] == pytest.approx({1: 2 / 3, 2: 1.0, 3: 1.0})
    assert recall["recall"][0.5] == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 2 / 3})
    assert recall["recall"][0.7] == pytest.approx({1: 0.0, 2: 1 / 3, 3: 2 / 3})
    assert np.isnan(proposal_recall(dataset[2:], found)["recall"][0.5][100])
    with pytest.raises(DataError, match="1 of 3 images have no proposals"):
        proposal_recall(dataset, ProposalSet({1: [], 2: []}))


@needs_data
def test_recall_on_photos():
    cells = load_voc(SHARED / "data/bccd", "test", on_bad="skip")[:1]
    fish = load_coco(SHARED / "data/aquarium/valid.json", SHARED / "data/aquarium/valid", on_bad="skip")[:1]
    for dataset in (cells, fish):
        recall = proposal_recall(dataset, compute_proposals(dataset, workers=1, progress=False))
        assert recall["recall"][0.5][2000] > 0.5 and recall["boxes"][2000] > 200


# === Batches ===


def batches(data, found, **settings):
    return data.batches(PLAIN, batch_size=2, proposals=found, **settings)


def test_proposals_are_padded_into_x(data):
    found = compute_proposals(data, workers=1, progress=False)
    most = max(map(len, found.values()))
    x, y = batches(data, found)[0]
    assert x["proposals"].dtype == np.float32 and x["proposals"].shape == (2, most, 4) and "proposals" not in y
    for row, record in zip(x["proposals"], data):
        count = len(found[record])
        np.testing.assert_allclose(row[:count], found[record] / 2, rtol=1e-6)  # 96 x 128 px at a shorter side of 48
        assert not row[count:].any()
    x, _ = batches(data, found, max_proposals=3)[1]
    np.testing.assert_allclose(x["proposals"][1], found[4][:3] / 2, rtol=1e-6)
    nothing = ProposalSet({record.image_id: [] for record in data})
    x, _ = batches(data, nothing, augment=augment.ScaleJitter(0.5, 2))[0]
    assert x["proposals"].shape == (2, 1, 4) and not x["proposals"].any()
    assert "proposals" not in data.batches(PLAIN)[0][0]


def test_proposals_that_do_not_fit_are_refused(data):
    with pytest.raises(DataError, match=r"1 of 4 images have no proposals\n.*p3\.png"):
        batches(data, ProposalSet({1: [], 2: [], 3: []}))
    with pytest.raises(DataError, match=r"1 proposals do not fit.*x1, y1, x2, y2.*\n.*p1\.png.*outside"):
        batches(data, ProposalSet({1: [], 2: [[100, 20, 140, 60]], 3: [], 4: []}))
    with pytest.raises(ValueError, match="max_proposals"):
        batches(data, ProposalSet({1: [], 2: [], 3: [], 4: []}), max_proposals=0)


RECIPES = [
    augment.HorizontalFlip(1),
    augment.VerticalFlip(1),
    augment.Rotate90(1),
    augment.ScaleJitter(2, 3),
    augment.ScaleJitter(0.4, 0.8),
    augment.Compose([augment.ColorJitter(), augment.HorizontalFlip(), augment.Rotate90(), augment.ScaleJitter(0.5, 2)]),
]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_proposals_move_as_the_objects_do(data, recipe, masks):
    for record in data:
        record.segmentations = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in record.boxes.tolist()]
    far = np.array([[0, 0, 2, 2]], np.float32)  # in a corner: most crops leave it out
    found = ProposalSet({record.image_id: np.concatenate([record.boxes[::-1], far]) for record in data})
    settings = {"augment": recipe, "seed": 3, "masks": masks, "mask_size": 8}
    with_them, without = batches(data, found, **settings), data.batches(PLAIN, batch_size=2, **settings)
    for epoch in range(4):
        with_them.epoch = without.epoch = epoch
        for i in range(2):
            (x, y), (plain, expected) = with_them[i], without[i]
            np.testing.assert_array_equal(x["images"], plain["images"])  # nothing else changes
            for key in expected:
                np.testing.assert_array_equal(y[key], expected[key])
            for j in range(2):
                count = int((y["labels"][j] >= 0).sum())
                assert count
                np.testing.assert_array_equal(x["proposals"][j, :count], y["boxes"][j, :count][::-1])
                rest = x["proposals"][j, count:]
                assert not rest[1:].any() and (rest[0, 2:] - rest[0, :2] < 8).all()


def test_tf_dataset_has_them_too(data):
    found = compute_proposals(data, workers=1, progress=False, max_boxes=5)
    made = batches(data, found, augment=True)
    expected = [made[i][0]["proposals"] for i in range(2)]
    dataset = as_tf_dataset(made)
    assert tuple(dataset.element_spec[0]["proposals"].shape) == (None, 5, 4)
    for (x, _), boxes in zip(dataset.as_numpy_iterator(), expected, strict=True):
        np.testing.assert_array_equal(x["proposals"], boxes)


# === The command ===


def test_command(data, tmp_path, capsys):
    images = [{"id": r.image_id, "file_name": f"p{i}.png", "height": 96, "width": 128} for i, r in enumerate(data)]
    boxes = [(r.image_id, box) for r in data for box in r.boxes.tolist()]
    annotations = [
        {"id": i, "image_id": owner, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, (owner, (x1, y1, x2, y2)) in enumerate(boxes)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "ann.json").write_text(json.dumps(content))
    source = ["--coco", str(tmp_path / "ann.json"), "--images", str(tmp_path / "images")]
    out = str(tmp_path / "found.npz")
    assert cli.main(["proposals", *source, "--cache", str(tmp_path / "cache"), "--out", out]) == 0
    printed = capsys.readouterr().out
    assert "4 images, 12 objects" in printed and "recall at IoU 0.7" in printed and out in printed
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["2000"])
    assert float(row[1]) > 5 and float(row[2]) == 1.0
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 4
    assert cli.main(["proposals", *source, "--file", out]) == 0
    assert capsys.readouterr().out == printed.rsplit("\n\n", 1)[0] + "\n"
    assert cli.main(["proposals", *source, "--out", "found.txt"]) == 2
    assert cli.main(["proposals"]) == 2
    assert "proposals for what?" in capsys.readouterr().err
