"""The model zoo: one folder a preset, and the demo's photo. Installed as `keras_rcnn.zoo`."""
