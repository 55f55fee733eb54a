"""What the values in a `preset.json` may be: the rules of settings, by name, since a name means the same in every part
of a detector.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

SCHEMES = ("http", "https")


class Rule(NamedTuple):
    """What a value may be."""

    accepts: Callable[[Any], bool]
    words: str

    def __or__(self, other: Rule) -> Rule:
        return Rule(lambda value: self.accepts(value) or other.accepts(value), f"{self.words} or {other.words}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(low: int, high: int) -> Rule:
    """A whole number from low to high; 3.0 is none."""
    return Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def number(low: float, high: float, open_low: bool = False) -> Rule:
    """A number from low to high."""
    return Rule(
        lambda value: is_number(value) and (low < value if open_low else low <= value) and value <= high,
        f"a number {'above' if open_low else 'from'} {low} {'up ' if open_low else ''}to {high:g}",
    )


def listed(rule: Rule, most: int, least: int = 0) -> Rule:
    """A list, each of whose values follows a rule."""
    many = f"{least}" if least == most else f"{least} to {most}"
    return Rule(
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(rule.accepts, value)),
        f"a list of {many}, each {rule.words}",
    )


def text(most: int = 1000) -> Rule:
    """A text of so many characters."""
    return Rule(lambda value: isinstance(value, str) and len(value) <= most, f"a text of up to {most} characters")


def one_of(*values: str) -> Rule:
    """One of a few texts."""
    return Rule(lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}")


NULL = Rule(lambda value: value is None, "null")
FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
OBJECT = Rule(lambda value: isinstance(value, dict), "an object {...}")
CLASSES = whole(1, 100_000)
WIDTH = whole(1, 2**20)  # the weights file says which; this is what is not even compared
UNIT, POSITIVE = number(0, 1), number(0, 1e6, open_low=True)
FILE_NAME = Rule(
    lambda value: (
        isinstance(value, str)
        and 0 < len(value) <= 200
        and not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', value)
        and value.strip(" .") != ""
    ),
    "a plain file name, without a folder",
)
HEX = Rule(
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{64}", value) is not None,
    "a SHA-256 of 64 hexadecimal digits",
)
HEX_PREFIX = Rule(
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{8,64}", value) is not None,
    "the first 8 to 64 hexadecimal digits of a SHA-256",
)
MD5_PREFIX = Rule(
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{6,32}", value) is not None,
    "the first 6 to 32 hexadecimal digits of an MD5",
)


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 2000 or not value.isascii() or re.search(r"[\x00-\x20\x7f]", value):
        return False
    try:
        parts = urllib.parse.urlsplit(value)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a broken IPv6 address
        return False


URL = Rule(_is_url, "an address that begins with https:// or http://")

# a setting of a detector or of one of its parts -> its rule
SETTINGS = {
    "name": text(200),
    "trainable": FLAG,
    "dtype": NULL | text(100) | OBJECT,
    # detectors
    "num_classes": CLASSES,
    "class_names": NULL | listed(text(), 100_000),
    # backbones: weights are read by from_preset, and never by a path that the file names
    "weights": NULL | listed(POSITIVE, 4, 4),
    "norm": NULL | text(100),
    "freeze_at": whole(0, 16),
    "depth": whole(1, 1000),
    "epsilon": number(0, 1),
    "momentum": UNIT,
    "padded": FLAG,
    "groups": whole(1, 1024),
    "width_per_group": whole(1, 4096),
    "stride_in_1x1": FLAG,
    "dilated": FLAG,
    "last": one_of("C4", "C5"),
    "variant": one_of("tiny", "small"),
    "initial": number(0, 1),
    "bgr": FLAG,
    # necks and heads; a preprocessor's channels are an order
    "channels": NULL | WIDTH | listed(WIDTH, 64) | one_of("rgb", "bgr"),
    "in_features": listed(text(100), 16, 1),
    "in_feature": text(100),
    "top": NULL | text(100),
    "num_anchors": whole(1, 10_000),
    "convs": whole(0, 64) | listed(WIDTH, 64),
    "units": listed(WIDTH, 64, 1),
    "ranks": NULL | listed(NULL | WIDTH, 64),
    "dropout": Rule(lambda value: is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "class_agnostic": FLAG,
    "num_keypoints": whole(1, 1000),
    "names": NULL | listed(text(100), 1000, 1),
    "bones": NULL | listed(listed(whole(0, 999), 2, 2), 10_000),
    # anchors and proposals
    "sizes": listed(listed(POSITIVE, 100, 1), 16, 1),
    "aspect_ratios": listed(number(0, 1000, open_low=True), 100, 1),
    "rounded": FLAG,
    "strides": NULL | listed(whole(1, 1024), 16, 1),
    "pre_nms": listed(whole(1, 50_000), 2, 2),
    "post_nms": listed(whole(1, 10_000), 2, 2),
    "iou_threshold": UNIT,
    "score_threshold": number(-1e6, 1e6),
    "min_size": number(0, 16_384),
    "order": one_of("ratios", "sizes"),
    "ranked_by": one_of("scores", "logits"),
    "clip": FLAG,
    "most": NULL | listed(whole(1, 50_000), 2, 2),
    # targets and losses
    "shuffle": FLAG,
    "seed": NULL | whole(0, 2**63),
    "foreground": UNIT,
    "background": UNIT | listed(UNIT, 2, 2),
    "count": whole(1, 100_000),
    "positive_fraction": UNIT,
    "border": NULL | number(-16_384, 16_384),
    "guard": FLAG,
    "add_truth": FLAG,
    "binary": FLAG,
    "beta": number(0, 1e6),
    "normalisation": text(100),
    "box_weight": NULL | number(0, 1e6),
    "ious": listed(UNIT, 8, 1),
    "stage_weights": listed(listed(POSITIVE, 4, 4), 8, 1),
    "regression": one_of("smooth_l1", "giou"),
    "focal_gamma": number(0, 10),
    "class_weights": NULL | listed(number(0, 1e6), 100_001, 2),
    # regions
    "size": whole(1, 1024),
    "samples": whole(0, 16),
    "aligned": FLAG,
    "canonical_size": POSITIVE,
    "canonical_level": whole(0, 16),
    "level_rule": one_of("torchvision", "detectron2"),
    "context": whole(0, 512),
    "mode": text(100),
    "chunk": whole(1, 10_000),
    "max_detections": whole(1, 10_000),
    "soft_nms": NULL | one_of("linear", "gaussian"),
    "sigma": POSITIVE,
    # Matterport's parts
    "canvas": whole(64, 16_384) | one_of("pad64", "none"),
    "scales": listed(POSITIVE, 16, 1),
    "ratios": listed(number(0, 1000, open_low=True), 100, 1),
    "anchor_stride": whole(1, 16),
    "inactive": listed(whole(0, 100_000), 100_000),
    "min_scale": number(0, 100),
    "mean_pixel": listed(number(-1000, 1000), 3, 3),
    # the preprocessor
    "max_size": whole(1, 16_384),
    "mean": listed(number(-1000, 1000), 3, 3),
    "std": listed(number(0, 1000, open_low=True), 3, 3),
    "size_divisor": whole(1, 1024),
    "fixed_size": NULL | listed(whole(1, 16_384), 2, 2),
    "few_shapes": NULL | FLAG,
    "resize": one_of("torchvision", "detectron2"),
    "paste": one_of("torchvision", "detectron2"),
}
WEIGHTS_KEYS = {
    "file": FILE_NAME,
    "size": NULL | whole(0, 2**50),
    "sha256": NULL | HEX,
    "url": URL,
    "sha256_prefix": HEX_PREFIX,
    "md5_prefix": MD5_PREFIX,
    "converter": text(100),
    "model": text(100),
}
