"""`python tools/measure_litert.py NAME --annotations JSON --images DIR --calibrate DIR`: writes its litert.json."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from pages.litert import main

main()
