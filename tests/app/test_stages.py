"""The stages of a photo: they end in what `detect` returns, and each is what its layer, or a twin in NumPy, says."""

import keras
import numpy as np
import pytest

from keras_rcnn import layers
from keras_rcnn.app.sampling import pixels, sampling
from keras_rcnn.app.stages import Network, Run, Settings, own_settings
from keras_rcnn.data import Preprocessor
from tests.export.detectors import detector, photos
from tests.models.tiny import shapes, tiny_detector

KINDS = ("faster", "mask", "fast", "rcnn")


@pytest.fixture(scope="module")
def run():
    """A Faster R-CNN on a photo that it enlarges."""
    return Run(Network(detector("faster")), photos()[2])


def lowered(settings, **changes):
    """These settings with others, and all detections."""
    return Settings(**{**vars(settings), "score": 0.0, **changes})


def same(found, expected):
    assert found["names"] == expected["names"] and len(found["names"])
    for key in set(expected) - {"names"}:
        np.testing.assert_allclose(found[key], expected[key], atol=2e-4, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_stages_end_in_what_detect_returns(kind):
    run = Run(Network(detector(kind)), photos()[2])
    stages = run.stages(lowered(own_settings(run.model)))
    same(stages.detections, run.model.detect(run.photo, score=0, masks="crops"))
    if run.searched is not None:
        few = run.stages(lowered(own_settings(run.model), proposals=9))
        given = run.searched[:9]
        same(few.detections, run.model.detect(run.photo, score=0, masks="crops", proposals=given))
    some = run.stages(lowered(own_settings(run.model), score=0.4)).detections
    same(some, run.model.detect(run.photo, score=0.4, masks="crops"))
    # each detection is a proposal, moved by the deltas of its class
    for box, score, label in zip(some["boxes"], some["scores"], some["labels"]):
        near = np.abs(stages.refined[:, label] - box).max(-1) + np.abs(stages.class_scores[:, label] - score)
        assert near.min() < 2e-4


@pytest.mark.slow
def test_settings_are_those_of_a_detector_built_with_them():
    run = Run(Network(detector("mask")), photos()[2])
    own = own_settings(run.model)
    few = lowered(own, proposals=7, rpn_iou=0.3, iou=0.1)
    config = run.model.get_config()
    config["decoder"]["config"]["iou_threshold"] = 0.1
    config["proposals"]["config"] |= {"post_nms": [7, 7], "iou_threshold": 0.3}
    other = type(run.model).from_config(config)
    other.set_weights(run.model.get_weights())
    stages = run.stages(few)
    assert len(stages.proposals) <= 7
    same(stages.detections, other.detect(run.photo, score=0, masks="crops"))
    same(run.stages(lowered(own)).detections, run.model.detect(run.photo, score=0, masks="crops"))  # and back


def test_anchors_objectness_and_proposals_are_the_layers(run):
    stages = run.stages(own_settings(run.model))
    shrunk = np.divide(run.photo.shape[:2], run.image_size)  # pixels of the photo a pixel that the detector sees
    assert [level.name for level in stages.levels] == ["P2", "P3", "P4", "P5", "P6"]
    logits, _ = run.model.parts["rpn_head"](run.features)
    for level, values in zip(stages.levels, logits):
        height, width, count = level.objectness.shape
        np.testing.assert_allclose(level.objectness.ravel(), 1 / (1 + np.exp(-np.ravel(values))), rtol=1e-5)
        centres = (level.anchors[..., :2] + level.anchors[..., 2:]) / 2 / shrunk[::-1]
        stride = np.floor_divide(run.inputs["images"].shape[1:3], (height, width))  # torchvision's rule
        rows, columns = np.mgrid[:height, :width]
        expected = np.stack([columns * stride[1], rows * stride[0]], -1)[:, :, None]
        np.testing.assert_allclose(centres, np.repeat(expected, count, 2), atol=0.51)  # corners are whole pixels
    # the NMS by hand: a level at a time, best first
    rpn = run.model.parts["anchors"](run.features, run.inputs["images"]), *run.model.parts["rpn_head"](run.features)
    layer = run.model.parts["proposals"]
    boxes, scores = (np.asarray(one)[0] for one in layer.candidates(*rpn, run.inputs["image_sizes"]))
    kept = [one for i in range(boxes.shape[1]) for one in greedy(boxes[:, i], scores[:, i], layer.iou_threshold)]
    kept = sorted(kept, key=lambda one: -one[0])[: layer.post_nms[1]]
    np.testing.assert_allclose(stages.proposal_scores, [score for score, _ in kept], rtol=1e-5)
    np.testing.assert_allclose(stages.regions, [box for _, box in kept], atol=1e-3)
    assert len(stages.candidates) == (scores > layer.dropped).sum() > len(stages.proposals)
    assert (np.diff(stages.candidate_scores) <= 0).all()


def greedy(boxes, scores, threshold):
    """-> (score, box) of what NMS leaves."""
    left = [i for i in np.argsort(-scores) if scores[i] >= 0]
    while left:
        best, *left = left
        yield scores[best], boxes[best]
        shared = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.clip(shared, 0, None).prod(-1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        left = [i for i, both in zip(left, shared) if both <= threshold * (areas[best] + areas[i] - both)]


@pytest.mark.parametrize(("samples", "aligned"), [(2, False), (3, True), (0, True), (0, False)])
def test_the_map_read_at_roi_aligns_points_is_what_it_pools(run, samples, aligned):
    pool = layers.RoIAlign(5, (4, 8, 16, 32), samples, aligned, canonical_size=56)
    for region in run.stages(own_settings(run.model)).regions[:5]:
        taken = sampling(run, region, pool)
        (y, x), size = taken.points, taken.size
        read = np.array([[bilinear(taken.features, row, column) for column in x] for row in y])
        means = read.reshape(size, len(y) // size, size, len(x) // size).mean((1, 3))
        pooled = np.asarray(pool(run.features, region[None, None]))[0, 0].mean(-1)
        np.testing.assert_allclose(means, pooled, atol=1e-4)


def bilinear(values, y, x):
    height, width = values.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = values[y0, x0] * (1 - (x - x0)) + values[y0, x1] * (x - x0)
    return top * (1 - (y - y0)) + (values[y1, x0] * (1 - (x - x0)) + values[y1, x1] * (x - x0)) * (y - y0)


def test_the_maximum_of_roi_pools_bins_is_what_it_pools(run):
    pool, features = layers.RoIPool(5, (8,)), run.features[1]
    for region in run.stages(own_settings(run.model)).regions[:3]:
        rows, columns = sampling(run, region, pool, place=1).bins
        pooled = np.asarray(pool([features], region[None, None]))[0, 0]
        for i, j in np.ndindex(pooled.shape[:2]):
            cells = features[0, slice(*rows[i]), slice(*columns[j])]
            expected = cells.max((0, 1)) if cells.size else np.zeros(features.shape[-1])
            np.testing.assert_allclose(pooled[i, j], expected, rtol=1e-6)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_crop_that_rcnn_sees_has_the_photos_pixels(run, channels, monkeypatch):
    photo, preprocessor = shapes(1)[0].image, Preprocessor(128, 128, channels=channels)
    monkeypatch.setattr(run.model, "preprocessor", preprocessor)
    taken = sampling(Run(run.network, photo), np.float32([10, 20, 42, 52]), layers.RegionWarp(32, 0))
    np.testing.assert_array_equal(taken.crop, photo[20:52, 10:42])
    np.testing.assert_array_equal(pixels(preprocessor(photo), preprocessor), photo)


@pytest.mark.slow
def test_a_photo_in_which_nothing_is_found():
    keras.utils.set_random_seed(0)
    grey = np.full((90, 120, 3), 128, np.uint8)
    for model in (detector("fast"), tiny_detector(proposals=layers.Proposals((20, 20), (5, 5), score_threshold=1.0))):
        stages = Run(Network(model), grey, np.zeros((0, 4), np.float32)).stages(own_settings(model))
        assert len(stages.proposals) == len(stages.class_scores) == len(stages.detections["boxes"]) == 0


def test_what_makes_no_sense_is_refused(run):
    with pytest.raises(ValueError, match="The number of proposals is at least 1, not 0"):
        run.stages(lowered(own_settings(run.model), proposals=0))
