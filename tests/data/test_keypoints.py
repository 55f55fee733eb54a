"""Keypoints from COCO's json through every transform into batches, and back into json."""

import json

import cv2
import numpy as np
import pytest

from keras_rcnn.data import DataError, Preprocessor, augment, load_coco, save_coco
from keras_rcnn.data.keypoints import points_of
from keras_rcnn.skeletons import COCO_SKELETON, Skeleton
from tests.models.keypoint_figures import COLOURS, SKELETON, figures


def coco(tmp_path, annotations, **category):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    category = {"id": 1, "name": "figure", "keypoints": list(SKELETON.names), "skeleton": [[1, 2], [1, 3]], **category}
    rows = [
        {"id": i, "image_id": 7, "category_id": 1, "bbox": [5, 5, 30, 30], **a} for i, a in enumerate(annotations, 1)
    ]
    content = {"images": [{"id": 7, "file_name": "a.png"}], "annotations": rows, "categories": [category]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


def test_coco_json(tmp_path):
    points = [10, 8, 2, 20, 12, 1, 99, 99, 0, 12, 30, 2, 8, 30, 2]
    file = coco(tmp_path, [{"keypoints": points, "num_keypoints": 4}, {}])
    data = load_coco(file, tmp_path)
    assert data.skeleton.names == SKELETON.names
    assert data.skeleton.bones == ((0, 1), (0, 2))
    assert data[0].keypoints.shape == (2, 5, 3)
    assert data[0].keypoints[0].tolist() == [[10, 8, 2], [20, 12, 1], [0, 0, 0], [12, 30, 2], [8, 30, 2]]
    assert not data[0].keypoints[1].any()
    assert "5 keypoints of 1 objects" in data.summary()
    save_coco(data, tmp_path / "b.json")
    again = load_coco(tmp_path / "b.json", tmp_path)
    assert again.skeleton == data.skeleton
    np.testing.assert_array_equal(again[0].keypoints, data[0].keypoints)
    x, y = data.batches(Preprocessor(80, 200), batch_size=1, keypoints=True)[0]
    assert x["image_sizes"].tolist() == [[80, 120]]
    np.testing.assert_allclose(y["keypoints"][0, 0], data[0].keypoints[0] * [2, 2, 1])
    assert data.split  # a split keeps them
    assert data.filter(lambda record: True).skeleton == data.skeleton


@pytest.mark.parametrize(
    ("value", "problem"),
    [([1, 2, 2], "not 15 numbers"), ([1, 2, 5] * 5, "visibility other than"), ("a", "not 15 numbers")],
)
def test_bad_keypoints_are_told(tmp_path, value, problem):
    with pytest.raises(DataError, match=problem):
        load_coco(coco(tmp_path, [{"keypoints": value}]), tmp_path)


def test_categories_that_differ_lose_their_keypoints(tmp_path, caplog):
    file = coco(tmp_path, [{}])
    content = json.loads(file.read_text())
    content["categories"].append({"id": 2, "name": "dog", "keypoints": ["nose"], "skeleton": []})
    file.write_text(json.dumps(content))
    data = load_coco(file, tmp_path)
    assert data.skeleton is None and data[0].keypoints is None
    assert "differ (5, 1 of them)" in caplog.text
    with pytest.raises(DataError, match="has no keypoints"):
        data.batches(Preprocessor(80, 200), keypoints=True)


def test_mirror_images():
    assert SKELETON.mirrored == (0, 2, 1, 4, 3)
    assert COCO_SKELETON.mirrored == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert Skeleton(("Left Eye", "Right Eye", "left_wing")).mirrored == (1, 0, 2)


def followed(image, points):
    """How many of the keypoints that are seen lie on a dot of their colour, whose mirror image has the other's."""
    right = total = 0
    for each in points:
        for (x, y, seen), colour in zip(each, COLOURS):
            if seen == 2:
                window = image[max(int(y) - 1, 0) : int(y) + 2, max(int(x) - 1, 0) : int(x) + 2].reshape(-1, 3)
                total += 1
                right += np.abs(window.astype(int) - colour).sum(-1).min(initial=999) < 150
    return right, total


TRANSFORMS = {
    "hflip": augment.HorizontalFlip(1.0),
    "vflip": augment.VerticalFlip(1.0),
    "rot90": augment.Rotate90(1.0),
    "rotate": augment.Rotate(40),
    "scale": augment.ScaleJitter(0.7, 1.8),
    "lsj": augment.LargeScaleJitter(0.7, 1.8),
    "crop": augment.ObjectCrop(1.0),
    "mosaic": augment.Mosaic(1.0, 0.8, 1.2),
    "copy_paste": augment.CopyPaste(1.0),
    "all": augment.Compose([augment.HorizontalFlip(), augment.Rotate(20), augment.ScaleJitter(0.8, 1.5)]),
}


@pytest.mark.parametrize(
    ("name", "masks"),
    [(name, masks) for name in TRANSFORMS for masks in (False, True) if masks or name != "copy_paste"],
)
def test_keypoints_follow_their_dots(name, masks):
    """Left is red and right is blue: in a mirror the left hand is where the right one was, and called so."""
    data, transform = figures(6), TRANSFORMS[name]
    if masks:
        for record in data:
            record.segmentations = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in record.boxes.tolist()]
    mirrors = name in ("hflip", "vflip")
    batches = data.batches(Preprocessor(128, 128), augment=transform, keypoints=True, masks=masks)
    right = total = behind = 0
    for i in range(len(data)):
        image, boxes, _, objects, _ = batches.sample(i, 0)
        points = points_of(objects, image.shape[:2])
        assert len(points) == len(boxes)
        if mirrors:
            points = points[:, list(SKELETON.mirrored)]
        found = followed(image, points) if name != "all" else (1, 1)
        right, total = right + found[0], total + found[1]
        behind += np.sum(points[..., 2] == 1)
    assert total >= (1 if name == "all" else 15)
    assert right >= 0.9 * total
    assert (behind > 0) == (name == "copy_paste")  # of the objects that others were pasted on


def test_what_is_out_of_the_picture_is_not_seen():
    data = figures(4)
    batches = data.batches(Preprocessor(128, 128), batch_size=4, augment=augment.ScaleJitter(2.0, 2.5), keypoints=True)
    _, y = batches[0]
    points = y["keypoints"][y["labels"] >= 0]
    assert (points[..., 2] == 0).any() and (points[..., 2] > 0).any()
    assert not points[points[..., 2] == 0].any()
    assert points[..., :2].max() <= 128 and points.min() >= 0


def test_a_transform_that_loses_keypoints_is_told():
    def careless(image, boxes, labels, masks, rng):
        from keras_rcnn.data.masks import InstanceMask

        return image, boxes, labels, [InstanceMask(*mask) for mask in masks]

    batches = figures(1).batches(Preprocessor(128, 128), augment=careless, keypoints=True)
    with pytest.raises(ValueError, match="lost the keypoints"):
        batches[0]
