"""Every setting that a training can have: its type, default, unit, limits, and what it does.

The recipe's check, `keras-rcnn train --help-settings` and the defaults all come from here. The defaults suit a few
hundred photos on a laptop.
"""

import difflib
import types
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from keras_rcnn.training.recipe import RecipeError

Count = Annotated[StrictInt, Field(ge=1)]
Share = Annotated[StrictFloat, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
Text = StrictStr | None
Source = dict[str, Any] | None


def _of(group):
    def setting(default, description, unit=None):
        return Field(default, description=description, json_schema_extra={"group": group, "unit": unit})

    return setting


_data, _model, _regions, _schedule = _of("data"), _of("model"), _of("regions"), _of("schedule")
_machine, _preset = _of("machine"), _of("preset")


class Settings(BaseModel):
    """The settings of a training, checked. Instances cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: StrictStr = _preset("detector", "name of the preset")
    title: StrictStr = _preset("", "one line about it")
    license: Text = _preset(None, "of data and weights")
    source: Text = _preset(None, "where it comes from")
    notes: Text = _preset(None, "what else is to be known")
    weights_dtype: Literal["float16", "float32"] = _preset("float16", "of the weights file")

    data: Any = _data(
        None, "any folder that train and val are built from, so that one --set data=... moves both"
    )
    train: Source = _data(
        None, '{"coco": file, "images": folder}, {"voc": folder, ...} or {"csv": file, ...}'
    )
    val: Source = _data(None, "the same, to validate on")
    hold_out: Annotated[StrictFloat, Field(ge=0, lt=1)] = _data(
        0.0, "without val: the share of the training images, chosen by the seed, that is validated on instead"
    )
    on_bad: Literal["error", "skip"] = _data("error", "what becomes of bad annotations")
    augment: tuple = _data(("hflip", "color"), "names among hflip, vflip, rot90, color, scale, or tuples with settings")
    cache: StrictBool | Annotated[StrictInt, Field(ge=0)] = _data(True, "decoded images in memory, True or bytes")
    max_objects: Count | None = _data(None, "of an image with more a random choice is trained on")
    difficult: StrictBool = _data(False, "whether VOC's difficult objects are learned, too")
    seed: Annotated[StrictInt, Field(ge=0)] = _data(0, "of order, augmentation, sampling and new weights")

    base: Any = _model(None, "preset to start from, by name or folder; it brings the rest of the model's settings")
    detector: Literal["rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"] | None = _model(
        None, "None is Faster R-CNN, or with masks Mask R-CNN"
    )
    masks: StrictBool = _model(False, "whether a new detector predicts masks")
    backbone: StrictStr = _model("efficientnet_lite0", "or vgg16, zf, caffenet")
    backbone_weights: Text = _model(None, "file; of vgg16, zf and caffenet their .caffemodel, with fc6 and fc7")
    freeze_at: Annotated[StrictInt, Field(ge=0)] = _model(1, "stages of the backbone that are not trained")
    min_size: Count = _model(448, "shorter side that photos are resized to", "px")
    max_size: Count = _model(640, "longer side at most", "px")
    neck: StrictStr = _model("fpn", 'or the name of a single map, "C4"')
    channels: Count = _model(128, "of the FPN")
    pool: Literal["align", "pool"] = _model("align", 'RoIAlign, or on a single map RoIPool ("pool")')
    pool_size: Count = _model(7, "bins a side")
    head_units: tuple[Count, ...] = _model((512, 512), "widths of the box head's layers")
    dropout: Annotated[StrictFloat, Field(ge=0, lt=1)] = _model(0.0, "behind each of them")
    mask_convs: Annotated[tuple[Count, ...], Field(min_length=1)] = _model((128,) * 4, "channels of the mask head")
    max_detections: Count = _model(100, "an image")

    anchor_scale: Positive = _regions(
        4.0, "an anchor's side in strides of its level; on a single map there are twice and four times the side, too"
    )
    aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = _regions((0.5, 1.0, 2.0), "height / width")
    border: Annotated[StrictFloat, Field(ge=0)] | None = _regions(
        None, "anchors that reach farther outside the image are ignored; None: none are", "px"
    )
    proposals: tuple[Count, Count] = _regions((1000, 600), "the RPN's, in training and at test")
    pre_nms: tuple[Count, Count] | None = _regions(None, "how many go into its NMS; None: as many")
    rois: Count | None = _regions(None, "sampled regions an image; None: the paper's, or torchvision's with an RPN")
    background: tuple[Share, Share] | None = _regions(None, "IoU range of background regions; None as above")
    nms: Share | None = _regions(None, "IoU of the last NMS; None as above")
    search: dict[str, Any] = _regions({"mode": "fast"}, "where R-CNN and Fast R-CNN look: of compute_proposals")
    search_cache: Any = _regions(None, "its folder; None: one in the output")
    train_proposals: Any = _regions(None, "or a file of proposals")
    val_proposals: Any = _regions(None, "the same for val")
    crop: Count = _regions(224, "R-CNN: side of a region's crop", "px")
    context: Annotated[StrictInt, Field(ge=0)] = _regions(16, "R-CNN: how much of it shows the surroundings", "px")
    svms: dict[str, Any] | None = _regions({}, "R-CNN: settings of fit_svms; None: without")
    box_regressors: dict[str, Any] | None = _regions({}, "R-CNN: settings of fit_box_regressors; None: without")

    epochs: Count = _schedule(20, "how often all images are seen")
    alternating: tuple[Count, Count, Count, Count] | None = _schedule(
        None, "Faster R-CNN in four steps: the epochs of each, in the place of epochs"
    )
    minutes: Positive | None = _schedule(None, "end after so long", "min")
    batch_size: Count = _schedule(2, "images a step")
    optimizer: Literal["adamw", "sgd", "lamb"] = _schedule("adamw", "what makes the steps")
    learning_rate: Positive = _schedule(1e-3, "the highest")
    backbone_rate: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] = _schedule(
        1.0, "the backbone's share of it"
    )
    drop_at: tuple[Count, ...] | None = _schedule(
        None, "epochs after which the rate falls to a tenth; None: along a cosine"
    )
    warmup_steps: Annotated[StrictInt, Field(ge=0)] = _schedule(200, "in which the rate rises")
    momentum: Annotated[StrictFloat, Field(ge=0, lt=1)] = _schedule(0.9, "of sgd")
    weight_decay: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] | None = _schedule(
        0.01, "share of the rate by which weights shrink in a step"
    )
    clipnorm: Positive | None = _schedule(5.0, "of each variable's gradient; None: without")
    accumulate: Count | None = _schedule(None, "batches whose mean gradient makes one step")
    ema: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = _schedule(
        None, "momentum of an average of the weights, which is evaluated and saved"
    )
    evaluate_every: Count = _schedule(1, "epochs")
    eval_detections: Count = _schedule(100, "an image, that the evaluation counts")
    patience: Count | None = _schedule(None, "end when so many evaluations have brought no better AP50")

    precision: StrictStr = _machine("float32", "or bfloat16, float16: fewer bits in convolutions and dense layers")
    jit_compile: StrictBool | None = _machine(None, "whether XLA compiles the step; None: on JAX alone")
    strategy: Literal["mirrored", "multiworker", "jax"] | None = _machine(None, "several devices share each batch")
    checkpoint_minutes: Positive | None = _machine(10.0, "between checkpoints within an epoch", "min")
    tensorboard: StrictBool = _machine(False, "losses, AP and pictures for TensorBoard, in OUT/board")


DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


def default_settings(**changes):
    """`DEFAULTS` with changes, as `train` takes them.

    Raises:
        RecipeError: for a setting that does not exist.
    """
    unknown = sorted(set(changes) - set(DEFAULTS))
    if unknown:
        raise RecipeError(f"Unknown setting(s) {', '.join(unknown)}; there are {', '.join(DEFAULTS)}.")
    return types.SimpleNamespace(**{**DEFAULTS, **changes})


def check_settings(settings):
    """Settings as they were given -> checked ones.

    Args:
        settings: namespace with some of `DEFAULTS`.

    Returns:
        `Settings`.

    Raises:
        RecipeError: one that lists everything that is wrong.
    """
    values = {**DEFAULTS, **vars(settings)}
    try:
        return Settings(**values)
    except ValidationError as error:
        reasons = {}
        for one in error.errors():
            reasons.setdefault(str(one["loc"][0]), []).append(one)
        lines = [_problem(name, values[name], found) for name, found in reasons.items()]
        many = f"{len(lines)} settings are not as they should be:\n  " if len(lines) > 1 else ""
        raise RecipeError(many + "\n  ".join(lines)) from None


def _problem(name, value, found):
    """A line about one setting, of pydantic's errors."""
    field = Settings.model_fields.get(name)
    if field is None:
        near = difflib.get_close_matches(name, DEFAULTS, 1)
        return f"{name}: there is no such setting{f'; did you mean {near[0]}' if near else ''}."
    wanted = " or ".join(dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in found))
    meaning = f" ({field.description})" if field.description else ""
    return f"{name} = {value!r}: it should be {wanted}{meaning}."


def settings_table():
    """`[(group, name, default, unit or "", description)]` of every setting."""
    return [
        (
            field.json_schema_extra["group"],
            name,
            repr(field.default),
            field.json_schema_extra["unit"] or "",
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]
