"""Detections of several views, mapped back and merged."""

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.data.overlap import pairwise_iou
from keras_rcnn.evaluation import AugmentedDetector
from tests.data.test_augment_objects import dataset
from tests.models.tiny import tiny_detector


class Marks:
    """A detector that finds the brightest px of a photo: a box of 8 x 6 px whose top left corner it is.

    Views are told apart by their scores: 0.9 for the first, then less.
    """

    class_names, has_masks, wants_proposals = ["mark"], True, False

    def __init__(self):
        self.seen = []

    def detect(self, images, score, batch_size, masks, size=None):
        answers = []
        for image in images:
            y, x = np.argwhere(image[..., 0] == 255)[0]
            crop = np.zeros((1, 28, 28), np.float32)
            crop[0, :14, :7] = 1  # the upper left
            self.seen.append((int(x), int(y), size))
            answers.append(
                {
                    "boxes": np.array([[x, y, x + 8, y + 6]], np.float32),
                    "scores": np.array([0.9 - 0.1 * (len(self.seen) - 1)], np.float32),
                    "labels": np.zeros(1, np.int32),
                    "names": ["mark"],
                    "masks": crop,
                }
            )
        return answers


def photo():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10, 20] = 255
    return image


def test_views_are_mapped_back_by_hand():
    model = Marks()
    views = AugmentedDetector(model, flips=("horizontal", "vertical"), sizes=(None, 80), iou_threshold=1.0)
    found = views.detect(photo(), masks="crops")
    # mirrored, the px is at 60 - 1 - 20 = 39, or at 40 - 1 - 10 = 29
    assert model.seen == [(20, 10, None), (39, 10, None), (20, 29, None), (20, 10, 80), (39, 10, 80), (20, 29, 80)]
    # found at 39..47, which is 13..21 in the photo; at 29..35, which is 5..11
    boxes = [[20, 10, 28, 16], [13, 10, 21, 16], [20, 5, 28, 11]]
    np.testing.assert_array_equal(found["boxes"], boxes * 2)
    np.testing.assert_allclose(found["scores"], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], rtol=1e-6)
    assert found["masks"][1][:14, 21:].all() and found["masks"][1].sum() == 14 * 7  # upper right
    assert found["masks"][2][14:, :7].all() and found["masks"][2].sum() == 14 * 7  # lower left


def test_the_best_of_overlapping_ones_is_kept():
    found = AugmentedDetector(Marks(), flips="vertical", sizes=(None, 80)).detect(photo())
    # the two views of each kind agree, and 6 rows by 8 px shifted by 5 rows have an IoU of 1/11
    np.testing.assert_array_equal(found["boxes"], [[20, 10, 28, 16], [20, 5, 28, 11]])
    assert found["masks"].shape == (2, 40, 60) and found["names"] == ["mark", "mark"]
    assert found["masks"][0, 10:13, 20:22].all() and not found["masks"][0, 14:].any()
    assert found["masks"][1, 8:11, 20:22].all() and not found["masks"][1, :8].any()
    few = AugmentedDetector(Marks(), flips="vertical", max_detections=1).detect([photo(), photo()], batch_size=2)
    assert [len(own["boxes"]) for own in few] == [1, 1]


def test_no_views_but_the_photo_is_the_detector():
    model = tiny_detector()
    images = [record.image for record in dataset(3)]
    plain = model.detect(images, score=0.0)
    same = AugmentedDetector(model, flips=(), iou_threshold=1.0).detect(images, score=0.0)
    for one, other in zip(plain, same):
        np.testing.assert_array_equal(one["boxes"], other["boxes"])
        assert one["names"] == other["names"]
    both = AugmentedDetector(model).detect(images[0], score=0.0)
    for label in set(both["labels"].tolist()):
        boxes = both["boxes"][both["labels"] == label]
        assert (pairwise_iou(boxes, boxes) - np.eye(len(boxes)) <= 0.5).all()
    assert (np.diff(both["scores"]) <= 0).all()


def test_a_mirror_image_has_the_same_detections_mirrored():
    keras.utils.set_random_seed(0)  # of some weights two boxes tie to the last bit
    views = AugmentedDetector(tiny_detector())
    image = dataset(1)[0].image
    one, other = views.detect(image, score=0.0), views.detect(np.ascontiguousarray(image[:, ::-1]), score=0.0)
    width = image.shape[1]
    np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-6)
    mirrored = one["boxes"][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    distances = np.abs(mirrored[:, None] - other["boxes"][None]).max(axis=-1)
    assert (distances.min(axis=1) < 1e-3).all()


def test_evaluate_takes_it():
    result = keras_rcnn.evaluate(AugmentedDetector(Marks()), _marks(), progress=False)
    assert result["bbox"]["AP50"] == pytest.approx(1) and result["segm"]["AP50"] >= 0


def _marks():
    from keras_rcnn.data import Dataset, Record

    mask = np.zeros((40, 60), np.uint8)
    mask[10:13, 20:22] = 1
    return Dataset([Record(photo(), 0, 40, 60, [[20, 10, 28, 16]], [0], segmentations=[mask])], ["mark"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flips": ("diagonal",)}, "flips are among"),
        ({"sizes": ()}, "sizes are at least one"),
        ({"sizes": (1.5,)}, "sizes is a whole number"),
        ({"iou_threshold": 2}, "iou_threshold is a number from 0 to 1"),
        ({"max_detections": 0}, "max_detections is a whole number"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AugmentedDetector(Marks(), **arguments)
