"""VGG16 (Simonyan and Zisserman 2014), configuration D: the backbone of Fast and Faster R-CNN's best results."""

import keras

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.backbones.caffe import MEAN, STAGES, STD, CaffeParts, load_caffe
from keras_rcnn.interfaces import FilePath

# (convolutions, channels) of a stage
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


@keras.saving.register_keras_serializable("keras_rcnn")
class VGG16(Backbone):
    """VGG16's 13 convolutions: the maps C2 to C5 of strides 4 to 32 with 256, 512, 512 and 512 channels.

    C4 is conv5_3, of stride 16: what Fast and Faster R-CNN pool from (`neck=SingleLevel("C4")`), to 7 x 7. C5 is pool5,
    7 x 7 for R-CNN's warped regions of 224 px. fc6 and fc7 are the detector's `BoxHead((4096, 4096), dropout=0.5)`.

    Args:
        weights: None (random) or the path of VGG_ILSVRC_16_layers.caffemodel, of `keras.applications`' first `.h5`, of
            a Fast or Faster R-CNN's .caffemodel, or of what `keras-rcnn convert caffe` made of one. Heads are left out.
        freeze_at: int, N freezes conv1_x to convN_x; Fast and Faster R-CNN have 2.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps [B, ceil(H / stride), ceil(W / stride), channels].

    Example:

    >>> backbone = VGG16(weights="VGG_ILSVRC_16_layers.caffemodel", freeze_at=2)
    >>> backbone(images)["C4"]
    """

    mean, std = MEAN, STD

    def __init__(
        self,
        weights: FilePath | None = None,
        freeze_at: int = 0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "vgg16",
    ) -> None:
        parts = CaffeParts(dtype)
        x = inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        outputs = {}
        for stage, (convs, channels) in enumerate(BLOCKS, start=1):
            for i in range(1, convs + 1):
                x = parts.conv(x, channels, 3, f"conv{stage}_{i}")
            if stage in (3, 4, 5):
                outputs[f"C{stage - 1}"] = x
            x = parts.pool(x, 2, f"pool{stage}")
        outputs["C5"] = x
        super().__init__(
            inputs,
            outputs,
            strides={"C2": 4, "C3": 8, "C4": 16, "C5": 32},
            stages=STAGES,
            config={"freeze_at": freeze_at, "dtype": dtype},
            name=name,
        )
        if weights is not None:
            load_caffe(self, "vgg16", weights)
