"""A survey in words."""

from collections.abc import Mapping
from typing import Any

MARKS = {"error": "ERROR  ", "warning": "WARNING", "note": "note   "}


def short_text(result: Mapping[str, Any]) -> str:
    """A few lines of a survey: counts, anchors, and what is to be said.

    Args:
        result: of `survey`.
    """
    lines = [_split_line(name, split) for name, split in result["splits"].items()]
    if "anchors" in result:
        lines.append(_anchor_line(result["anchors"]))
    return "\n".join(lines + _finding_lines(result))


def survey_text(result: Mapping[str, Any]) -> str:
    """A whole survey.

    Args:
        result: of `survey`.
    """
    lines = []
    for name, split in result["splits"].items():
        lines += [_split_line(name, split), f"  from {split['name']}"]
        for key, words in (("shorter_side", "shorter side, px"), ("longer_side", "longer side, px")):
            lines.append(f"  {words:<18} {_spread(split[key])}")
        lines.append(f"  {'objects an image':<18} {_spread(split['objects_an_image'])}")
        width = max(18, *map(len, split["classes"]))
        lines.append(f"  {'class':<{width}} {'objects':>8} {'images':>8}")
        for label, count in split["classes"].items():
            lines.append(f"  {label:<{width}} {count['objects']:>8} {count['images']:>8}")
        lines += [f"  left out: {bad}" for bad in split["left_out"]]
        lines.append("")
    if "objects" in result:
        sizes = result["objects"]
        quantiles = ", ".join(f"{share} {value:g}" for share, value in sizes["side_px"].items())
        lines.append(f"Objects at min_size={sizes['min_size']}, max_size={sizes['max_size']}: side in px, {quantiles}")
        shapes = ", ".join(f"{width:g} x {height:g}" for width, height in sizes["shapes_px"])
        lines.append(f"  typical width x height (k-means by IoU): {shapes}")
    if "anchors" in result:
        lines.append(_anchor_line(result["anchors"]))
    for group in result.get("duplicates", ())[:50]:
        lines.append("Same photo: " + " = ".join(f"{name} ({split})" for split, name in group))
    return "\n".join([*lines, *_finding_lines(result)])


def _split_line(name: str, split: Mapping[str, Any]) -> str:
    extra = [
        f"{split[key]} {words}"
        for key, words in (
            ("without_objects", "images without objects"),
            ("crowd", "crowd"),
            ("difficult", "difficult"),
            ("with_masks", "images with masks"),
        )
        if split[key]
    ]
    more = f" ({', '.join(extra)})" if extra else ""
    classes = len(split["classes"])
    return f"{name}: {split['images']} images, {split['objects']} objects of {classes} classes{more}"


def _anchor_line(anchors: Mapping[str, Any]) -> str:
    return (
        f"Anchors: {anchors['matched']:.1%} of the objects have one of IoU 0.5 or more, "
        f"{anchors['matched_at_0.7']:.1%} of 0.7; mean {anchors['mean_iou']:.3f}"
    )


def _finding_lines(result: Mapping[str, Any]) -> list[str]:
    lines = [f"{MARKS[finding.level]} {finding.text}" for finding in result["findings"]]
    if result.get("suggestions"):
        changes = " ".join(f"--set {key}={_value(value)}" for key, value in result["suggestions"].items())
        lines.append(f"Suggested (or --auto): {changes}")
    return lines


def _value(value: object) -> str:
    text = str(value).replace(" ", "")
    return f"'{text}'" if "(" in text else text


def _spread(spread: Mapping[str, Any]) -> str:
    return f"{spread['least']} to {spread['most']}, median {spread['median']:g}"
