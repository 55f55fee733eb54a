"""Writes the zoo's table into README.md, between its markers, from the folders in zoo/."""

import re
from pathlib import Path

from keras_rcnn.cli import presets_table
from keras_rcnn.presets import presets

readme = Path(__file__).resolve().parents[1] / "README.md"
before, _, after = re.split(r"(?s)(?<=readme.py -->\n)(.*?)(?=<!-- /zoo -->)", readme.read_text(encoding="utf-8"))
readme.write_text(f"{before}{presets_table(presets(), markdown=True)}\n{after}", encoding="utf-8")
