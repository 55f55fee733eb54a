"""Options that repeat Detectron2: its own numbers of each part, and that the defaults stay what they were."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn import layers
from keras_rcnn.backbones import ResNet, ResNetRegions
from keras_rcnn.data import Preprocessor
from keras_rcnn.data.paste import paste_masks, paste_rle
from keras_rcnn.data.pillow_resize import pillow_size, resize_pillow
from keras_rcnn.ops.anchors import cell_anchors
from keras_rcnn.ops.losses import smooth_l1
from keras_rcnn.ops.roi import level_index, multilevel_roi_align, portable_adaptive_roi_align
from tests.detectron2 import DETECTRON2, golden, needs_detectron2


@pytest.fixture(scope="module")
def unit():
    return golden("unit.npz") if DETECTRON2.is_dir() else pytest.skip(needs_detectron2.mark.kwargs["reason"])


def numpy(x):
    return ops.convert_to_numpy(x)


# === RoIAlign ===


def each_image(rois):
    """Of [R, 5] with the image first: boxes [B, most, 4], and for each image which rows they are."""
    rows = [np.flatnonzero(rois[:, 0] == i) for i in (0, 1)]
    boxes = np.zeros((2, max(map(len, rows)), 4), np.float32)
    for own, row in zip(boxes, rows, strict=True):
        own[: len(row)] = rois[row, 1:]
    return boxes, rows


@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("way", ["kernel", "portable"])
def test_adaptive_roi_align(unit, size, way):
    boxes, rows = each_image(unit["roialign_rois_batch_xyxy"])
    levels, features = np.zeros(boxes.shape[:2], np.int32), np.moveaxis(unit["roialign_feature"], 1, -1)
    if way == "kernel":
        pooled = multilevel_roi_align([features], boxes, levels, [1 / 16], size, 0, True)
    else:
        pooled = portable_adaptive_roi_align([features], boxes, levels, [1 / 16], size, True)
    for own, row in zip(numpy(pooled), rows, strict=True):
        expected = np.moveaxis(unit[f"roialign_out_{size}"][row], 1, -1)
        np.testing.assert_allclose(own[: len(row)], expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's gradients")
@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("way", ["kernel", "portable"])
def test_gradient_of_adaptive_roi_align(unit, size, way):
    import tensorflow as tf

    boxes, rows = each_image(unit["roialign_rois_batch_xyxy"])
    features = tf.Variable(np.moveaxis(unit["roialign_feature"], 1, -1))
    levels = tf.zeros(boxes.shape[:2], tf.int32)
    with tf.GradientTape() as tape:
        if way == "kernel":
            pooled = multilevel_roi_align([features], boxes, levels, [1 / 16], size, 0, True)
        else:
            pooled = portable_adaptive_roi_align([features], tf.constant(boxes), levels, [1 / 16], size, True)
        total = sum(tf.reduce_sum(own[: len(row)]) for own, row in zip(tf.unstack(pooled), rows, strict=True))
    gradient = np.moveaxis(tape.gradient(total, features).numpy(), -1, 1)
    np.testing.assert_allclose(gradient, unit[f"roialign_grad_of_sum_{size}"], atol=2e-4)


def test_levels_and_pooling(unit):
    np.testing.assert_array_equal(numpy(level_index(unit["level_boxes"], 2, 5, inside=True)) + 2, unit["levels_2_to_5"])
    features = [np.moveaxis(unit[f"pooler_feature_{i}"], 1, -1) for i in range(4)]
    pool = layers.RoIAlign(7, samples=0, aligned=True, level_rule="detectron2")
    pooled = numpy(pool(features, unit["pooler_boxes"][None]))[0]
    np.testing.assert_allclose(np.moveaxis(pooled, -1, 1), unit["pooler_out"], atol=1e-5)


def test_nothing_to_pool():
    """Boxes without an area, as padding is, have no samples and are 0; and of no samples at all there is no matrix."""
    pool = layers.RoIAlign(7, (16,), samples=0, aligned=True)
    pooled = numpy(pool([np.ones((1, 4, 5, 3), np.float32)], np.zeros((1, 6, 4), np.float32)))
    assert pooled.shape == (1, 6, 7, 7, 3) and not pooled.any()


# === RPN ===


def test_anchors(unit):
    for name, sizes in (("fpn_3", [256]), ("c4_0", [32, 64, 128, 256, 512])):
        cells = cell_anchors(sizes, (0.5, 1, 2), rounded=False, order="sizes")
        np.testing.assert_array_equal(cells, unit[f"cell_anchors_{name}"])
    anchors = layers.AnchorGenerator([[32, 64, 128, 256, 512]], rounded=False, strides=(16,), order="sizes")
    (grid,) = anchors([np.zeros((1, 5, 7, 1), np.float32)], np.zeros((1, 80, 112, 3), np.float32))
    np.testing.assert_array_equal(numpy(grid), unit["grid_anchors_c4_5x7"])
    np.testing.assert_array_equal(cell_anchors([32, 64], (0.5, 1)), cell_anchors([32, 64], (0.5, 1), order="ratios"))


def test_proposals_by_logits(unit):
    boxes = [unit[f"top_boxes_level{i}"] for i in (0, 1)]
    logits = [unit[f"top_logits_level{i}"][None] - np.float32(8) for i in (0, 1)]  # all below 0
    tiny = float(np.finfo(np.float32).tiny)
    proposals = layers.Proposals((100, 100), (60, 60), min_size=tiny, ranked_by="logits")
    deltas = [np.zeros((1, len(level), 4), np.float32) for level in boxes]  # anchors as they are
    found, scores = (numpy(x)[0] for x in proposals(boxes, logits, deltas, np.float32([[200, 300]])))
    count = len(unit["top_out_logits"])
    np.testing.assert_allclose(scores[:count], unit["top_out_logits"] - 8, rtol=1e-5)
    np.testing.assert_allclose(found[:count], unit["top_out_boxes"], atol=1e-3)
    assert not found[count:].any()


def test_given_proposals():
    given = np.float32([[[-5, 2, 8, 30], [3, 3, 3, 9], [25, 1, 30, 4], [1, 1, 4, 4], [0, 0, 0, 0]]])
    sizes = np.float32([[20, 20]])
    np.testing.assert_array_equal(numpy(layers.GivenProposals()(given, sizes)), given)
    clipped = numpy(layers.GivenProposals(clip=True, most=(5, 4))(given, sizes))
    np.testing.assert_array_equal(clipped[0], [[0, 2, 8, 20], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 4, 4]])
    assert layers.GivenProposals(most=(5, 4))(given, sizes, training=True).shape[1] == 5


def test_losses():
    error = np.float32([-2, 0, 0.5])
    np.testing.assert_array_equal(numpy(smooth_l1(error, 0.0)), np.abs(error))
    logits, deltas = [np.float32([[0.3, -0.2]])], [np.ones((1, 2, 4), np.float32)]
    labels, targets = np.int32([[1, -1]]), np.zeros((1, 2, 4), np.float32)
    fixed = layers.RPNLoss(0.0, "fixed", count=256)(logits, deltas, labels, targets, num_anchors=1)
    np.testing.assert_allclose(numpy(fixed["loss_rpn_box_reg"]), [4 / 256])
    np.testing.assert_allclose(numpy(fixed["loss_objectness"]), [np.log1p(np.exp(-0.3)) / 256], rtol=1e-6)


# === Heads ===


def test_detections(unit):
    tiny = float(np.finfo(np.float32).tiny)
    decoder = layers.DetectionDecoder(0.05, 0.5, 40, min_size=tiny, weights=(1.0, 1.0, 1.0, 1.0))
    boxes = unit["det_boxes"].reshape(1, 80, 5, 4)
    # a decoder takes deltas: those that move unit boxes onto Detectron2's
    sides, centres = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    anchors = np.tile(np.float32([0, 0, 100, 100]), (1, 80, 1))
    deltas = np.concatenate([(centres - 50) / 100, np.log(np.maximum(sides, 1e-3) / 100)], -1)
    found = decoder(unit["det_logits"][None], np.float32(deltas), anchors, np.float32([[200, 300]]))
    count = len(unit["det_out_scores"])
    np.testing.assert_allclose(numpy(found["scores"])[0, :count], unit["det_out_scores"], atol=1e-5)
    np.testing.assert_array_equal(numpy(found["labels"])[0, :count], unit["det_out_classes"])
    expected = unit["det_out_boxes"]
    real = (expected[:, 2:] > expected[:, :2]).all(
        -1
    )  # some corners there are the wrong way round, as no decoder's are
    np.testing.assert_allclose(numpy(found["boxes"])[0, :count][real], expected[real], atol=1e-2)


@pytest.mark.parametrize("size", [28, 14])
def test_binary_mask_targets(unit, size):
    shape = tuple(unit["mask_target_bitmaps_shape"])
    masks = np.unpackbits(unit["mask_target_bitmaps_packed"], axis=1, count=shape[1] * shape[2]).reshape(shape)
    sampled = {
        "boxes": unit["mask_target_boxes"][None] / np.float32(2),
        "labels": np.zeros((1, 10), np.int32),
        "truth": np.arange(10, dtype=np.int32)[None],
    }
    frames = np.tile(np.float32([0, 0, shape[2], shape[1]]), (1, 10, 1))
    targets = layers.MaskTargets(3, 10, size, binary=True)(sampled, masks[None], frames)["masks"]
    packed = unit[f"mask_target_bitmap_out_{size}_packed"]
    expected = np.unpackbits(packed, axis=1, count=size * size).reshape(1, 10, size, size)
    assert (numpy(targets) != expected).sum() <= 2  # cells of exactly a half


def test_group_norm(unit):
    norm = layers.FPN(norm="group").inner_norms[0]
    x = np.moveaxis(unit["norm_in"], 1, -1)
    norm.build((None, None, None, 64))
    norm.gamma.assign(unit["norm_weight"])
    norm.beta.assign(unit["norm_bias"])
    np.testing.assert_allclose(np.moveaxis(numpy(norm(x)), -1, 1), unit["groupnorm32_out_eps_1e-5"], atol=1e-5)


@pytest.mark.parametrize("make", [layers.FPN, layers.BoxHead, lambda norm: layers.MaskHead(3, norm=norm)])
def test_unknown_norms(make):
    with pytest.raises(ValueError, match="'batch', 'group' or None, not 'layer'"):
        make(norm="layer")


# === Backbones ===


def test_strides_of_a_resnet():
    images = np.zeros((1, 64, 96, 3), np.float32)
    first = ResNet(50, stride_in_1x1=True)
    assert {name: x.shape[1:3] for name, x in first(images).items()}["C5"] == (2, 3)
    assert first.get_layer("stage2_block0_conv1").strides == (2, 2)
    dilated = ResNet(50, dilated=True)
    assert dilated(images)["C5"].shape == (1, 4, 6, 2048) and dilated.strides["C5"] == 16
    assert dilated.get_layer("stage4_block0_conv2").dilation_rate == (2, 2)
    short = ResNet(50, last="C4")
    assert set(short.strides) == {"C2", "C3", "C4"} == set(short.channels)
    for settings in ({"dilated": True}, {"stride_in_1x1": True}, {"groups": 2}):
        with pytest.raises(ValueError, match="begin"):
            ResNet(18, **settings)


def test_a_stage_for_each_region():
    pool = layers.RoIAlign(14, (16,), samples=0, aligned=True)
    regions = ResNetRegions(pool, norm="group", epsilon=1e-4, momentum=0.8, stride_in_1x1=True, chunk=4)
    rng = np.random.default_rng(0)
    features = [rng.random((2, 8, 9, 1024), np.float32)]
    boxes = np.float32([[[0, 0, 64, 64], [8, 8, 100, 90], [5, 6, 50, 70], [1, 2, 30, 40], [0, 0, 144, 128]]] * 2)
    whole = numpy(regions(features, boxes, training=True))
    assert whole.shape == (2, 5, 7, 7, 2048)
    np.testing.assert_allclose(numpy(regions(features, boxes)), whole, rtol=1e-4, atol=1e-4)  # in chunks
    again = ResNetRegions.from_config(regions.get_config())
    assert again.get_config() == regions.get_config()
    assert [weight.path for weight in again.weights] == [weight.path for weight in regions.weights]
    mean = numpy(layers.RegionMean()(whole))
    np.testing.assert_allclose(mean, whole.mean((2, 3)), rtol=1e-5)


# === Photos ===


def test_sizes_of_photos(unit):
    for row in unit["resize_sizes_h_w_short_long_newh_neww"].tolist():
        assert pillow_size(*row[:4]) == tuple(row[4:])
    assert pillow_size(400, 600, 800, 1333, (320, 320)) == (213, 320)


def test_pillow(unit):
    for height, width in ((60, 86), (20, 29), (37, 80), (19, 53)):
        expected = unit[f"resize_out_{height}x{width}"]
        np.testing.assert_array_equal(resize_pillow(unit["resize_in"], height, width), expected)
    floats = unit["resize_in"].astype(np.float32) / 255
    np.testing.assert_array_equal(resize_pillow(floats, 20, 29), unit["resize_out_20x29"])


def test_values_are_exact():
    """Mean and std are kept in 0..1, and what comes out is what 0..255 gives, to the last bit."""
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    preprocessor = Preprocessor(
        50, 80, [m / 255 for m in mean], [s / 255 for s in std], 1, resize="detectron2", channels="bgr"
    )
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    expected = (image.astype(np.float32) - np.float32(mean)) / np.float32(std)
    np.testing.assert_array_equal(preprocessor(image), expected[..., ::-1])
    for name in ("resize", "channels", "paste"):
        with pytest.raises(ValueError, match=name):
            Preprocessor(**{name: "caffe"})


@pytest.mark.parametrize("size", [28, 14])
def test_pasting(unit, size):
    from pycocotools import mask as coco

    masks, boxes = unit[f"paste_probs_{size}"], unit["paste_boxes"]
    pasted = paste_masks(masks, boxes, 60, 80, rule="detectron2")
    expected = np.unpackbits(unit[f"paste_out_packed_{size}"], axis=1, count=4800).reshape(12, 60, 80)
    np.testing.assert_array_equal(pasted, expected)
    rles = paste_rle(masks, boxes, 60, 80, rule="detectron2")
    np.testing.assert_array_equal(np.stack([coco.decode(rle) for rle in rles]), expected)
