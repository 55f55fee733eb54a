"""ZF-5 (Zeiler and Fergus 2013), the small network of Faster R-CNN, as py-faster-rcnn has it."""

import keras

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.backbones.caffe import MEAN, STAGES, STD, CaffeParts, load_caffe
from keras_rcnn.interfaces import FilePath


@keras.saving.register_keras_serializable("keras_rcnn")
class ZF(Backbone):
    """ZF's five convolutions: C4 is conv5, of stride 16 with 256 channels, C5 is pool5.

    fc6 and fc7 are the detector's `BoxHead((4096, 4096), dropout=0.5)` on `RoIPool(6, (16,))` of C4, or for R-CNN on
    C5, which has 6 x 6 cells of regions warped to 192 px.

    Args:
        weights: None (random) or the path of ZF.v2.caffemodel, of a Fast or Faster R-CNN's .caffemodel, or of what
            `keras-rcnn convert caffe` made of one; heads in it are left out.
        freeze_at: int, N freezes conv1 to convN.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps. As Caffe rounds, C4 has a cell more a side than
    H / 16: 51 for 800 px; with Faster R-CNN, `AnchorGenerator` is to be told `strides=(16,)`.

    Example:

    >>> backbone = ZF(weights="ZF.v2.caffemodel")
    >>> backbone(images)["C4"]
    """

    mean, std = MEAN, STD

    def __init__(
        self,
        weights: FilePath | None = None,
        freeze_at: int = 0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "zf",
    ) -> None:
        parts = CaffeParts(dtype)
        norm = {"size": 3, "alpha": 5e-5, "across": False}
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.normalize(parts.conv(inputs, 96, 7, "conv1", strides=2), "norm1", **norm)
        x = parts.conv(parts.pool(x, 3, "pool1", pad=1), 256, 5, "conv2", strides=2)
        x = parts.pool(parts.normalize(x, "norm2", **norm), 3, "pool2", pad=1)
        for i, channels in ((3, 384), (4, 384), (5, 256)):
            x = parts.conv(x, channels, 3, f"conv{i}")
        super().__init__(
            inputs,
            {"C4": x, "C5": parts.pool(x, 3, "pool5")},
            strides={"C4": 16, "C5": 32},
            stages=STAGES,
            config={"freeze_at": freeze_at, "dtype": dtype},
            name=name,
        )
        if weights is not None:
            load_caffe(self, "zf", weights)
