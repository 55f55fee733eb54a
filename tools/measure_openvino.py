"""`python tools/measure_openvino.py NAME --annotations JSON --images DIR --calibrate DIR`: writes its openvino.json."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from pages.openvino import main

main()
