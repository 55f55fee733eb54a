"""Backbones by name, and the ImageNet weights that torchvision publishes for them.

A file is downloaded the first time, checked against the hash in its name each time, and kept in `downloads` of
`keras_rcnn.download.cache_folder()`; one that is put there by hand will do as well.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_rcnn.backbones.base import Backbone
from keras_rcnn.backbones.convnext import ConvNeXt
from keras_rcnn.backbones.efficientnet_lite import EfficientNetLite0
from keras_rcnn.backbones.mobilenet_v3 import MobileNetV3Large
from keras_rcnn.backbones.resnet import ResNet
from keras_rcnn.download import DownloadError, cache_folder, checked, downloaded
from keras_rcnn.interfaces import FilePath

ADDRESS = "https://download.pytorch.org/models/"
MIB = 2**20


class Published(NamedTuple):
    """A backbone that has a name.

    Attributes:
        build: the class.
        settings: dict, its arguments.
        file: name of torchvision's file, which ends in the first digits of its SHA-256; None if the weights come
            otherwise.
        mib: its size, as torchvision says it.
    """

    build: Callable[..., Backbone]
    settings: dict[str, Any]
    file: str | None
    mib: float | None


PUBLISHED = {
    "efficientnet_lite0": Published(EfficientNetLite0, {}, None, None),
    "mobilenet_v3_large": Published(MobileNetV3Large, {}, "mobilenet_v3_large-8738ca79.pth", 21.114),
    "resnet18": Published(ResNet, {"depth": 18}, "resnet18-f37072fd.pth", 44.661),
    "resnet34": Published(ResNet, {"depth": 34}, "resnet34-b627a593.pth", 83.275),
    "resnet50": Published(ResNet, {"depth": 50}, "resnet50-0676ba61.pth", 97.781),
    "resnet101": Published(ResNet, {"depth": 101}, "resnet101-63fe2227.pth", 170.511),
    "resnet152": Published(ResNet, {"depth": 152}, "resnet152-394f9c45.pth", 230.434),
    "resnext50_32x4d": Published(
        ResNet, {"depth": 50, "groups": 32, "width_per_group": 4}, "resnext50_32x4d-7cdf4587.pth", 95.789
    ),
    "resnext101_32x8d": Published(
        ResNet, {"depth": 101, "groups": 32, "width_per_group": 8}, "resnext101_32x8d-8ba56ff5.pth", 339.586
    ),
    "resnext101_64x4d": Published(
        ResNet, {"depth": 101, "groups": 64, "width_per_group": 4}, "resnext101_64x4d-173b62eb.pth", 319.318
    ),
    "convnext_tiny": Published(ConvNeXt, {"variant": "tiny"}, "convnext_tiny-983f1562.pth", 109.119),
    "convnext_small": Published(ConvNeXt, {"variant": "small"}, "convnext_small-0c510722.pth", 191.703),
}


def backbone_by_name(name: str, weights: FilePath | None = "imagenet", **settings: Any) -> Backbone:
    """A backbone by its name, with ImageNet weights.

    Args:
        name: a key of `PUBLISHED`, such as `"resnet50"`, `"resnext101_64x4d"` or `"convnext_tiny"`.
        weights: `"imagenet"`, downloaded the first time; the path of a file; or None, random ones.
        **settings: of the class: `freeze_at`, `norm` (`"frozen"` or `"batch"`), `dtype`.

    Returns:
        A `Backbone`; its `mean` and `std` are what a detector's `Preprocessor` takes, which it does by itself.

    Raises:
        ValueError: there is no backbone of that name.
        DownloadError: the weights cannot be had; the message says where to put the file.

    Example:

    >>> backbone = keras_rcnn.backbones.backbone_by_name("resnet50", freeze_at=2)
    >>> model = keras_rcnn.models.FasterRCNN(backbone, num_classes=3)
    """
    if name not in PUBLISHED:
        raise ValueError(f"There is no backbone {name!r}; there are {', '.join(PUBLISHED)}.")
    entry = PUBLISHED[name]
    return entry.build(weights=weights, **{**entry.settings, **settings})


def published_file(name: str) -> Path:
    """The path of torchvision's ImageNet weights for a backbone, which are downloaded if need be.

    Args:
        name: a key of `PUBLISHED`, or what a backbone of other settings would be called.

    Raises:
        ValueError: torchvision publishes none.
        DownloadError: the file cannot be had, or is not what it should be.
    """
    entry = PUBLISHED.get(name)
    if entry is None or entry.file is None or entry.mib is None:
        files = ", ".join(key for key, other in PUBLISHED.items() if other.file)
        raise ValueError(
            f"There are no published ImageNet weights for {name}; there are for {files}. Pass the path of a file as "
            "`weights`, or None."
        )
    sha256_prefix = Path(entry.file).stem.rpartition("-")[2]
    folder = cache_folder() / "downloads"
    kept = folder / entry.file
    if not kept.is_file():
        try:
            with downloaded(ADDRESS + entry.file, folder, sha256_prefix, round(entry.mib * MIB)) as path:
                path.replace(kept)
        except DownloadError as error:
            raise DownloadError(
                f"{name}: {error}\nTry again when there is a network. Or download {ADDRESS}{entry.file} elsewhere (a "
                f"browser will do) and put it at\n  {kept}\nor pass its path as `weights` (in a recipe: "
                "`backbone_weights`)."
            ) from error
    return checked(kept, sha256_prefix)
