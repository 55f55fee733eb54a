"""Writes what in zoo/ follows from something else: the presets of published models, and README.md."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from pages.zoo import refresh

refresh(Path(__file__).resolve().parents[1] / "zoo")
