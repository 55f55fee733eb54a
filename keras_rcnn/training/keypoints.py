"""The keypoint branch that a recipe describes."""

from typing import Any

from keras_rcnn import layers
from keras_rcnn.skeletons import Skeleton
from keras_rcnn.training.settings import RecipeError, Settings


def keypoint_branch(settings: Settings, pool: Any, skeleton: Skeleton | None) -> layers.KeypointBranch:
    """A keypoint branch for the data's skeleton, which pools from the levels that the box head does.

    Args:
        settings: `Settings`.
        pool: the box head's `RoIAlign`.
        skeleton: the data's.

    Raises:
        RecipeError: the data have none.
    """
    if skeleton is None:
        raise RecipeError("keypoints = True, but the training data have no keypoints.")
    config = {**pool.get_config(), "size": 14, "name": "keypoint_pool"}
    convs, names = settings.keypoint_head_channels, skeleton.names
    head = layers.KeypointHead(len(names), convs, names=list(names), bones=[list(bone) for bone in skeleton.bones])
    return layers.KeypointBranch(head, type(pool).from_config(config))
