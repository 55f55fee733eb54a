"""`python tools/detect.py ...` is `keras-rcnn detect ...`: photos -> annotated pictures and boxes."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["detect", *sys.argv[1:]]))
