"""Every setting that a training can have: its type, default, unit, limits, and what it does.

A new setting is a field of `Settings`, and nothing else.

The recipe's check, `keras-rcnn train --help-settings` and the defaults all come from here. The defaults suit a few
hundred photos on a laptop.
"""

import ast
import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

logger = logging.getLogger(__name__)

Count = Annotated[StrictInt, Field(ge=1)]
Share = Annotated[StrictFloat, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
Text = StrictStr | None
Source = dict[str, Any] | None
File = StrictStr | Path | None


class RecipeError(ValueError):
    """A recipe, or a setting given for it, that cannot be used."""


def _of(group: str, built: bool = False) -> Callable[..., Any]:
    def setting(default: Any, description: str, unit: str | None = None) -> Any:
        return Field(default, description=description, json_schema_extra={"group": group, "unit": unit, "built": built})

    return setting


_data, _schedule, _machine, _preset = _of("data"), _of("schedule"), _of("machine"), _of("preset")
# those that a new detector is built from, and a preset to start from has already
_parts, _boxes = _of("model", built=True), _of("regions", built=True)
_model, _regions = _of("model"), _of("regions")


class Settings(BaseModel):
    """The settings of a training, checked. Instances cannot be changed.

    Raises:
        RecipeError: one that lists everything that is wrong.

    Example:

    >>> settings = Settings(train={"coco": "train.json", "images": "train"}, epochs=12)
    >>> settings.replace(learning_rate=5e-4).epochs
    12
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: StrictStr = _preset("detector", "the preset's name; from the command line, the output folder's")
    title: StrictStr = _preset("", "what the preset is, in a few words")
    license: Text = _preset(None, "of the data and the weights, for preset.json")
    source: Text = _preset(None, "where data and weights come from, for preset.json")
    notes: Text = _preset(None, "what else there is to know, for preset.json")
    weights_dtype: Literal["float16", "float32"] = _preset("float16", "of the weights file")

    data: File = _data(
        None, "a folder that the entries below are built from, so that one `--set data=...` moves them all"
    )
    train: Source = _data(
        None,
        '`{"data": path, "split": name}`, `{"coco": file, "images": folder}`, `{"voc": folder, "split": name}` or '
        '`{"csv": file, "images": folder}`',
    )
    val: Source = _data(None, "the same, for the validation data")
    val_fraction: Annotated[StrictFloat, Field(ge=0, lt=1)] = _data(
        0.0, "without `val`: the share of the training images to validate on instead, chosen by the seed"
    )
    on_bad: Literal["error", "skip"] = _data("error", 'what to do about bad annotations: `"error"` or `"skip"`')
    augment: tuple = _data(
        ("hflip", "color"),
        "names among `hflip`, `vflip`, `rot90`, `rotate`, `color`, `photometric`, `scale`, `lsj`, `crop`, `copy_paste` "
        'and `mosaic`, or tuples with settings: `("scale", 0.5, 2.0)`',
    )
    cache: StrictBool | Annotated[StrictInt, Field(ge=0)] = _data(True, "keep decoded images in memory, up to 2 GiB")
    max_objects: Count | None = _data(
        None, "the most objects per image; of more, a random choice is taken. `None`: as many as any image has"
    )
    repeat_threshold: Annotated[StrictFloat, Field(gt=0, le=1)] | None = _data(
        None, "photos with classes that are in less than this share of the photos come up more often (LVIS: 0.001)"
    )
    difficult: StrictBool = _data(False, "whether VOC's difficult objects are learned, too")
    auto: StrictBool = _data(
        False, "take what `keras-rcnn check` suggests for the data, in settings that are as they are by default"
    )
    seed: Annotated[StrictInt, Field(ge=0)] = _data(
        0, "of the order, the augmentation, the samples and the new weights"
    )

    base: File = _model(
        None, "a preset to start from, with masks if it has them; it brings the rest of the model's settings"
    )
    detector: Literal["rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"] | None = _model(
        None,
        '`"rcnn"`, `"fast_rcnn"`, `"faster_rcnn"` or `"mask_rcnn"`; `None` is Faster R-CNN, or with `masks` Mask R-CNN',
    )
    masks: StrictBool = _model(False, "train masks too")
    keypoints: StrictBool = _model(False, "train keypoints too, those of COCO's annotations; a `base` must have them")
    backbone: StrictStr = _parts(
        "efficientnet_lite0",
        'or `"mobilenet_v3_large"`, `"resnet18"` to `"resnet152"`, `"resnext50_32x4d"`, `"resnext101_32x8d"`, '
        '`"resnext101_64x4d"`, `"convnext_tiny"`, `"convnext_small"`; or `"vgg16"`, `"zf"`, `"caffenet"`',
    )
    backbone_weights: Text = _parts(
        None,
        "a file of weights; `None`: ImageNet's, downloaded the first time; `random`: none. `vgg16`, `zf` and "
        "`caffenet` need a `.caffemodel`, whose fc6 and fc7 begin the box head",
    )
    backbone_norm: Literal["frozen", "batch"] = _parts(
        "frozen", "batch normalisation in the backbone: ImageNet's statistics and scales, or trained ones"
    )
    freeze_at: Annotated[StrictInt, Field(ge=0)] = _model(1, "freeze the backbone up to this stage")
    min_size: Count = _model(448, "shorter side of the photos", "px")
    train_min_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] | None = _model(
        None, "in training, one of these is drawn for each batch instead of `min_size`, such as `(384, 448, 512)`", "px"
    )
    max_size: Count = _model(640, "longer side at most", "px")
    neck: StrictStr = _parts("fpn", 'a feature pyramid, or the name of a single map, `"C4"`')
    fpn_channels: Count = _parts(128, "channels of the pyramid")
    fpn_from: Literal["C2", "C3", "C4"] = _parts(
        "C2", 'its finest map: `"C3"` makes a step much cheaper, and loses objects under about 24 px'
    )
    roi_pool: Literal["align", "pool"] = _parts("align", 'RoIAlign, or on a single map RoIPool (`"pool"`)')
    roi_pool_size: Count = _parts(7, "bins per side")
    box_head_units: tuple[Count, ...] = _parts((512, 512), "widths of the box head's fully connected layers")
    box_head_dropout: Annotated[StrictFloat, Field(ge=0, lt=1)] = _parts(0.0, "after each of them")
    cascade: StrictBool = _parts(False, "Cascade R-CNN: three box heads, each on the boxes of the one before")
    mask_head_channels: Annotated[tuple[Count, ...], Field(min_length=1)] = _parts(
        (128,) * 4, "channels of the mask head's convolutions"
    )
    keypoint_head_channels: Annotated[tuple[Count, ...], Field(min_length=1)] = _parts(
        (128,) * 4, "channels of the keypoint head's convolutions; the paper's are eight of 512"
    )
    max_detections: Count = _parts(100, "the most detections per image")

    anchor_scale: Positive = _boxes(
        4.0,
        "an anchor's side, in strides of its level; a single map also has anchors of twice and four times that side",
    )
    aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = _boxes(
        (0.5, 1.0, 2.0), "of the anchors, height / width"
    )
    anchor_border: Annotated[StrictFloat, Field(ge=0)] | None = _boxes(
        None,
        "ignore anchors that reach farther than this many pixels outside the image (the paper: 0); `None` uses all",
        "px",
    )
    post_nms_proposals: tuple[Count, Count] = _boxes((1000, 600), "the RPN's proposals in training and at test")
    pre_nms_proposals: tuple[Count, Count] | None = _boxes(
        None, "how many go into its NMS, in training and at test; `None`: as many as come out"
    )
    roi_samples: Count | None = _boxes(
        None, "regions sampled per image; `None`: 64 for R-CNN and Fast R-CNN, 256 with an RPN"
    )
    positive_iou: Share = _boxes(0.5, "the least IoU of a positive region with its object")
    background_iou: tuple[Share, Share] | None = _boxes(
        None, "the IoU range of a background region; `None`: from 0.1 to 0.5 for Fast R-CNN, else from 0 to 0.5"
    )
    nms_iou: Share | None = _boxes(None, "IoU of the last NMS; `None`: 0.3 for R-CNN and Fast R-CNN, 0.5 with an RPN")
    soft_nms: Literal["linear", "gaussian"] | None = _regions(
        None, 'the last NMS lowers the scores of overlapping boxes instead of dropping them: `"linear"` or `"gaussian"`'
    )
    selective_search: dict[str, Any] = _regions(
        {"mode": "fast"}, "settings of selective search, those of `compute_proposals`"
    )
    proposals_cache: File = _regions(None, "folder for its results; `None`: a folder in the output")
    train_proposals: File = _regions(None, "a file of proposals for the training data, instead of selective search")
    val_proposals: File = _regions(None, "the same for the validation data")
    region_size: Count = _boxes(224, "R-CNN: side of a region's crop", "px")
    region_context: Annotated[StrictInt, Field(ge=0)] = _boxes(16, "R-CNN: pixels of the surroundings in it", "px")
    svms: dict[str, Any] | None = _regions({}, "R-CNN: settings of `fit_svms`; `None` leaves the SVMs out")
    box_regressors: dict[str, Any] | None = _regions(
        {}, "R-CNN: settings of `fit_box_regressors`; `None` leaves them out"
    )

    epochs: Count | None = _schedule(
        None, "passes over the training images; `None`: 20, or with `minutes` as many as there is time for"
    )
    alternating: tuple[Count, Count, Count, Count] | None = _schedule(
        None, "Faster R-CNN's 4-step training: the epochs of each step, such as `(8, 12, 4, 6)`, instead of `epochs`"
    )
    minutes: Positive | None = _schedule(None, "end in good order after so long; the cosine comes down by then", "min")
    batch_size: Count = _schedule(2, "images a step")
    optimizer: Literal["adamw", "sgd", "lamb"] = _schedule("adamw", 'or `"sgd"`, `"lamb"`')
    learning_rate: Positive = _schedule(5e-4, "its highest value; SGD wants ten to twenty times as much")
    backbone_lr_multiplier: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] | None = _schedule(
        None, "the backbone's share of it; `None`: 0.5, or 1 for a backbone whose weights are random"
    )
    lr_drop_epochs: tuple[Count, ...] | None = _schedule(
        None, "epochs after which the rate falls by `lr_drop_factor`; `None`: half a cosine down to 0"
    )
    lr_drop_factor: Annotated[StrictFloat, Field(gt=0, lt=1)] = _schedule(0.1, "what it is multiplied by then")
    warmup_steps: Annotated[StrictInt, Field(ge=0)] = _schedule(
        200, "steps in which the rate rises from the start, at most half of all"
    )
    momentum: Annotated[StrictFloat, Field(ge=0, lt=1)] = _schedule(0.9, "of SGD")
    weight_decay: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] | None = _schedule(
        0.01, "the share of the rate by which weights shrink in each step"
    )
    clipnorm: Positive | None = _schedule(5.0, "the most that the norm of a weight's gradient may be")
    gradient_accumulation_steps: Count | None = _schedule(None, "batches whose mean gradient makes one step")
    ema_momentum: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = _schedule(
        None, "momentum of an average of the weights (0.999), which is then evaluated and saved"
    )
    box_regression: Literal["smooth_l1", "giou"] | None = _schedule(
        None, 'the loss of the box head\'s boxes, `"smooth_l1"` or `"giou"`; `None`: as the detector has it, smooth L1'
    )
    focal_gamma: Annotated[StrictFloat, Field(ge=0, le=10)] = _schedule(
        0.0, "focal loss of the box head's classes: the larger, the less do easy regions count (2.0 is usual)"
    )
    class_balance: Annotated[StrictFloat, Field(ge=0, lt=1)] = _schedule(
        0.0, "beta of class-balanced weights, by which rare classes count more in the box head's loss (0.999)"
    )
    evaluate_every: Count = _schedule(1, "epochs between evaluations")
    eval_max_detections: Count = _schedule(100, "detections per image that AP counts")
    patience: Count | None = _schedule(None, "end when so many evaluations have brought no better AP50")

    precision: StrictStr = _machine("float32", 'or `"bfloat16"`, `"float16"`; see the page on speed and precision')
    jit_compile: StrictBool | None = _machine(None, "whether XLA compiles the step; None: on JAX alone")
    strategy: Literal["mirrored", "multiworker", "jax"] | None = _machine(
        None, '`"mirrored"`, `"multiworker"` or `"jax"`; several devices share each batch'
    )
    checkpoint_minutes: Positive | None = _machine(10.0, "between two checkpoints within an epoch", "min")
    tensorboard: StrictBool = _machine(
        False, "losses, AP and pictures for TensorBoard, in `OUT/board`; needs `pip install -e '.[board]'`"
    )

    def __init__(self, **values: Any) -> None:
        values, problems = _renamed(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            details = {}
            for detail in error.errors():
                details.setdefault(str(detail["loc"][0]), []).append(detail)
            problems += [_problem(name, values[name], own) for name, own in details.items()]
        if problems:
            raise RecipeError(listed(problems))

    def replace(self, **changes: Any) -> "Settings":
        """The settings with some of them changed, and checked again."""
        return Settings(**{**vars(self), **changes})

    def changed(self) -> dict[str, Any]:
        """Those that are not as they are by default: `{name: value}`."""
        return {name: value for name, value in vars(self).items() if value != DEFAULTS[name]}


DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
_EXTRA: dict[str, Any] = {name: field.json_schema_extra for name, field in Settings.model_fields.items()}
BUILT = [name for name, extra in _EXTRA.items() if extra["built"]]

# names of version 0.1, understood for one more release
OLD_NAMES = {
    "hold_out": "val_fraction",
    "channels": "fpn_channels",
    "pool": "roi_pool",
    "pool_size": "roi_pool_size",
    "head_units": "box_head_units",
    "dropout": "box_head_dropout",
    "mask_convs": "mask_head_channels",
    "border": "anchor_border",
    "proposals": "post_nms_proposals",
    "pre_nms": "pre_nms_proposals",
    "rois": "roi_samples",
    "background": "background_iou",
    "nms": "nms_iou",
    "search": "selective_search",
    "search_cache": "proposals_cache",
    "crop": "region_size",
    "context": "region_context",
    "backbone_rate": "backbone_lr_multiplier",
    "drop_at": "lr_drop_epochs",
    "accumulate": "gradient_accumulation_steps",
    "ema": "ema_momentum",
    "eval_detections": "eval_max_detections",
}


def canonical(name: str) -> str:
    """The present name of a setting, of that or of its old one."""
    return OLD_NAMES.get(name, name)


def cast(name: str, text: str) -> Any:
    """A setting's value as it is written on the command line, such as `"8"`, `"(5, 8)"` or `"runs/a"`.

    It becomes what the setting's type wants: the Python literal if that will do, else the text itself.

    Raises:
        RecipeError: there is no such setting, or the text is no value of it.
    """
    field = Settings.model_fields.get(name)
    if field is None:
        raise RecipeError(_unknown(name))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    type_: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter, details = TypeAdapter(type_, config={"arbitrary_types_allowed": True}), []
    for candidate in (value, text):
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            details = details or error.errors()
    raise RecipeError(_problem(name, value, details))


def listed(problems: Sequence[str]) -> str:
    """One message about all that is wrong."""
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are not as they should be:\n  " + "\n  ".join(problems)


def _renamed(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values by their present names, and a problem for each that is given by both or by none that exists."""
    old = [name for name in values if name in OLD_NAMES]
    problems = [
        f"{name} is the old name of {OLD_NAMES[name]}, and both are given: leave {name} out."
        for name in old
        if OLD_NAMES[name] in values
    ]
    if old:
        renamed = ", ".join(f"{name} is now {OLD_NAMES[name]}" for name in old)
        logger.warning("Settings have new names: %s. The old ones go with the next release.", renamed)
    problems += [_unknown(name) for name in values if canonical(name) not in Settings.model_fields]
    known = {name: value for name, value in values.items() if name not in OLD_NAMES and name in Settings.model_fields}
    return {OLD_NAMES[name]: values[name] for name in old} | known, problems


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, [*DEFAULTS, *OLD_NAMES], 1, cutoff=0.7)
    hint = f"; did you mean {canonical(nearest[0])}" if nearest else ""
    return f"{name}: there is no such setting{hint}. keras-rcnn train --help-settings lists them."


def _problem(name: str, value: Any, details: Sequence[Any]) -> str:
    """A line about one setting, of pydantic's errors."""
    wanted = " or ".join(dict.fromkeys(detail["msg"].removeprefix("Input should be ") for detail in details))
    return f"{name} = {value!r}: it should be {wanted} ({Settings.model_fields[name].description})."


GROUPS = {
    "data": "Data",
    "model": "Model",
    "regions": "Anchors and regions",
    "schedule": "Schedule",
    "machine": "Devices, precision, checkpoints",
    "preset": "The preset",
}


def settings_table() -> list[tuple[str, str, str, str, str]]:
    """`[(group, name, default, unit or "", description)]` of every setting, a group at a time."""
    fields: list[tuple[Any, str, Any]] = [(_EXTRA[name], name, field) for name, field in Settings.model_fields.items()]
    return [
        (title, name, repr(field.default), more["unit"] or "", field.description)
        for group, title in GROUPS.items()
        for more, name, field in fields
        if more["group"] == group
    ]


def settings_markdown() -> str:
    """The same as the tables of docs/pages/training.md."""
    lines, group = [], None
    for title, name, default, unit, description in settings_table():
        if title != group:
            lines += ["", f"### {title}", "", "| setting | default | what it does |", "|---|---|---|"]
            group = title
        lines.append(f"| `{name}` | `{default}` | {description}{f' [{unit}]' if unit else ''} |")
    return "\n".join(lines).strip()
