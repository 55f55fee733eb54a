"""Blood cells by Faster R-CNN's 4-step training: bccd_frcnn's detector, its parts trained in turn.

keras-rcnn train zoo/bccd_frcnn_4step/recipe.py --set data=PATH/TO/bccd --out runs/bccd_frcnn_4step

Result, time and machine: preset.json beside this file; the losses of the steps: history.csv.
"""

data = "../shared/data/bccd"

name = "bccd_frcnn_4step"
title = "Blood cells: Faster R-CNN in 4 steps, EfficientNet-Lite0 + FPN, 320 px"
train = {"voc": data, "split": "train"}
val = {"voc": data, "split": "val"}
license = "MIT data (BCCD); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 205 training images of shared/data/bccd"

# RPN, Fast R-CNN, RPN with the shared layers fixed, Fast R-CNN with them fixed
alternating = (8, 12, 4, 6)
# two objects have no area
on_bad = "skip"
augment = ("hflip", "vflip", "color")
min_size = 320
max_size = 640
anchor_scale = 4.0
batch_size = 2
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
