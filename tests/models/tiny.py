"""A detector small enough to train in a test, and a data set to train it on."""

import keras
import numpy as np

from keras_rcnn import layers
from keras_rcnn.data import Dataset, Preprocessor, Record
from keras_rcnn.layers.base import register
from keras_rcnn.models import FasterRCNN

STRIDES = {f"C{i}": 2**i for i in range(2, 6)}


@register
class TinyBackbone(keras.Model):
    """Five strided convolutions."""

    def __init__(self, channels=(16, 24, 32, 48, 64), name="tiny"):
        x = inputs = keras.Input((None, None, 3), name="images")
        outputs = {}
        for i, c in enumerate(channels):
            x = keras.layers.Conv2D(c, 3, strides=2, padding="same", activation="relu", name=f"tiny_conv{i}")(x)
            if i:
                outputs[f"C{i + 1}"] = x
        super().__init__(inputs, outputs, name=name)
        self.channels, self.strides = list(channels), STRIDES

    def get_config(self):
        return {"channels": self.channels, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def tiny_detector(num_classes=2, neck=None, shuffle=True, **changes):
    neck = neck or layers.FPN(32)
    strides = neck.strides(STRIDES)
    parts = {
        "neck": neck,
        "anchors": layers.AnchorGenerator([[4 * s] for s in strides]),
        "proposals": layers.Proposals((200, 100), (100, 50)),
        "rpn_targets": layers.RPNTargets(count=64, shuffle=shuffle, seed=1),
        "box_targets": layers.BoxTargets(num_classes, count=32, shuffle=shuffle, seed=2),
        "box_pool": layers.RoIAlign(5, strides[: neck.roi_levels()], canonical_size=56, name="box_pool"),
        "box_head": layers.BoxHead((64,)),
        "preprocessor": Preprocessor(128, 128),
    }
    return FasterRCNN(TinyBackbone(), num_classes, **{**parts, **changes})


def shapes(count=8, classes=("square", "bar"), seed=0, size=128):
    """Bright squares and dark upright bars on noise."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        image = rng.integers(90, 130, (size, size, 3)).astype(np.uint8)
        boxes, labels = [], []
        for corner in ((4, 4), (68, 4), (4, 68), (68, 68))[: 1 + i % 4]:
            label = int(rng.integers(2))
            w, h = (int(rng.integers(24, 40)),) * 2 if label == 0 else (14, int(rng.integers(36, 52)))
            x, y = corner[0] + int(rng.integers(8)), corner[1] + int(rng.integers(8))
            image[y : y + h, x : x + w] = (250, 220, 60) if label == 0 else (10, 40, 160)
            boxes.append([x, y, x + w, y + h])
            labels.append(label)
        records.append(
            Record(
                image=image,
                image_id=i,
                height=size,
                width=size,
                boxes=np.array(boxes, np.float32),
                labels=np.array(labels, np.int32),
            )
        )
    return Dataset(records, list(classes), name="shapes")


def batch(images=2, size=(128, 160), seed=0):
    """Random images with two objects in the first and none in the others."""
    rng = np.random.default_rng(seed)
    x = {
        "images": rng.standard_normal((images, *size, 3)).astype(np.float32),
        "image_sizes": np.tile(np.float32(size), (images, 1)),
    }
    y = {"boxes": np.zeros((images, 5, 4), np.float32), "labels": np.full((images, 5), -1, np.int32)}
    y["boxes"][0, :2] = [[10, 10, 50, 60], [70, 30, 120, 100]]
    y["labels"][0, :2] = [0, 1]
    return x, y
