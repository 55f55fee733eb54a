"""Writes what the README takes from the package and the zoo: each part stands between its own markers."""

import re
from pathlib import Path

from keras_rcnn.presets import presets
from keras_rcnn.story import diffs, family, stages
from keras_rcnn.tables import presets_table

readme = Path(__file__).resolve().parents[1] / "README.md"
text = readme.read_text(encoding="utf-8")
parts = {"zoo": presets_table(presets(), markdown=True), "diffs": diffs(), "family": family(), "stages": stages()}
for part, body in parts.items():
    text = re.sub(rf"(?s)(<!-- {part}: [^\n]*\n).*?(?=<!-- /{part} -->)", lambda m, b=body: f"{m[1]}{b}\n", text)
readme.write_text(text, encoding="utf-8")
