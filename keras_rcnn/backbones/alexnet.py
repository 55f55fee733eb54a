"""CaffeNet, Caffe's AlexNet (Krizhevsky et al. 2012) that pools before it normalises: R-CNN's network."""

import keras

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.backbones.caffe import MEAN, STAGES, STD, CaffeParts, load_caffe
from keras_rcnn.interfaces import FilePath


@keras.saving.register_keras_serializable("keras_rcnn")
class CaffeNet(Backbone):
    """CaffeNet's five convolutions: C4 is conv5, of stride 16 with 256 channels, C5 is pool5.

    fc6 and fc7 are the detector's `BoxHead((4096, 4096), dropout=0.5)` on 6 x 6 cells: R-CNN's C5 of regions warped to
    227 px (`padded=False`), or Fast R-CNN's `RoIPool(6, (16,))` of C4.

    Args:
        weights: None (random) or the path of bvlc_reference_caffenet.caffemodel, of an R-CNN's or a Fast R-CNN's
            .caffemodel, or of what `keras-rcnn convert caffe` made of one; heads in it are left out.
        padded: whether conv1, pool1 and pool2 are padded so that cell (i, j) of C4 has its centre at pixel
            (16 i, 16 j), which Fast R-CNN's pooling takes for granted; False is the network of ImageNet and of R-CNN.
        freeze_at: int, N freezes conv1 to convN; Fast R-CNN has 1.
        dtype: dtype policy of the layers.

    Call with float images [B, H, W, 3]; returns a dict of maps. As Caffe rounds, C4 of a padded net has a cell
    more a side than H / 16: 51 for 800 px.

    Example:

    >>> backbone = CaffeNet(weights="bvlc_reference_caffenet.caffemodel", freeze_at=1)
    >>> backbone(images)["C4"]
    """

    mean, std = MEAN, STD

    def __init__(
        self,
        weights: FilePath | None = None,
        padded: bool = True,
        freeze_at: int = 0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "caffenet",
    ) -> None:
        parts = CaffeParts(dtype)
        pad = int(padded)
        inputs = keras.Input((None, None, 3), name="images", dtype="float32")
        x = parts.pool(parts.conv(inputs, 96, 11, "conv1", strides=4, pad=5 * pad), 3, "pool1", pad)
        x = parts.conv(parts.normalize(x, "norm1"), 256, 5, "conv2", groups=2)
        x = parts.normalize(parts.pool(x, 3, "pool2", pad), "norm2")
        x = parts.conv(x, 384, 3, "conv3")
        x = parts.conv(x, 384, 3, "conv4", groups=2)
        x = parts.conv(x, 256, 3, "conv5", groups=2)
        super().__init__(
            inputs,
            {"C4": x, "C5": parts.pool(x, 3, "pool5")},
            strides={"C4": 16, "C5": 32},
            stages=STAGES,
            config={"padded": bool(padded), "freeze_at": freeze_at, "dtype": dtype},
            name=name,
        )
        if weights is not None:
            load_caffe(self, "caffenet", weights)
