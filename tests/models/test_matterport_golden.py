"""Detectors with the weights of Matterport's Mask_RCNN, against what it itself found, computed and lost.

What is off, and why: TensorFlow's crop_and_resize reads 0 for the last row or column of about one region in 26 that
ends with the image, by a rounding that hangs on the last bit of the region's other side. Which regions these are
differs between any two programs, so that single detections do, too: of coco_resnet101's 91 in `astronaut_tall` a fork
of Matterport's on TensorFlow 2 misses one as well. `APART` says how many in each case.
"""

import keras
import numpy as np
import pytest

import keras_rcnn
from keras_rcnn.convert import assign, convert_matterport, read_keras_h5
from keras_rcnn.data import read_image
from keras_rcnn.matterport_detectors import matterport_detector
from keras_rcnn.ops import matterport
from keras_rcnn.ops.boxes import iou
from tests.matterport import facts, numbers, settings_of, to_pixels, to_shares, write_h5, xywh
from tests.models.tiny import shapes
from tests.shared import SHARED, gated, needs_golden, whole_model

pytestmark = needs_golden
slow = pytest.mark.slow
CASES = [
    whole_model("nucleus_resnet50", "coffee_crop", in_ci=True),
    whole_model("coco_resnet101", "china", in_ci=False),
    whole_model("coco_resnet101", "astronaut_tall", in_ci=False),
    whole_model("coco_resnet101", "china_1024", in_ci=False),
    whole_model("balloon_resnet101", "coffee_small", in_ci=False),
]
# losses further than 1e-3 from theirs: one region in 400 lost its last column there (with it, ours is within 1e-5)
LOOSE = {("balloon_resnet101", "mrcnn_class"): 2e-3}
# detections whose box or mask is another, or that are missing
APART = {"china": 1, "astronaut_tall": 1}


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """A golden model's layers, read of the real .h5."""
    read = {}

    def get(name):
        if name not in read:
            read.clear()  # a quarter of a gigabyte each
            read[name] = read_keras_h5(write_h5(name, tmp_path_factory.mktemp("weights") / f"{name}.h5"))
        return read[name]

    return get


def detector(layers, name, config):
    model = matterport_detector(settings_of(config))
    assign(model, convert_matterport(layers(name)))
    return model


def photo_of(case, index=0):
    name = case["photo"] if isinstance(case["photo"], str) else case["photo"][index]
    image = read_image(SHARED / "golden" / "images" / f"{name}.png")
    if case["crop_y0_y1_x0_x1"] is None:
        return image
    top, bottom, left, right = case["crop_y0_y1_x0_x1"]
    return image[top:bottom, left:right]


def same_detections(found, theirs, apart=0, noise=0.0):
    """Class ids, 1 px, 2e-3 of score and 1 % of all masks' union, but for `apart` of them."""
    boxes, ids = found["boxes"][:, [1, 0, 3, 2]], found["labels"] + 1
    distance = np.abs(boxes[:, None] - theirs["rois"][None]).max(-1)
    distance = (
        distance
        + np.abs(found["scores"][:, None] - theirs["scores"][None])
        + 1e6 * (ids[:, None] != theirs["class_ids"])
    )
    pairs = [(i, j) for i, j in enumerate(distance.argmin(1)) if distance[i, j] <= 1.5]
    assert len({j for _, j in pairs}) == len(pairs)
    ours, others = np.array(pairs).T
    assert len(pairs) >= max(len(found["boxes"]), len(theirs["rois"])) - apart
    assert np.abs(boxes[ours] - theirs["rois"][others]).max() <= 1
    assert np.abs(found["scores"][ours] - theirs["scores"][others]).max() < 2e-3
    assert (np.diff(found["scores"]) <= 0).all()
    count, shape = int(np.prod(theirs["masks_shape"])), tuple(theirs["masks_shape"])
    wanted = np.unpackbits(theirs["masks"], count=count).reshape(shape).astype(bool).transpose(2, 0, 1)[others]
    masks = found["masks"][ours]
    assert (masks != wanted).sum() <= (0.01 + noise) * (masks | wanted).sum()


@pytest.mark.parametrize(("name", "case"), CASES)
def test_detect(name, case, layers):
    info = facts(name)
    model = detector(layers, name, info["configs"][info["cases"][case]["config"]])
    found = model.detect(photo_of(info["cases"][case]), score=0.0)
    same_detections(found, numbers(f"{name}__{case}"), APART.get(case, 0))


@slow
@gated
def test_a_batch_of_two(layers):
    info, theirs = facts("coco_resnet101"), numbers("coco_resnet101__batch2")
    case = info["cases"]["batch2"]
    model = detector(layers, "coco_resnet101", info["configs"][case["config"]])
    found = model.detect([photo_of(case, i) for i in range(2)], score=0.0, batch_size=2)
    for i, ours in enumerate(found):
        own = {key.removeprefix(f"{i}/"): value for key, value in theirs.items() if key.startswith(f"{i}/")}
        same_detections(ours, own, apart=1)


# === Stages ===


def stages_of(model):
    """A model that gives every stage."""
    parts = {layer.name: layer for layer in model.layers}
    # nodes are added in the order of the calls: the inference graph's comes first
    first = ("backbone", "proposals", "box_pool", "box_head", "box_predictor", "mask_pool")
    names = {"backbone": model.parts["backbone"].name}
    wanted = {key: parts[names.get(key, key)]._inbound_nodes[0].output_tensors for key in first}
    wanted |= {"levels": parts["fpn"].output, "anchors": parts["anchors"].output, "rpn": parts["rpn_head"].output}
    return keras.Model(model.input, {**wanted, "detections": model.output})


def near(ours, theirs, tolerance, what):
    error, limit = np.abs(ours - theirs).max(), tolerance * np.abs(theirs).max()
    assert error <= limit, f"{what}: off by {error:.3g}, allowed {limit:.3g}"


@pytest.mark.parametrize(("name", "case"), CASES[:2])
def test_every_stage(name, case, layers):
    info, theirs = facts(name), numbers(f"{name}__{case}")
    config = info["configs"][info["cases"][case]["config"]]
    model = detector(layers, name, config)
    x = model.preprocessor.batch([photo_of(info["cases"][case])])
    np.testing.assert_array_equal(np.rint(x["images"][0] + np.float32(config["MEAN_PIXEL"])), theirs["molded_uint8"])
    out = stages_of(model).predict_on_batch(x)
    for i, step in enumerate((4, 2, 1, 1)):
        near(out["backbone"][i][0][::step, ::step, ::64], theirs[f"C{i + 2}/slice"], 1e-4, f"C{i + 2}")
    for i, step in enumerate((4, 2, 1, 1, 1)):
        near(out["levels"][i][0][::step, ::step, ::32], theirs[f"P{i + 2}/slice"], 1e-4, f"P{i + 2}")
    side = x["images"].shape[1:3]
    anchors = np.concatenate([np.asarray(level) for level in out["anchors"]])
    near(to_shares(anchors[::997], side), theirs["anchors/every997"], 1e-6, "anchors")
    count = len(out["rpn"]) // 2
    logits, deltas = (np.concatenate(part, 1)[0][::17] for part in (out["rpn"][:count], out["rpn"][count:]))
    both = theirs["rpn_class_logits/every17"]
    near(logits, both[:, 1] - both[:, 0], 2e-4, "objectness")
    near(deltas, xywh(theirs["rpn_bbox/every17"]), 2e-4, "deltas")

    regions = to_shares(out["proposals"][0][0], side)
    distance = np.abs(theirs["rpn_rois"][:, None] - regions[None]).max(-1)
    assert (distance.min(1) < 2e-4).mean() > 0.999
    # the stages after the proposals, paired by proposal, but for the regions whose edge is lost
    partner = distance.argmin(1)
    near(out["box_pool"][0][0][partner][:48, ..., ::32], theirs["roi_align_classifier/first48"], 5e-3, "pooled")
    off = np.abs(out["box_head"][0][0][partner][::16, ::16] - theirs["pool_squeeze/every16"]).max(-1)
    assert np.mean(off < 1e-2 * theirs["pool_squeeze/every16"].max()) > 0.95
    logits = np.roll(out["box_predictor"][0][0], 1, -1)[partner]
    off = np.abs(logits[::8] - theirs["mrcnn_class_logits/every8"]).max(-1)
    assert np.mean(off < 1e-2) > 0.95


# === Training ===


@pytest.mark.parametrize(
    "name",
    [
        whole_model("nucleus_resnet50", in_ci=True),
        whole_model("balloon_resnet101", in_ci=False),
        whole_model("coco_resnet101", in_ci=False),
    ],
)
def test_losses(name, layers):
    """On its own sampled anchors and proposals: a proposal that noise moves over an IoU of 0.5 makes other targets."""
    theirs, info = numbers(f"{name}__train"), facts(name)["train"]
    model = detector(layers, name, info["settings"])
    parts = model.parts
    parts["rpn_targets"].seed_generator = parts["box_targets"].seed_generator = None
    if name == "coco_resnet101":  # the classes from 61 on are another data set's
        parts["box_loss"].inactive = tuple(range(60, 80))
    x, y = golden_batch(theirs, info["settings"])
    stages = stages_of(model).predict_on_batch(x)
    side, levels = x["images"].shape[1:3], stages["levels"]

    # their sampler keeps the last anchors, ours the first
    match, targets = theirs["rpn_match"], np.zeros((*theirs["rpn_match"].shape, 4), np.float32)
    for i, row in enumerate(match):
        targets[i, row == 1] = xywh(theirs["rpn_bbox"][i][: (row == 1).sum()])
    labels, count = np.where(match == 0, -1, np.where(match == 1, 1, 0)), len(stages["rpn"]) // 2
    losses = parts["rpn_loss"](stages["rpn"][:count], stages["rpn"][count:], labels, targets, num_anchors=3)
    chosen = np.asarray(parts["rpn_targets"](stages["anchors"], y["boxes"], y["labels"], x["image_sizes"])[0])
    assert ((chosen == 1) != (match == 1)).sum() <= 2  # of anchors with the same IoU float32 may find another one best

    proposals = without_crowds(to_pixels(theirs["rpn_rois"], side), theirs, side)
    sampled = parts["box_targets"](proposals, y["boxes"], y["labels"])
    np.testing.assert_allclose(to_shares(np.asarray(sampled["boxes"]), side), theirs["target/rois"], atol=1e-6)
    exists = np.any(theirs["target/rois"] != 0, -1)
    ids = np.where(exists, (theirs["target/class_ids"] - 1) % (model.num_classes + 1), -1)
    np.testing.assert_array_equal(np.asarray(sampled["labels"]), ids)
    logits, deltas = parts["box_predictor"](parts["box_head"](parts["box_pool"](levels, sampled["boxes"])))
    losses = {**losses, **parts["box_loss"](logits, deltas, sampled)}
    positives = parts["mask_targets"](sampled, y["masks"], y["mask_frames"])
    logits = parts["mask_head"](parts["mask_pool"](levels, positives["boxes"]))
    losses = {**losses, **parts["mask_loss"](logits, positives)}

    ours = {"rpn_class": "loss_objectness", "rpn_bbox": "loss_rpn_box_reg", "mrcnn_class": "loss_classifier"}
    ours |= {"mrcnn_bbox": "loss_box_reg", "mrcnn_mask": "loss_mask"}
    for key, own in ours.items():
        expected = float(np.ravel(theirs[f"loss/{key}"])[0])
        assert float(np.mean(losses[own])) == pytest.approx(expected, rel=LOOSE.get((name, key), 1e-3)), key


def without_crowds(proposals, theirs, side):
    """Proposals [B, R, 4] without the negatives that touch a crowd, which are no samples there."""
    for i, ids in enumerate(theirs["gt_class_ids"]):
        boxes = matterport.to_centres(np.float32(theirs["gt_boxes"][i][:, [1, 0, 3, 2]]))
        overlap = np.asarray(iou(boxes, matterport.to_centres(proposals[i])))
        crowd = np.any(overlap[ids < 0] >= 1e-3, axis=0)
        proposals[i, crowd & (overlap[ids > 0].max(0) < 0.5)] = 0
    return proposals


def golden_batch(theirs, config):
    """The golden training's `(x, y)`. A crowd is left out, as `Batches` leaves it out."""
    meta, ids = theirs["image_metas"], theirs["gt_class_ids"]
    images = (theirs["image_uint8"] - np.array(config["MEAN_PIXEL"])).astype(np.float32)
    boxes = np.where((ids > 0)[..., None], theirs["gt_boxes"][..., [1, 0, 3, 2]], 0).astype(np.float32)
    shape = tuple(theirs["gt_masks_shape"])
    masks = np.unpackbits(theirs["gt_masks"], count=int(np.prod(shape))).reshape(shape).transpose(0, 3, 1, 2)
    x = {"images": images, "image_sizes": np.float32(meta[:, [9, 10]] - meta[:, [7, 8]])}
    labels = np.where(ids > 0, ids - 1, -1).astype(np.int32)
    return x, {"boxes": boxes, "labels": labels, "masks": masks.astype(np.uint8), "mask_frames": boxes}


@slow
def test_from_matterport_to_a_served_model(layers, tmp_path):
    """Converted, trained further, saved, loaded, exported."""
    name = "nucleus_resnet50"
    config = {**facts(name)["configs"]["NucleusInference"], "IMAGE_MIN_DIM": 128, "IMAGE_MIN_SCALE": 0}
    few = {"POST_NMS_ROIS_INFERENCE": 100, "POST_NMS_ROIS_TRAINING": 100, "DETECTION_MAX_INSTANCES": 20}
    model = detector(layers, name, {**config, **few, "PRE_NMS_LIMIT": 400})
    data = shapes(4, classes=("square", "bar"))
    for record in data:
        record.labels[:] = 0
        record.segmentations = [_box_mask(record, box) for box in record.boxes]
    data.class_names[:] = ["thing"]
    model.class_names = ["thing"]
    before = keras.ops.convert_to_numpy(model.get_layer("box_head").weights[0]).copy()
    model.parts["backbone"].freeze_at = 5  # Matterport's layers="heads"
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9, global_clipnorm=5.0))
    batches = data.batches(model.preprocessor, batch_size=2, masks=True, mask_size=56)
    history = model.fit(batches, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]
    assert not np.array_equal(before, keras.ops.convert_to_numpy(model.get_layer("box_head").weights[0]))

    keras_rcnn.save_preset(model, tmp_path / "preset", name="things")
    again = keras_rcnn.from_preset(tmp_path / "preset")
    photo = data[0].image
    found, expected = again.detect(photo, score=0.0), model.detect(photo, score=0.0)
    for key in ("boxes", "labels", "masks"):
        np.testing.assert_array_equal(found[key], expected[key])
    rows = keras_rcnn.export_model(again, tmp_path / "served", photos=[photo], masks="pasted")["parity"]
    assert rows


def _box_mask(record, box):
    mask = np.zeros((record.height, record.width), bool)
    x1, y1, x2, y2 = box.astype(int)
    mask[y1:y2, x1:x2] = True
    return mask
