"""torchvision's detectors, assembled from this package's parts with torchvision's own settings."""

from collections.abc import Sequence

from keras_rcnn import layers
from keras_rcnn.backbones import MobileNetV3Large, ResNet
from keras_rcnn.data.preprocess import Preprocessor
from keras_rcnn.models import FasterRCNN, MaskRCNN


def torchvision_detector(
    name: str, num_classes: int = 90, class_names: Sequence[str] | None = None
) -> FasterRCNN | MaskRCNN:
    """The detector that `convert_torchvision(name, ...)`'s weights fit, randomly initialised.

    Args:
        name: torchvision's name of the model, such as `"fasterrcnn_resnet50_fpn"`.
        num_classes: int, background not counted; COCO's is 90, unused ids included.
        class_names: list of names.

    Returns:
        A `FasterRCNN` or `MaskRCNN`.

    Raises:
        ValueError: for a name that is not known.
    """
    common = {"num_classes": num_classes, "class_names": class_names, "name": name}
    # torchvision lets a ground-truth box that overlaps nothing claim every anchor of IoU 0
    rpn_targets = layers.RPNTargets(guard=False)
    detector = FasterRCNN
    if name.startswith("maskrcnn"):
        detector, positives = MaskRCNN, layers.BoxTargets(num_classes).most_positive
        common["mask_targets"] = layers.MaskTargets(num_classes, positives, aligned=False)
    # without strides: torchvision's are quotients of sides
    anchors = layers.AnchorGenerator([[32], [64], [128], [256], [512]])
    if name in ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"):
        # the published COCO weights were trained with this epsilon
        return detector(ResNet(50, norm="frozen", epsilon=0.0), anchors=anchors, rpn_targets=rpn_targets, **common)
    if name in ("fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2"):
        if detector is MaskRCNN:
            common["mask_head"] = layers.MaskHead(num_classes, norm="batch")
        return detector(
            ResNet(50, norm="batch", epsilon=1e-5),
            neck=layers.FPN(norm="batch"),
            anchors=anchors,
            rpn_head=layers.RPNHead(3, convs=2),
            rpn_targets=rpn_targets,
            box_head=layers.BoxHead((1024,), convs=(256, 256, 256, 256), norm="batch"),
            **common,
        )
    if name in ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"):
        small = "320" in name
        after = 150 if small else 1000
        return FasterRCNN(
            MobileNetV3Large(norm="frozen", epsilon=1e-5),
            neck=layers.FPN(in_features=("C5_in", "C5")),
            anchors=layers.AnchorGenerator([[32, 64, 128, 256, 512]] * 3),
            proposals=layers.Proposals((2000, after), (2000, after), score_threshold=0.05),
            rpn_targets=rpn_targets,
            # every region is pooled from the first map
            box_pool=layers.RoIAlign(7, (32,), name="box_pool"),
            preprocessor=Preprocessor(320, 640) if small else None,
            **common,
        )
    raise ValueError(
        f"There is no detector for torchvision's {name!r} here; known are {', '.join(TORCHVISION_MODELS)}."
    )


TORCHVISION_MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)
