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

    name: StrictStr = _preset("detector", "the preset's name; from the command line, the output folder's")
    title: StrictStr = _preset("", "what the preset is, in a few words")
    license: Text = _preset(None, "of the data and the weights, for preset.json")
    source: Text = _preset(None, "where data and weights come from, for preset.json")
    notes: Text = _preset(None, "what else there is to know, for preset.json")
    weights_dtype: Literal["float16", "float32"] = _preset("float16", "of the weights file")

    data: Any = _data(
        None, "a folder that the entries below are built from, so that one `--set data=...` moves them all"
    )
    train: Source = _data(
        None,
        '`{"coco": file, "images": folder}`, `{"voc": folder, "split": name}` or `{"csv": file, "images": folder}`',
    )
    val: Source = _data(None, "the same, for the validation data")
    hold_out: Annotated[StrictFloat, Field(ge=0, lt=1)] = _data(
        0.0, "without `val`: the share of the training images to validate on instead, chosen by the seed"
    )
    on_bad: Literal["error", "skip"] = _data("error", 'what to do about bad annotations: `"error"` or `"skip"`')
    augment: tuple = _data(
        ("hflip", "color"),
        'names among `hflip`, `vflip`, `rot90`, `color` and `scale`, or tuples with settings: `("scale", 0.5, 2.0)`',
    )
    cache: StrictBool | Annotated[StrictInt, Field(ge=0)] = _data(True, "keep decoded images in memory, up to 2 GiB")
    max_objects: Count | None = _data(
        None, "the most objects per image; of more, a random choice is taken. `None`: as many as any image has"
    )
    difficult: StrictBool = _data(False, "whether VOC's difficult objects are learned, too")
    seed: Annotated[StrictInt, Field(ge=0)] = _data(
        0, "of the order, the augmentation, the samples and the new weights"
    )

    base: Any = _model(
        None, "a preset to start from, with masks if it has them; it brings the rest of the model's settings"
    )
    detector: Literal["rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"] | None = _model(
        None,
        '`"rcnn"`, `"fast_rcnn"`, `"faster_rcnn"` or `"mask_rcnn"`; `None` is Faster R-CNN, or with `masks` Mask R-CNN',
    )
    masks: StrictBool = _model(False, "train masks too")
    backbone: StrictStr = _model("efficientnet_lite0", 'or `"vgg16"`, `"zf"`, `"caffenet"`')
    backbone_weights: Text = _model(
        None,
        "a file of weights; `vgg16`, `zf` and `caffenet` need a `.caffemodel`, whose fc6 and fc7 begin the box head",
    )
    freeze_at: Annotated[StrictInt, Field(ge=0)] = _model(1, "freeze the backbone up to this stage")
    min_size: Count = _model(448, "shorter side of the photos", "px")
    max_size: Count = _model(640, "longer side at most", "px")
    neck: StrictStr = _model("fpn", 'a feature pyramid, or the name of a single map, `"C4"`')
    channels: Count = _model(128, "channels of the pyramid")
    pool: Literal["align", "pool"] = _model("align", 'RoIAlign, or on a single map RoIPool (`"pool"`)')
    pool_size: Count = _model(7, "bins per side")
    head_units: tuple[Count, ...] = _model((512, 512), "widths of the box head's fully connected layers")
    dropout: Annotated[StrictFloat, Field(ge=0, lt=1)] = _model(0.0, "after each of them")
    mask_convs: Annotated[tuple[Count, ...], Field(min_length=1)] = _model(
        (128,) * 4, "channels of the mask head's convolutions"
    )
    max_detections: Count = _model(100, "the most detections per image")

    anchor_scale: Positive = _regions(
        4.0,
        "an anchor's side, in strides of its level; a single map also has anchors of twice and four times that side",
    )
    aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = _regions(
        (0.5, 1.0, 2.0), "of the anchors, height / width"
    )
    border: Annotated[StrictFloat, Field(ge=0)] | None = _regions(
        None,
        "ignore anchors that reach farther than this many pixels outside the image (the paper: 0); `None` uses all",
        "px",
    )
    proposals: tuple[Count, Count] = _regions((1000, 600), "the RPN's proposals in training and at test")
    pre_nms: tuple[Count, Count] | None = _regions(
        None, "how many go into its NMS, in training and at test; `None`: as many as come out"
    )
    rois: Count | None = _regions(
        None, "regions sampled per image; `None`: 64 for R-CNN and Fast R-CNN, 256 with an RPN"
    )
    background: tuple[Share, Share] | None = _regions(
        None, "the IoU range of a background region; `None`: from 0.1 to 0.5 for Fast R-CNN, else from 0 to 0.5"
    )
    nms: Share | None = _regions(None, "IoU of the last NMS; `None`: 0.3 for R-CNN and Fast R-CNN, 0.5 with an RPN")
    search: dict[str, Any] = _regions({"mode": "fast"}, "settings of selective search, those of `compute_proposals`")
    search_cache: Any = _regions(None, "folder for its results; `None`: a folder in the output")
    train_proposals: Any = _regions(None, "a file of proposals for the training data, instead of selective search")
    val_proposals: Any = _regions(None, "the same for the validation data")
    crop: Count = _regions(224, "R-CNN: side of a region's crop", "px")
    context: Annotated[StrictInt, Field(ge=0)] = _regions(16, "R-CNN: pixels of the surroundings in it", "px")
    svms: dict[str, Any] | None = _regions({}, "R-CNN: settings of `fit_svms`; `None` leaves the SVMs out")
    box_regressors: dict[str, Any] | None = _regions(
        {}, "R-CNN: settings of `fit_box_regressors`; `None` leaves them out"
    )

    epochs: Count = _schedule(20, "passes over the training images")
    alternating: tuple[Count, Count, Count, Count] | None = _schedule(
        None, "Faster R-CNN's 4-step training: the epochs of each step, such as `(8, 12, 4, 6)`, instead of `epochs`"
    )
    minutes: Positive | None = _schedule(None, "end in good order after so long", "min")
    batch_size: Count = _schedule(2, "images a step")
    optimizer: Literal["adamw", "sgd", "lamb"] = _schedule("adamw", 'or `"sgd"`, `"lamb"`')
    learning_rate: Positive = _schedule(1e-3, "its highest value")
    backbone_rate: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] = _schedule(
        1.0, "the backbone's share of it"
    )
    drop_at: tuple[Count, ...] | None = _schedule(
        None, "epochs after which the rate falls to a tenth; `None`: half a cosine down to 0"
    )
    warmup_steps: Annotated[StrictInt, Field(ge=0)] = _schedule(
        200, "steps in which the rate rises from the start, at most half of all"
    )
    momentum: Annotated[StrictFloat, Field(ge=0, lt=1)] = _schedule(0.9, "of SGD")
    weight_decay: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] | None = _schedule(
        0.01, "the share of the rate by which weights shrink in each step"
    )
    clipnorm: Positive | None = _schedule(5.0, "the most that the norm of a weight's gradient may be")
    accumulate: Count | None = _schedule(None, "batches whose mean gradient makes one step")
    ema: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = _schedule(
        None, "momentum of an average of the weights (0.999), which is then evaluated and saved"
    )
    evaluate_every: Count = _schedule(1, "epochs between evaluations")
    eval_detections: Count = _schedule(100, "detections per image that AP counts")
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


GROUPS = {
    "data": "Data",
    "model": "Model",
    "regions": "Anchors and regions",
    "schedule": "Schedule",
    "machine": "Devices, precision, checkpoints",
    "preset": "The preset",
}


def settings_table():
    """`[(group, name, default, unit or "", description)]` of every setting, a group at a time."""
    fields = [(field.json_schema_extra, name, field) for name, field in Settings.model_fields.items()]
    return [
        (title, name, repr(field.default), more["unit"] or "", field.description)
        for group, title in GROUPS.items()
        for more, name, field in fields
        if more["group"] == group
    ]


def settings_markdown():
    """The same as the tables of docs/pages/training.md."""
    lines, group = [], None
    for its, name, default, unit, description in settings_table():
        if its != group:
            lines += ["", f"### {its}", "", "| setting | default | what it does |", "|---|---|---|"]
            group = its
        lines.append(f"| `{name}` | `{default}` | {description}{f' [{unit}]' if unit else ''} |")
    return "\n".join(lines).strip()
