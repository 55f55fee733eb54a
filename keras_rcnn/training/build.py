"""From a recipe's settings to data sets, augmentation and a detector."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_rcnn import backbones, layers
from keras_rcnn import data as readers
from keras_rcnn.backbones.base import Backbone
from keras_rcnn.convert import assign, read_caffe_weights
from keras_rcnn.data import Dataset, Preprocessor, ProposalSet
from keras_rcnn.data import augment as transforms
from keras_rcnn.data.loading import OPTIONS as LOAD_OPTIONS
from keras_rcnn.interfaces import FilePath, OnBad
from keras_rcnn.models import RCNN, Detector, FasterRCNN, FastRCNN, MaskRCNN
from keras_rcnn.ops.losses import class_balanced_weights
from keras_rcnn.precision import policy
from keras_rcnn.presets import detector_class, from_preset
from keras_rcnn.skeletons import Skeleton
from keras_rcnn.training.keypoints import keypoint_branch
from keras_rcnn.training.settings import BUILT, RecipeError, Settings

# what the settings roi_samples, background_iou and nms_iou are when a recipe leaves them None
_PAPERS = {
    RCNN: {"roi_samples": 64, "background_iou": (0.0, 0.5), "nms_iou": 0.3},
    FastRCNN: {"roi_samples": 64, "background_iou": (0.1, 0.5), "nms_iou": 0.3},
    FasterRCNN: {"roi_samples": 256, "background_iou": (0.0, 0.5), "nms_iou": 0.5},
    MaskRCNN: {"roi_samples": 256, "background_iou": (0.0, 0.5), "nms_iou": 0.5},
}
_DETECTORS = {"rcnn": RCNN, "fast_rcnn": FastRCNN, "faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN}
_CAFFE = {"vgg16": backbones.VGG16, "zf": backbones.ZF, "caffenet": backbones.CaffeNet}

_AUGMENTATIONS = {
    "hflip": transforms.HorizontalFlip,
    "vflip": transforms.VerticalFlip,
    "rot90": transforms.Rotate90,
    "rotate": transforms.Rotate,
    "color": transforms.ColorJitter,
    "photometric": transforms.Photometric,
    "scale": transforms.ScaleJitter,
    "lsj": transforms.LargeScaleJitter,
    "crop": transforms.ObjectCrop,
    "copy_paste": transforms.CopyPaste,
    "mosaic": transforms.Mosaic,
}


def detector_of(settings: Settings) -> type[Detector]:
    """The class of the detector that the settings describe.

    Raises:
        RecipeError, PresetError: the preset to start from is none, or of a class that is not known here.
    """
    if settings.base is not None:
        detector = detector_class(settings.base)
        if detector is None:
            raise RecipeError(
                f"base = {str(settings.base)!r}: the class of its detector is not known here. Import the module that "
                "registers it, and train in Python."
            )
        return detector
    return _DETECTORS[settings.detector or ("mask_rcnn" if settings.masks else "faster_rcnn")]


def check(settings: Settings, detector: type[Detector]) -> list[str]:
    """What the settings say that cannot be, each of them being possible.

    Args:
        settings: `Settings`.
        detector: the class of the detector.

    Returns:
        List of str, empty if all is well.
    """
    problems = []
    if settings.train is None:
        problems.append("There is no training data: set train = {'data': ...} or {'coco': ..., 'images': ...}.")
    problems += _base_problems(settings, detector) if settings.base is not None else _parts_problems(settings)
    files = [key for key in ("train_proposals", "val_proposals") if getattr(settings, key)]
    if files and issubclass(detector, (FasterRCNN, MaskRCNN)):
        problems.append(f"{files[0]} = {str(getattr(settings, files[0]))!r}: {detector.__name__} finds its own.")
    known = [key for key in inspect.signature(readers.compute_proposals).parameters if key not in ("dataset", "cache")]
    unknown = [key for key in settings.selective_search if key not in known]
    if unknown:
        problems.append(f"selective_search has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}.")
    for attempt in (lambda: build_augment(settings.augment), lambda: policy(settings.precision)):
        try:
            attempt()
        except ValueError as error:
            problems.append(str(error))
    if any(_name(entry) == "copy_paste" for entry in settings.augment) and not issubclass(detector, MaskRCNN):
        problems.append(
            f"augment has copy_paste, which cuts objects out by their masks, and a {detector.__name__} is trained "
            "without them: set masks = True, or leave copy_paste out."
        )
    if settings.keypoints and not issubclass(detector, (FasterRCNN, MaskRCNN)):
        problems.append(f"keypoints = True, but a {detector.__name__} has none: take a Faster or Mask R-CNN.")
    if settings.box_regression is not None and issubclass(detector, RCNN):
        problems.append(f"box_regression = {settings.box_regression!r}: R-CNN's boxes are no part of its loss.")
    if settings.cascade and issubclass(detector, RCNN):
        problems.append("cascade = True: R-CNN has no box head that could be followed by another.")
    if settings.jit_compile is True and settings.strategy in ("mirrored", "multiworker"):
        problems.append(
            f"jit_compile = True: under the strategy {settings.strategy} devices exchange gradients within the step, "
            "which TensorFlow does not compile. Leave jit_compile unset, or take the strategy jax."
        )
    return problems


def _base_problems(settings: Settings, detector: type[Detector]) -> list[str]:
    """What leaves a preset to start from no room."""
    problems, base = [], str(settings.base)
    ignored = [key for key in settings.changed() if key in BUILT]
    if ignored:
        them = "them" if len(ignored) > 1 else "it"
        problems.append(
            f"base = {base!r} brings its own {', '.join(ignored)}: leave {them} out, or begin without base. "
            "(min_size, max_size and freeze_at can be changed.)"
        )
    if settings.detector and not issubclass(detector, _DETECTORS[settings.detector]):
        problems.append(f"detector = {settings.detector!r}, but the preset {base} is a {detector.__name__}.")
    if settings.masks and not issubclass(detector, MaskRCNN):
        problems.append(f"masks = True, but the preset {base} has no mask branch: take a Mask R-CNN.")
    return problems


def _parts_problems(settings: Settings) -> list[str]:
    """What no new detector can be built from."""
    problems, name = [], settings.backbone
    if name in _CAFFE and settings.backbone_weights is None:
        problems.append(f"backbone = {name!r} has no weights of its own: set backbone_weights to its .caffemodel.")
    elif name not in backbones.PUBLISHED and name not in _CAFFE:
        problems.append(
            f"A recipe's backbone is one of {', '.join([*backbones.PUBLISHED, *_CAFFE])}, not {name!r}: build other "
            "models in Python, or start from a preset with base=..."
        )
    if settings.backbone_norm != "frozen" and name in [*backbones.PUBLISHED, *_CAFFE] and not _has_batch_norm(name):
        problems.append(f"backbone_norm = {settings.backbone_norm!r}: {name} has no batch normalisation.")
    if settings.masks and settings.detector not in (None, "mask_rcnn"):
        problems.append(f"masks = True, but detector = {settings.detector!r}: leave one of them out.")
    if settings.roi_pool == "pool" and settings.neck == "fpn":
        problems.append('roi_pool = "pool" is for a single map (neck = "C4"): with a pyramid it is "align".')
    if settings.background_iou is not None and settings.positive_iou < settings.background_iou[1]:
        problems.append(
            f"positive_iou = {settings.positive_iou} lies in the range of background_iou = {settings.background_iou}."
        )
    return problems


def load_data(
    source: dict[str, Any] | None, on_bad: OnBad = "error", class_names: Sequence[str] | None = None
) -> Dataset:
    """A `Dataset` from a recipe's `train` or `val` entry, whose images can all be read.

    Args:
        source: dict of `data`, `coco`, `voc` or `csv`, a path, and the reader's arguments: `images`, `split`,
            `format`, `box_format` ...
        on_bad: `"error"` or `"skip"`, as of the readers; of images, too.
        class_names: list of str, for the readers that take them.

    Returns:
        `Dataset`.

    Raises:
        RecipeError: an entry that does not say what to read, or says what its reader does not know.
        DataError: all that is wrong with the annotations, or with the images.
    """
    if not isinstance(source, dict):
        raise RecipeError(f"A data set is given by a dict such as {{'coco': FILE, 'images': FOLDER}}, not {source!r}.")
    formats = {"data": readers.load, "coco": readers.load_coco, "voc": readers.load_voc, "csv": readers.load_csv}
    named = [name for name in formats if name in source]
    if len(named) != 1:
        raise RecipeError(
            f"A data set is given by one of 'data', 'coco', 'voc' and 'csv', not {sorted(map(str, source))}."
        )
    (name,) = named
    options = {key: value for key, value in source.items() if key != name}
    known = list(inspect.signature(formats[name]).parameters)[1:]
    if name == "data":
        known = [*known[:-1], *LOAD_OPTIONS]
    for key in options:
        if key not in known:
            raise RecipeError(f"A data set of {name!r} has no {key!r}; it has {', '.join(known)}.")
    if name in ("coco", "csv") and options.get("images") is None:
        raise RecipeError(f"A data set of {name!r} needs 'images', the folder of its images.")
    options.setdefault("on_bad", on_bad)
    if name != "coco" and options.get("class_names") is None:
        options["class_names"] = class_names
    return readers.check_images(formats[name](source[name], **options), options["on_bad"])


def load_both(settings: Settings) -> tuple[Dataset, Dataset | None]:
    """The data sets to train and to validate on; the second is None if there is none.

    Returns:
        `(Dataset, Dataset or None)`.

    Raises:
        RecipeError, DataError: as of `load_data`; or there is nothing to learn.
    """
    training, validation = load_data(settings.train, settings.on_bad), None
    if settings.val:
        validation = load_data(settings.val, settings.on_bad, training.class_names)
    elif settings.val_fraction:
        training, validation = training.split(settings.val_fraction, settings.seed)
    readers.check_targets(training, settings.difficult)
    return training, validation


def find_proposals(
    settings: Settings, dataset: Dataset, cache: FilePath | None, source: FilePath | None = None
) -> ProposalSet:
    """The proposals of a data set: those of the file `source`, or selective search's, with the recipe's settings of it.

    Args:
        settings: `Settings`.
        dataset: `Dataset`.
        cache: folder for what selective search finds.
        source: path, or None.

    Returns:
        `ProposalSet`.
    """
    if source:
        return readers.load_proposals(source, dataset)
    return readers.compute_proposals(dataset, cache=cache, **settings.selective_search)


def build_augment(names: Iterable[Any]) -> transforms.Compose | None:
    """The recipe's `augment`: names of `_AUGMENTATIONS`, or tuples of a name and its settings.

    `("scale", 0.5, 2.0)` is `ScaleJitter(0.5, 2.0)`, `("color", 0.2, 0.2, 0.2, 0.1)` is `ColorJitter` with hue.
    """
    chosen = []
    for entry in names:
        name = _name(entry)
        if name not in _AUGMENTATIONS:
            known = ", ".join(_AUGMENTATIONS)
            raise RecipeError(
                f"Unknown augmentation {entry if name is None else name!r}: use {known}, or ('scale', low, high)."
            )
        try:
            chosen.append(_AUGMENTATIONS[name](*([] if isinstance(entry, str) else entry[1:])))
        except (TypeError, ValueError) as error:
            raise RecipeError(f"augment has {entry!r}: {error}") from error
    return transforms.Compose(chosen) if chosen else None


def _name(entry: Any) -> str | None:
    """The name in an entry of `augment`; None for what is no entry at all."""
    if isinstance(entry, (tuple, list)) and entry:
        entry = entry[0]
    return entry if isinstance(entry, str) else None


def class_counts(dataset: Dataset, difficult: bool = False) -> np.ndarray:
    """How many objects of each class there are to learn from, int `[classes]`; crowds are none."""
    labels = [record.labels[~record.crowd & (difficult | ~record.difficult)] for record in dataset]
    return np.bincount(np.concatenate(labels), minlength=len(dataset.class_names))


def build_model(
    settings: Settings, class_names: Sequence[str], counts: np.ndarray | None = None, skeleton: Skeleton | None = None
) -> Detector:
    """The detector that checked settings describe: a preset with new predictors, or a new one on a backbone.

    Args:
        settings: `Settings`.
        class_names: list of str.
        counts: int `[classes]`, how many objects there are to learn from, for `class_balance`.
        skeleton: the data's keypoints, for `keypoints`.

    Raises:
        RecipeError: there are keypoints to be learned, and the data or the preset has none.
    """
    model = _detector(settings, class_names, skeleton)
    if settings.keypoints and model.skeleton is None:
        raise RecipeError(f"keypoints = True, but the preset {settings.base} has no keypoint branch.")
    loss, decoder = model.parts["box_loss"], model.parts["decoder"]
    if settings.box_regression is not None:
        loss.regression = settings.box_regression
    if settings.focal_gamma:
        loss.focal_gamma = settings.focal_gamma
    if settings.class_balance and counts is not None:
        loss.class_weights = (*class_balanced_weights(counts, settings.class_balance), 1.0)  # the last is background
    if settings.soft_nms is not None:
        decoder.soft_nms = settings.soft_nms
    return model


def _detector(settings: Settings, class_names: Sequence[str], skeleton: Skeleton | None) -> Detector:
    if settings.base is not None:
        model = from_preset(settings.base, class_names=class_names)
        model.thresholds = None  # what it learns will score otherwise
        changed = settings.changed()
        model.preprocessor = model.preprocessor.replace(
            **{key: value for key, value in changed.items() if key in ("min_size", "max_size")}
        )
        if "freeze_at" in changed:
            model.parts["backbone"].freeze_at = settings.freeze_at
        return model
    detector: Any = detector_of(settings)
    num_classes = len(class_names)
    backbone, preprocessor, head_weights = _backbone(settings, detector)
    paper = _PAPERS[detector]
    chosen = {key: getattr(settings, key) for key in paper}
    samples, background, nms_iou = (paper[key] if value is None else value for key, value in chosen.items())
    parts = {
        "box_head": layers.BoxHead(settings.box_head_units, dropout=settings.box_head_dropout),
        "box_targets": layers.BoxTargets(
            num_classes,
            count=samples,
            foreground=settings.positive_iou,
            background=background,
            seed=settings.seed + 1,
        ),
        "preprocessor": preprocessor,
        "class_names": class_names,
        "name": _layer_name(settings.name),
    }
    if detector is RCNN:
        parts |= {
            "neck": layers.SingleLevel("C5"),
            "box_pool": layers.RegionWarp(settings.region_size, settings.region_context, name="box_pool"),
            "decoder": layers.ScoreDecoder(iou_threshold=nms_iou, max_detections=settings.max_detections),
        }
    else:
        decoder = layers.DetectionDecoder(iou_threshold=nms_iou, max_detections=settings.max_detections)
        parts |= {"cascade": layers.Cascade() if settings.cascade else None}
        parts |= {"decoder": decoder, **_shared_map(settings, backbone, num_classes, detector)}
    if settings.keypoints:
        parts["keypoint_branch"] = keypoint_branch(settings, parts["box_pool"], skeleton)
    model = detector(backbone, num_classes, **parts)
    if head_weights:
        assign(model.get_layer("box_head"), head_weights)
    return model


def _layer_name(name: str) -> str:
    """A preset's name as Keras and TensorFlow let a model be called: of ASCII letters, digits and underscores."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "detector"


def _shared_map(settings: Settings, backbone: Backbone, num_classes: int, detector: type[Detector]) -> dict[str, Any]:
    """Neck, pooling, anchors and mask branch: what R-CNN does not have."""
    maps = ("C2", "C3", "C4", "C5")[int(settings.fpn_from[1]) - 2 :]
    neck = layers.FPN(settings.fpn_channels, maps) if settings.neck == "fpn" else layers.SingleLevel(settings.neck)
    strides, scale = neck.strides(backbone.strides), settings.anchor_scale
    single, levels = len(strides) == 1, strides[: neck.roi_levels()]
    # regions go to the level whose anchors have about their size, as 224 at P4 does for anchors of 8 strides
    pool = {"strides": levels, "canonical_size": 28 * scale}
    parts = {"neck": neck, "box_pool": layers.RoIAlign(settings.roi_pool_size, **pool, name="box_pool")}
    if settings.roi_pool == "pool":
        parts["box_pool"] = layers.RoIPool(settings.roi_pool_size, levels, name="box_pool")
    if detector is FastRCNN:
        return parts
    sizes = [[scale * strides[0] * factor for factor in (1, 2, 4)]] if single else [[scale * s] for s in strides]
    parts |= {
        "anchors": layers.AnchorGenerator(sizes, settings.aspect_ratios, strides=strides),
        "proposals": layers.Proposals(
            settings.pre_nms_proposals or settings.post_nms_proposals, settings.post_nms_proposals
        ),
        "rpn_targets": layers.RPNTargets(border=settings.anchor_border, seed=settings.seed),
    }
    if detector is MaskRCNN:
        convs = settings.mask_head_channels
        parts["mask_pool"] = layers.RoIAlign(14, **pool, name="mask_pool")
        parts["mask_head"] = layers.MaskHead(num_classes, convs, channels=convs[-1])
    return parts


def _has_batch_norm(name: str) -> bool:
    """Whether the backbone of this name normalises by batches, and so takes `norm`."""
    build = backbones.PUBLISHED[name].build if name in backbones.PUBLISHED else _CAFFE[name]
    return "norm" in inspect.signature(build).parameters


def _backbone(
    settings: Settings, detector: type[Detector]
) -> tuple[Backbone, Preprocessor, dict[str, np.ndarray] | None]:
    """`(backbone, preprocessor, weights for the box head)`, the last None but for Caffe's networks."""
    name, size = settings.backbone, (settings.min_size, settings.max_size)
    path: Any = settings.backbone_weights
    settings_of: dict[str, Any] = {"freeze_at": settings.freeze_at}
    if name in backbones.PUBLISHED:
        weights = {None: "imagenet", "random": None}.get(path, path)
        if _has_batch_norm(name):
            settings_of["norm"] = settings.backbone_norm
        backbone, head = backbones.backbone_by_name(name, weights, **settings_of), None
    else:
        # only R-CNN looks at a region alone: its CaffeNet is ImageNet's, without Fast R-CNN's padding
        if name == "caffenet":
            settings_of["padded"] = detector is not RCNN
        head = {key: value for key, value in read_caffe_weights(name, path).items() if key.startswith("box_head/")}
        backbone = _CAFFE[name](weights=path, **settings_of)
    return backbone, readers.Preprocessor.for_backbone(backbone, min_size=size[0], max_size=size[1]), head
