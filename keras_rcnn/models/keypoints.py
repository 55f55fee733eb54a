"""A keypoint branch on a detector, whichever it is: it hangs on the neck's maps and on what `box_targets` sampled."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_rcnn.models.inputs import keypoint_inputs

Graph = dict[str, Any]


def with_keypoints(
    config: Mapping[str, Any], targets: Graph, detections: Graph, losses: Graph
) -> tuple[Graph, Graph, Graph]:
    """The graphs of a detector with the keypoint branch among its arguments, if there is one.

    Args:
        config: the detector's arguments, whose layers have just been called.
        targets: dict of symbolic inputs of the training graph.
        detections: dict of the inference graph's outputs.
        losses: dict of the training graph's outputs.

    Returns:
        `(targets, detections, losses)`, with `keypoints` among the first two and `loss_keypoint` in the last.
    """
    branch = config.get("keypoint_branch")
    if branch is None:
        return targets, detections, losses
    features, sampled = _outputs(config["neck"]), _outputs(config["box_targets"])
    targets = {**targets, **keypoint_inputs(branch.head.num_keypoints)}
    detections = branch(features, detections)
    numbers = {"num_classes": config["num_classes"], "most": config["box_targets"].most_positive}
    return targets, detections, {**losses, **branch(features, sampled, targets["keypoints"], **numbers)}


def _outputs(layer: keras.layers.Layer) -> Any:
    """What a layer returned in its last call."""
    node = layer._inbound_nodes[-1]
    like = layer.compute_output_spec(*node.arguments.args, **node.arguments.kwargs)
    return keras.tree.pack_sequence_as(like, node.output_tensors)
