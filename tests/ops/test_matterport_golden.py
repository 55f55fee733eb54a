"""Matterport's single functions, of its own run, by this package's ops and layers."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn import layers
from keras_rcnn.ops import boxes as box_ops
from keras_rcnn.ops import deltas as delta_ops
from keras_rcnn.ops import matterport
from keras_rcnn.ops.nms import multiclass_nms
from tests.layers.run import run
from tests.matterport import numbers, to_pixels, to_shares, xywh
from tests.shared import needs_golden

pytestmark = needs_golden
SIDE = (128, 128)


@pytest.fixture(scope="module")
def unit():
    return numbers("unit")


def as_numpy(x):
    return ops.convert_to_numpy(x)


# === Anchors and boxes ===


@pytest.mark.parametrize("case", range(3))
def test_anchors_of_a_pyramid(case, unit):
    height, width = unit[f"anchors/{case}/image_shape"][:2]
    maps = [np.zeros((1, *shape, 1), np.float32) for shape in unit[f"anchors/{case}/level_shapes"]]
    layer = layers.MatterportAnchors((8, 16, 32, 64, 128))
    anchors = np.concatenate(run(layer, maps, np.zeros((1, height, width, 3), np.float32)))
    every = anchors[::101]
    np.testing.assert_allclose(every[:, [1, 0, 3, 2]], unit[f"anchors/{case}/every101"], atol=1e-4)
    shares = to_shares(every, (height, width))
    np.testing.assert_allclose(shares, unit[f"anchors/{case}/normalised_every101"], atol=2e-6)


def test_anchors_of_every_second_cell(unit):
    layer = layers.MatterportAnchors((16,), strides=(4,), anchor_stride=2)
    (anchors,) = run(layer, [np.zeros((1, 5, 4, 1), np.float32)], np.zeros((1, 20, 16, 3), np.float32))
    np.testing.assert_allclose(anchors[:, [1, 0, 3, 2]], unit["anchors/stride2"], atol=1e-5)


def test_deltas_are_not_clamped(unit):
    boxes = unit["boxes/normalised"][:, [1, 0, 3, 2]]
    moved = as_numpy(delta_ops.decode(xywh(unit["boxes/deltas"]), boxes, clamp=matterport.NO_CLAMP))
    np.testing.assert_allclose(moved[:, [1, 0, 3, 2]], unit["boxes/apply_deltas"], atol=1e-6)
    limits = np.float32(unit["boxes/clip_window"][None, [1, 0, 3, 2]])
    clipped = as_numpy(matterport.clip_to(moved[None], limits))[0]
    np.testing.assert_allclose(clipped[:, [1, 0, 3, 2]], unit["boxes/clipped"], atol=1e-6)
    huge = as_numpy(delta_ops.decode(np.float32([[0, 0, 6, 6]]), np.float32([[0, 0, 1, 1]]), clamp=matterport.NO_CLAMP))
    assert huge[0, 2] - huge[0, 0] == pytest.approx(np.exp(6), rel=1e-5)


def test_deltas_and_overlaps_of_boxes_of_centres(unit):
    ours, other = unit["boxes/other"][:, [1, 0, 3, 2]], np.roll(unit["boxes/other"], 1, 0)[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(as_numpy(delta_ops.encode(other, ours)), xywh(unit["boxes/refinement"]), atol=1e-5)
    boxes = matterport.to_centres(to_pixels(unit["boxes/normalised"], SIDE))
    others = matterport.to_centres(to_pixels(unit["boxes/other"], SIDE))
    np.testing.assert_allclose(as_numpy(box_ops.iou(boxes, others)), unit["boxes/overlaps"], atol=2e-6)


def test_the_way_to_centres_and_back(unit):
    pixels = to_pixels(unit["boxes/normalised"], (427, 640))
    pixels[3] = 0
    there = matterport.to_centres(pixels)
    np.testing.assert_allclose(as_numpy(matterport.to_pixels(there, np.any(pixels != 0, -1))), pixels, atol=1e-4)
    assert not as_numpy(there)[3].any()


# === Pooling ===


@pytest.mark.parametrize("size", [7, 14, 1])
def test_crop_and_resize(size, unit):
    features, chosen = unit["crop/features"], unit["crop/box_index"]
    side = features.shape[1:3]
    centres = unit["crop/boxes"][:, [1, 0, 3, 2]] * np.float32([side[1] - 1, side[0] - 1] * 2)
    levels = np.zeros((2, len(centres)), np.int32)
    crops = matterport.multilevel_crop_and_resize([features], np.stack([centres] * 2), levels, side, size)
    crops = as_numpy(crops)[chosen, np.arange(len(chosen))]
    np.testing.assert_allclose(crops, unit[f"crop/out{size}"], atol=2e-5)


def test_levels(unit):
    height, width = (int(side) for side in unit["levels/image_shape"][:2])
    centres = unit["levels/boxes"][:, [1, 0, 3, 2]] * np.float32([width - 1, height - 1] * 2)
    levels = as_numpy(matterport.level_index(centres, (height, width)))
    np.testing.assert_array_equal(levels + 2, unit["levels/level"])


def test_the_pool_takes_the_level_that_fits():
    maps = [np.full((1, 64 // 2**i, 96 // 2**i, 1), i, np.float32) for i in range(5)]
    boxes = np.float32([[[0, 0, 20, 20], [0, 0, 224, 224], [0, 0, 384, 256], [0, 0, 0, 0]]])
    pooled = run(layers.MatterportRoIAlign(3), maps, boxes)
    assert pooled[0, :, 1, 1, 0].tolist() == [0, 2, 2, 0]


def test_a_box_that_ends_with_the_image_has_its_last_row():
    features = np.ones((1, 128, 128, 1), np.float32)
    starts = np.random.default_rng(0).uniform(0, 400, (1, 1000, 2))
    boxes = np.float32(np.concatenate([starts, np.full((1, 1000, 2), 512)], -1))
    assert run(layers.MatterportRoIAlign(7, (4,)), [features], boxes).min() > 0.999


# === Suppression and detections ===


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
def test_nms(threshold, unit):
    boxes, scores = unit["nms/boxes"][:, [1, 0, 3, 2]], unit["nms/scores"]
    found, _, classes = multiclass_nms(boxes[None, :, None], scores[None, :, None], float(threshold), -1.0, 100, 100)
    kept = as_numpy(found)[0][as_numpy(classes)[0] >= 0]
    wanted = boxes[unit[f"nms/keep_{threshold}"]]
    assert {tuple(box) for box in kept.tolist()} == {tuple(box) for box in wanted.tolist()}


@pytest.mark.parametrize("least", ["0.7", "0"])
def test_decoder(least, unit):
    window = to_pixels(unit["detect/window"], SIDE)
    # of a canvas of 128 the window is in the middle: from 0.1 to 0.9 of it, and all of the width
    size = np.float32([[window[3] - window[1], window[2] - window[0]]])
    layer = layers.MatterportDecoder(128, float(least), max_detections=30)
    logits = np.roll(np.log(unit["detect/probs"]), -1, axis=-1)[None]
    deltas = xywh(unit["detect/deltas"])[None, :, 1:] * np.float32(1)
    found = run(layer, logits, deltas, to_pixels(unit["detect/rois"], SIDE)[None], size)
    theirs = unit[f"detect/out_{least}"]
    count = int((theirs[:, 4] > 0).sum())
    assert (found["labels"][0] >= 0).sum() == count
    np.testing.assert_array_equal(found["labels"][0][:count] + 1, theirs[:count, 4])
    np.testing.assert_allclose(found["scores"][0][:count], theirs[:count, 5], atol=1e-6)
    # this test's window is of whole pixels, theirs is not
    np.testing.assert_allclose(to_shares(found["boxes"][0][:count], SIDE), theirs[:count, :4], atol=6e-3)


# === Targets ===


@pytest.mark.parametrize("form", ["mini", "full"])
def test_sampled_regions_and_their_masks(form, unit):
    ids = unit["target/gt_class_ids"]
    kept = ids > 0  # the crowd is no target here: its negatives are seen below
    boxes, labels = to_pixels(unit["target/gt_boxes"][kept], SIDE)[None], (ids[kept] - 1)[None]
    proposals = to_pixels(unit["target/proposals"], SIDE)
    crowd = matterport.to_centres(to_pixels(unit["target/gt_boxes"][ids < 0], SIDE))
    touches = as_numpy(box_ops.iou(crowd, matterport.to_centres(proposals)))[0] >= 0.001
    best = as_numpy(box_ops.iou(matterport.to_centres(boxes[0]), matterport.to_centres(proposals))).max(0)
    proposals[touches & (best < 0.5)] = 0
    layer = layers.MatterportBoxTargets(4, count=40, shuffle=False)
    sampled = run(layer, proposals[None], boxes, labels)
    theirs = {key: unit[f"target/{form}/{key}"] for key in ("rois", "class_ids", "deltas", "masks")}
    exists = np.any(theirs["rois"] != 0, -1)
    np.testing.assert_array_equal(sampled["labels"][0], np.where(exists, (theirs["class_ids"] - 1) % 5, -1))
    np.testing.assert_allclose(to_shares(sampled["boxes"][0], SIDE), theirs["rois"], atol=1e-6)
    np.testing.assert_allclose(sampled["deltas"][0], xywh(theirs["deltas"]), atol=2e-4)
    masks = unit[f"target/{form}_masks"][..., kept].transpose(2, 0, 1)[None].astype(np.uint8)
    frames = boxes if form == "mini" else np.tile(np.float32([0, 0, 128, 128]), (1, kept.sum(), 1))
    positives = run(layers.MatterportMaskTargets(4, layer.most_positive), sampled, masks, frames)
    count = int((theirs["class_ids"] > 0).sum())
    assert (positives["labels"][0] >= 0).sum() == count
    off = (positives["masks"][0][:count] != theirs["masks"][:count]).mean()
    assert off < 1e-3, off


def test_few_positives_leave_room():
    boxes, labels = np.float32([[[0, 0, 50, 50]]]), np.int32([[0]])
    proposals = np.float32([[[0, 0, 50, 50]] * 3 + [[60, 60, 90, 90 + i / 9] for i in range(90)]])
    sampled = run(layers.MatterportBoxTargets(2, count=40, seed=1), proposals, boxes, labels)
    assert [(sampled["labels"] == value).sum() for value in (0, 2, -1)] == [3, 6, 31]
    assert not sampled["boxes"][sampled["labels"] < 0].any()


def test_anchors_targets(unit):
    maps = [np.zeros((1, 128 // s, 128 // s, 1), np.float32) for s in (4, 8, 16, 32, 64)]
    grid = layers.MatterportAnchors((8, 16, 32, 64, 128))(maps, np.zeros((1, *SIDE, 3), np.float32))
    ids, boxes = unit["target/gt_class_ids"][:5], np.float32(unit["rpn_target/gt_boxes"])[:, [1, 0, 3, 2]]
    kept = ids > 0
    layer = layers.MatterportRPNTargets(count=100_000, shuffle=False)
    labels, deltas = layer(grid, boxes[None, kept], (ids[None, kept] - 1), np.float32([SIDE]))
    labels, deltas, match = as_numpy(labels)[0], as_numpy(deltas)[0], unit["rpn_target/match"]
    np.testing.assert_array_equal(np.flatnonzero(labels == 1), np.flatnonzero(match == 1))
    assert (labels[match == -1] == 0).all()
    theirs = unit["rpn_target/bbox"][: (match == 1).sum()]
    np.testing.assert_allclose(deltas[labels == 1], xywh(theirs), atol=1e-4)


# === Losses ===


def test_rpn_losses(unit):
    logits, match = unit["loss/in/rpn_logits"], unit["loss/in/rpn_match"][..., 0]
    targets = np.zeros((2, 50, 4), np.float32)
    for i in range(2):
        targets[i, match[i] == 1] = unit["loss/in/rpn_target"][i][: (match[i] == 1).sum()]
    labels = np.where(match == 0, -1, np.where(match == 1, 1, 0))
    difference = logits[..., 1] - logits[..., 0]
    losses = layers.MatterportRPNLoss()([difference], [unit["loss/in/rpn_bbox"]], labels, targets, num_anchors=1)
    assert np.mean(losses["loss_objectness"]) == pytest.approx(float(unit["loss/rpn_class"]), rel=1e-5)
    assert np.mean(losses["loss_rpn_box_reg"]) == pytest.approx(float(unit["loss/rpn_bbox"]), rel=1e-5)


def head_inputs(unit):
    ids = unit["loss/in/class_ids"]
    labels = (ids - 1) % 5  # the background last
    logits = np.roll(unit["loss/in/class_logits"], -1, axis=-1)
    deltas = unit["loss/in/bbox"][:, :, 1:]
    targets = np.where((ids > 0)[..., None], unit["loss/in/bbox_target"], 0)
    return logits, deltas, {"labels": labels.astype(np.int32), "deltas": targets}


def test_head_losses(unit):
    logits, deltas, targets = head_inputs(unit)
    inactive = [i - 1 for i in np.flatnonzero(unit["loss/in/active"][0] == 0)]
    losses = run(layers.MatterportBoxLoss(inactive), logits, deltas, targets)
    assert np.mean(losses["loss_classifier"]) == pytest.approx(float(unit["loss/class"]), rel=1e-5)
    assert np.mean(losses["loss_box_reg"]) == pytest.approx(float(unit["loss/bbox"]), rel=1e-5)
    empty = {**targets, "labels": np.full_like(targets["labels"], -1)}
    losses = run(layers.MatterportBoxLoss(), logits, deltas, empty)
    assert np.mean(losses["loss_box_reg"]) == float(unit["loss/bbox_without_positives"]) == 0
    background = run(
        layers.MatterportBoxLoss(), logits, deltas, {**targets, "labels": np.full_like(empty["labels"], 4)}
    )
    np.testing.assert_array_equal(losses["loss_classifier"], background["loss_classifier"])
    # where theirs is NaN ours is 0
    assert np.isnan(unit["loss/class_with_nothing_active"])
    losses = run(layers.MatterportBoxLoss(range(5)), logits, deltas, targets)
    assert not np.any(losses["loss_classifier"])


def test_mask_loss(unit):
    probabilities = unit["loss/in/mask"][..., 1:].astype(np.float64)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(probabilities) - np.log1p(-probabilities), -1e4, 1e4).astype(np.float32)
    ids = unit["loss/in/class_ids"]
    targets = {"labels": (ids - 1).astype(np.int32), "masks": unit["loss/in/mask_target"]}
    loss = run(layers.MatterportMaskLoss(), logits, targets)["loss_mask"]
    assert np.mean(loss) == pytest.approx(float(unit["loss/mask"]), rel=1e-5)


# === Normalisation ===


def test_the_statistics_stay_and_the_scales_learn():
    layer = layers.FixedBatchNormalization()
    x = np.random.default_rng(0).normal(3, 2, (8, 4)).astype(np.float32)
    trained = as_numpy(layer(x, training=True))
    np.testing.assert_allclose(trained, x / np.sqrt(1 + 1e-3), rtol=1e-6)
    assert [weight.name for weight in layer.trainable_weights] == ["gamma", "beta"]
    assert not as_numpy(layer.moving_mean).any()
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).epsilon == 1e-3
