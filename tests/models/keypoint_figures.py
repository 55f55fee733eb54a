"""Drawn stick figures with their keypoints: what a small keypoint detector is trained on in a test."""

import cv2
import numpy as np

from keras_rcnn import layers
from keras_rcnn.data import Dataset, Record
from keras_rcnn.skeletons import Skeleton
from tests.models.tiny import tiny_detector

SKELETON = Skeleton(
    ("head", "left_hand", "right_hand", "left_foot", "right_foot"), ((0, 1), (0, 2), (1, 2), (1, 3), (2, 4))
)
COLOURS = ((255, 255, 255), (240, 60, 60), (60, 90, 250), (250, 200, 40), (60, 220, 90))


def keypoint_branch(**changes):
    head = layers.KeypointHead(5, convs=(32, 32), names=list(SKELETON.names), bones=[list(b) for b in SKELETON.bones])
    pool = layers.RoIAlign(7, (4, 8, 16, 32), canonical_size=56, name="keypoint_pool")
    return layers.KeypointBranch(**{"head": head, "pool": pool, **changes})


def keypoint_detector(**changes):
    parts = {"keypoint_branch": keypoint_branch(), "decoder": layers.DetectionDecoder(max_detections=8)}
    return tiny_detector(1, class_names=["figure"], **{**parts, **changes})


def figures(count=8, seed=0, size=128):
    """One or two figures a picture, each of five coloured dots and the lines between them, on noise."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        image = rng.integers(60, 100, (size, size, 3)).astype(np.uint8)
        boxes, points = [], []
        for left in (4, 66)[: 1 + i % 2]:
            width, height = rng.integers(36, 56), rng.integers(64, 100)
            x, y = left + rng.integers(0, 56 - width + 1), rng.integers(8, 120 - height)
            places = np.array([[0.5, 0.06], [0.9, 0.4], [0.1, 0.4], [0.8, 0.94], [0.2, 0.94]])
            places[1:] += rng.uniform(-0.08, 0.08, (4, 2)) * [[1, 1], [1, 1], [1, 0], [1, 0]]
            xy = np.clip(places, 0.04, 0.96) * [width, height] + [x, y]
            for start, end in SKELETON.bones:
                ends = [tuple(np.rint(xy[place]).astype(int).tolist()) for place in (start, end)]
                cv2.line(image, *ends, (150, 150, 150), 2)
            for place, colour in zip(xy, COLOURS):
                cv2.circle(image, tuple(np.rint(place).astype(int).tolist()), 4, colour, -1)
            boxes.append([*(xy.min(0) - 5), *(xy.max(0) + 5)])
            points.append(np.concatenate([xy, np.full((5, 1), 2)], axis=1))
        records.append(
            Record(
                image=image,
                image_id=i,
                height=size,
                width=size,
                boxes=np.clip(boxes, 0, size),
                labels=np.zeros(len(boxes), np.int32),
                keypoints=points,
            )
        )
    return Dataset(records, ["figure"], name="figures", skeleton=SKELETON)
