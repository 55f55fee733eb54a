"""What `detect` and its kin are asked for: refused with what is wanted, before a photo is read."""

import numpy as np
import pytest

from keras_rcnn.data import Preprocessor, ProposalSet, augment, compute_proposals, selective_search
from keras_rcnn.data.request import check_request
from keras_rcnn.training import StopOnNaN, TimeLimit, WarmupCosine, WarmupMultiStep, WarnOnRise
from keras_rcnn.training.checkpoint import Checkpoint
from tests.models.tiny import shapes

NAN, INF = float("nan"), float("inf")
SCORES = (NAN, INF, 2, -1, "0.5", None, True, [0.5])
SIZES = (0, -1, NAN, 99.5, "99", (9,))
BOX = [[1, 2, 30, 40]]


def asked(images="photo.jpg", **changes):
    return check_request(images, **{"score": 0.5, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({"score": one}, "score is a number from 0 to 1, not") for one in SCORES],
        *[({"score": np.float32(one)}, "score is a number from 0 to 1") for one in (NAN, 1.5)],
        *[({"batch_size": one}, "batch_size is a whole number of at least 1, not") for one in (0, -1, 1.5, "2", True)],
        *[({"masks": one}, "masks is one of True, False, 'rle', 'crops', not") for one in ("foo", "", 2, ["rle"])],
        *[({"size": one}, "size is a whole number of at least 1, the shorter") for one in SIZES],
        ({"proposals": [[1, 2, 30, NAN]]}, "box 0 is .*nan"),
        ({"proposals": [*BOX, [1, 2, INF, 40]]}, "box 1 is .*inf"),
        ({"proposals": [[1, 2, 30, 1e300]]}, "box 0 is .*inf"),
        ({"proposals": "selective"}, r"wanted is \[n, 4\].* not an array of shape \(\)"),
        ({"proposals": [["a", "b", "c", "d"]]}, "numbers, not <U1"),
        ({"proposals": [[None] * 4]}, "numbers, not object"),
        ({"proposals": [4, 5]}, r"not an array of shape \(2,\)"),
        ({"proposals": np.ones((4, 5))}, r"not an array of shape \(4, 5\)"),
        ({"proposals": np.ones((1, 7, 4))}, r"not an array of shape \(1, 7, 4\)"),
        ({"proposals": [[1, 2, 3, 4], [5]]}, "wanted is .* not this"),
        ({"proposals": [[30, 40, 20, 20]]}, "has x2 or y2 first: is it xywh"),
        ({"proposals": BOX, "finder": "FasterRCNN"}, "FasterRCNN finds its proposals itself: leave proposals out"),
        ({"proposals": [], "finder": "FasterRCNN"}, "leave proposals out"),
        ({"images": ["a", "b"], "proposals": [BOX]}, "Proposals for 1 images, but there are 2 images"),
        ({"images": ["a", "b"], "proposals": [BOX, [[1, 2, NAN, 3]]]}, "proposals of image 2 of 2: .*box 0"),
        ({"images": ["a", "b"], "proposals": [BOX, None]}, "proposals of image 2 of 2"),
        ({"images": ["a"], "proposals": ProposalSet({7: BOX})}, r"not a ProposalSet: .*proposals\[record\]"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        asked(**change)


def test_what_is_taken():
    assert asked() == (["photo.jpg"], None)
    assert asked(["a", "b"]) == (["a", "b"], None)
    assert asked([]) == ([], None)
    for score in (0, 1, 0.5, np.float32(0.5), np.float64(1), np.array(0.5), np.int64(1)):
        for count in (None, 1, np.int32(7), np.array(3)):
            for masks in (True, False, np.bool_(True), "rle", "crops"):
                asked(score=score, batch_size=count, masks=masks, size=count, finder="FasterRCNN")
    for boxes in (BOX, np.int64(BOX), np.float16(BOX), [np.float64(BOX[0])], [[0, 0, 0, 0]]):
        (one,) = asked(proposals=boxes)[1]
        assert one.shape == (1, 4) and one.dtype == np.float32
    for nothing in ([], np.zeros((0, 4)), [[]]):
        assert asked(proposals=nothing)[1][0].shape == (0, 4)
    two = asked(("a", "b"), proposals=np.ones((2, 5, 4)))[1]
    assert [one.shape for one in two] == [(5, 4)] * 2


def made(cls, **changes):
    return lambda data: cls(**changes)


def batches(**changes):
    return lambda data: data.batches(Preprocessor(64, 128), **changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[(batches(batch_size=one), "batch_size is a whole number of at least 1") for one in (1.5, 0, "2", True, NAN)],
        *[(batches(workers=one), "workers is a whole number of at least 0") for one in (1.5, -1, "2")],
        *[(batches(seed=one), "seed is a whole number of at least 0") for one in (-1, 0.5, None)],
        *[(batches(mask_size=one), "mask_size is a whole number") for one in (0, 28.5, "112")],
        *[(batches(max_objects=one), "max_objects is a whole number") for one in (0, 1.5, "9")],
        *[(batches(max_proposals=one), "max_proposals is a whole number") for one in (0, 1.5, INF)],
        *[(batches(cache=one), "cache is a whole number") for one in (-1, 1.5e9, "2 GB")],
        *[(batches(fixed_size=one), "fixed_size is ") for one in (64, (64.5, 64), (64, 64, 3), ("64", "64"), (0, 64))],
        *[(lambda data, one=one: data.split(one), "share is a number from 0 to 1") for one in (2, "0.2", NAN, None)],
        (lambda data: data.split(0.5, seed=1.5), "seed is a whole number"),
        *[(made(Preprocessor, min_size=one), "min_size is a whole number") for one in (99.5, "99", 0, NAN)],
        *[(made(Preprocessor, max_size=one), "max_size is a whole number") for one in (99.5, INF)],
        *[(made(Preprocessor, mean=one), "mean is ") for one in (0.5, (0, 0), (0, 0, NAN), "abc", None)],
        *[(made(Preprocessor, std=one), "std is ") for one in ((1, 1, 0), (1, 1, INF), (1, 1, "1"))],
        *[(made(augment.HorizontalFlip, p=one), "p is a number from 0 to 1") for one in (50, -1, "0.5", NAN)],
        *[(made(augment.ScaleJitter, low=one), "low is a number above 0") for one in (0, NAN, "1")],
        *[(made(augment.ScaleJitter, high=one), "high is a number from 0.5") for one in (0.1, INF)],
        (made(augment.ScaleJitter, min_visible=25), "min_visible is a number from 0 to 1"),
        (made(augment.ColorJitter, brightness=2), "brightness is a number from 0 to 1"),
        (made(augment.ColorJitter, hue=180), "hue is a number from 0 to 0.5"),
        (lambda data: selective_search(data[0].image, max_boxes=1.5), "max_boxes is a whole number"),
        (lambda data: selective_search(data[0].image, min_size="2"), "max_boxes is .* min_size 0"),
        (lambda data: selective_search(data[0].image, width=99.5), "width is in px, a whole number"),
        (lambda data: selective_search(data[0].image, seed=-1), "seed is a whole number"),
        (lambda data: compute_proposals(data, workers=1.5), "workers is a whole number"),
        (made(TimeLimit, minutes=NAN), "minutes is a number above 0"),
        (made(TimeLimit, minutes="5"), "minutes is a number above 0"),
        (made(StopOnNaN, every=0), "every is a whole number"),
        (made(WarnOnRise, history=None, factor=0.5), "factor is a number from 1"),
        (made(Checkpoint, path="a", batches=None, minutes="5"), "minutes is a number above 0, or None"),
        (made(Checkpoint, path="a", batches=None, steps=1.5), "steps is a whole number"),
        (made(WarmupCosine, peak=INF, steps=9), "peak is a number from 0"),
        (made(WarmupCosine, peak=0.1, steps=9.5), "steps is a whole number"),
        (made(WarmupCosine, peak=0.1, steps=9, start=2), "start is a number from 0 to 1"),
        (made(WarmupMultiStep, peak=0.1, boundaries=[1.5]), "boundaries is a whole number"),
    ],
)
def test_settings_that_are_no_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call(shapes(2))
