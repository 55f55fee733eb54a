"""The checks before a training: targets, masks, and images that are all named at once."""

import os

import numpy as np
import pytest
from PIL import Image

from keras_rcnn.data import (
    DataError,
    Dataset,
    Preprocessor,
    Record,
    check_images,
    check_masks,
    check_targets,
    load_coco,
    ready,
)
from keras_rcnn.data.images import ImageError, decoded_size, image_size, read_image
from tests.data.user_files import CASES, needs_cases
from tests.models.tiny import tiny_detector

NOISE = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
SMALL = Preprocessor(min_size=32, max_size=64)


def dataset_of(folder, names):
    return Dataset([Record(str(folder / name), name, 60, 80, [[1, 1, 20, 20]], [0]) for name in names], ["a"])


@pytest.fixture
def broken(tmp_path):
    """Two good images and one of each fault."""
    Image.fromarray(NOISE).save(tmp_path / "good.jpg")
    Image.fromarray(NOISE).save(tmp_path / "good.png")
    whole = {suffix: (tmp_path / f"good.{suffix}").read_bytes() for suffix in ("jpg", "png")}
    (tmp_path / "cut.jpg").write_bytes(whole["jpg"][:-200])
    (tmp_path / "cut.png").write_bytes(whole["png"][:-2000])
    Image.fromarray(NOISE[:30]).save(tmp_path / "small.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return tmp_path


FAULTS = {
    "cut.jpg": "truncated",
    "cut.png": "truncated",
    "small.jpg": "80 x 30 px, its annotation says 80 x 60",
    "text.jpg": "not an image",
    "empty.jpg": "0 bytes",
    "folder.jpg": "is a folder",
    "pipe.jpg": "a named pipe",
    "link.jpg": "a broken link, there is no .*nowhere.jpg",
    "missing.jpg": "no such image file",
    "n" * 300 + ".jpg": "no such image file",
    "zero\0.jpg": "no such image file",
}


def test_all_bad_images_are_named_at_once_or_skipped(broken, caplog):
    dataset = dataset_of(broken, ["good.jpg", *FAULTS, "good.png"])
    with pytest.raises(DataError, match=f"{len(FAULTS)} bad image") as caught:
        check_images(dataset)
    for name, reason in FAULTS.items():
        line = next(line for line in str(caught.value).splitlines() if name in line)
        assert line.count(name) == 1
        with pytest.raises((ImageError, DataError), match=reason):
            dataset_of(broken, [name])[0].read()
    rest = check_images(dataset, "skip")
    assert [record.image_id for record in rest] == ["good.jpg", "good.png"] and len(rest.bad) == len(FAULTS)
    assert len(caplog.records) == 1 and f"skipped {len(FAULTS)} bad images" in caplog.text
    with pytest.raises(DataError, match="no images in the dataset: 1 images and objects were skipped"):
        check_images(dataset_of(broken, ["cut.jpg"]), "skip")


def test_what_was_read_is_not_read_again_until_it_changes(broken, monkeypatch):
    dataset, count = dataset_of(broken, ["good.jpg", "good.png"]), []

    def decoded(path):
        count.append(path)
        return decoded_size(path)

    monkeypatch.setattr(ready, "decoded_size", decoded)
    monkeypatch.setattr(ready, "_READ", set())
    assert check_images(dataset) is dataset and len(count) == 2
    assert check_images(dataset) is dataset and len(count) == 2
    (broken / "good.jpg").write_bytes((broken / "cut.jpg").read_bytes())
    with pytest.raises(DataError, match="good.jpg"):
        check_images(dataset)
    assert len(count) == 3


def test_what_was_read_is_remembered_in_a_file(broken, monkeypatch):
    monkeypatch.setenv("KERAS_RCNN_HOME", str(broken / "home"))
    monkeypatch.setattr(ready, "MANY", 2)
    for _ in range(2):
        monkeypatch.setattr(ready, "_READ", set())
        check_images(dataset_of(broken, ["good.jpg", "good.png"]))
        monkeypatch.setattr(ready, "decoded_size", None)
    (file,) = (broken / "home" / "checked").iterdir()
    file.write_text("{broken")
    monkeypatch.setattr(ready, "decoded_size", decoded_size)
    monkeypatch.setattr(ready, "_READ", set())
    check_images(dataset_of(broken, ["good.jpg", "good.png"]))


def test_the_quick_look_finds_what_the_reader_finds(tmp_path):
    """A JPEG is decoded at an eighth; wherever it is cut off or damaged, reading it whole fails in the same files."""
    for progressive in (False, True):
        Image.fromarray(NOISE).save(tmp_path / "a.jpg", progressive=progressive)
        whole = (tmp_path / "a.jpg").read_bytes()
        for length in range(1, len(whole), 97):
            (tmp_path / "a.jpg").write_bytes(whole[:length])
            try:
                read_image(tmp_path / "a.jpg")
                assert decoded_size(tmp_path / "a.jpg") == image_size(tmp_path / "a.jpg")
            except ImageError:
                with pytest.raises(ImageError, match="a.jpg"):
                    decoded_size(tmp_path / "a.jpg")


def test_mask_files_are_found_bad_before_they_are_trained(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    for name, mask in {"good": NOISE[..., 0], "small": NOISE[:9, :9, 0], "empty": NOISE[..., 0] * 0}.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")
    names = ["good", "small", "text", "missing", "empty"]
    masks = [str(tmp_path / f"{name}.png") for name in names]
    record = Record(str(tmp_path / "a.png"), "a", 60, 80, [[1, 1, 20, 20]] * 5, [0] * 5, segmentations=masks)
    dataset = Dataset([record], ["a"])
    with pytest.raises(DataError, match="4 bad mask") as caught:
        dataset.batches(SMALL, masks=True)
    assert all(f"object {i}" in str(caught.value) for i in range(1, 5))
    assert len(check_masks(dataset, "skip")[0].boxes) == 1


def test_fit_looks_before_it_trains(broken):
    model = tiny_detector(1, class_names=["a"])
    model.compile("sgd")
    good = dataset_of(broken, ["good.jpg", "good.png"])
    with pytest.raises(ValueError, match=r"fit takes batches, not <Dataset.*give dataset.batches\("):
        model.fit(good)
    for dataset, message in (
        (dataset_of(broken, ["good.jpg", "cut.jpg", "text.jpg"]), "2 bad image"),
        (Dataset([record.chosen([]) for record in good], ["a"]), "nothing to learn: 2 of 2 images have no objects"),
    ):
        with pytest.raises(DataError, match=message):
            model.fit(dataset.batches(model.preprocessor))
    with pytest.raises(DataError, match="1 bad image"):
        model.fit(
            good.batches(model.preprocessor),
            validation_data=dataset_of(broken, ["cut.jpg"]).batches(model.preprocessor),
        )


@needs_cases
@pytest.mark.parametrize(
    ("name", "reason"), [("09-truncated-jpeg", "truncated"), ("10-size-mismatch", "annotation says")]
)
def test_cases_of_bad_images(name, reason):
    dataset = load_coco(CASES / name / "train.json", CASES / name / "images")
    with pytest.raises(DataError, match=f"1 bad image.*\n.*005.jpg: .*{reason}"):
        check_images(dataset)
    assert len(check_images(dataset, "skip")) == 7


def test_a_dataset_that_teaches_little_is_told_of_once(caplog):
    empty = [Record(np.zeros((9, 9, 3), np.uint8), str(i), 9, 9) for i in range(3)]
    few = Dataset([Record(NOISE, "a", 60, 80, [[1, 1, 20, 20]], [0]), *empty], ["a", "b"])
    for _ in range(2):
        check_targets(few)
    assert caplog.text.count("3 of 4 images have no objects") == 1
