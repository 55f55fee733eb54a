"""`python tools/litert.py nuclei_frcnn --annotations VAL.json --images VAL --calibrate TRAIN`: writes its litert.json."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from keras_rcnn.export.measure import main

main()
