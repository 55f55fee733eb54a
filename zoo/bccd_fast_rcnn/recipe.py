"""Blood cells by Fast R-CNN: bccd_frcnn's detector, told by selective search where to look.

keras-rcnn train zoo/bccd_fast_rcnn/recipe.py --set data=PATH/TO/bccd --out runs/bccd_fast_rcnn

Result, time and machine: preset.json beside this file; the losses: history.csv.
"""

data = "../shared/data/bccd"

name = "bccd_fast_rcnn"
title = "Blood cells: Fast R-CNN, EfficientNet-Lite0 + FPN, 320 px"
train = {"voc": data, "split": "train"}
val = {"voc": data, "split": "val"}
license = "MIT data (BCCD); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 205 training images of shared/data/bccd"

detector = "fast_rcnn"
# 97 % as many boxes as R-CNN's setting (fast mode, 500 px) finds in 1 s; these cover more cells (recall 0.90, not 0.80)
selective_search = {"mode": "quality", "width": 400, "max_boxes": 1000}
# two objects have no area
on_bad = "skip"
augment = ("hflip", "vflip", "color")
min_size = 320
max_size = 640
anchor_scale = 4.0
roi_samples = 128
# cells overlap
nms_iou = 0.5
epochs = 14
batch_size = 2
learning_rate = 1e-3
backbone_lr_multiplier = 1.0
evaluate_every = 7
