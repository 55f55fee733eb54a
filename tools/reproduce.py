"""`python tools/reproduce.py PRESET --coco DIR`: evaluates a preset on COCO val2017, beside its published AP."""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from pages.reproduce import main

sys.exit(main())
