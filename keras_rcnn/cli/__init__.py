"""The command `keras-rcnn`, a file a command.

Exit codes: 0, 1 if some photos could not be read (the others were), 2 for an error, which is one line on stderr.
TensorFlow takes seconds to import, so each command imports what it needs when it runs.
"""

from keras_rcnn.cli.command_line import main

__all__ = ["main"]
