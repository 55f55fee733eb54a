"""From a recipe's settings to data sets, augmentation and a detector."""

import inspect

from keras_rcnn import backbones, layers
from keras_rcnn import data as readers
from keras_rcnn.convert import CAFFE_MEAN, assign, read_caffe_weights
from keras_rcnn.data import augment as transforms
from keras_rcnn.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN
from keras_rcnn.training.recipe import RecipeError
from keras_rcnn.training.settings import DEFAULTS

# what the settings rois, background and nms are when a recipe leaves them None
_PAPERS = {
    "rcnn": {"rois": 64, "background": (0.0, 0.5), "nms": 0.3},
    "fast_rcnn": {"rois": 64, "background": (0.1, 0.5), "nms": 0.3},
    "faster_rcnn": {"rois": 256, "background": (0.0, 0.5), "nms": 0.5},
    "mask_rcnn": {"rois": 256, "background": (0.0, 0.5), "nms": 0.5},
}

# what a detector is built from, and a preset has already
_BASE_HAS = (
    "backbone backbone_weights neck channels pool pool_size head_units dropout mask_convs max_detections anchor_scale "
    "aspect_ratios border proposals pre_nms rois background nms crop context"
).split()


def load_data(source, on_bad="error", class_names=None):
    """A `Dataset` from a recipe's `train` or `val` entry, whose images can all be read.

    Args:
        source: dict of `coco`, `voc` or `csv`, a path, and the reader's arguments: `images`, `split`, `box_format` ...
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
    kinds = {"coco": readers.load_coco, "voc": readers.load_voc, "csv": readers.load_csv}
    given = [kind for kind in kinds if kind in source]
    if len(given) != 1:
        raise RecipeError(f"A data set is given by one of 'coco', 'voc' and 'csv', not {sorted(map(str, source))}.")
    kind = given[0]
    options = {key: value for key, value in source.items() if key != kind}
    known = list(inspect.signature(kinds[kind]).parameters)[1:]
    for key in options:
        if key not in known:
            raise RecipeError(f"A data set of {kind!r} has no {key!r}; it has {', '.join(known)}.")
    if kind != "voc" and options.get("images") is None:
        raise RecipeError(f"A data set of {kind!r} needs 'images', the folder of its images.")
    options.setdefault("on_bad", on_bad)
    if kind != "coco" and options.get("class_names") is None:
        options["class_names"] = class_names
    return readers.check_images(kinds[kind](source[kind], **options), options["on_bad"])


def find_proposals(settings, dataset, cache, source=None):
    """The proposals of a data set as a recipe has them: `source`, a file, or selective search with its `search`.

    Args:
        settings: namespace.
        dataset: `Dataset`.
        cache: folder for what selective search finds.
        source: path, or None.

    Returns:
        `ProposalSet`.
    """
    if source:
        return readers.load_proposals(source, dataset)
    try:
        return readers.compute_proposals(dataset, cache=cache, **settings.search)
    except TypeError as error:
        raise RecipeError(f"search = {settings.search}: {error}") from error


def build_augment(names):
    """The recipe's `augment`: names among hflip, vflip, rot90, color and scale, or tuples of a name and its settings.

    `("scale", 0.5, 2.0)` is `ScaleJitter(0.5, 2.0)`, `("color", 0.2, 0.2, 0.2, 0.1)` is `ColorJitter` with hue.
    """
    kinds = {
        "hflip": transforms.HorizontalFlip,
        "vflip": transforms.VerticalFlip,
        "rot90": transforms.Rotate90,
        "color": transforms.ColorJitter,
        "scale": transforms.ScaleJitter,
    }
    chosen = []
    for name in names:
        name, *rest = (name,) if isinstance(name, str) else name
        if name not in kinds:
            raise RecipeError(f"Unknown augmentation {name!r}: use {', '.join(kinds)}, or ('scale', low, high).")
        chosen.append(kinds[name](*rest))
    return transforms.Compose(chosen) if chosen else None


def check_base(settings):
    """Refuses settings that a preset to start from leaves no room for.

    Raises:
        RecipeError: it names them.
    """
    ignored = [key for key in _BASE_HAS if _chosen(settings, key)] if settings.base is not None else []
    if ignored:
        them = "them" if len(ignored) > 1 else "it"
        raise RecipeError(
            f"base = {str(settings.base)!r} brings its own {', '.join(ignored)}: leave {them} out, or "
            "begin without base. (min_size, max_size and freeze_at can be changed.)"
        )


def _chosen(settings, key):
    return getattr(settings, key) != DEFAULTS[key]


def build_model(settings, class_names):
    """The detector that the settings describe: a preset with new predictors, or a new one on a backbone."""
    kind = settings.detector or ("mask_rcnn" if settings.masks else "faster_rcnn")
    if kind not in _PAPERS:
        raise RecipeError(f"detector = {kind!r}: there are {', '.join(_PAPERS)}.")
    if settings.base is not None:
        from keras_rcnn.presets import from_preset

        model = from_preset(settings.base, class_names=class_names)
        if settings.masks and not model.has_masks:
            raise RecipeError(f"masks=True, but the preset {settings.base} has no mask branch: take a Mask R-CNN.")
        if settings.detector and type(model).__name__.lower() != kind.replace("_", ""):
            raise RecipeError(f"detector = {kind!r}, but the preset {settings.base} is a {type(model).__name__}.")
        sizes = {key: getattr(settings, key) for key in ("min_size", "max_size") if _chosen(settings, key)}
        model.preprocessor = model.preprocessor.replace(**sizes)
        if _chosen(settings, "freeze_at"):
            model.parts["backbone"].freeze_at = settings.freeze_at
        return model
    backbone, preprocessor, head_values = _backbone(settings)
    num_classes, paper = len(class_names), _PAPERS[kind]
    chosen = {key: getattr(settings, key) for key in paper}
    rois, background, nms = (paper[key] if value is None else value for key, value in chosen.items())
    parts = {
        "box_head": layers.BoxHead(settings.head_units, dropout=settings.dropout),
        "box_targets": layers.BoxTargets(num_classes, count=rois, background=background, seed=settings.seed + 1),
        "preprocessor": preprocessor,
        "class_names": class_names,
        "name": settings.name,
    }
    if kind == "rcnn":
        parts |= {
            "neck": layers.SingleLevel("C5"),
            "box_pool": layers.RegionWarp(settings.crop, settings.context, name="box_pool"),
            "decoder": layers.ScoreDecoder(iou_threshold=nms, max_detections=settings.max_detections),
        }
    else:
        decoder = layers.DetectionDecoder(iou_threshold=nms, max_detections=settings.max_detections)
        parts |= {"decoder": decoder, **_shared_map(settings, backbone, num_classes, kind)}
    model = {"rcnn": RCNN, "fast_rcnn": FastRCNN, "faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN}[kind](
        backbone, num_classes, **parts
    )
    if head_values:
        assign(model.get_layer("box_head"), head_values)
    return model


def _shared_map(settings, backbone, num_classes, kind):
    """Neck, pooling, anchors and mask branch: what R-CNN does not have."""
    neck = layers.FPN(settings.channels) if settings.neck == "fpn" else layers.SingleLevel(settings.neck)
    strides, scale = neck.strides(backbone.strides), settings.anchor_scale
    single, levels = len(strides) == 1, strides[: neck.roi_levels()]
    # regions go to the level whose anchors have about their size, as 224 at P4 does for anchors of 8 strides
    pool = {"strides": levels, "canonical_size": 28 * scale}
    side = settings.pool_size
    if settings.pool not in ("align", "pool") or (settings.pool == "pool" and not single):
        raise RecipeError(f'pool = {settings.pool!r}: "align", or on a single map (neck = "C4") "pool".')
    parts = {"neck": neck, "box_pool": layers.RoIAlign(side, **pool, name="box_pool")}
    if settings.pool == "pool":
        parts["box_pool"] = layers.RoIPool(side, levels, name="box_pool")
    if kind == "fast_rcnn":
        return parts
    sizes = [[scale * strides[0] * factor for factor in (1, 2, 4)]] if single else [[scale * s] for s in strides]
    parts |= {
        "anchors": layers.AnchorGenerator(sizes, settings.aspect_ratios, strides=strides),
        "proposals": layers.Proposals(settings.pre_nms or settings.proposals, settings.proposals),
        "rpn_targets": layers.RPNTargets(border=settings.border, seed=settings.seed),
    }
    if kind == "mask_rcnn":
        convs = settings.mask_convs
        parts["mask_pool"] = layers.RoIAlign(14, **pool, name="mask_pool")
        parts["mask_head"] = layers.MaskHead(num_classes, convs, channels=convs[-1])
    return parts


def _backbone(settings):
    """`(backbone, preprocessor, weights for the box head)`, the last None but for Caffe's networks."""
    name, size = settings.backbone, (settings.min_size, settings.max_size)
    if name == "efficientnet_lite0":
        preprocessor = readers.Preprocessor(*size, mean=[127 / 255] * 3, std=[128 / 255] * 3)
        weights = settings.backbone_weights or "imagenet"
        return backbones.EfficientNetLite0(weights=weights, freeze_at=settings.freeze_at), preprocessor, None
    networks = {"vgg16": backbones.VGG16, "zf": backbones.ZF, "caffenet": backbones.CaffeNet}
    if name not in networks:
        raise RecipeError(
            f"A recipe's backbone is efficientnet_lite0, {', '.join(networks)}, not {name!r}: build other models in "
            "Python, or start from a preset with base=..."
        )
    path = settings.backbone_weights
    if path is None:
        raise RecipeError(f"backbone = {name!r} has no weights of its own: set backbone_weights to its .caffemodel.")
    # only R-CNN looks at a region alone: its CaffeNet is ImageNet's, without Fast R-CNN's padding
    more = {"padded": settings.detector != "rcnn"} if name == "caffenet" else {}
    head = {key: value for key, value in read_caffe_weights(name, path).items() if key.startswith("box_head/")}
    preprocessor = readers.Preprocessor(*size, mean=[m / 255 for m in CAFFE_MEAN], std=[1 / 255] * 3)
    return networks[name](weights=path, freeze_at=settings.freeze_at, **more), preprocessor, head
