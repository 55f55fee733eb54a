"""`python tools/convert.py torchvision ...` is `keras-rcnn convert torchvision ...`: weights -> a preset folder."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
