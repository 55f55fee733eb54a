"""A whole training from settings: data, model, optimizer, callbacks, and a preset folder at the end."""

import json
import logging
import os
import shutil
import types
from pathlib import Path

import keras

from keras_rcnn import data as readers
from keras_rcnn import layers
from keras_rcnn.data import augment as transforms
from keras_rcnn.evaluation import EvaluateCallback
from keras_rcnn.evaluation.evaluate import has_masks
from keras_rcnn.models import FasterRCNN, MaskRCNN
from keras_rcnn.training.callbacks import BestAndLast, HistoryCSV, StopOnNaN, TimeLimit
from keras_rcnn.training.recipe import RecipeError
from keras_rcnn.training.schedules import WarmupCosine

logger = logging.getLogger(__name__)

# Every setting that a recipe can have. The defaults suit a few hundred photos on a laptop.
DEFAULTS = {
    "name": "detector",
    "title": "",
    # data: {"coco": file, "images": folder}, {"voc": folder, "split": name} or {"csv": file, "images": folder}
    # any folder that the entries below are built from, so that one --set data=... moves them all
    "data": None,
    "train": None,
    "val": None,
    # without val: the share of the training images, chosen by the seed, that is validated on instead of trained on
    "hold_out": 0.0,
    "on_bad": "error",
    "augment": ("hflip", "color"),
    "cache": True,
    "max_objects": None,
    # model: a preset to start from (with masks if it has them), or a new one on a backbone with ImageNet weights:
    # Faster R-CNN, or with masks Mask R-CNN
    "base": None,
    "masks": False,
    "backbone": "efficientnet_lite0",
    "freeze_at": 1,
    "min_size": 448,
    "max_size": 640,
    "channels": 128,
    "head_units": (512, 512),
    "anchor_scale": 4.0,
    "aspect_ratios": (0.5, 1.0, 2.0),
    "proposals": (1000, 600),
    "rois": 256,
    "mask_convs": (128, 128, 128, 128),
    "max_detections": 100,
    # schedule
    "epochs": 20,
    "minutes": None,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 200,
    "weight_decay": 0.01,
    "clipnorm": 5.0,
    "evaluate_every": 1,
    "eval_detections": 100,
    "seed": 0,
    # the preset
    "weights_dtype": "float16",
    "license": None,
    "source": None,
    "notes": None,
}


def default_settings(**changes):
    """`DEFAULTS` with changes, as `train` takes them.

    Raises:
        RecipeError: for a setting that does not exist.
    """
    unknown = sorted(set(changes) - set(DEFAULTS))
    if unknown:
        raise RecipeError(f"Unknown setting(s) {', '.join(unknown)}; there are {', '.join(DEFAULTS)}.")
    return types.SimpleNamespace(**{**DEFAULTS, **changes})


def load_data(source, on_bad="error", class_names=None):
    """A `Dataset` from a recipe's `train` or `val` entry."""
    source = dict(source)
    for kind in ("coco", "voc", "csv"):
        if kind in source:
            path = source.pop(kind)
            if kind == "coco":
                return readers.load_coco(path, source["images"], on_bad=on_bad)
            if kind == "voc":
                return readers.load_voc(path, source["split"], class_names=class_names, on_bad=on_bad)
            rest = {key: value for key, value in source.items() if key == "box_format"}
            return readers.load_csv(path, source["images"], class_names=class_names, on_bad=on_bad, **rest)
    raise RecipeError(f"A data set is given by 'coco', 'voc' or 'csv', not {sorted(source)}.")


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


def build_model(settings, class_names):
    """The detector that the settings describe: a preset with new predictors, or a new Faster or Mask R-CNN with FPN."""
    if settings.base is not None:
        from keras_rcnn.presets import from_preset

        model = from_preset(settings.base, class_names=class_names)
        if settings.masks and not model.has_masks:
            raise RecipeError(f"masks=True, but the preset {settings.base} has no mask branch: take a Mask R-CNN.")
        return model
    backbone, preprocessor = _backbone(settings)
    neck = layers.FPN(settings.channels)
    strides = neck.strides(backbone.strides)
    num_classes, scale = len(class_names), settings.anchor_scale
    # regions go to the level whose anchors have about their size, as 224 at P4 does for anchors of 8 strides
    pool = {"strides": strides[: neck.roi_levels()], "canonical_size": 28 * scale}
    parts = {}
    if settings.masks:
        convs = settings.mask_convs
        parts = {
            "mask_pool": layers.RoIAlign(14, **pool, name="mask_pool"),
            "mask_head": layers.MaskHead(num_classes, convs, channels=convs[-1]),
        }
    detector = MaskRCNN if settings.masks else FasterRCNN
    return detector(
        backbone,
        num_classes,
        neck=neck,
        anchors=layers.AnchorGenerator([[scale * stride] for stride in strides], settings.aspect_ratios),
        proposals=layers.Proposals(settings.proposals, settings.proposals),
        rpn_targets=layers.RPNTargets(seed=settings.seed),
        box_targets=layers.BoxTargets(num_classes, count=settings.rois, seed=settings.seed + 1),
        box_pool=layers.RoIAlign(7, **pool, name="box_pool"),
        box_head=layers.BoxHead(settings.head_units),
        decoder=layers.DetectionDecoder(max_detections=settings.max_detections),
        preprocessor=preprocessor,
        class_names=class_names,
        name=settings.name,
        **parts,
    )


def _backbone(settings):
    if settings.backbone == "efficientnet_lite0":
        from keras_rcnn.backbones import EfficientNetLite0

        preprocessor = readers.Preprocessor(
            settings.min_size, settings.max_size, mean=[127 / 255] * 3, std=[128 / 255] * 3
        )
        return EfficientNetLite0(weights="imagenet", freeze_at=settings.freeze_at), preprocessor
    raise RecipeError(
        f"A recipe's backbone is 'efficientnet_lite0', not {settings.backbone!r}: build other models in Python, or "
        "start from a preset with base=..."
    )


def train(settings, out, resume=False, verbose=1):
    """Trains a detector and leaves a preset folder.

    `out` then holds the preset (the best model), `best/` and `last/`, `history.csv` and `history.png`. A killed run
    goes on with `resume=True` after its last whole epoch, with the optimizer's state and the same order of the data.

    Args:
        settings: a namespace with some of `DEFAULTS`, from `load_recipe` or `default_settings`.
        out: folder.
        resume: bool.
        verbose: as in `fit`.

    Returns:
        `out` as a `pathlib.Path`.

    Raises:
        RecipeError, DataError: before anything is trained.
    """
    settings = default_settings(**vars(settings))
    if settings.train is None:
        raise RecipeError("The settings name no training data: set train = {'coco': ..., 'images': ...}.")
    keras.utils.set_random_seed(settings.seed)
    training = load_data(settings.train, settings.on_bad)
    validation = None
    if settings.val:
        validation = load_data(settings.val, settings.on_bad, training.class_names)
    elif settings.hold_out:
        training, validation = training.split(settings.hold_out, settings.seed)
    model = build_model(settings, training.class_names)
    batches = training.batches(
        model.preprocessor,
        batch_size=settings.batch_size,
        shuffle=True,
        augment=build_augment(settings.augment),
        seed=settings.seed,
        cache=settings.cache,
        max_objects=settings.max_objects,
        masks=model.has_masks,
    )
    rate = WarmupCosine(
        settings.learning_rate,
        steps=settings.epochs * len(batches),
        warmup_steps=min(settings.warmup_steps, settings.epochs * len(batches) // 2),
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay, clipnorm=settings.clipnorm),
        jit_compile=False,  # XLA has no kernel for crop_and_resize, and makes training on CPU slower
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done = _restore(model, out / "last") if resume else 0
    batches.epoch = done

    callbacks = [StopOnNaN(batches)]
    if settings.minutes:
        callbacks.insert(0, TimeLimit(settings.minutes))
    evaluation = None
    if validation is not None:
        evaluation = EvaluateCallback(
            validation, every=settings.evaluate_every, max_detections=settings.eval_detections
        )
        callbacks.append(evaluation)
    callbacks.append(HistoryCSV(out / "history.csv", plot=out / "history.png"))

    def save(model, folder):
        _save(model, folder, settings, validation, evaluation)

    monitor = "loss"
    if validation is not None:
        monitor = "val_segm_AP50" if model.has_masks and has_masks(validation) else "val_AP50"
    callbacks.append(BestAndLast(out, save, monitor=monitor))
    model.fit(
        batches, epochs=max(settings.epochs, done), initial_epoch=done, callbacks=callbacks, verbose=verbose
    )
    best = out / "best" if (out / "best").is_dir() else out / "last"
    for file in ("preset.json", "weights.safetensors"):
        shutil.copyfile(best / file, out / f".{file}")
        os.replace(out / f".{file}", out / file)
    return out


def _save(model, folder, settings, validation, evaluation):
    """A preset into a folder that exists and is empty, with the optimizer's state for `resume`."""
    from safetensors.numpy import save_file

    from keras_rcnn.presets import save_preset

    metrics = {}
    if evaluation is not None and evaluation.last is not None:
        metrics = {"dataset": validation.name, **{k: v for k, v in evaluation.last.items() if k != "per_class"}}
    folder = Path(folder)
    save_preset(
        model,
        folder,
        dtype=settings.weights_dtype,
        name=settings.name,
        title=settings.title,
        license=settings.license,
        source=settings.source,
        notes=settings.notes,
        metrics=metrics,
    )
    if folder.name == ".last.new":
        state = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
        weights = {"weights/" + w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
        save_file({**state, **weights}, folder / "state.safetensors")  # the weights once more, in float32


def _restore(model, folder):
    """Weights and optimizer state of the last epoch; returns the number of epochs done."""
    from safetensors.numpy import load_file

    if not (folder / "training.json").is_file():
        logger.warning("%s holds no epoch to go on from; the training starts anew.", folder)
        return 0
    state = load_file(folder / "state.safetensors")
    model.optimizer.build(model.trainable_variables)
    for weight in model.weights:
        weight.assign(state["weights/" + weight.path])
    for i, variable in enumerate(model.optimizer.variables):
        variable.assign(state[str(i)])
    return json.loads((folder / "training.json").read_text())["epoch"]
