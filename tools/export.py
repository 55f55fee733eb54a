"""`python tools/export.py ...` is `keras-rcnn export ...`: a preset -> SavedModel, LiteRT or ONNX, checked."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["export", *sys.argv[1:]]))
