"""The classes of Detectron2's data sets, in the order of its labels."""

import re

from keras_rcnn.convert.coco_names import COCO_NAMES

DETECTRON2_NAMES: dict[str, tuple[str, ...]] = {
    # numbered without the ids that COCO left out
    "coco": tuple(name for name in COCO_NAMES if name != "N/A"),
    "voc": tuple(
        """aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,pottedplant,
        sheep,sofa,train,tvmonitor""".replace("\n        ", "").split(",")
    ),
    "keypoints": ("person",),
    "cityscapes": ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def detectron2_class_names(name: str, num_classes: int) -> list[str] | None:
    """The names of the classes of one of the zoo's models.

    Args:
        name: of its config file.
        num_classes: int, of its weights.

    Returns:
        A list of names, or None where they are not known: LVIS's, and those of somebody's own data.
    """
    stem = re.sub(r"\.(yaml|py)$", "", name).rpartition("/")[2]
    voc, cityscapes = stem.endswith("R_50_C4"), stem.endswith("R_50_FPN")
    keypoints = stem.startswith("keypoint")
    names = DETECTRON2_NAMES["voc" if voc else "cityscapes" if cityscapes else "keypoints" if keypoints else "coco"]
    return list(names) if len(names) == num_classes else None
