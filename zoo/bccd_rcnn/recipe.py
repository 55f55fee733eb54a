"""Blood cells by R-CNN (2014): a CNN for each of selective search's regions, linear SVMs, box regression.

keras-rcnn train zoo/bccd_rcnn/recipe.py --set data=PATH/TO/bccd --out runs/bccd_rcnn

Result, time and machine: preset.json beside this file; the stages: stages.json and violations.png; the losses of the
fine-tuning: history.csv.
"""

data = "../shared/data/bccd"

name = "bccd_rcnn"
title = "Blood cells: R-CNN, EfficientNet-Lite0, regions of 112 px"
train = {"voc": data, "split": "train"}
val = {"voc": data, "split": "val"}
license = "MIT data (BCCD); ImageNet weights Apache-2.0"
source = "trained by recipe.py on the 205 training images of shared/data/bccd"

detector = "rcnn"
selective_search = {"mode": "quality", "width": 400, "max_boxes": 1000}
# two objects have no area
on_bad = "skip"
augment = ("hflip", "vflip", "color")
# regions are cut out of the photo as it is, and resized to a quarter of the paper's pixels, which a CPU can do
min_size = 480
max_size = 640
region_size = 112
region_context = 8
epochs = 6
batch_size = 2
learning_rate = 4e-4
backbone_lr_multiplier = 1.0
