"""Random changes of an image that take its boxes and masks along.

Every transform is called as `transform(image, boxes, labels, masks, rng)` and returns the first four:

- image: uint8 RGB `[h, w, 3]`;
- boxes: float32 `[n, 4]`, xyxy px;
- labels: int32 `[n]`; `PROPOSAL` marks a box that is no object but a proposal, and moves along;
- masks: list of `n` `InstanceMask`, or None; with keypoints each is a `keras_rcnn.data.keypoints.Posed`, which
  `keras_rcnn.data.keypoints.like` makes anew where a transform moves it; without masks their crops are then empty;
- rng: `numpy.random.Generator`.

`keeps_size` says that the image's size never changes.

Those that mix photos have `photos`, how many objects' photos may come together in one, and are also given `others`: a
function without arguments that returns another photo of the data set as `(image, boxes, labels, masks)`, drawn by the
same `rng`. Those that need masks have `needs_masks`.
"""

from keras_rcnn.data.augment.colours import ColorJitter, Photometric
from keras_rcnn.data.augment.compose import Compose, standard
from keras_rcnn.data.augment.mixing import CopyPaste, Mosaic
from keras_rcnn.data.augment.objects import PROPOSAL
from keras_rcnn.data.augment.turns import HorizontalFlip, Rotate, Rotate90, VerticalFlip
from keras_rcnn.data.augment.views import LargeScaleJitter, ObjectCrop, ScaleJitter

__all__ = [
    "PROPOSAL",
    "ColorJitter",
    "Compose",
    "CopyPaste",
    "HorizontalFlip",
    "LargeScaleJitter",
    "Mosaic",
    "ObjectCrop",
    "Photometric",
    "Rotate",
    "Rotate90",
    "ScaleJitter",
    "VerticalFlip",
    "standard",
]
