"""Tiny detectors that are sure of something: untrained, with scores far enough apart to be put in order."""

import io

import keras
import numpy as np
from PIL import Image

from keras_rcnn import layers
from keras_rcnn.data import Preprocessor
from tests.models.keypoint_figures import keypoint_branch
from tests.models.test_fast_rcnn import fast_rcnn, rcnn
from tests.models.test_mask_rcnn import tiny_mask_rcnn
from tests.models.tiny import shapes, tiny_detector

NAMES = ["square", "Bärchen"]


def cascade(**changes):
    """A Cascade Mask R-CNN."""
    return tiny_mask_rcnn(cascade=layers.Cascade(), box_predictor=None, **changes)


def with_keypoints(**parts):
    """A Keypoint R-CNN."""
    return tiny_detector(**parts, keypoint_branch=keypoint_branch(), decoder=layers.DetectionDecoder(max_detections=30))


BUILD = {
    "faster": tiny_detector,
    "mask": tiny_mask_rcnn,
    "fast": fast_rcnn,
    "rcnn": rcnn,
    "cascade": cascade,
    "keypoints": with_keypoints,
}


def detector(kind):
    """One of these, always the same."""
    keras.utils.set_random_seed(7)
    model = BUILD[kind](class_names=NAMES, preprocessor=Preprocessor(128, 160))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "predictor" in weight.path or "objectness" in weight.path:
            weight.assign(rng.standard_normal(weight.shape) * 0.3)
        elif "mask_head" in weight.path or "keypoint_head" in weight.path:
            weight.assign(rng.standard_normal(weight.shape) * 0.1)
    return model


def photos():
    """Three photos of several sizes, to be enlarged and to be made smaller."""
    image = shapes(4, size=256)[3].image
    small = shapes(1)[0].image
    return [image[:200], np.ascontiguousarray(image[20:, :150]), np.ascontiguousarray(small[:90, :120])]


def proposals(image, count=60, seed=0):
    """Boxes anywhere in a photo."""
    height, width = image.shape[:2]
    corner = np.random.default_rng(seed).uniform(0, 0.7, (count, 2)) * (width, height)
    boxes = np.concatenate([corner, corner + np.random.default_rng(seed + 1).uniform(10, 60, (count, 2))], axis=1)
    return np.clip(boxes, 0, [width, height] * 2).astype(np.float32)


def encoded(image, format="PNG", **options):
    """The bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format, **options)
    return file.getvalue()


def valid(outputs, i=0):
    """One photo's outputs without padding."""
    keep = np.asarray(outputs["labels"][i]) >= 0
    return {key: np.asarray(value[i])[: len(keep)][keep[: len(value[i])]] for key, value in outputs.items()}
