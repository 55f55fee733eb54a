"""What looks like a detector to the service, is quick, and can be held up."""

import threading

import numpy as np

from keras_rcnn.data import Preprocessor
from keras_rcnn.models import Detector


class Stub:
    """Finds one box in each photo, whose score is the photo's mean; a photo that is black makes it fail.

    Attributes:
        batches: the numbers of photos that were run at once.
        free: an event: while it is not set, the model takes its time.
        begun: a semaphore: released for each batch that has begun.
    """

    wants_proposals, has_masks, jit_compile, thresholds, parts = False, False, False, None, {}
    class_names, num_classes = ["fig"], 1
    restore = Detector.restore

    def __init__(self, seconds=0.0):
        self.preprocessor = Preprocessor(32, 64, mean=(0, 0, 0), std=(1, 1, 1))
        self.batches, self.free, self.begun, self.seconds = [], threading.Event(), threading.Semaphore(0), seconds
        self.free.set()

    def predict_on_batch(self, x):
        self.batches.append(len(x["images"]))
        self.begun.release()
        assert self.free.wait(60)
        if self.seconds:
            threading.Event().wait(self.seconds)
        means = [
            image[: int(size[0]), : int(size[1])].mean()
            for image, size in zip(x["images"], x["image_sizes"], strict=True)
        ]
        if min(means) == 0:
            raise RuntimeError("a black photo")
        count = len(means)
        return {
            "boxes": np.tile(np.float32([[[0, 0, 8, 8], [0, 0, 0, 0]]]), (count, 1, 1)),
            "scores": np.stack([np.float32(means), np.zeros(count, np.float32)], axis=1),
            "labels": np.tile(np.int32([[0, -1]]), (count, 1)),
        }


def grey(value, height=32, width=32):
    """A PNG of one colour."""
    from tests.export.detectors import encoded

    return encoded(np.full((height, width, 3), value, np.uint8))
