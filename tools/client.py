"""`python tools/client.py URL PHOTO ...` asks TF Serving at http://HOST:8501/NAME or grpc://HOST:8500/NAME."""

import sys

from keras_rcnn.cli import main

sys.exit(main(["detect", "--server", *sys.argv[1:]]))
