"""Blood cells (red, white, platelets) in smears: the nuclei recipe's model on 205 images in VOC form.

keras-rcnn train zoo/bccd_frcnn/recipe.py --set data=PATH/TO/bccd --out runs/bccd_frcnn
keras-rcnn evaluate runs/bccd_frcnn --voc PATH/TO/bccd --split test --on-bad skip

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/bccd"

name = "bccd_frcnn"
title = "Blood cells: Faster R-CNN, EfficientNet-Lite0 + FPN, 320 px"
train = {"voc": data, "split": "train"}
val = {"voc": data, "split": "val"}
license = "MIT data (BCCD); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 205 training images of shared/data/bccd"

# two objects have no area
on_bad = "skip"
augment = ("hflip", "vflip", "color")
min_size = 320
max_size = 640
# platelets are 25 px, white cells 150 px: anchors of 16 to 256 px
anchor_scale = 4.0
epochs = 14
batch_size = 2
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
evaluate_every = 2
