"""`python -m keras_rcnn` is `keras-rcnn`."""

import sys

from keras_rcnn.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
