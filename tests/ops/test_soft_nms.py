"""Soft-NMS against the paper's pseudocode (Bodla et al. 2017, figure 2), one class and one box at a time."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_rcnn
from keras_rcnn.layers import DetectionDecoder
from keras_rcnn.ops import nms
from tests.layers.run import random_boxes
from tests.models.tiny import tiny_detector


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inter = max(width, 0) * max(height, 0)
    area = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return inter / (area - inter)


def slow_soft_nms(boxes, scores, threshold, least, method, sigma):
    left = [(float(score), tuple(box)) for box, score in zip(boxes, scores) if score > least]
    kept = []
    while left:
        score, box = left.pop(max(range(len(left)), key=lambda i: (left[i][0], -i)))
        kept.append((score, box))
        lowered = []
        for other_score, other in left:
            iou = overlap(box, other)
            if method == "gaussian":
                other_score *= np.exp(-(iou**2) / sigma)
            elif iou > threshold:
                other_score *= 1 - iou
            if other_score > least:
                lowered.append((other_score, other))
        left = lowered
    return kept


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("seed", range(3))
def test_soft_nms_is_the_papers(method, seed):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 2, 30, 3)
    scores = rng.random((2, 30, 3)).astype(np.float32)
    scores[1, :, 2] = -1  # a class without boxes
    ours = [ops.convert_to_numpy(part) for part in nms.multiclass_soft_nms(boxes, scores, 0.3, 0.2, 60, method, 0.5)]
    for i in range(2):
        expected = []
        for label in range(3):
            kept = slow_soft_nms(boxes[i, :, label], scores[i, :, label], 0.3, 0.2, method, 0.5)
            expected += [(score, label, box) for score, box in kept]
        expected.sort(key=lambda one: -one[0])
        count = min(len(expected), 60)
        np.testing.assert_allclose(ours[1][i, :count], [score for score, _, _ in expected[:count]], rtol=1e-5)
        np.testing.assert_array_equal(ours[2][i, :count], [label for _, label, _ in expected[:count]])
        np.testing.assert_array_equal(ours[0][i, :count], [box for _, _, box in expected[:count]])
        assert (ours[2][i, count:] == -1).all() and not ours[1][i, count:].any() and not ours[0][i, count:].any()


def test_soft_nms_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)[None, :, None]
    scores = np.array([0.9, 0.8, 0.3, 0.7], np.float32)[None, :, None]
    _, linear, _ = nms.multiclass_soft_nms(boxes, scores, 0.5, 0.0, 4, "linear")
    # IoU 0.5 is not above the threshold; the last box is the first again: 1 - IoU is 0, and nothing is left
    np.testing.assert_allclose(linear, [[0.9, 0.8, 0.3, 0]], rtol=1e-6)
    _, gaussian, _ = nms.multiclass_soft_nms(boxes, scores, 0.5, 0.0, 4, "gaussian", 0.5)
    second = 0.8 * np.exp(-0.5)
    last = 0.7 * np.exp(-2) * np.exp(-0.5)
    np.testing.assert_allclose(gaussian, [[0.9, second, 0.3, last]], rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_decoders_take_it(method):
    rng = np.random.default_rng(0)
    proposals = random_boxes(rng, 1, 12, height=40, width=40, smallest=20)
    inputs = rng.normal(0, 2, (1, 12, 4)), np.zeros((1, 12, 1, 4)), proposals, np.array([[96.0, 128.0]])
    inputs = [np.asarray(value, np.float32) for value in inputs]
    soft = DetectionDecoder(0.01, soft_nms=method, sigma=0.4)
    detections = soft(*inputs)
    scores = ops.softmax(inputs[0], axis=-1)[..., :-1]
    boxes = np.clip(proposals, 0, [128, 96, 128, 96])[:, :, None]
    boxes = np.broadcast_to(boxes, (1, 12, 3, 4)).astype(np.float32)
    expected = nms.multiclass_soft_nms(boxes, scores, 0.5, 0.01, 100, method, 0.4)
    np.testing.assert_allclose(detections["scores"], expected[1], rtol=1e-5)
    hard = DetectionDecoder(0.01)(*inputs)
    assert (np.asarray(detections["labels"]) >= 0).sum() > (np.asarray(hard["labels"]) >= 0).sum()
    again = DetectionDecoder.from_config(soft.get_config())
    assert (again.soft_nms, again.sigma) == (method, 0.4)
    with pytest.raises(ValueError, match="soft_nms is None, 'linear' or 'gaussian', not 'hard'"):
        DetectionDecoder(soft_nms="hard")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["saved_model", "litert", "onnx"])
def test_exported_detectors_have_it(tmp_path, format):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exports are TensorFlow's")
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(7)
    model = tiny_detector(decoder=DetectionDecoder(soft_nms="gaussian"))
    rng = np.random.default_rng(1)
    for weight in model.weights:  # scores apart: of equal ones a runtime may take another first, which lowers others
        if "predictor" in weight.path or "objectness" in weight.path:
            weight.assign(rng.standard_normal(weight.shape) * 0.3)
    report = keras_rcnn.export_model(model, tmp_path / "model", format)
    assert report["parity"] and all(photo["ok"] for photo in report["parity"])
