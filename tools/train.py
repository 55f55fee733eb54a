"""`python tools/train.py ...` is `keras-rcnn train ...`: a recipe or a data set -> a preset folder."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
