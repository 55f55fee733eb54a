"""Writes what README.md and docs/pages take from the package and the zoo: each part stands between its own markers."""

import re
from pathlib import Path

from pages.family import diffs, family, stages
from pages.openvino import export_tables
from pages.zoo import preset_tables

from keras_rcnn.presets import zoo_folder
from keras_rcnn.training.settings import settings_markdown

parts = {**preset_tables(), "settings": settings_markdown()}
parts |= {"diffs": diffs(), "family": family(), "stages": stages()}
parts |= export_tables()
root = Path(__file__).resolve().parents[1]  # never the checkout that happens to be installed
if zoo_folder().resolve() != root / "zoo":
    raise SystemExit(f"keras_rcnn.zoo is that of {zoo_folder().parent}: install {root}, pip install -e .")
for page in [root / "README.md", *sorted((root / "docs" / "pages").glob("*.md"))]:
    text = page.read_text(encoding="utf-8")
    for part, body in parts.items():
        text = re.sub(rf"(?s)(<!-- {part}: [^\n]*\n).*?(?=<!-- /{part} -->)", lambda m, b=body: f"{m[1]}{b}\n", text)
    page.write_text(text, encoding="utf-8")
