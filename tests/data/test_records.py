import numpy as np
import pytest

from keras_rcnn.data import DataError, Dataset, Record


def record(image_id=0, boxes=((1, 1, 9, 9),), labels=(0,), **kwargs):
    return Record(np.zeros((20, 30, 3), np.uint8), image_id, 20, 30, boxes=boxes, labels=labels, **kwargs)


def test_record_fills_in_the_rest():
    r = record(boxes=[[1, 2, 11, 7]])
    assert r.areas.tolist() == [50] and r.crowd.tolist() == r.difficult.tolist() == [False]
    empty = Record("a.png", 1, 20, 30)
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,) and empty.areas.shape == (0,)
    with pytest.raises(DataError, match="1 boxes but 2 labels"):
        record(labels=[0, 0])


def test_dataset_is_a_sequence():
    dataset = Dataset([record(i) for i in range(5)], ["cat", "dog"], name="pets")
    assert len(dataset) == 5 and dataset[3].image_id == 3 and dataset.category_ids == [1, 2]
    part = dataset[1:3]
    assert (
        isinstance(part, Dataset) and [r.image_id for r in part] == [1, 2] and part.class_names == dataset.class_names
    )
    assert len(dataset.filter(lambda r: r.image_id % 2 == 0)) == 3
    assert "pets: 5 images, 5 objects" in dataset.summary() and "cat" in dataset.summary()


def test_split():
    dataset = Dataset([record(i) for i in range(10)], ["cat"], category_ids=[7], name="pets", bad=["9.jpg: gone"])
    train, val = dataset.split(0.2, seed=1)
    assert train.bad == ["9.jpg: gone"] and val.bad == []
    assert len(train) == 8 and len(val) == 2 and val.category_ids == [7]
    assert {r.image_id for r in train} | {r.image_id for r in val} == set(range(10))
    assert [r.image_id for r in dataset.split(0.2, seed=1)[1]] == [r.image_id for r in val]
    for share in (0.01, 1.0):
        with pytest.raises(DataError, match="to train on"):
            dataset.split(share)


@pytest.mark.parametrize(
    ("records", "names", "message"),
    [
        ([], ["a"], "no images"),
        ([record()], [], "no classes"),
        ([record()], ["a", "a"], "'a' is given to 2 classes"),
        ([record(), record()], ["a"], "image id 0: given to 2"),
        ([record(labels=[1])], ["a"], "image 0: label 1"),
        ([record(labels=[-1])], ["a"], "label -1"),
        ([record(boxes=[[5, 5, 5, 9]])], ["a"], "no width"),
        ([record(boxes=[[5, 5, 50, 9]])], ["a"], "outside its image of 30 x 20 px"),
        ([record(boxes=[[5, 5, np.inf, 9]])], ["a"], "not finite"),
    ],
)
def test_bad_datasets(records, names, message):
    with pytest.raises(DataError, match=message):
        Dataset(records, names, name="x")


def test_every_problem_is_named_at_once():
    with pytest.raises(DataError) as caught:
        Dataset([record(i, boxes=[[5, 5, 1, 9]]) for i in range(30)], ["a"])
    assert "30 bad" in str(caught.value) and "image 19" in str(caught.value) and "10 more" in str(caught.value)


def test_objects_of_masks_alone():
    mask = np.zeros((20, 30), bool)
    mask[5:9, 10:20] = True
    polygon, box = [[10, 5, 20, 5, 20, 9, 10, 9]], [10, 5, 20, 9]
    flat = np.concatenate([[0], mask.ravel(order="F"), [0]])
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    rle = {"size": [20, 30], "counts": np.diff(np.concatenate([[0], edges, [600]])).tolist()}
    for masks in ([mask], mask[..., None], mask[None], [mask.astype(np.uint8) * 255], [polygon], [rle]):
        for boxes in ({}, {"boxes": None}, {"boxes": []}):
            one = Record(np.zeros((20, 30, 3), np.uint8), 0, 20, 30, labels=[0], segmentations=masks, **boxes)
            assert one.boxes.tolist() == [box] and len(one.segmentations) == 1
            assert len(Dataset([one], ["a"])) == 1
    for masks, message in (
        ([np.zeros((20, 30))], "its mask is empty"),
        ([None], "there is none"),
        ([np.zeros((3, 3))], r"shape \(3, 3\)"),
        ([[[1, 2, 3]]], "odd number"),
        ([{"size": [20, 30], "counts": "\x00"}], "cannot be decoded"),
        (["missing.png"], "no such mask file"),
        ([mask, mask], "2 boxes but 1 labels"),
    ):
        with pytest.raises(DataError, match=message):
            Record(np.zeros((20, 30, 3), np.uint8), 0, 20, 30, boxes=None, labels=[0], segmentations=masks)


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": [[1, 2, 3]]},
        {"boxes": "abc"},
        {"boxes": [[1, 2, 3, "x"]]},
        {"labels": [{}]},
        {"areas": ["x"]},
        {"labels": 7},
    ],
    ids=str,
)
def test_records_of_the_wrong_kind(changes):
    with pytest.raises(DataError, match="image 0"):
        record(**changes)


def test_classes_that_mean_nothing_may_share_a_name():
    names = ["a", "N/A", "b", "N/A"]
    assert Dataset([record()], names).class_names == names
    unused = record()
    unused.labels[:] = 3
    with pytest.raises(DataError, match="'N/A' is given to 2 classes"):
        Dataset([unused], names)
