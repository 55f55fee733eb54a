"""Every part of unit.npz, torchvision's own outputs, that `ops` and `layers` implement."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.ops import anchors, boxes, deltas, losses, masks, matching, nms, roi
from tests.ops.compiled import compiled
from tests.shared import golden, needs_golden

pytestmark = needs_golden
KERNELS = ["backend", "portable", "xla"]


@pytest.fixture(scope="module")
def unit():
    return golden("unit.npz")


@pytest.fixture(scope="module")
def meta():
    return golden("unit.json")


def equal(ours, theirs, tolerance=1e-4):
    """Within `tolerance` of the array's largest magnitude, as the noise of a float32 sum is."""
    ours, theirs = ops.convert_to_numpy(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(np.float64) - theirs).max() <= tolerance * max(1e-6, np.abs(theirs).max())


def nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def by_image(rois):
    """torchvision's [R, 5] -> boxes [2, R / 2, 4]: the golden RoIs alternate between the two images."""
    assert (rois[:, 0] == np.arange(len(rois)) % 2).all()
    return np.stack([rois[0::2, 1:], rois[1::2, 1:]])


def interleaved(pooled):
    """[2, R / 2, S, S, C] -> torchvision's [R, C, S, S]."""
    pooled = ops.convert_to_numpy(pooled)
    return np.moveaxis(np.stack([pooled[0], pooled[1]], 1).reshape(-1, *pooled.shape[2:]), -1, 1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("samples", "size"), [(2, 7), (2, 14), (1, 7), (-1, 7), (-1, 14), (0, 7)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_roi_align(unit, meta, aligned, samples, size, kernel):
    x, rois = nhwc(unit["roi_input"]), by_image(unit["roi_rois"])
    if kernel != "portable":
        function = compiled(roi.roi_align) if kernel == "xla" else roi.roi_align
        out = function(x, rois, meta["roi_scale"], size, samples, aligned)
    elif samples > 0:
        level = ops.zeros(rois.shape[:2], "int32")
        out = roi.portable_multilevel_roi_align([x], rois, level, [meta["roi_scale"]], size, samples, aligned)
    else:
        pytest.skip("adaptive sampling has one implementation")
    equal(interleaved(out), unit[f"roi_align_{'aligned' if aligned else 'legacy'}_sr{samples}_{size}x{size}"], 1e-5)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [2, -1])
@pytest.mark.parametrize("kernel", KERNELS)
def test_roi_align_gradient(unit, meta, aligned, samples, kernel):
    x, rois = nhwc(unit["roi_input"]), by_image(unit["roi_rois"])
    name = f"roi_align_{'aligned' if aligned else 'legacy'}_sr{samples}_7x7"
    weights = np.linspace(-1, 1, unit[name].size, dtype=np.float32).reshape(unit[name].shape)
    weights = np.moveaxis(weights, 1, -1).reshape(-1, 2, 7, 7, x.shape[-1]).swapaxes(0, 1)

    def objective(x):
        if kernel == "portable":
            if samples < 0:
                pytest.skip("adaptive sampling has one implementation")
            level = ops.zeros(rois.shape[:2], "int32")
            out = roi.portable_multilevel_roi_align([x], rois, level, [meta["roi_scale"]], 7, samples, aligned)
        else:
            out = roi.roi_align(x, rois, meta["roi_scale"], 7, samples, aligned)
        return ops.sum(out * weights)

    theirs = unit[name + "_grad_input_of_sum_y_times_linspace(-1,1)"]
    if kernel == "xla" and samples < 0:
        pytest.skip("XLA has no reverse gradient of a while loop; adaptive sampling is for targets: none needed")
    ours = compiled(lambda x: gradient(objective, x)) if kernel == "xla" else lambda x: gradient(objective, x)
    equal(np.moveaxis(ops.convert_to_numpy(ours(x)), -1, 1), theirs)


def gradient(function, x):
    if keras.backend.backend() == "jax":
        import jax

        if "while" in str(jax.make_jaxpr(function)(x)):
            pytest.skip("JAX has no reverse gradient of a while loop; adaptive sampling is for targets: none needed")
        return jax.grad(function)(x)
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def test_roi_pool(unit, meta):
    x, rois = nhwc(unit["roi_input"]), by_image(unit["roi_rois"])
    out = interleaved(roi.roi_pool(x, rois, meta["roi_scale"], 7))
    np.testing.assert_array_equal(out, unit["roi_pool_7x7"])
    index, found = roi.pooled_index(ops.convert_to_tensor(x), rois, meta["roi_scale"], (7, 7))
    index = ops.where(found, index, -1)
    np.testing.assert_array_equal(interleaved(index), unit["roi_pool_7x7_argmax"])
    out = interleaved(roi.roi_pool(x, rois, meta["roi_scale"], (5, 3)))
    np.testing.assert_array_equal(out, unit["roi_pool_5x3"])


def test_level_index_and_multilevel_roi_align(unit, meta):
    ours = ops.convert_to_numpy(roi.level_index(unit["level_boxes"], 2, 5))
    np.testing.assert_array_equal(ours, unit["level_index_k2_5"])
    features = [nhwc(unit[f"ms_feat_{i}"]) for i in range(4)]
    counts = [len(unit["ms_boxes_0"]), len(unit["ms_boxes_1"])]
    for size, take in ((7, counts), (14, [5, 5])):
        padded = np.zeros((2, max(take), 4), np.float32)
        for i, n in enumerate(take):
            padded[i, :n] = unit[f"ms_boxes_{i}"][:n]
        levels = roi.level_index(padded, 2, 5)
        run = roi.multilevel_roi_align
        for kernel in (run, roi.portable_multilevel_roi_align, compiled(run)):
            out = ops.convert_to_numpy(kernel(features, padded, levels, meta["ms"]["scales"], size, 2, False))
            out = np.concatenate([out[i, :n] for i, n in enumerate(take)])
            equal(np.moveaxis(out, -1, 1), unit[f"ms_out_{size}x{size}_sr2"])


# the portable kernel takes a step a box
@pytest.mark.parametrize(
    "kernel", ["backend", *(pytest.param(one, marks=pytest.mark.slow) for one in ("portable", "xla"))]
)
def test_nms(unit, kernel):
    def keep(boxes, scores, threshold):
        if kernel == "portable":
            index, count = nms.portable_nms(
                ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores), nms.float32_below(threshold), len(boxes)
            )
        else:
            run = compiled(nms.nms) if kernel == "xla" else nms.nms
            index, count = run(boxes, scores, threshold, len(boxes))
        return ops.convert_to_numpy(index)[: int(count)]

    b, s = unit["nms_boxes"], unit["nms_scores"]
    for threshold in (0.0, 0.3, 0.5, 0.7, 1.0):
        np.testing.assert_array_equal(keep(b, s, threshold), unit[f"nms_keep_{threshold}"])
    np.testing.assert_array_equal(keep(b, unit["nms_tied_scores"], 0.5), unit["nms_tied_keep_0.5"])
    np.testing.assert_array_equal(keep(b, np.full(len(b), 0.5, np.float32), 0.5), unit["nms_allequal_keep_0.5"])
    np.testing.assert_array_equal(keep(unit["nms_edge_boxes"], unit["nms_edge_scores"], 0.5), unit["nms_edge_keep_0.5"])


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        pytest.param(
            case, kernel, marks=pytest.mark.slow if kernel == "portable" and case != "batched_negcoords" else ()
        )
        for case in ("batched", "batched_big", "batched_negcoords")
        for kernel in KERNELS
    ],
)
def test_batched_nms(unit, kernel, case):
    if case == "batched":
        b, s, c, keep = unit["nms_boxes"], unit["nms_scores"], unit["batched_idx"], unit["batched_nms_keep_0.5"]
    elif case == "batched_big":
        b, s, c, keep = (unit[f"batched_big_{k}"] for k in ("boxes", "scores", "idx", "keep_0.5"))
    else:
        n = len(unit["batched_negcoords_boxes"])
        b, s, c = unit["batched_negcoords_boxes"], unit["batched_big_scores"][:n], unit["batched_big_idx"][:n]
        keep = unit["batched_negcoords_vanilla_keep_0.5"]
    classes = int(c.max()) + 1
    scores = np.where(c[:, None] == np.arange(classes), s[:, None], -1).astype(np.float32)
    functions = {"portable": nms.portable_multiclass_nms, "xla": compiled(nms.multiclass_nms)}
    function = functions.get(kernel, nms.multiclass_nms)
    out, out_scores, labels = function(b[None, :, None], scores[None], nms.float32_below(0.5), 0.0, len(b), len(b))
    out, out_scores, labels = (ops.convert_to_numpy(v)[0] for v in (out, out_scores, labels))
    n = int((labels >= 0).sum())
    assert n == len(keep)
    np.testing.assert_array_equal(out_scores[:n], s[keep])
    np.testing.assert_array_equal(out[:n], b[keep])
    np.testing.assert_array_equal(labels[:n], c[keep])
    assert (out[n:] == 0).all()
    assert (out_scores[n:] == 0).all()


def test_small_boxes_and_clip(unit):
    kept = np.flatnonzero(ops.convert_to_numpy(boxes.at_least(unit["remove_small_boxes_in"], 1e-2)))
    np.testing.assert_array_equal(kept, unit["remove_small_boxes_1e-2"])
    clipped = boxes.clip(unit["clip_in"], np.array([200, 300], np.float32))
    np.testing.assert_array_equal(ops.convert_to_numpy(clipped), unit["clip_200x300"])


def test_iou_family(unit):
    a, b = unit["iou_boxes1"], unit["iou_boxes2"]
    equal(boxes.iou(a, b), unit["box_iou"], 1e-6)
    equal(boxes.generalized_iou(a, b), unit["generalized_box_iou"], 1e-6)
    equal(boxes.distance_iou(a, b), unit["distance_box_iou"], 1e-6)
    equal(boxes.complete_iou(a, b), unit["complete_box_iou"], 1e-5)
    for kind, name in (("giou", "generalized"), ("diou", "distance"), ("ciou", "complete")):
        equal(1 - boxes.paired_iou(a[:11], b, kind), unit[f"{name}_box_iou_loss_none"], 1e-5)


def test_anchors(unit, meta):
    ratios = (0.5, 1.0, 2.0)
    for i, size in enumerate((32, 64, 128, 256, 512)):
        np.testing.assert_array_equal(anchors.cell_anchors([size], ratios), unit[f"cell_anchors_fpn_{i}"])
    many = (32, 64, 128, 256, 512)
    np.testing.assert_array_equal(anchors.cell_anchors(many, ratios), unit["cell_anchors_mobilenet"])
    np.testing.assert_array_equal(anchors.cell_anchors(many, ratios), unit["cell_anchors_c4"])
    odd = [((33, 50.5), (0.3, 1.0, 3.3)), ((7,), (0.5, 1.0))]
    for i, (sizes, shapes) in enumerate(odd):
        np.testing.assert_array_equal(anchors.cell_anchors(sizes, shapes), unit[f"cell_anchors_odd_{i}"])
    for name, cells in (
        ("fpn_224x352", [unit[f"cell_anchors_fpn_{i}"] for i in range(5)]),
        ("mobilenet_320x480", [unit["cell_anchors_mobilenet"]] * 3),
        ("odd_101x67", [unit["cell_anchors_odd_0"], unit["cell_anchors_odd_1"]]),
    ):
        info = meta[f"anchors_{name}"]
        grids = [anchors.grid_anchors(c, m, info["image"]) for c, m in zip(cells, info["maps"], strict=True)]
        grids = np.concatenate([ops.convert_to_numpy(g) for g in grids])
        np.testing.assert_array_equal(grids, unit[f"anchors_{name}"])


def test_box_coder(unit):
    for name, weights in (("10_10_5_5", (10.0, 10.0, 5.0, 5.0)), ("1_1_1_1", (1.0, 1.0, 1.0, 1.0))):
        equal(deltas.encode(unit["coder_gt"], unit["coder_anchors"], weights), unit[f"coder_encode_{name}"], 1e-6)
        equal(deltas.decode(unit["coder_codes"], unit["coder_anchors"], weights), unit[f"coder_decode_{name}"], 1e-6)
        codes = unit["coder_codes_3class"].reshape(-1, 3, 4)
        ours = deltas.decode(codes, unit["coder_anchors"][:, None], weights)
        equal(ours, unit[f"coder_decode_3class_{name}"], 1e-6)


def test_matcher(unit):
    for low, high, low_quality in ((0.3, 0.7, True), (0.5, 0.5, False)):
        ours = matching.match(unit["matcher_quality"], high, low, low_quality)
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), unit[f"matcher_{low}_{high}_{low_quality}"])
    ties = unit["matcher_tie_quality"]
    ours = ops.convert_to_numpy(matching.match(ties, 0.7, 0.3, True, guard=False))
    np.testing.assert_array_equal(ours, unit["matcher_tie_0.3_0.7_True"])
    # with the guard the third box, which overlaps nothing, claims no anchor
    guarded = ops.convert_to_numpy(matching.match(ties[:2], 0.7, 0.3, True, guard=False))
    np.testing.assert_array_equal(ops.convert_to_numpy(matching.match(ties, 0.7, 0.3, True)), guarded)


def test_losses(unit):
    error = unit["loss_pred"] - unit["loss_target"]
    for beta in (1 / 9, 1.0, 0.5):
        equal(losses.smooth_l1(error, beta), unit[f"smooth_l1_beta{beta:.4f}_none"], 1e-5)
    equal(losses.binary_crossentropy(unit["bce_logits"], unit["bce_labels"]), unit["bce_none"], 1e-5)
    equal(ops.mean(losses.crossentropy(unit["ce_logits"], unit["ce_labels"].astype("int32"))), unit["ce_mean"], 1e-5)
    equal(losses.sigmoid_focal(unit["bce_logits"], unit["bce_labels"]), unit["sigmoid_focal_loss_none"], 1e-5)


def test_fast_rcnn_loss(unit):
    # torchvision has background first, we have it last
    labels = unit["ce_labels"].astype("int32")
    logits = np.roll(unit["ce_logits"], -1, axis=1)[None]
    regression = unit["fastrcnn_box_regression"].reshape(1, -1, 7, 4)[:, :, 1:]
    ours = np.where(labels == 0, 6, labels - 1)[None].astype("int32")
    cls, box = losses.box_losses(logits, regression, ours, unit["fastrcnn_reg_targets"][None])
    equal(cls[0], unit["fastrcnn_loss_classifier"], 1e-5)
    equal(box[0], unit["fastrcnn_loss_box_reg"], 1e-5)


def test_mask_targets_and_loss(unit):
    masks_of_rois = unit["masktarget_masks"][unit["masktarget_idx"]][None]
    rois = unit["masktarget_boxes"][None]
    whole = np.tile(np.array([0, 0, 90, 60], np.float32), (1, len(rois[0]), 1))
    targets = masks.crop_masks(masks_of_rois, whole, rois, 28, aligned=False)
    equal(targets[0], unit["masktarget_28"], 1e-5)
    labels = unit["maskloss_labels_per_gt"][unit["masktarget_idx"]][None].astype("int32")
    logits = np.moveaxis(unit["maskloss_logits"], 1, -1)[None]
    loss = losses.mask_loss(logits, labels, targets, np.ones_like(labels, bool))
    equal(loss[0], unit["maskloss"], 1e-5)
    chosen = losses.of_class(np.moveaxis(logits, -1, 2), unit["maskinf_labels"][None].astype("int32"))
    equal(ops.sigmoid(chosen)[0][:, None], unit["maskinf_out"], 1e-5)


def test_resize_nearest_and_fpn(unit):
    from keras_rcnn.layers.fpn import FPN, resize_nearest

    x = nhwc(unit["upsample_nearest_in"])
    for h, w in ((25, 38), (26, 37)):
        np.testing.assert_array_equal(
            np.moveaxis(ops.convert_to_numpy(resize_nearest(x, h, w)), -1, 1), unit[f"upsample_nearest_{h}x{w}"]
        )
    fpn = FPN(6, in_features=("0", "1", "2"))
    features = {str(i): nhwc(unit[f"fpn_in_{i}"]) for i in range(3)}
    fpn(features)
    for i in range(3):
        for ours, theirs in ((fpn.inner[i], "inner"), (fpn.output_convs[i], "layer")):
            kernel = unit[f"fpn_param_{theirs}_blocks.{i}.0.weight"].transpose(2, 3, 1, 0)
            ours.set_weights([kernel, unit[f"fpn_param_{theirs}_blocks.{i}.0.bias"]])
    for ours, name in zip(fpn(features), ("0", "1", "2", "pool"), strict=True):
        equal(np.moveaxis(ops.convert_to_numpy(ours), -1, 1), unit[f"fpn_out_{name}"], 1e-5)
