"""Detectors with torchvision's weights, stage by stage against its own outputs on the golden photos."""

import json

import keras
import numpy as np
import pytest

from keras_rcnn.convert import assign, convert_torchvision
from keras_rcnn.data import read_image
from keras_rcnn.data.masks import resize_nearest
from keras_rcnn.torchvision_detectors import torchvision_detector
from tests.shared import SHARED, golden, golden_state, needs_golden

pytestmark = needs_golden

MOBILENET, MASK = "fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn"
PHOTOS = ("china", "china_wide", "astronaut_tall", "coffee_small")
slow = pytest.mark.slow
CASES = [pytest.param(MOBILENET, photo, marks=slow if photo == "china_wide" else []) for photo in PHOTOS]
CASES += [pytest.param(MASK, photo, marks=slow) for photo in PHOTOS]

_models = {}


def detector(name):
    """The golden model and one that gives every stage, built once."""
    if name not in _models:
        model = torchvision_detector(name)
        assign(model, convert_torchvision(name, golden_state(name)))
        layers = {layer.name: layer for layer in model.layers}
        wanted = {
            "features": layers["fpn"].output,
            "anchors": layers["anchors"].output,
            "rpn": layers["rpn_head"].output,
            # nodes are added in the order of the calls: the inference graph's comes first
            "proposals": layers["proposals"]._inbound_nodes[0].output_tensors,
            "pooled": layers["box_pool"]._inbound_nodes[0].output_tensors,
            "box_features": layers["box_head"]._inbound_nodes[0].output_tensors,
            "predictions": layers["box_predictor"]._inbound_nodes[0].output_tensors,
            "detections": model.output,
        }
        _models[name] = model, keras.Model(model.input, wanted)
    return _models[name]


def close(ours, theirs, tolerance, what):
    error = np.abs(np.asarray(ours, np.float64) - theirs).max()
    limit = tolerance * np.abs(theirs).max()
    assert error <= limit, f"{what}: off by {error:.3g}, allowed {limit:.3g}"


def chw(x):
    return np.moveaxis(np.asarray(x), -1, 0)


def same_set(ours, theirs, tolerance):
    """Every box of one set has a partner in the other: scores as near as 1e-7 swap places."""
    assert len(ours) == len(theirs)
    distance = np.abs(ours[:, None] - theirs[None]).max(-1)
    assert max(distance.min(0).max(), distance.min(1).max()) < tolerance


def same_detections(ours, theirs):
    """0.1 px, 2e-3 of score, the same labels."""
    count = len(theirs["scores"])
    assert len(ours["scores"]) == count
    labels = theirs["labels"] - 1
    distance = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(-1)
    distance = distance + 1e6 * (ours["labels"][:, None] != labels[None])
    partner = distance.argmin(1)
    assert sorted(partner) == list(range(count))
    assert distance.min(1).max() < 0.1
    assert np.abs(ours["scores"] - theirs["scores"][partner]).max() < 2e-3
    assert (np.diff(ours["scores"]) <= 0).all()
    return partner


def same_masks(ours, theirs, suffix=""):
    """Under 0.5 % of the pixels of all masks differ."""
    shape = tuple(theirs[f"masks_shape{suffix}"])
    packed = theirs[f"masks_ge_half_packed{suffix}"]
    wanted = np.unpackbits(packed, axis=1, count=shape[1] * shape[2]).reshape(shape).astype(bool)
    assert ours.shape == shape
    assert (ours != wanted).sum() < 0.005 * wanted.sum()


def torchvisions(preprocessor, case):
    """With the case's size, and no more padding than torchvision has."""
    return preprocessor.replace(min_size=case["min_size"], max_size=case["max_size"], few_shapes=False)


@pytest.mark.parametrize(("name", "photo"), CASES)
def test_every_stage(name, photo):
    theirs, case = golden(f"{name}__{photo}.npz"), golden(f"{name}.json")["cases"][photo]
    model, stages = detector(name)
    preprocessor = torchvisions(model.preprocessor, case)
    image = read_image(SHARED / "golden" / case["image"])
    x = preprocessor.batch([image])
    assert x["images"].shape == tuple(theirs["batch_shape"][[0, 2, 3, 1]])
    assert tuple(x["image_sizes"][0]) == tuple(theirs["image_size_resized"])
    close(chw(x["images"][0])[:, ::8, ::8], theirs["transform_every8"], 1e-5, "transform")

    out = stages.predict_on_batch(x)
    names = [k[5:-6] for k in theirs if k.startswith("feat_") and k.endswith("_shape")]
    for key, feature in zip(sorted(names, key=lambda n: (n == "pool", n)), out["features"], strict=True):
        stride, channels = theirs[f"feat_{key}_stride"], theirs[f"feat_{key}_ch"]
        whole = chw(feature[0])
        largest = np.abs(theirs[f"feat_{key}_slice"]).max()
        for ours, what in (
            (whole[channels][:, ::stride, ::stride], "slice"),
            (whole[channels][:, -1], "lastrow"),
            (whole[channels][:, :, -1], "lastcol"),
        ):
            assert np.abs(ours - theirs[f"feat_{key}_{what}"]).max() <= 1e-4 * largest, f"feature {key} {what}"

    anchors = np.concatenate([np.asarray(a) for a in out["anchors"]])
    every = theirs["rpn_every"]
    np.testing.assert_array_equal(anchors[::every], theirs["anchors_every"])
    np.testing.assert_allclose(anchors.sum(0, dtype=np.float64), theirs["anchors_sum"])
    levels = len(out["rpn"]) // 2  # the logits of every level, then the deltas
    logits = np.concatenate(out["rpn"][:levels], axis=1)[0]
    deltas = np.concatenate(out["rpn"][levels:], axis=1)[0]
    close(logits[::every], theirs["rpn_objectness_every"], 1e-4, "objectness")
    close(deltas[::every], theirs["rpn_deltas_every"], 1e-4, "deltas")

    boxes, scores = (np.asarray(v)[0] for v in out["proposals"])
    kept = scores > 0
    same_set(boxes[kept], theirs["proposals"], 0.05)
    np.testing.assert_allclose(scores[kept], theirs["proposal_scores"], atol=1e-4)

    # the stages after the proposals, paired by proposal
    partner = np.abs(theirs["proposals"][:, None] - boxes[None]).max(-1).argmin(1)
    pooled = np.moveaxis(np.asarray(out["pooled"][0])[0][partner], -1, 1)
    rois, channels = theirs["box_pooled_rois_every"], theirs["box_pooled_ch_every"]
    close(pooled[::rois, ::channels], theirs["box_pooled_slice"], 2e-3, "pooled")
    close(np.asarray(out["box_features"][0])[0][partner][::20], theirs["box_feat_every20"], 2e-3, "box features")
    class_logits, regression = (np.asarray(v)[0][partner] for v in out["predictions"])
    close(np.roll(class_logits, 1, axis=1), theirs["class_logits"], 2e-3, "class logits")
    theirs_regression = theirs["box_regression_every4"].reshape(len(regression[::4]), -1, 4)[:, 1:]
    close(regression[::4], theirs_regression, 2e-3, "box regression")

    model.preprocessor, whole = preprocessor, model.preprocessor
    try:
        found = model.detect(image, score=0.0)
    finally:
        model.preprocessor = whole
    partner = same_detections(found, theirs)
    if "masks" in found:
        probabilities = np.asarray(out["detections"]["masks"][0])[: len(partner)]
        # float32 itself is this far from float64 where a logit's terms cancel
        noise = case["vs_float64"]["max_mask28_err"]
        assert np.abs(probabilities - theirs["mask_probs_28"][partner]).max() < 2e-3 + noise
        ordered = np.empty_like(found["masks"])
        ordered[partner] = found["masks"]
        same_masks(ordered, theirs)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX all of these are compiled")
@pytest.mark.parametrize("name", [MOBILENET, MASK])
def test_compiled(name):
    theirs, case = golden(f"{name}__coffee_small.npz"), golden(f"{name}.json")["cases"]["coffee_small"]
    model, _ = detector(name)
    whole = model.preprocessor
    try:
        model.preprocessor, model.jit_compile = torchvisions(whole, case), True
        found = model.detect(SHARED / "golden" / case["image"], score=0.0)
    finally:
        model.preprocessor, model.jit_compile = whole, False
    partner = same_detections(found, theirs)
    if "masks" in found:
        ordered = np.empty_like(found["masks"])
        ordered[partner] = found["masks"]
        same_masks(ordered, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", [MOBILENET, MASK])
def test_batch_of_two(name):
    theirs, case = golden(f"{name}__batch2.npz"), golden(f"{name}.json")["cases"]["batch2"]
    model, _ = detector(name)
    model.preprocessor, whole = torchvisions(model.preprocessor, case), model.preprocessor
    try:
        found = model.detect([SHARED / "golden" / image for image in case["images"]], score=0.0, batch_size=2)
    finally:
        model.preprocessor = whole
    for i, ours in enumerate(found):
        partner = same_detections(ours, {key: theirs[f"{key}_{i}"] for key in ("boxes", "scores", "labels")})
        if "masks" in ours:
            ordered = np.empty_like(ours["masks"])
            ordered[partner] = ours["masks"]
            same_masks(ordered, theirs, f"_{i}")


@pytest.mark.parametrize("name", [MOBILENET, MASK])
def test_training_losses(name):
    theirs, info = golden(f"{name}__train.npz"), golden(f"{name}.json")["train"]
    model, _ = detector(name)
    for part in ("rpn_targets", "box_targets"):
        for layer in model.training_graph.layers:
            if layer.name == part:
                layer.seed_generator = None  # the first in index order, as the golden run's samplers
    preprocessor = model.preprocessor.replace(min_size=info["min_size"], max_size=info["max_size"])
    images = [read_image(SHARED / "golden" / image) for image in info["images"]]
    x = preprocessor.batch(images)
    y = {"boxes": np.zeros((2, 6, 4), np.float32), "labels": np.full((2, 6), -1, np.int32)}
    for i, image in enumerate(images):
        boxes, labels = theirs[f"target_boxes_{i}"], theirs[f"target_labels_{i}"]
        ratio = np.float32(x["image_sizes"][i]) / np.float32(image.shape[:2])
        y["boxes"][i, : len(boxes)] = boxes * ratio[[1, 0, 1, 0]]
        y["labels"][i, : len(labels)] = labels - 1
        if name == MASK:  # whole masks: the padded image is their frame
            height, width = x["images"].shape[1:3]
            y.setdefault("masks", np.zeros((2, 6, height, width), np.uint8))
            y.setdefault("mask_frames", np.tile(np.float32([0, 0, width, height]), (2, 6, 1)))
            shape = tuple(theirs[f"target_masks_shape_{i}"])
            masks = np.unpackbits(theirs[f"target_masks_packed_{i}"], axis=1, count=shape[1] * shape[2]).reshape(shape)
            h, w = x["image_sizes"][i].astype(int)
            for j, mask in enumerate(masks):
                y["masks"][i, j, :h, :w] = resize_nearest(mask, h, w)
    losses = {k: float(np.mean(v)) for k, v in model.training_graph({**x, **y}, training=True).items()}
    expected = info["frozen"]["losses"]
    assert set(losses) == set(expected)
    for key, value in expected.items():
        assert losses[key] == pytest.approx(value, rel=1e-3), json.dumps([losses, expected])
