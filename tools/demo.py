"""`python tools/demo.py` is `keras-rcnn demo`: the embedded detector on the embedded photo."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["demo", *sys.argv[1:]]))
