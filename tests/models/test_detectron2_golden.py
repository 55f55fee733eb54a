"""Detectors with Detectron2's weights, stage by stage against its own outputs on the golden photos."""

import functools
import gc

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.convert import assign, convert_detectron2
from keras_rcnn.data import read_image, scale_boxes
from keras_rcnn.detectron2_detectors import detectron2_detector
from keras_rcnn.ops.losses import mask_loss
from tests.detectron2 import DETECTRON2, golden, golden_state, needs_detectron2
from tests.models.test_torchvision_golden import chw, close, same_set
from tests.shared import SHARED, whole_model

pytestmark = needs_detectron2

MASK, FAST, C4 = "mask_rcnn_R_50_FPN_1x", "fast_rcnn_R_50_FPN_1x", "mask_rcnn_R_50_C4_1x"
MODELS = (
    MASK,
    FAST,
    "faster_rcnn_R_50_FPN_1x",
    "faster_rcnn_X_101_32x8d_FPN_3x",
    "mask_rcnn_R_50_FPN_3x_gn",
    "scratch_mask_rcnn_R_50_FPN_3x_gn",
    "mask_rcnn_R_50_FPN_400ep_LSJ",
    C4,
    "faster_rcnn_R_50_C4_1x",
    "voc_faster_rcnn_R_50_C4",
    "mask_rcnn_R_50_DC5_1x",
)
IN_CI = {(MASK, "coffee_small"), (FAST, "coffee_small"), (C4, "coffee_small"), (MASK, "train")}
# (model, photo of the batch) -> a detection whose proposal has a side of 224 px to 1e-6: it is rounding that decides
# on which level it is pooled, and float64 has not been asked about batches
ON_A_BORDER = {("mask_rcnn_R_50_FPN_400ep_LSJ", 1): 24}
MAPS = {"p2": 0, "p3": 1, "p4": 2, "p5": 3, "p6": 4, "res4": 0, "res5": 0}


def cases(wanted):
    """(model, case) of every golden file that passes."""
    return [
        whole_model(name, case, in_ci=(name, case) in IN_CI)
        for name in (MODELS if DETECTRON2.is_dir() else ())
        for case in sorted(golden(f"{name}.json")["cases"])
        if wanted(case)
    ]


@functools.lru_cache(maxsize=1)  # one at a time: DC5's weights alone are 0.7 GB
def detector(name):
    """The golden model and one that gives every stage."""
    keras.backend.clear_session()
    gc.collect()
    overrides = golden(f"{name}.json")["settings"]["overrides"]
    model = detectron2_detector(name, **overrides)
    assign(model, convert_detectron2(name, golden_state(name), overrides))
    model.preprocessor = model.preprocessor.replace(min_size=320, max_size=480, few_shapes=False)
    layers = {layer.name: layer for layer in model.layers}
    # nodes are added in the order of the calls: the inference graph's comes first
    wanted = {
        "features": listed(layers["fpn" if "fpn" in layers else "single_level"].output),
        "pooled": layers["box_pool"]._inbound_nodes[0].output_tensors,
        "predictions": layers["box_predictor"]._inbound_nodes[0].output_tensors,
        "detections": model.output,
    }
    if "rpn_head" in layers:
        wanted["anchors"], wanted["rpn"] = listed(layers["anchors"].output), listed(layers["rpn_head"].output)
        wanted["proposals"] = layers["proposals"]._inbound_nodes[0].output_tensors
    return model, keras.Model(model.input, wanted)


def listed(outputs):
    """A layer's outputs; Keras gives a list of one as what is in it."""
    return outputs if isinstance(outputs, list) else [outputs]


def same_detections(ours, theirs, noise=None):
    """0.1 px, 2e-3 of score, the same labels; returns each of ours among theirs, as sets.

    `noise` is how far Detectron2 in float32 is from itself in float64, which is allowed on top.
    """
    noise = noise or {}
    count = len(theirs["scores"])
    assert len(ours["scores"]) == count
    distance = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(-1)
    distance = distance + 1e6 * (ours["labels"][:, None] != theirs["classes"][None])
    partner = distance.argmin(1)
    assert sorted(partner) == list(range(count))
    assert distance.min(1).max() < 0.1 + noise.get("max_box_err_px", 0)
    assert np.abs(ours["scores"] - theirs["scores"][partner]).max() < 2e-3 + noise.get("max_score_err", 0)
    return partner


def same_masks(ours, theirs, partner, suffix=""):
    """Under 0.5 % of the pixels of all masks differ."""
    shape = tuple(theirs[f"masks_shape{suffix}"])
    wanted = np.unpackbits(theirs[f"masks_packed{suffix}"], axis=1, count=shape[1] * shape[2]).reshape(shape)
    assert ours.shape == shape
    assert (ours != wanted.astype(bool)[partner]).sum() < 0.005 * wanted.sum()


@pytest.mark.parametrize(("name", "photo"), cases(lambda case: case != "batch2"))
def test_every_stage(name, photo):
    theirs, case = golden(f"{name}__{photo}.npz"), golden(f"{name}.json")["cases"][photo]
    model, stages = detector(name)
    image = read_image(SHARED / "golden" / case["image"])
    x = model.preprocessor.batch([image])
    assert x["images"].shape == tuple(theirs["batch_shape"][[0, 2, 3, 1]])
    assert tuple(x["image_sizes"][0]) == tuple(theirs["size_resized"])
    np.testing.assert_array_equal(chw(x["images"][0])[:, ::8, ::8], theirs["input_every8"])
    if model.wants_proposals:
        given = theirs["given_proposals_original_frame"]
        x["proposals"] = scale_boxes(given, image.shape[:2], x["image_sizes"][0])[None]
    out = stages.predict_on_batch(x)

    for key, index in MAPS.items():
        if f"feat_{key}_slice" in theirs:
            whole, channels = chw(out["features"][index][0]), theirs[f"feat_{key}_ch"]
            stride, largest = theirs[f"feat_{key}_stride"], np.abs(theirs[f"feat_{key}_slice"]).max()
            for ours, what in (
                (whole[channels][:, ::stride, ::stride], "slice"),
                (whole[channels][:, -1], "lastrow"),
                (whole[channels][:, :, -1], "lastcol"),
            ):
                assert np.abs(ours - theirs[f"feat_{key}_{what}"]).max() <= 1e-4 * largest, f"feature {key} {what}"
    boxes = check_proposals(out, theirs) if "rpn" in out else clipped(x["proposals"][0], theirs)
    check_regions(out, theirs, boxes)

    outputs = {key: np.asarray(value)[0] for key, value in out["detections"].items()}
    found = model.restore(outputs, image.shape[:2], x["image_sizes"][0])
    partner = same_detections(found, theirs, case["vs_float64"])
    if "masks" in found:
        noise = case["vs_float64"].get("max_mask_prob_err", 0)
        assert np.abs(outputs["masks"][: len(partner)] - theirs["mask_probs"][partner]).max() < 2e-3 + noise
        same_masks(found["masks"], theirs, partner)


def check_proposals(out, theirs):
    """Anchors, the RPN's outputs and the proposals; returns the latter."""
    every = theirs["every"]
    anchors = np.concatenate([np.asarray(level) for level in out["anchors"]])
    np.testing.assert_array_equal(anchors[::every], theirs["anchors_every"])
    levels = len(out["rpn"]) // 2  # the logits of every level, then the deltas
    logits, deltas = (np.concatenate(part, axis=1)[0] for part in (out["rpn"][:levels], out["rpn"][levels:]))
    close(logits[::every], theirs["rpn_logits_every"], 1e-4, "objectness")
    close(deltas[::every], theirs["rpn_deltas_every"], 1e-4, "deltas")
    boxes, scores = (np.asarray(value)[0] for value in out["proposals"])
    wanted = theirs["proposals_in_network_frame"]
    kept = boxes[:, 2] > boxes[:, 0]
    assert kept.sum() == len(wanted)
    distance = np.abs(boxes[kept][:, None] - wanted[None]).max(-1)
    # Detectron2 itself leaves up to four without a partner between float32 and float64
    assert (distance.min(0) > 0.05).sum() + (distance.min(1) > 0.05).sum() <= 4
    np.testing.assert_allclose(scores[kept], theirs["proposal_logits_network"], atol=2e-3)
    return boxes


def clipped(boxes, theirs):
    """Fast R-CNN's proposals, of which none is lost here."""
    height, width = theirs["size_resized"]
    boxes = np.clip(boxes, 0, np.float32([width, height, width, height]))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    same_set(boxes[kept], theirs["proposals_in_network_frame"], 1e-3)
    return boxes


def check_regions(out, theirs, boxes):
    """What comes of each proposal, paired by box."""
    distance = np.abs(theirs["proposals_in_network_frame"][:, None] - boxes[None]).max(-1)
    partner, sure = distance.argmin(1), distance.min(1) < 0.05
    rois, channels = theirs["pooled_rois_every"], theirs["pooled_ch_every"]
    pooled = chw_of_regions(np.asarray(out["pooled"][0])[0][partner[::rois]])
    if "res5_slice" in theirs:  # pooled and through the stage
        close(pooled[:, ::128][sure[::rois]], theirs["res5_slice"][sure[::rois]], 2e-3, "stage of regions")
    else:
        close(pooled[:, ::channels][sure[::rois]], theirs["pooled_slice"][sure[::rois]], 2e-3, "pooled")
    logits, deltas = (np.asarray(value)[0][partner] for value in out["predictions"])
    close(logits[:100][sure[:100]], theirs["class_logits_top100"][sure[:100]], 2e-3, "class logits")
    close(logits[:, -1][sure], theirs["background_logit"][sure], 2e-3, "background logit")
    wanted = theirs["box_deltas_top20"].reshape(20, -1, 4)
    close(deltas[:20][sure[:20]], wanted[sure[:20]], 2e-3, "box deltas")


def chw_of_regions(x):
    return np.moveaxis(x, -1, 1)


@pytest.mark.parametrize(("name", "case"), cases(lambda case: case == "batch2"))
def test_batch_of_two(name, case):
    theirs, info = golden(f"{name}__{case}.npz"), golden(f"{name}.json")["cases"][case]
    model, _ = detector(name)
    given = None
    if model.wants_proposals:
        photos = [image.split("/")[1].removesuffix(".png") for image in info["images"]]
        given = [golden(f"{name}__{photo}.npz")["given_proposals_original_frame"] for photo in photos]
    images = [SHARED / "golden" / image for image in info["images"]]
    found = model.detect(images, score=0.0, batch_size=2, proposals=given)
    for i, ours in enumerate(found):
        if (name, i) in ON_A_BORDER:
            theirs = without(theirs, i, ON_A_BORDER[name, i])
        partner = same_detections(ours, {key: theirs[f"{key}_{i}"] for key in ("boxes", "scores", "classes")})
        if "masks" in ours:
            same_masks(ours["masks"], theirs, partner, f"_{i}")


def without(theirs, photo, index):
    """A batch's golden arrays without one detection."""
    theirs = dict(theirs)
    for key in ("boxes", "scores", "classes", "masks_packed"):
        theirs[f"{key}_{photo}"] = np.delete(theirs[f"{key}_{photo}"], index, axis=0)
    theirs[f"masks_shape_{photo}"] = theirs[f"masks_shape_{photo}"] - np.array([1, 0, 0])
    return theirs


# === Training ===

# Detectron2's names of the losses
LOSSES = {
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}
TRAINED = [
    whole_model(name, in_ci=(name, "train") in IN_CI)
    for name in MODELS
    if DETECTRON2.is_dir() and "train" in golden(f"{name}.json")
]


def training_batch(model, name, info):
    """The two photos with their targets, which are given in px of the resized photo."""
    photos = info["photos"]
    images = [read_image(SHARED / "golden" / "images" / f"{photo}.png") for photo in photos]
    x = model.preprocessor.batch(images)
    y = {"boxes": np.zeros((2, 6, 4), np.float32), "labels": np.full((2, 6), -1, np.int32)}
    for i, photo in enumerate(photos):
        boxes = np.float32(info["targets"][photo]["boxes"])
        y["boxes"][i, : len(boxes)], y["labels"][i, : len(boxes)] = boxes, info["targets"][photo]["classes"]
    if model.wants_proposals:
        given = [golden(f"{name}__{photo}.npz")["given_proposals_original_frame"] for photo in photos]
        both = zip(given, images, x["image_sizes"], strict=True)
        x["proposals"] = np.stack([scale_boxes(boxes, image.shape[:2], size) for boxes, image, size in both])
    if model.has_masks:  # of no account: the targets are Detectron2's own, see below
        height, width = x["images"].shape[1:3]
        y["masks"] = np.zeros((2, 6, 8, 8), np.uint8)
        y["mask_frames"] = np.tile(np.float32([0, 0, width, height]), (2, 6, 1))
    return {**x, **y}


@pytest.mark.parametrize("name", TRAINED)
def test_training_losses(name):
    theirs, info = golden(f"{name}__train.npz"), golden(f"{name}.json")["train"]
    model, _ = detector(name)
    layers = {layer.name: layer for layer in model.training_graph.layers}
    for part in ("rpn_targets", "box_targets"):
        if part in layers:
            layers[part].seed_generator = None  # the first in index order, as the golden run's samplers
    graph = dict(model.training_graph.output)
    if model.has_masks:
        graph["mask_logits"] = layers["mask_head"]._inbound_nodes[-1].output_tensors[0]
        graph["mask_labels"] = layers["mask_targets"]._inbound_nodes[0].output_tensors[1]
    whole = keras.Model(model.training_graph.input, graph)
    out = whole(training_batch(model, name, info), training=True)
    for key, value in info["losses"].items():
        if key in LOSSES:
            assert float(np.mean(out[LOSSES[key]])) == pytest.approx(value, rel=1e-3), key
    if model.has_masks:
        assert float(masks_loss(out, theirs)) == pytest.approx(info["losses"]["loss_mask"], rel=1e-3)


def masks_loss(out, theirs):
    """The loss of our masks for Detectron2's targets, which COCO's routine made of polygons."""
    labels, logits = out["mask_labels"], out["mask_logits"]
    targets = np.zeros(tuple(logits.shape[:-1]), np.float32)
    for i in range(2):
        shape = tuple(theirs[f"mask_targets_shape_{i}"])
        packed = theirs[f"mask_targets_packed_{i}"]
        targets[i, : shape[0]] = np.unpackbits(packed, axis=1, count=shape[1] * shape[2]).reshape(shape)
        assert shape[0] == (np.asarray(labels[i]) >= 0).sum()
    labels = np.asarray(labels)
    return ops.mean(mask_loss(logits, np.maximum(labels, 0), targets, labels >= 0))
