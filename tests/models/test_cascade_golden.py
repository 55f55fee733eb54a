"""Cascade Mask R-CNN with Detectron2's weights, stage by stage against its own outputs on a golden photo."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_rcnn.data import read_image
from tests.detectron2 import golden, needs_detectron2
from tests.models.test_detectron2_golden import (
    LOSSES,
    check_proposals,
    detector,
    listed,
    masks_loss,
    same_detections,
    same_masks,
    training_batch,
)
from tests.models.test_torchvision_golden import close
from tests.shared import SHARED, gated

NAME, STAGES = "cascade_mask_rcnn_R_50_FPN_1x", ("", "_1", "_2")
pytestmark = [pytest.mark.slow, needs_detectron2]


def outputs_of(graph, name, place):
    """A layer's outputs in a graph, by the place of its call."""
    (layer,) = [one for one in graph.layers if one.name == name]
    return layer._inbound_nodes[place].output_tensors


def test_every_stage(photo="coffee_small"):
    theirs, case = golden(f"{NAME}__{photo}.npz"), golden(f"{NAME}.json")["cases"][photo]
    model, _ = detector(NAME)
    image = read_image(SHARED / "golden" / case["image"])
    x = model.preprocessor.batch([image])
    graph = {"detections": model.output, "proposals": outputs_of(model, "proposals", 0)}
    graph |= {key: listed(outputs_of(model, f"{key}_head" if key == "rpn" else key, 0)) for key in ("anchors", "rpn")}
    for i, suffix in enumerate(STAGES):
        graph[f"predictions{i}"] = outputs_of(model, f"box_predictor{suffix}", 0)
        graph[f"boxes{i}"] = outputs_of(model, f"refined_boxes_{i}", 0)[0]
    out = keras.Model(model.input, graph).predict_on_batch(x)

    noise = case["vs_float64"]
    boxes = check_proposals(out, theirs)
    distance = np.abs(theirs["proposals_in_network_frame"][:, None] - boxes[None]).max(-1)
    partner, sure = distance.argmin(1), distance.min(1) < 0.05
    probabilities = []
    for i in range(3):
        logits, deltas = (np.asarray(value)[0][partner] for value in out[f"predictions{i}"])
        close(logits[:100][sure[:100]], theirs[f"class_logits_top100_stage{i}"][sure[:100]], 2e-3, f"logits {i}")
        close(logits[:, -1][sure], theirs[f"background_logit_stage{i}"][sure], 2e-3, f"background logit {i}")
        close(deltas[:20, 0][sure[:20]], theirs[f"box_deltas_top20_stage{i}"][sure[:20]], 2e-3, f"deltas {i}")
        refined, limit = np.asarray(out[f"boxes{i}"])[0][partner], x["image_sizes"][0][[1, 0, 1, 0]]
        wanted = np.clip(theirs[f"stage_boxes_stage{i}"], 0, limit)  # they are not clipped there yet
        assert np.abs(refined - wanted)[sure].max() < 0.1, f"boxes {i}"
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities.append(exponents / exponents.sum(-1, keepdims=True))
        close(probabilities[i][:100][sure[:100]], theirs[f"stage_probs_top100_stage{i}"][sure[:100]], 2e-3, "softmax")
    mean = np.mean(probabilities, axis=0)[:100]
    close(mean[sure[:100]], theirs["mean_probs_top100"][sure[:100]], 2e-3, "mean of the stages")

    outputs = {key: np.asarray(value)[0] for key, value in out["detections"].items()}
    found = model.restore(outputs, image.shape[:2], x["image_sizes"][0])
    partner = same_detections(found, theirs, noise)
    probs = np.abs(outputs["masks"][: len(partner)] - theirs["mask_probs"][partner]).max()
    assert probs < 2e-3 + noise.get("max_mask_prob_err", 0)
    same_masks(found["masks"], theirs, partner)


@gated
def test_training_losses():
    tf = pytest.importorskip("tensorflow")
    theirs, info = golden(f"{NAME}__train.npz"), golden(f"{NAME}.json")["train"]
    model, _ = detector(NAME)
    for layer in model.training_graph.layers:
        if layer.name in ("rpn_targets", "box_targets"):
            layer.seed_generator = None  # the first in index order, as the golden run's samplers
    graph = dict(model.training_graph.output)
    graph["mask_logits"] = outputs_of(model.training_graph, "mask_head", -1)[0]
    graph["mask_labels"] = outputs_of(model.training_graph, "mask_targets", 0)[1]
    for suffix in STAGES:
        graph[f"targets{suffix}"] = outputs_of(model.training_graph, f"box_targets{suffix}", -1)
    whole = keras.Model(model.training_graph.input, graph)
    names = {key: LOSSES[key] for key in ("loss_rpn_cls", "loss_rpn_loc")}
    for key in ("loss_cls", "loss_box_reg"):
        names |= {f"{key}_stage{i}": f"{LOSSES[key]}{f'_stage{i}' if i else ''}" for i in range(3)}
    weights = {weight.path: weight for weight in whole.trainable_weights}
    with tf.GradientTape() as tape:
        out = whole(training_batch(model, NAME, info), training=True)
        ours = {key: ops.mean(out[name]) for key, name in names.items()}
        ours["loss_mask"] = masks_loss(out, theirs)
        total = sum(ours.values())
    for key, value in info["losses"].items():
        assert float(ours[key]) == pytest.approx(value, rel=1e-3), key
    for i, suffix in enumerate(STAGES):
        labels = np.asarray(out[f"targets{suffix}"][2])
        for photo, own in enumerate(labels):
            name = f"stage{i}" if i else "roi"
            classes = theirs[f"{name}_classes_{photo}"]
            assert sorted(own[own >= 0]) == sorted(classes), f"labels of stage {i}"
    # the gradients into the maps are those of scaled features: of each stage a third, and the masks' whole
    wanted = {
        **{f"fpn/output_{i}/kernel": f"backbone.fpn_output{i + 2}.weight" for i in range(3)},
        "stage2_block0_conv1/kernel": "backbone.bottom_up.res3.0.conv1.weight",
        **{f"box_head{suffix}/fc_0/kernel": f"roi_heads.box_head.{i}.fc1.weight" for i, suffix in enumerate(STAGES)},
    }
    gradients = tape.gradient(total, [weights[path].value for path in wanted])
    for (path, name), gradient in zip(wanted.items(), gradients, strict=True):
        norm = float(np.linalg.norm(np.asarray(gradient)))
        assert norm == pytest.approx(info["grad_norms_of_the_sum"][name], rel=1e-2), path
