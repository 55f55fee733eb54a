"""The family as a story: what each paper changed in the model files, and what it gained on the same images."""

import difflib
import inspect
import io
import json
import re
import tokenize

from keras_rcnn import models
from keras_rcnn.presets import read_preset, zoo_folder

# the files in the papers' order, and what is said of each step
STEPS = {
    ("rcnn", "fast_rcnn"): "The CNN runs once per photo, and regions are pooled from its map. One network replaces "
    "the CNN, SVMs and regressors that were trained in turn",
    ("fast_rcnn", "faster_rcnn"): "A Region Proposal Network on the same map replaces selective search",
    ("faster_rcnn", "mask_rcnn"): "A mask for each detection, from the same map",
}
MEASURED = "family.json"


def code(module):
    """The lines of a module without docstrings and comments."""
    text = re.sub(r'^\s*"""(?s:.*?)"""\n', "", inspect.getsource(module), flags=re.M)
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return [line for number, line in enumerate(text.splitlines(), 1) if number in lines and line.strip()]


def changed_lines(before, after):
    """The lines, with their "+ " or "- ", in which two of the model files differ.

    Args:
        before, after: names of modules in `keras_rcnn.models`.
    """
    pair = [code(getattr(models, name)) for name in (before, after)]
    return [line for line in difflib.ndiff(*pair) if line[0] in "+-"]


def diffs():
    """The text of docs/pages/family.md: the three steps as diffs."""
    parts = []
    for (before, after), what in STEPS.items():
        lines = changed_lines(before, after)
        parts.append(f"{what}: `{before}.py` to `{after}.py`, {len(lines)} lines.\n")
        body = "\n".join(line[0] + line[2:].rstrip() for line in lines)
        parts.append(f"```diff\n{body}\n```\n")
    return "\n".join(parts).rstrip("\n")


def family():
    """The table of docs/pages/family.md: the detectors that `tools/benchmark.py family` measured, in its order."""
    measured = json.loads((zoo_folder() / MEASURED).read_text(encoding="utf-8"))
    head = ["", "AP50", "AP", "proposals, s per image", "detection, s per image", "together", "training, minutes (CPU)"]
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for row in measured["rows"]:
        search, title = row["proposal_seconds"], read_preset(zoo_folder() / row["preset"])["title"].split(": ")[1]
        rows.append(
            [
                f"[{title}](../../zoo/{row['preset']}/recipe.py)",
                *(f"{row[key]:.3f}" for key in ("AP50", "AP")),
                f"{search:.2f}" if search else "in the network",
                f"{row['seconds']:.3f}",
                f"{search + row['seconds']:.2f}",
                _minutes(row["training_seconds"], row["training_cpu_seconds"]),
            ]
        )
    return (
        f"{_markdown(rows)}\n\n{measured['dataset']}; {measured['machine']}. Detection is timed on "
        "decoded photos, one per call; the trainings had other work beside them."
    )


def stages():
    """The table of docs/pages/family.md: what R-CNN's SVMs and box regressors gain, from its training's stages.json."""
    found = json.loads((zoo_folder() / "bccd_rcnn" / "stages.json").read_text(encoding="utf-8"))
    rows = [["AP50 (AP)", "boxes as proposed", "boxes regressed"], ["---", "--:", "--:"]]
    for name, what in (("softmax", "the fine-tuned CNN's softmax"), ("svms", "linear SVMs")):
        each = [found[name + suffix]["bbox"] for suffix in ("", "_boxes")]
        rows.append([what, *(f"{one['AP50']:.3f} ({one['AP']:.3f})" for one in each)])
    return _markdown(rows)


def _minutes(wall, cpu):
    return "-" if wall is None else f"{wall / 60:.0f}" + (f" ({cpu / 60:.0f})" if cpu else "")


def _markdown(rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
