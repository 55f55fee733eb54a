"""`python tools/evaluate.py ...` is `keras-rcnn evaluate ...`: average precision of a preset on a data set."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
