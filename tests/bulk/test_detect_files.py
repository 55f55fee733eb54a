"""A collection of photos as a table: whole, once each, as `detect` has it, however often it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.bulk import detect_files, list_photos, merge_tables, parts, read_rows, rows_of, tables
from keras_rcnn.bulk.job import fingerprint
from keras_rcnn.data import DataError, load_coco, read_image
from keras_rcnn.evaluation import AugmentedDetector, evaluate
from keras_rcnn.evaluation.coco import encode_masks
from keras_rcnn.presets import from_preset
from tests.bulk.conftest import BROKEN, same
from tests.models.keypoint_figures import keypoint_detector
from tests.models.test_mask_rcnn import tiny_mask_rcnn
from tests.models.tiny import shapes

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["jsonl", "parquet"]


def needs(kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet is tested where the extra is: pip install -e '.[bulk]'")


def run(model, sources, out, **options):
    return detect_files(model, sources, out, **{"score": 0.0, "progress": False, **options})


def left(folder):
    """What is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


# === Listing ===


def test_photos_below_a_folder(photos):
    folder, paths = photos
    assert list(list_photos(folder)) == paths


def test_photos_of_a_list(photos, tmp_path):
    folder, paths = photos
    wanted = [paths[1], f"{folder}/missing.jpg", paths[0], paths[1]]
    (tmp_path / "list.txt").write_bytes("\ufeff{}\r\n\r\n{}\n{}\n{}".format(*wanted).encode())
    assert list(list_photos(tmp_path / "list.txt")) == wanted[:3]
    assert list(list_photos([paths[0], folder, tmp_path / "list.txt"])) == [paths[0], *paths[1:], wanted[1]]


def test_lists_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder, list or photo"):
        list(list_photos(tmp_path / "nowhere"))
    (tmp_path / "list.txt").write_text("a.png\n", encoding="utf-16")
    with pytest.raises(ValueError, match="UTF-16; save it as UTF-8"):
        list(list_photos(tmp_path / "list.txt"))
    (tmp_path / "line\nbreak.png").touch()
    with pytest.raises(ValueError, match="a line break in the name"):
        list(list_photos(tmp_path))


def test_a_name_that_is_no_utf_8(model, tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsencode(tmp_path / "in") + b"/caf\xe9.png"
    Image.fromarray(shapes(1)[0].image).save(tmp_path / "in/x.png")
    os.rename(tmp_path / "in/x.png", name)
    run(model, tmp_path / "in", tmp_path / "found.jsonl")
    (row,) = read_rows(tmp_path / "found.jsonl")
    assert row["image"] == f"{tmp_path}/in/caf\\xe9.png" and len(row["boxes"])


# === Rows ===


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_detect_answers(photos, model, tmp_path, kind, caplog):
    needs(kind)
    folder, paths = photos
    out = tmp_path / f"found.{kind}"
    assert run(model, folder, out) == {"path": out, "photos": 11, "errors": 3}
    rows = list(read_rows(out))
    assert [row["image"] for row in rows] == paths
    for path, row in zip(paths, rows, strict=True):
        if path.partition("/photos/")[2] in BROKEN:
            assert set(row) == {"image", "error"} and row["error"].startswith(path)
            assert row["error"] in caplog.text
        else:
            own = model.detect(path, score=0.0)
            assert len(own["boxes"]) and same(row, own)
            assert (row["height"], row["width"]) == read_image(path).shape[:2]
    assert left(tmp_path) == [out.name, f"{out.name}.job.json"]


class Stub:
    """Finds a mask and some keypoints in the middle of each photo."""

    has_masks, class_names = True, ["square"]

    def detect(self, images, masks, **_):
        assert masks == "rle"
        return [self.found(image) for image in images]

    def found(self, image):
        (height, width), third = image.shape[:2], np.float32(1) / 3
        mask = np.zeros((1, height, width), bool)
        mask[0, 9:20, 7:31] = True
        return {
            "boxes": np.array([[7 + third, 9, 31, 20]], np.float32),
            "scores": np.array([third]),
            "labels": np.zeros(1, np.int32),
            "names": ["square"],
            "masks": encode_masks(mask),
            "keypoints": np.array([[[8, 9, third], [30, 19, 1]]], np.float32),
        }


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_keypoints(photos, tmp_path, kind):
    needs(kind)
    run(Stub(), photos[0], tmp_path / f"found.{kind}", batch_size=3)
    rows = list(read_rows(tmp_path / f"found.{kind}"))
    assert len(rows) == 11
    for row in rows:
        assert "error" in row or same(row, Stub().found(read_image(row["image"])))


@pytest.mark.slow  # detectors to be traced
@pytest.mark.parametrize("make", [tiny_mask_rcnn, keypoint_detector])
def test_detectors_with_masks_and_keypoints(photos, tmp_path, make):
    detector, path = make(), photos[1][0]
    own = detector.detect(path, score=0.0, **({"masks": "rle"} if detector.has_masks else {}))
    assert len(own["masks" if detector.has_masks else "keypoints"])
    for kind in KINDS:
        needs(kind)
        run(detector, path, tmp_path / f"found.{kind}")
        (row,) = read_rows(tmp_path / f"found.{kind}")
        assert same(row, own)


def test_a_photo_in_which_nothing_is(photos, model, tmp_path):
    for kind in KINDS:
        needs(kind)
        run(model, [photos[1][0]], tmp_path / f"found.{kind}", score=1.0)
        (row,) = read_rows(tmp_path / f"found.{kind}")
        assert row["boxes"].shape == (0, 4) and row["scores"].shape == (0,) and row["names"] == []


@pytest.mark.slow  # shapes to be traced
def test_batches_have_the_same_objects(photos, model, tmp_path):
    folder, _ = photos
    run(model, folder, tmp_path / "one.jsonl")
    run(model, folder, tmp_path / "four.jsonl", batch_size=4, part_size=4, threads=2)
    for one, four in zip(read_rows(tmp_path / "one.jsonl"), read_rows(tmp_path / "four.jsonl"), strict=True):
        assert one["image"] == four["image"] and one.keys() == four.keys()
        if "error" not in one:  # photos are padded to the largest of a batch
            assert len(one["boxes"]) == pytest.approx(len(four["boxes"]), abs=6)


def test_an_augmented_detector(photos, model, tmp_path):
    careful = AugmentedDetector(model)
    run(careful, [photos[1][0]], tmp_path / "found.jsonl")
    (row,) = read_rows(tmp_path / "found.jsonl")
    np.testing.assert_array_equal(row["boxes"], careful.detect(photos[1][0], score=0.0)["boxes"])


def test_numbers_that_are_none_are_told(photos, model):
    class Broken:
        has_masks = False

        def detect(self, images, **_):
            return [{**model.detect(image), "boxes": np.full((1, 4), np.nan)} for image in images]

    with pytest.raises(ValueError, match=r"a\.png: detected boxes that are not finite"):
        list(rows_of(Broken(), photos[1][:1]))


# === Killed ===


class Killed(BaseException):
    """Stands for the end of the process."""


class Mortal:
    """A detector that dies at the photo number `at`."""

    dead = False

    def __init__(self, model, at):
        Mortal.dead = False
        self._model, self._left, self.has_masks = model, at, False

    def detect(self, images, **options):
        self._left -= len(images)
        if self._left < 0:
            Mortal.dead = True
            raise Killed
        return self._model.detect(images, **options)


@pytest.fixture
def no_last_words(monkeypatch):
    """A killed process writes no part at the end, as one that is interrupted does."""
    real = parts.Parts.write
    monkeypatch.setattr(parts.Parts, "write", lambda self, *part: None if Mortal.dead else real(self, *part))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_goes_on(photos, model, tmp_path, no_last_words, kind, batch):
    needs(kind)
    folder, paths = photos
    options = {"part_size": 2, "batch_size": batch, "threads": 1}
    whole, out = tmp_path / f"whole.{kind}", tmp_path / f"found.{kind}"
    run(Mortal(model, 99), folder, whole, **options)
    for at in (3, 2, 2):
        with pytest.raises(Killed):
            run(Mortal(model, at), folder, out, **options)
        assert not out.exists() and (tmp_path / f"found.{kind}.parts" / "job.json").exists()
        (tmp_path / f"found.{kind}.parts" / f".0000.1.2.{kind}").write_bytes(b"half a part")
    assert run(Mortal(model, 99), folder, out, **options) == {"path": out, "photos": 11, "errors": 3}
    if kind == "jsonl":
        assert out.read_bytes() == whole.read_bytes()
    rows = list(read_rows(out))
    assert [row["image"] for row in rows] == paths
    for row, other in zip(rows, read_rows(whole), strict=True):
        assert row.get("error") or same(row, {k: v for k, v in other.items() if k not in ("image", "height", "width")})
    # done: the same again does nothing
    assert run(Mortal(model, 0), folder, out, **options)["photos"] == 11
    assert not [name for name in left(tmp_path) if name.startswith(".") or name.endswith("parts")]


def test_killed_at_the_end(photos, model, tmp_path, monkeypatch):
    """When all parts are there, when the table is there and the parts still are, and while these are removed."""
    folder, paths = photos
    out = tmp_path / "found.jsonl"
    for name, place in (("join", "detect.join"), ("record", "detect.write_record"), ("remove", "parts.Parts.remove")):

        def die(*_):
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"keras_rcnn.bulk.{place}", die)
            run(Mortal(model, 99), folder, out, part_size=3)
        assert out.exists() == (name == "remove")
    (tmp_path / ".found.jsonl.parts.old").mkdir()  # a process that was killed as it removed them
    assert run(Mortal(model, 0), folder, out, part_size=3)["photos"] == 11
    assert [row["image"] for row in read_rows(out)] == paths
    assert left(tmp_path) == ["found.jsonl", "found.jsonl.job.json"]


def test_an_interrupt_keeps_what_is_done(photos, model, tmp_path):
    with pytest.raises(Killed):
        run(Mortal(model, 5), photos[0], tmp_path / "found.jsonl")
    names = left(tmp_path / "found.jsonl.parts")
    assert names == ["0000000000-0000000008-3.jsonl", "job.json", "photos.txt"]


def test_a_lost_part_is_made_again(photos, model, tmp_path):
    folder, paths = photos
    with pytest.raises(Killed):
        run(Mortal(model, 7), folder, tmp_path / "found.jsonl", part_size=2)
    found = sorted((tmp_path / "found.jsonl.parts").glob("*.jsonl"))
    found[1].unlink()
    run(Mortal(model, 99), folder, tmp_path / "found.jsonl", part_size=2)
    assert [row["image"] for row in read_rows(tmp_path / "found.jsonl")] == paths


def test_a_damaged_part_is_told(photos, model, tmp_path):
    with pytest.raises(Killed):
        run(Mortal(model, 6), photos[0], tmp_path / "found.jsonl", part_size=2)
    damaged = sorted((tmp_path / "found.jsonl.parts").glob("*.jsonl"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(tables.TableError, match=r"-2-0|1 rows of 2 photos: delete this file"):
        run(Mortal(model, 99), photos[0], tmp_path / "found.jsonl", part_size=2)
    damaged.unlink()
    assert run(Mortal(model, 99), photos[0], tmp_path / "found.jsonl", part_size=2)["photos"] == 11


def test_a_full_disk_is_told_and_gone_on_with(photos, model, tmp_path, monkeypatch):
    real, calls = parts.write_rows, []

    def full(rows, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        real(rows, path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(parts, "write_rows", full)
        run(model, photos[0], tmp_path / "found.jsonl", part_size=1)
    assert run(model, photos[0], tmp_path / "found.jsonl", part_size=1)["photos"] == 11
    assert [row["image"] for row in read_rows(tmp_path / "found.jsonl")] == photos[1]


# === Another command ===


def test_parts_of_another_command_are_refused(photos, model, preset, tmp_path):
    folder, paths = photos
    out = tmp_path / "found.jsonl"
    with pytest.raises(Killed):
        run(Mortal(model, 5), folder, out)
    begun = left(tmp_path / "found.jsonl.parts")
    other = Mortal(model, 99)
    other.limit = 3
    for detector, sources, options, words in (
        (Mortal(model, 99), folder, {"score": 0.5}, r"\(score 0.0 then, 0.5 now\)"),
        (Mortal(model, 99), folder, {"score": None}, r"\(score 0.0 then, the default now\)"),
        (Mortal(model, 99), folder, {"size": 64}, r"\(size the default then, 64 now\)"),
        (other, folder, {}, r"\(another model, or other weights\)"),
        (Mortal(model, 99), paths[:4], {}, r"\(other photos, photos 11 then, 4 now\)"),
    ):
        way = ", with .*parts/photos.txt for its photos" if sources is not folder else ""
        with pytest.raises(FileExistsError, match=rf"{words}.*again to go on with them{way}.*overwrite=True to begin"):
            run(detector, sources, out, **options)
        assert left(tmp_path / "found.jsonl.parts") == begun
    # the photos of then, whatever the folder has now
    assert run(Mortal(model, 5), tmp_path / "found.jsonl.parts/photos.txt", out)["photos"] == 11
    with pytest.raises(FileExistsError, match=r"another command made it \(score 0.0 then, 0.5 now\).*overwrite=True"):
        run(Mortal(model, 99), folder, out, score=0.5)


def test_overwriting_goes_on_as_well(photos, model, tmp_path):
    out = tmp_path / "found.jsonl"
    run(model, photos[1][:2], out)
    before = out.read_bytes()
    with pytest.raises(Killed):
        run(Mortal(model, 3), photos[0], out, overwrite=True, part_size=2)
    assert out.read_bytes() == before
    done = len(left(tmp_path / "found.jsonl.parts"))
    with pytest.raises(Killed):
        run(Mortal(model, 3), photos[0], out, overwrite=True, part_size=2)
    assert len(left(tmp_path / "found.jsonl.parts")) > done
    run(Mortal(model, 99), photos[0], out, overwrite=True, part_size=2)
    assert len(list(read_rows(out))) == 11
    assert run(model, photos[1][:2], out, overwrite=True)["photos"] == 2


def test_a_file_that_nobody_noted_is_not_replaced(photos, model, tmp_path):
    (tmp_path / "found.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match="what made it is not noted"):
        run(model, photos[0], tmp_path / "found.jsonl")
    assert left(tmp_path) == ["found.jsonl"]


def test_one_process_at_a_time(photos, model, tmp_path):
    with (
        parts.Parts(tmp_path / "found.jsonl", ".jsonl").occupied(),
        pytest.raises(OSError, match="another process is writing this table"),
    ):
        run(model, photos[0], tmp_path / "found.jsonl")


def test_a_fingerprint_is_the_models(model, preset):
    again = from_preset(preset)
    assert fingerprint(again) == fingerprint(from_preset(preset)) == fingerprint(model)
    assert fingerprint(AugmentedDetector(model)) != fingerprint(model)
    assert fingerprint(from_preset(preset, dtype="bfloat16")) != fingerprint(model)
    again.thresholds = {"square": 0.3}
    assert fingerprint(again) != fingerprint(model)
    again.thresholds = None
    again.weights[0].assign(again.weights[0] + 1e-3)
    assert fingerprint(again) != fingerprint(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "found.csv"}, r"found.csv: a table is a .parquet or .jsonl file"),
        ({"out": "found.json"}, r"COCO results name images and classes by ids.*coco=\.\.\."),
        ({"coco": "ids.json"}, "a coco file is for COCO results"),
        ({"shard": (3, 2)}, "from 1 to 2 of 2, not 3"),
        ({"shard": (0, 2)}, "shard is a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is a whole number"),
        ({"part_size": 0}, "part_size is a whole number"),
        ({"score": 2}, "score is a number from 0 to 1"),
        ({"photos": []}, "there are no photos"),
    ],
)  # fmt: skip
def test_what_is_refused_at_once(photos, model, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    out, sources = options.pop("out", "found.jsonl"), options.pop("photos", photos[0])
    with pytest.raises(ValueError, match=words):
        run(model, sources, out, **options)
    assert not left(tmp_path)


def test_parquet_without_pyarrow(photos, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-rcnn-zoo\[bulk\]'.*\.jsonl does not"):
        run(model, photos[0], tmp_path / "found.parquet")


# === Shards ===


@pytest.mark.parametrize("kind", KINDS)
def test_shards_make_the_table(photos, model, tmp_path, kind):
    needs(kind)
    folder, paths = photos
    made = [run(model, folder, tmp_path / f"found.{kind}", shard=(i, 3))["path"] for i in (3, 1, 2)]
    assert [path.name for path in made] == [f"found-{i}-of-3.{kind}" for i in (3, 1, 2)]
    assert [len(list(read_rows(path))) for path in sorted(made)] == [3, 4, 4]
    with pytest.raises(ValueError, match="shards 1 to 3 make the table; 2 missing"):
        merge_tables(made[:2], tmp_path / f"found.{kind}")
    with pytest.raises(ValueError, match="named twice"):
        merge_tables([*made, made[0]], tmp_path / f"found.{kind}")
    merge_tables(made, tmp_path / f"found.{kind}")
    assert [row["image"] for row in read_rows(tmp_path / f"found.{kind}")] == paths
    # as if one machine had done it: that has nothing left to do
    whole = run(model, folder, tmp_path / f"found.{kind}")
    assert whole == {"path": tmp_path / f"found.{kind}", "photos": 11, "errors": 3}
    with pytest.raises(FileExistsError, match="is there: name another, or pass overwrite=True"):
        merge_tables(made, tmp_path / f"found.{kind}")


def test_more_shards_than_photos(photos, model, tmp_path):
    made = [run(model, photos[1][:2], tmp_path / "found.jsonl", shard=(i, 3))["path"] for i in (1, 2, 3)]
    merge_tables(made, tmp_path / "found.jsonl")
    assert [row["image"] for row in read_rows(tmp_path / "found.jsonl")] == photos[1][:2]


def test_tables_that_do_not_go_together(photos, model, tmp_path):
    _, paths = photos
    run(model, paths[:4], tmp_path / "a.jsonl", shard=(1, 2))
    run(model, paths[:4], tmp_path / "a.jsonl", shard=(2, 2), score=0.5)
    with pytest.raises(ValueError, match=r"made by another command.*score 0.5 then, 0.0 now|score 0.0 then, 0.5 now"):
        merge_tables([tmp_path / "a-1-of-2.jsonl", tmp_path / "a-2-of-2.jsonl"], tmp_path / "both.jsonl")
    for name, part in (("x", paths[:2]), ("y", paths[1:4])):
        run(model, part, tmp_path / f"{name}.jsonl")
    with pytest.raises(ValueError, match=r"small\.jpg is in it twice, or in a table before it"):
        merge_tables([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], tmp_path / "both.jsonl")
    assert not (tmp_path / "both.jsonl").exists()
    run(model, paths[2:4], tmp_path / "z.jsonl")
    merge_tables([tmp_path / "x.jsonl", tmp_path / "z.jsonl"], tmp_path / "both.jsonl")
    assert [row["image"] for row in read_rows(tmp_path / "both.jsonl")] == paths[:4]


# === COCO results ===


def test_coco_results(photos, model, coco, tmp_path):
    folder, paths = photos
    out = tmp_path / "found.json"
    assert run(model, folder, out, coco=coco)["errors"] == 3
    results = json.loads(out.read_text())
    for number, path in enumerate(paths):
        mine = [one for one in results if one["image_id"] == 100 + number]
        if path.partition("/photos/")[2] in BROKEN:
            assert not mine
            continue
        own = model.detect(path, score=0.0)
        assert [one["category_id"] for one in mine] == [{"bar": 7, "square": 3}[name] for name in own["names"]]
        assert np.float32([one["score"] for one in mine]).tolist() == own["scores"].tolist()
        x1, y1, x2, y2 = own["boxes"].astype(float).T
        np.testing.assert_array_equal([one["bbox"] for one in mine], np.stack([x1, y1, x2 - x1, y2 - y1], 1))
    unread = [json.loads(line) for line in (tmp_path / "found.errors.jsonl").read_text().splitlines()]
    assert [one["image"].partition("/photos/")[2] for one in unread] == sorted(BROKEN)
    shards = [run(model, folder, out, coco=coco, shard=(i, 2))["path"] for i in (1, 2)]
    assert json.loads(merge_tables(shards, tmp_path / "merged.json").read_text()) == results


def test_photos_and_classes_without_ids(photos, model, coco, tmp_path):
    content = json.loads(coco.read_text())
    less = {**content, "images": content["images"][1:]}
    coco.write_text(json.dumps(less))
    with pytest.raises(DataError, match=r"a\.png: .*ids\.json has no image of this file_name"):
        run(model, photos[0], tmp_path / "found.json", coco=coco)
    coco.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(DataError, match=r"none of its categories \(cat\) is a class of the model \(square, bar\)"):
        run(model, photos[0], tmp_path / "found.json", coco=coco)
    coco.write_text("[]")
    with pytest.raises(DataError, match="no COCO file with images"):
        run(model, photos[0], tmp_path / "found.json", coco=coco)


@pytest.mark.parametrize("make", [None, pytest.param(tiny_mask_rcnn, marks=pytest.mark.slow)])
def test_coco_results_score_as_evaluate_does(model, make, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from tests.standing import write_data

    detector = make(class_names=["square", "bar"]) if make else model
    write_data(tmp_path)
    data = load_coco(tmp_path / "train.json", tmp_path / "train")
    expected = evaluate(detector, data, progress=False)
    run(detector, tmp_path / "train", tmp_path / "found.json", coco=tmp_path / "train.json")
    truth = COCO(str(tmp_path / "train.json"))
    for kind in ("bbox", "segm") if make else ("bbox",):
        results = json.loads((tmp_path / "found.json").read_text())
        if kind == "segm":  # or pycocotools takes the box's area for the mask's
            for one in results:
                del one["bbox"]
        scored = COCOeval(truth, truth.loadRes(results), kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
        assert scored.stats[0] == pytest.approx(expected[kind]["AP"], abs=1e-9)
        assert scored.stats[1] == pytest.approx(expected[kind]["AP50"], abs=1e-9)


# === In a process ===


@pytest.mark.slow  # six processes that import TensorFlow
def test_killed_for_good(preset, tmp_path):
    """SIGKILL at any time, also as the list or a part is written, or the parts are joined."""
    (tmp_path / "photos").mkdir()
    image = Image.fromarray(shapes(1)[0].image)
    for number in range(400):
        image.save(tmp_path / f"photos/{number:04}.png")
    code = (
        "import sys, keras_rcnn; from keras_rcnn.bulk import detect_files; from tests.models import tiny\n"
        "model = keras_rcnn.from_preset(sys.argv[1]); print('ready', flush=True)\n"
        "detect_files(model, 'photos', 'found.jsonl', score=0.0, part_size=8)"
    )
    command = [sys.executable, "-c", code, str(preset)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    rng, kills = random.Random(0), 0
    for _ in range(9):
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            process.stdout.readline()
            if kills < 5:
                time.sleep(0.2 + rng.random() * 3)
                process.send_signal(signal.SIGKILL)
            killed = process.wait() != 0
        kills += killed
        if not killed:
            break
    assert kills >= 3
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [f"photos/{number:04}.png" for number in range(400)]
    assert len({json.dumps([row["boxes"], row["scores"]]) for row in rows}) == 1
    assert not [name for name in left(tmp_path) if name.endswith(".parts") or name == ".found.jsonl.parts.old"]
